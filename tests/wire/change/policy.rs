//! Whom an export lets in, and as whom, on calls that change something or tell of a change.

use mimeo::image::{ExportOverrides, Squash};

use super::limits::set_policy;
use crate::client::{ACCES, Client, Header, NFS, ROFS, Reply, SUCCESS};
use crate::ops::{Set, UNSTABLE, create_args, mode, parse_made, status};
use crate::real::{GROUP, TEAM, USER, World};

/// A file of root and its group, which the group may read, and a directory that group 500 may write.
fn for_groups(world: &World) -> (Vec<u8>, Vec<u8>) {
    let (mut client, root) = world.desk();
    let file = client.create(&root, "of-root", &mode(0o640)).unwrap();
    assert_eq!((file.attr.uid, file.attr.gid), (0, 0));
    (file.fh, client.find(&root, "shared"))
}

#[test]
fn a_squashed_root_has_no_group_0_to_give() {
    let world = World::new();
    let (file, shared) = for_groups(&world);
    let mut primary = world.client_as(USER, 0, &[TEAM]);
    let mut secondary = world.client_as(USER, GROUP, &[TEAM, 0]);
    for client in [&mut primary, &mut secondary] {
        assert!(client.read(&file, 0, 1).is_ok(), "not squashed");
    }
    set_policy(&world, ExportOverrides { squash: Some(Squash::Root), ..Default::default() });
    for client in [&mut primary, &mut secondary] {
        assert_eq!(client.read(&file, 0, 1).unwrap_err(), ACCES);
        client.create_unchecked(&shared, "new", &mode(0o644)).unwrap();
    }
    let root = primary.mount("/clones/desk").unwrap();
    let tmp = primary.find(&root, "tmp");
    let made = primary.create(&tmp, "new", &mode(0o644)).unwrap().attr;
    assert_eq!((made.uid, made.gid), (USER, 65_534));
}

/// CREATE of a caller without credentials.
fn create_as_nobody(client: &mut Client, dir: &[u8], name: &str) -> (u32, u32) {
    let header = Header { flavour: 0, credential: Vec::new(), ..Header::new(NFS, 3, 8) };
    match client.call(&header, &create_args(dir, name, &Set::default()).0) {
        Reply::Accepted(SUCCESS, results) => {
            let made = parse_made(&results).unwrap().attr;
            (made.uid, made.gid)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_caller_without_credentials_is_the_anonymous_user_of_the_export() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let tmp = client.find(&root, "tmp");
    assert_eq!(create_as_nobody(&mut client, &tmp, "default"), (65_534, 65_534));
    for (name, squash) in [("none", Squash::None), ("root", Squash::Root), ("all", Squash::All)] {
        let own = ExportOverrides {
            squash: Some(squash),
            anon_uid: Some(4711),
            anon_gid: Some(4712),
            ..ExportOverrides::default()
        };
        set_policy(&world, own);
        assert_eq!(create_as_nobody(&mut client, &tmp, name), (4711, 4712), "squash {name}");
    }
}

/// A call on two exports is refused by either, and tells nothing of the one that does not admit the caller.
#[test]
fn rename_and_link_need_both_exports() {
    let world = World::new();
    world.clone_as("other");
    let (mut client, root) = world.desk();
    let other = client.mount("/clones/other").unwrap();
    let (hello, there) = (client.find(&root, "hello"), client.find(&other, "hello"));
    world.edit_clone("other", |clone| {
        let allow = Some(vec!["10.0.0.0/8".parse().unwrap()]);
        clone.export = std::sync::Arc::new(ExportOverrides { allow, ..Default::default() });
    });
    for (from, to, visible) in [(&root, &other, [true, false]), (&other, &root, [false, true])] {
        let failed = client.rename((from, "hello"), (to, "new")).unwrap_err();
        assert_eq!(failed.status, ACCES);
        assert_eq!([failed.wcc[0].after.is_some(), failed.wcc[1].after.is_some()], visible);
    }
    for (file, dir, visible) in [(&hello, &other, [true, false]), (&there, &root, [false, true])] {
        let (status, attr, wcc) = *client.link(file, dir, "new").unwrap_err();
        assert_eq!(status, ACCES);
        assert_eq!([attr.is_some(), wcc.after.is_some()], visible);
    }
    assert!(client.lookup(&root, "hello").is_ok() && client.lookup(&root, "new").is_err());
}

/// Writes were answered, so whoever sent them may ask that they be kept, whatever he may do by now.
#[test]
fn commit_is_let_through_for_writes_that_were_taken() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let file = client.create(&root, "shared-file", &mode(0o666)).unwrap().fh;
    let mut user = world.client_as(USER, GROUP, &[]);
    user.write(&file, 0, b"taken", UNSTABLE).unwrap();
    client.setattr(&file, &mode(0o600), None).unwrap();
    assert_eq!(status(user.write(&file, 0, b"more", UNSTABLE)), ACCES);
    user.commit(&file).unwrap();
    set_policy(&world, ExportOverrides { read_only: Some(true), ..Default::default() });
    assert_eq!(status(client.write(&file, 0, b"more", UNSTABLE)), ROFS);
    user.commit(&file).unwrap();
    set_policy(&world, ExportOverrides { allow: Some(vec!["10.0.0.0/8".parse().unwrap()]), ..Default::default() });
    assert_eq!(status(user.commit(&file)), ACCES);
}
