//! A directory of many entries, from the first to the last.

use std::collections::BTreeSet;

use crate::client::{Body, Client, Header, NFS, NOENT, NOTEMPTY, OK, Reply, SUCCESS, Xdr, framed};
use crate::ops::{create_args, mode, place, status};
use crate::real::World;

const ENTRIES: usize = 20_000;
/// Calls under way at a time, so that one sync is for many.
const WINDOW: usize = 64;

fn name(n: usize) -> String {
    format!("entry-{n:05}")
}

/// Make the same kind of call for every entry; each succeeds.
fn for_all(client: &mut Client, procedure: u32, arguments: impl Fn(&str) -> Xdr) {
    let header = Header::new(NFS, 3, procedure);
    for first in (0..ENTRIES).step_by(WINDOW) {
        let these = first..ENTRIES.min(first + WINDOW);
        let calls: Vec<u8> =
            these.clone().flat_map(|n| framed(&header.record(client.xid(), &arguments(&name(n)).0))).collect();
        client.send_bytes(&calls);
        for _ in these {
            match client.reply() {
                (_, Reply::Accepted(SUCCESS, results)) => assert_eq!(Body(&results).u32(), OK),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// The names that READDIR lists, in calls of so many bytes.
fn readdir(client: &mut Client, dir: &[u8], count: u32) -> Vec<String> {
    let (mut names, mut after) = (Vec::new(), 0);
    loop {
        let results = client.nfs(16, Xdr::new().opaque(dir).u64(after).u64(0).u32(count));
        let mut body = Body(&results);
        assert_eq!(body.u32(), OK);
        assert!(results.len() <= count as usize + 4, "{} bytes", results.len());
        body.post_op();
        body.u64();
        while body.bool() {
            body.u64();
            names.push(String::from_utf8(body.opaque().to_vec()).unwrap());
            after = body.u64();
        }
        if body.bool() {
            return names;
        }
    }
}

#[test]
fn many_entries_are_made_listed_and_removed() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let dir = client.mkdir(&root, "many", &mode(0o755)).unwrap().fh;
    for_all(&mut client, 8, |name| create_args(&dir, name, &mode(0o644)));
    let made: BTreeSet<String> = (0..ENTRIES).map(name).collect();

    let listed = readdir(&mut client, &dir, 512);
    assert_eq!(listed.len(), ENTRIES + 2, "each once, and the dots");
    assert!(made.is_subset(&listed.into_iter().collect()));
    let full = client.list_by(&dir, 1024, 4096);
    assert_eq!(full.len(), ENTRIES);
    assert!(full.iter().map(|line| &line.0).eq(&made));
    assert!(full.iter().all(|(_, fileid, attr, _)| attr.fileid == *fileid));
    assert_eq!(full.iter().map(|line| line.1).collect::<BTreeSet<_>>().len(), ENTRIES, "numbers are told apart");

    assert_eq!(status(client.rmdir(&root, "many")), NOTEMPTY);
    for_all(&mut client, 12, |name| place(&dir, name.as_bytes()));
    assert_eq!(readdir(&mut client, &dir, 512).len(), 2);
    client.rmdir(&root, "many").unwrap();
    assert_eq!(client.lookup(&root, "many").unwrap_err(), NOENT);
}
