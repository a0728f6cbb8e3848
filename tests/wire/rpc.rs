//! RPC (RFC 5531): what is answered to calls that do not reach their procedure.

use crate::Harness;
use crate::calls::{specimens, variants};
use crate::client::{
    Body, GARBAGE_ARGS, Header, MOUNT, NFS, PORTMAP, PROC_UNAVAIL, PROG_MISMATCH, PROG_UNAVAIL, Reply, SUCCESS,
    SYSTEM_ERR, Xdr, auth_sys,
};
use crate::tree::{BUG, HELLO, SECRET, Tree};
use crate::{client, on};

fn mismatch(low: u32, high: u32) -> Reply {
    Reply::Accepted(PROG_MISMATCH, Xdr::new().u32(low).u32(high).0)
}

fn unavailable(stat: u32) -> Reply {
    Reply::Accepted(stat, Vec::new())
}

#[test]
fn every_procedure_answers_a_valid_call_also_when_nothing_is_cached() {
    for tree in [Tree::new(), Tree::cold()] {
        let server = Harness::start(tree, |_| {});
        for call in specimens().into_iter().chain(variants()) {
            // A connection each, so that a reply with bytes too many would be seen.
            let header = Header::new(call.program, call.version, call.procedure);
            match server.client().call(&header, &call.arguments) {
                Reply::Accepted(SUCCESS, _) => {}
                other => panic!("{}: {other:?}", call.name),
            }
        }
    }
}

#[test]
fn a_cold_answer_is_the_warm_answer() {
    let (warm, cold) = (Harness::new(), Harness::start(Tree::cold(), |_| {}));
    let (mut one, mut other) = (warm.client(), cold.client());
    for call in specimens().into_iter().filter(|call| call.program == NFS) {
        let header = Header::new(call.program, call.version, call.procedure);
        let expected = one.call(&header, &call.arguments);
        assert_eq!(other.call(&header, &call.arguments), expected, "{}", call.name);
    }
}

#[test]
fn unknown_programs_versions_and_procedures_are_told_apart() {
    let server = Harness::new();
    let mut client = server.client();
    for program in [100_227, 100_021, 100_024, 0, u32::MAX] {
        assert_eq!(client.call(&Header::new(program, 3, 0), &[]), unavailable(PROG_UNAVAIL), "program {program}");
    }
    for version in [0, 1, 2, 4, u32::MAX] {
        assert_eq!(client.call(&Header::new(NFS, version, 0), &[]), mismatch(3, 3));
        assert_eq!(client.call(&Header::new(MOUNT, version, 0), &[]), mismatch(3, 3));
    }
    for version in [3, 4] {
        assert_eq!(client.call(&Header::new(PORTMAP, version, 0), &[]), mismatch(2, 2));
    }
    for (program, version, procedure) in [(NFS, 3, 22), (NFS, 3, u32::MAX), (MOUNT, 3, 6), (PORTMAP, 2, 1)] {
        let reply = client.call(&Header::new(program, version, procedure), &[]);
        assert_eq!(reply, unavailable(PROC_UNAVAIL), "program {program} procedure {procedure}");
    }
}

#[test]
fn another_rpc_version_is_denied_with_ours() {
    let server = Harness::new();
    let header = Header { rpc_version: 3, ..Header::new(NFS, 3, 0) };
    assert_eq!(server.client().call(&header, &[]), Reply::Denied(0, vec![2, 2]));
}

#[test]
fn bad_credentials_are_denied_and_other_flavours_are_too_weak() {
    const BADCRED: u32 = 1;
    const TOOWEAK: u32 = 5;
    let server = Harness::new();
    let mut client = server.client();
    let mut denied = |flavour, credential: Vec<u8>| {
        let header = Header { flavour, credential, ..Header::new(NFS, 3, 1) };
        client.call(&header, &on(HELLO).0)
    };
    let groups: Vec<u32> = (0..17).collect();
    let long_name = Xdr::new().u32(0).opaque(&[b'm'; 256]).u32(0).u32(0).u32(0).0;
    let lying_count = Xdr::new().u32(0).opaque(b"m").u32(0).u32(0).u32(u32::MAX).0;
    for credential in [auth_sys(0, 0, &groups), long_name, lying_count, vec![0; 401], Vec::new()] {
        assert_eq!(denied(1, credential), Reply::Denied(1, vec![BADCRED]));
    }
    for flavour in [2, 3, 6, 390_003] {
        assert_eq!(denied(flavour, vec![0; 20]), Reply::Denied(1, vec![TOOWEAK]), "flavour {flavour}");
    }
    assert!(matches!(denied(1, auth_sys(1, 1, &groups[..16])), Reply::Accepted(SUCCESS, _)));
}

