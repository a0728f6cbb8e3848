//! READ and READLINK.

use crate::client::{Body, Client, INVAL, ISDIR, OK};
use crate::tree::{BIG, BIG_LEN, HELLO, HELLO_TEXT, LINK, ROOT, Tree, big_byte};
use crate::{Harness, on};

struct Got {
    data: Vec<u8>,
    eof: bool,
}

fn read(client: &mut Client, ino: u64, offset: u64, count: u32) -> Got {
    let reply = client.nfs(6, on(ino).u64(offset).u32(count));
    let mut body = Body(&reply);
    assert_eq!(body.u32(), OK);
    assert_eq!(body.post_op().unwrap().fileid, ino);
    let (count, eof, data) = (body.u32(), body.bool(), body.opaque().to_vec());
    body.end();
    assert_eq!(count as usize, data.len());
    Got { data, eof }
}

#[test]
fn read_gives_the_bytes_asked_for() {
    for tree in [Tree::new(), Tree::cold()] {
        let server = Harness::start(tree, |_| {});
        let mut client = server.client();
        let big: Vec<u8> = (0..BIG_LEN).map(big_byte).collect();
        let ranges = [(0, 1), (1, 2), (65_535, 2), (100, 200_000), (0, 1 << 20), (BIG_LEN - 3, 3), (BIG_LEN - 3, 100)];
        for (offset, count) in ranges {
            let end = (offset + count).min(BIG_LEN);
            let got = read(&mut client, BIG, offset as u64, count as u32);
            assert!(got.data == big[offset..end], "{count} from {offset}");
            assert_eq!(got.eof, end == BIG_LEN, "{count} from {offset}");
        }
    }
}

#[test]
fn read_at_and_beyond_the_end_is_empty_and_the_end() {
    let server = Harness::new();
    let mut client = server.client();
    for offset in [HELLO_TEXT.len() as u64, 1 << 40, u64::MAX] {
        let got = read(&mut client, HELLO, offset, 100);
        assert!(got.data.is_empty() && got.eof, "from {offset}");
    }
    let got = read(&mut client, HELLO, 0, 0);
    assert!(got.data.is_empty() && !got.eof, "nothing was asked");
}

#[test]
fn read_gives_at_most_one_mebibyte() {
    let server = Harness::new();
    let got = read(&mut server.client(), BIG, 0, u32::MAX);
    assert_eq!(got.data.len(), 1 << 20);
    assert!(!got.eof);
}

#[test]
fn replies_larger_than_the_socket_takes_arrive_whole() {
    let server = Harness::new();
    let mut client = server.client();
    let header = crate::client::Header::new(crate::client::NFS, 3, 6);
    let arguments = on(BIG).u64(3).u32(1 << 20).0;
    let sent: Vec<u32> = (0..40).map(|_| client.send(&header, &arguments)).collect();
    let expected: Vec<u8> = (3..3 + (1 << 20)).map(big_byte).collect();
    for xid in sent {
        let (got, reply) = client.reply();
        assert_eq!(got, xid);
        let crate::client::Reply::Accepted(0, body) = reply else { panic!("{reply:?}") };
        let mut body = Body(&body[4 + 88..]);
        assert_eq!((body.u32(), body.bool()), (1 << 20, false));
        assert!(body.opaque() == expected);
    }
}

#[test]
fn only_files_are_read_and_only_links_are_followed() {
    let server = Harness::new();
    let mut client = server.client();
    for (procedure, ino, arguments, status) in [
        (6, ROOT, on(ROOT).u64(0).u32(10), ISDIR),
        (6, LINK, on(LINK).u64(0).u32(10), INVAL),
        (5, HELLO, on(HELLO), INVAL),
    ] {
        let reply = client.nfs(procedure, arguments);
        let mut body = Body(&reply);
        assert_eq!(body.u32(), status);
        assert_eq!(body.post_op().unwrap().fileid, ino, "a failure carries attributes too");
        body.end();
    }
}

#[test]
fn readlink_gives_the_target() {
    let server = Harness::new();
    let reply = server.client().nfs(5, on(LINK));
    let mut body = Body(&reply);
    assert_eq!(body.u32(), OK);
    assert_eq!(body.post_op().unwrap().kind, 5);
    assert_eq!(body.opaque(), b"hello");
    body.end();
}
