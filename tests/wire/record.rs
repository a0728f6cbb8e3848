//! Record marking (RFC 5531 section 11) on a live connection.

use crate::Harness;
use crate::client::{self, Header, NFS, Reply, SUCCESS, Xdr, fragment, framed};
use crate::on;
use crate::tree::HELLO;

fn getattr(xid: u32) -> Vec<u8> {
    Header::new(NFS, 3, 1).record(xid, &on(HELLO).0)
}

#[test]
fn a_call_may_come_in_many_fragments_and_many_segments() {
    let server = Harness::new();
    let mut client = server.client();
    let record = getattr(9);
    for size in 1..=record.len() {
        let mut pieces = record.chunks(size).peekable();
        while let Some(piece) = pieces.next() {
            client.send_bytes(&fragment(piece, pieces.peek().is_none()));
        }
        let (xid, reply) = client.reply();
        assert!(matches!((xid, reply), (9, Reply::Accepted(SUCCESS, _))), "fragments of {size}");
    }
}

#[test]
fn many_calls_may_come_in_one_segment() {
    let server = Harness::new();
    let mut client = server.client();
    let calls: Vec<u8> = (0..100).flat_map(|xid| framed(&getattr(xid))).collect();
    client.send_bytes(&calls);
    for expected in 0..100 {
        assert_eq!(client.reply().0, expected, "replies that did not wait come in order");
    }
}

#[test]
fn a_record_that_is_too_long_ends_the_connection_and_no_other() {
    let server = Harness::new();
    let mut bystander = server.client();
    assert_eq!(bystander.status(1, on(HELLO)), client::OK);
    for mark in [0xffff_ffff_u32, 0x8000_0000 | (mimeo::nfs::MAX_RECORD as u32 + 1), 0x7fff_ffff] {
        let mut client = server.client();
        client.send_bytes(&[framed(&getattr(5)), mark.to_be_bytes().to_vec()].concat());
        assert_eq!(client.reply().0, 5, "what came before is answered");
        assert_eq!(client.receive(), None, "mark {mark:#x}");
    }
    assert_eq!(bystander.status(1, on(HELLO)), client::OK);
}

#[test]
fn the_longest_record_is_taken() {
    let server = Harness::new();
    let mut client = server.client();
    let write = |len: usize| on(HELLO).u64(0).u32(len as u32).u32(0).opaque(&vec![7; len]);
    assert_eq!(client.status(7, write(1024 * 1024)), client::ROFS);
    let overhead = Header::new(NFS, 3, 7).record(0, &write(0).0).len();
    assert_eq!(client.status(7, write(mimeo::nfs::MAX_RECORD - overhead)), client::ROFS);
}

#[test]
fn empty_fragments_come_to_an_end() {
    let server = Harness::new();
    let mut client = server.client();
    client.send_bytes(&fragment(b"", false).repeat(mimeo::nfs::MAX_FRAGMENTS - 1));
    client.send_bytes(&framed(&getattr(3)));
    assert_eq!(client.reply().0, 3);
    client.send_bytes(&fragment(b"", false).repeat(mimeo::nfs::MAX_FRAGMENTS + 1));
    assert_eq!(client.receive(), None);
}

#[test]
fn what_is_no_call_ends_the_connection() {
    let server = Harness::new();
    for record in [Xdr::new().u32(1).u32(1).u32(0).0, b"GET / HTTP/1.1\r\n\r\n\0\0".to_vec(), Vec::new()] {
        let mut client = server.client();
        client.send_bytes(&framed(&record));
        assert_eq!(client.receive(), None);
    }
}
