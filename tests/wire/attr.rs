//! GETATTR, ACCESS, and handles.

use mimeo::nfs::HandleKeys;
use mimeo::vfs::{ExportId, Object};

use crate::client::{BADHANDLE, Body, IO, OK, STALE, Xdr};
use crate::tree::{self, BIG, BIG_LEN, HELLO, LINK, LOST, MANY, NULL, ROOT, SLOW};
use crate::{Harness, handle, on};

#[test]
fn getattr_tells_what_an_object_is() {
    let server = Harness::new();
    let mut client = server.client();
    let kinds = [(HELLO, 1), (ROOT, 2), (NULL, 4), (LINK, 5)];
    for (ino, kind) in kinds {
        let reply = client.nfs(1, on(ino));
        let mut body = Body(&reply);
        assert_eq!(body.u32(), OK);
        let attr = body.attr();
        body.end();
        assert_eq!((attr.kind, attr.fileid, attr.fsid), (kind, ino, tree::EXPORT));
        assert_eq!(attr.rdev, if ino == NULL { (1, 3) } else { (0, 0) });
        assert_eq!(attr.atime, (0, 0), "a time before 1970 is the earliest that the wire has");
        assert_eq!(attr.mtime, (1_700_000_000, 123));
    }
    let reply = client.nfs(1, on(BIG));
    let attr = Body(&reply[4..]).attr();
    assert_eq!((attr.mode, attr.nlink, attr.uid, attr.gid), (0o600, 1, 0, 10));
    assert_eq!((attr.size, attr.used), (BIG_LEN as u64, BIG_LEN as u64));
}

#[test]
fn access_grants_no_more_than_was_asked() {
    let server = Harness::new();
    let mut client = server.client();
    for (asked, granted) in [(0x3f, 0x23), (0x03, 0x03), (0x1c, 0), (0xffff_ffc0, 0), (0, 0)] {
        let reply = client.nfs(4, on(HELLO).u32(asked));
        let mut body = Body(&reply);
        assert_eq!(body.u32(), OK);
        assert_eq!(body.post_op().unwrap().fileid, HELLO);
        assert_eq!(body.u32(), granted, "asked {asked:#x}");
        body.end();
    }
}

/// Handle-only procedures, and whether their failure carries `post_op_attr`.
const ON_ONE_OBJECT: [(u32, bool); 5] = [(1, false), (5, true), (18, true), (19, true), (20, true)];

fn refused(client: &mut crate::client::Client, handle: &[u8], status: u32) {
    for (procedure, post_op) in ON_ONE_OBJECT {
        let reply = client.nfs(procedure, Xdr::new().opaque(handle));
        let expected = Xdr::new().u32(status);
        let expected = if post_op { expected.u32(0) } else { expected };
        assert_eq!(reply, expected.0, "procedure {procedure}, handle {handle:x?}");
    }
}

#[test]
fn a_handle_that_is_not_ours_is_bad() {
    let server = Harness::new();
    let mut client = server.client();
    let good = handle(HELLO);
    for at in 0..good.len() {
        let mut forged = good.clone();
        forged[at] ^= 1;
        assert_eq!(client.status(1, Xdr::new().opaque(&forged)), BADHANDLE, "byte {at}");
        assert_eq!(client.status(1, Xdr::new().opaque(&good[..at])), BADHANDLE, "cut at {at}");
    }
    let other_key = HandleKeys::new(vec![(tree::KEY.0, [1; 32])]).encode(tree::object(HELLO));
    for foreign in [&other_key[..], &[0; 64], &[], &[&good[..], &[0; 4]].concat()] {
        refused(&mut client, foreign, BADHANDLE);
    }
}

#[test]
fn a_handle_of_an_older_key_is_good() {
    let server = Harness::new();
    let older = HandleKeys::new(vec![(4, [0x44; 32])]).encode(tree::object(HELLO));
    assert_eq!(server.client().status(1, Xdr::new().opaque(&older)), OK);
}

#[test]
fn a_handle_whose_object_is_gone_is_stale() {
    let server = Harness::new();
    let mut client = server.client();
    let keys = HandleKeys::new(vec![tree::KEY]);
    let gone = [
        Object { ino: 999_999, ..tree::object(HELLO) },
        Object { generation: 1, ..tree::object(HELLO) },
        Object { export: ExportId(8), ..tree::object(HELLO) },
    ];
    for object in gone {
        refused(&mut client, &keys.encode(object), STALE);
    }
}

#[test]
fn a_chunk_that_is_lost_is_an_io_error_on_its_object_alone() {
    let server = Harness::new();
    let mut client = server.client();
    for _ in 0..2 {
        refused(&mut client, &handle(LOST), IO);
    }
    for ino in [MANY, SLOW] {
        assert_eq!(client.status(1, on(ino)), OK);
    }
}
