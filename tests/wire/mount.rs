//! MOUNT version 3 (RFC 1813 appendix I) and the port mapper.

use crate::client::{Body, Client, MOUNT, NFS, PORTMAP, Xdr};
use crate::tree::{PATH, ROOT};
use crate::{Harness, handle};

fn mnt(client: &mut Client, path: &[u8]) -> Vec<u8> {
    client.run(MOUNT, 1, Xdr::new().opaque(path))
}

fn dumped(client: &mut Client) -> Vec<(Vec<u8>, Vec<u8>)> {
    let reply = client.run(MOUNT, 2, Xdr::new());
    let mut body = Body(&reply);
    let mut mounts = Vec::new();
    while body.bool() {
        mounts.push((body.opaque().to_vec(), body.opaque().to_vec()));
    }
    body.end();
    mounts
}

#[test]
fn mnt_gives_the_root_handle_and_the_flavours() {
    let server = Harness::new();
    let reply = mnt(&mut server.client(), PATH);
    let mut body = Body(&reply);
    assert_eq!(body.u32(), 0);
    assert_eq!(body.opaque(), handle(ROOT));
    assert_eq!([body.u32(), body.u32(), body.u32()], [2, 1, 0], "AUTH_SYS, then AUTH_NONE");
    body.end();
}

#[test]
fn mnt_says_why_not() {
    let server = Harness::new();
    let mut client = server.client();
    let long = vec![b'/'; 1025];
    for (path, status) in [(&b"/clones/none"[..], 2), (b"/clones/forbidden", 13), (b"", 2), (&long, 63)] {
        let reply = mnt(&mut client, path);
        assert_eq!(reply, Xdr::new().u32(status).0);
    }
    assert_eq!(dumped(&mut client), [], "what was refused is not listed");
}

#[test]
fn dump_lists_what_is_mounted() {
    let server = Harness::new();
    let mut client = server.client();
    for _ in 0..2 {
        mnt(&mut client, PATH);
        assert_eq!(dumped(&mut client), [(b"127.0.0.1".to_vec(), PATH.to_vec())]);
    }
    assert_eq!(client.run(MOUNT, 3, Xdr::new().opaque(PATH)), b"");
    assert_eq!(dumped(&mut client), []);
    mnt(&mut client, PATH);
    assert_eq!(client.run(MOUNT, 4, Xdr::new()), b"");
    assert_eq!(dumped(&mut client), []);
}

#[test]
fn export_lists_paths_and_networks() {
    let server = Harness::new();
    let reply = server.client().run(MOUNT, 5, Xdr::new());
    let expected = Xdr::new().u32(1).opaque(PATH).u32(1).opaque(b"10.0.0.0/8").u32(1).opaque(b"127.0.0.1").u32(0);
    assert_eq!(reply, expected.u32(1).opaque(b"/images/desk@v1").u32(0).u32(0).0);
}

#[test]
fn getport_sends_clients_back_here() {
    const TCP: u32 = 6;
    const UDP: u32 = 17;
    let server = Harness::new();
    let mut client = server.client();
    let ours = u32::from(server.addr.port());
    let questions = [
        (NFS, 3, TCP, ours),
        (MOUNT, 3, TCP, ours),
        (NFS, 3, UDP, 0),
        (NFS, 4, TCP, 0),
        (MOUNT, 1, TCP, 0),
        (100_021, 4, TCP, 0),
    ];
    for (program, version, protocol, port) in questions {
        let reply = client.run(PORTMAP, 3, Xdr::new().u32(program).u32(version).u32(protocol).u32(0));
        assert_eq!(reply, Xdr::new().u32(port).0, "program {program} version {version} protocol {protocol}");
    }
    assert_eq!(client.run(PORTMAP, 0, Xdr::new()), b"");
}
