//! Random and mutated bytes: the decoders never panic, and a live server answers or closes.

use std::io::Write;

use mimeo::nfs::fuzz_decode;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::Harness;
use crate::calls::{specimens, variants};
use crate::client::{Client, Header, OK, framed};
use crate::on;
use crate::tree::HELLO;

/// A generator whose seed is printed, and may be given in MIMEO_SEED.
fn dice() -> SmallRng {
    let given = std::env::var("MIMEO_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or_else(|| rand::rng().random());
    println!("MIMEO_SEED={seed}");
    SmallRng::seed_from_u64(seed)
}

/// Valid records of every procedure.
fn records() -> Vec<Vec<u8>> {
    let calls = specimens().into_iter().chain(variants());
    calls.map(|call| Header::new(call.program, call.version, call.procedure).record(1, &call.arguments)).collect()
}

/// A record with a few bytes changed, cut, repeated, or a length made large.
fn mutated(record: &[u8], dice: &mut SmallRng) -> Vec<u8> {
    let mut bytes = record.to_vec();
    for _ in 0..dice.random_range(1..4) {
        let at = dice.random_range(0..bytes.len().max(1)).min(bytes.len().saturating_sub(4)) & !3;
        match dice.random_range(0..5) {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << dice.random_range(0..8)),
            1 => bytes.truncate(at),
            2 => bytes.extend_from_within(at..),
            3 => bytes.iter_mut().skip(at).take(4).for_each(|byte| *byte = 0xff),
            _ => bytes.iter_mut().skip(at).take(4).for_each(|byte| *byte = dice.random()),
        }
    }
    bytes
}

#[test]
fn decoders_take_any_bytes() {
    let mut dice = dice();
    for record in records() {
        fuzz_decode(&record);
        fuzz_decode(&framed(&record));
        for _ in 0..300 {
            let bytes = mutated(&record, &mut dice);
            fuzz_decode(&bytes);
            fuzz_decode(&framed(&bytes));
        }
    }
    for _ in 0..2000 {
        let mut noise = vec![0; dice.random_range(0..300)];
        dice.fill(&mut noise[..]);
        fuzz_decode(&noise);
    }
}

/// Whether the connection was of use to the end.
fn answered_or_closed(client: &mut Client, record: &[u8]) -> bool {
    if client.stream.write_all(&framed(record)).is_err() {
        return false;
    }
    match client.receive() {
        Some(reply) => {
            assert_eq!(reply[..4], record[..4], "the reply has the xid of its call");
            true
        }
        None => false,
    }
}

#[test]
fn a_live_server_answers_or_closes_and_stays_up() {
    let mut dice = dice();
    let server = Harness::new();
    let mut client = server.client();
    for record in records() {
        for _ in 0..40 {
            if !answered_or_closed(&mut client, &mutated(&record, &mut dice)) {
                client = server.client();
            }
        }
    }
    assert_eq!(server.client().status(1, on(HELLO)), OK);
}