#[test]
fn the_caller_is_who_the_credential_says() {
    let server = Harness::new();
    let mut client = server.client();
    let arguments = on(SECRET).u64(0).u64(0).u32(4096);
    let mut list = |flavour, credential| {
        let header = Header { flavour, credential, ..Header::new(NFS, 3, 16) };
        match client.call(&header, &arguments.0) {
            Reply::Accepted(SUCCESS, body) => Body(&body).u32(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(list(1, auth_sys(0, 0, &[])), client::OK, "root");
    assert_eq!(list(1, auth_sys(1000, 0, &[0])), client::ACCES, "somebody else");
    assert_eq!(list(0, Vec::new()), client::ACCES, "nobody");
}

#[test]
fn arguments_cut_at_any_byte_are_garbage() {
    let server = Harness::new();
    let mut client = server.client();
    for call in specimens().into_iter().chain(variants()) {
        let header = Header::new(call.program, call.version, call.procedure);
        for cut in 0..call.arguments.len() {
            let reply = client.call(&header, &call.arguments[..cut]);
            assert_eq!(reply, unavailable(GARBAGE_ARGS), "{} cut at {cut}", call.name);
        }
    }
}

#[test]
fn a_header_cut_at_any_byte_is_garbage_or_ends_the_connection() {
    let server = Harness::new();
    let record = Header::new(NFS, 3, 1).record(77, &on(HELLO).0);
    let arguments = on(HELLO).0.len();
    for cut in 0..record.len() - arguments {
        let mut client = server.client();
        client.send_bytes(&client::framed(&record[..cut]));
        match client.receive() {
            Some(reply) => assert_eq!(client::parse(&reply), (77, unavailable(GARBAGE_ARGS)), "cut at {cut}"),
            None => assert!(cut < 8, "cut at {cut}"),
        }
    }
}

#[test]
fn trailing_bytes_are_garbage() {
    let server = Harness::new();
    let mut client = server.client();
    for call in specimens().into_iter().chain(variants()) {
        let header = Header::new(call.program, call.version, call.procedure);
        for extra in [1, 4, 100] {
            let arguments = [&call.arguments[..], &vec![0; extra]].concat();
            assert_eq!(client.call(&header, &arguments), unavailable(GARBAGE_ARGS), "{}", call.name);
        }
    }
}

#[test]
fn lengths_that_lie_are_garbage() {
    let server = Harness::new();
    let mut client = server.client();
    let mut call = |procedure, arguments: Xdr| client.call(&Header::new(NFS, 3, procedure), &arguments.0);
    for len in [45, 65, 0x7fff_ffff, u32::MAX] {
        let handle = Xdr::new().u32(len).raw(&[0; 44]);
        assert_eq!(call(1, handle), unavailable(GARBAGE_ARGS), "a handle of {len}");
        let name = on(crate::tree::ROOT).u32(len).raw(b"hello");
        assert_eq!(call(3, name), unavailable(GARBAGE_ARGS), "a name of {len}");
        let data = on(HELLO).u64(0).u32(len).u32(0).u32(len).raw(b"data");
        assert_eq!(call(7, data), unavailable(GARBAGE_ARGS), "data of {len}");
    }
    assert_eq!(call(1, Xdr::new().opaque(&[0; 65])), unavailable(GARBAGE_ARGS), "a handle that is too long");
}

#[test]
fn a_discriminant_that_does_not_exist_is_garbage() {
    let server = Harness::new();
    let mut client = server.client();
    let place = || on(crate::tree::ROOT).opaque(b"new");
    let calls = [
        (8, place().u32(3)),
        (11, place().u32(0)),
        (11, place().u32(8)),
        (7, on(HELLO).u64(0).u32(0).u32(3).opaque(b"")),
        (2, on(HELLO).u32(2).u32(0).u32(0).u32(0).u32(0).u32(0).u32(0)),
        (2, on(HELLO).u32(0).u32(0).u32(0).u32(0).u32(3).u32(0).u32(0)),
    ];
    for (procedure, arguments) in calls {
        let reply = client.call(&Header::new(NFS, 3, procedure), &arguments.0);
        assert_eq!(reply, unavailable(GARBAGE_ARGS), "procedure {procedure}");
    }
}

#[test]
fn a_procedure_that_panics_costs_one_call() {
    let server = Harness::new();
    let mut client = server.client();
    assert_eq!(client.call(&Header::new(NFS, 3, 1), &on(BUG).0), unavailable(SYSTEM_ERR));
    assert_eq!(client.status(1, on(HELLO)), client::OK);
}
