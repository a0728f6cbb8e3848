//! The procedures that change something: refused, each in the shape of its own failure.

use crate::calls::{attributes, specimens, variants};
use crate::client::{BADHANDLE, BADTYPE, Body, NFS, ROFS, STALE, Xdr};
use crate::tree::{self, HELLO, MANY, ROOT};
use crate::{Harness, handle, on};

const RENAME: u32 = 14;
const LINK: u32 = 15;
const CHANGES: [u32; 12] = [2, 7, 8, 9, 10, 11, 12, 13, RENAME, LINK, 21, 7];

#[test]
fn a_read_only_export_says_so_and_shows_that_nothing_changed() {
    let server = Harness::new();
    let mut client = server.client();
    let changes = specimens().into_iter().chain(variants());
    for call in changes.filter(|call| call.program == NFS && CHANGES.contains(&call.procedure)) {
        let reply = client.nfs(call.procedure, Xdr(call.arguments));
        let mut body = Body(&reply);
        let status = if call.name == "MKNOD DIR" { BADTYPE } else { ROFS };
        assert_eq!(body.u32(), status, "{}", call.name);
        if call.procedure == LINK {
            assert_eq!(body.post_op().unwrap().fileid, HELLO);
        }
        assert!(body.unchanged().is_some(), "{}", call.name);
        if call.procedure == RENAME {
            assert_eq!(body.unchanged().unwrap().fileid, MANY);
        }
        body.end();
    }
}

#[test]
fn a_bad_handle_fails_without_attributes() {
    let server = Harness::new();
    let mut client = server.client();
    let bad = Xdr::new().opaque(b"forged");
    let place = || bad.clone().opaque(b"name");
    let new = attributes();
    let calls = [
        (2, bad.clone().raw(&new).u32(0)),
        (7, bad.clone().u64(0).u32(0).u32(0).opaque(b"")),
        (8, place().u32(0).raw(&new)),
        (9, place().raw(&new)),
        (10, place().raw(&new).opaque(b"target")),
        (11, place().u32(7).raw(&new)),
        (12, place()),
        (13, place()),
        (21, bad.clone().u64(0).u32(0)),
    ];
    for (procedure, arguments) in calls {
        let expected = Xdr::new().u32(BADHANDLE).u32(0).u32(0).0;
        assert_eq!(client.nfs(procedure, arguments), expected, "procedure {procedure}");
    }
}

#[test]
fn rename_and_link_name_the_handle_that_is_bad() {
    let server = Harness::new();
    let mut client = server.client();
    let good = Xdr::new().opaque(&handle(ROOT)).opaque(b"name");
    let bad = Xdr::new().opaque(b"forged").opaque(b"name");
    for (from, to) in [(&good, &bad), (&bad, &good)] {
        assert_eq!(client.status(RENAME, from.clone().raw(&to.0)), BADHANDLE);
    }
    assert_eq!(client.status(LINK, Xdr::new().opaque(b"forged").raw(&good.0)), BADHANDLE);
    assert_eq!(client.status(LINK, on(HELLO).raw(&bad.0)), BADHANDLE);
    let gone = mimeo::nfs::HandleKeys::new(vec![tree::KEY]).encode(tree::object(999_999));
    assert_eq!(client.status(LINK, Xdr::new().opaque(&gone).raw(&good.0)), STALE);
}
