//! FSSTAT, FSINFO, PATHCONF, NULL.

use crate::client::{Body, OK, Xdr};
use crate::tree::{HELLO, ROOT};
use crate::{Harness, on};

#[test]
fn null_does_nothing() {
    let server = Harness::new();
    assert_eq!(server.client().nfs(0, Xdr::new()), b"");
}

#[test]
fn fsstat_tells_the_space() {
    let server = Harness::new();
    let reply = server.client().nfs(18, on(ROOT));
    let mut body = Body(&reply);
    assert_eq!(body.u32(), OK);
    assert_eq!(body.post_op().unwrap().fileid, ROOT);
    let space = [body.u64(), body.u64(), body.u64()];
    assert_eq!(space, [1 << 40, 1 << 39, 1 << 38]);
    let files = [body.u64(), body.u64(), body.u64()];
    assert_eq!(files, [1000, 900, 900]);
    assert_eq!(body.u32(), 0, "may change at any time");
    body.end();
}

#[test]
fn fsinfo_tells_the_limits() {
    let server = Harness::new();
    let reply = server.client().nfs(19, on(HELLO));
    let mut body = Body(&reply);
    assert_eq!(body.u32(), OK);
    assert_eq!(body.post_op().unwrap().fileid, HELLO);
    let mib = 1 << 20;
    let transfers: Vec<u32> = (0..7).map(|_| body.u32()).collect();
    assert_eq!(transfers, [mib, mib, 4096, mib, mib, 4096, 65_536]);
    assert_eq!(body.u64(), 8 << 40, "the longest file");
    assert_eq!((body.u32(), body.u32()), (0, 1));
    assert_eq!(body.u32(), 0x1b, "links, symbolic links, homogeneous, times can be set");
    body.end();
}

#[test]
fn pathconf_tells_the_rules_for_names() {
    let server = Harness::new();
    let reply = server.client().nfs(20, on(HELLO));
    let mut body = Body(&reply);
    assert_eq!(body.u32(), OK);
    assert_eq!(body.post_op().unwrap().fileid, HELLO);
    assert_eq!((body.u32(), body.u32()), (65_000, 255));
    assert_eq!([body.bool(), body.bool(), body.bool(), body.bool()], [true, true, false, true]);
    body.end();
}
