//! Calls byte by byte, and replies that lie.

use rand::RngCore;

use super::call::{AUTH_SYS, LAST_FRAGMENT};
use super::*;
use crate::nfs::xdr::{Decoder, Encode};
use crate::storm::dice;

fn results(words: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    words.iter().for_each(|word| bytes.put_u32(*word));
    bytes
}

#[test]
fn a_call_is_one_record() {
    let mut bytes = b"before".to_vec();
    put_mount(&mut bytes, 7, Caller { uid: 1, gid: 2 }, "/a");
    let record = &bytes[6..];
    let mark = u32::from_be_bytes(*record.first_chunk().unwrap());
    assert_eq!(mark, LAST_FRAGMENT | (record.len() as u32 - 4));
    let mut from = Decoder::new(&record[4..]);
    let head: Vec<u32> = (0..15).map(|_| from.u32().unwrap()).collect();
    assert_eq!(head, [7, 0, 2, MOUNT, 3, 1, AUTH_SYS, 20, 0, 0, 1, 2, 0, 0, 0]);
    assert_eq!((from.opaque(64), from.finish()), (Ok(&b"/a"[..]), Ok(())));
}

#[test]
fn procedures_have_the_numbers_of_the_protocol() {
    let of = |name: &str| PROCEDURES.iter().position(|known| *known == name).map(|n| n as u32);
    assert_eq!([of("LOOKUP"), of("READ"), of("WRITE")], [LOOKUP, READ, WRITE].map(Some));
    assert_eq!([of("MKNOD"), of("READDIRPLUS"), of("COMMIT"), of("MNT")], [11, 17, 21, MOUNTING].map(Some));
}

#[test]
fn counts_and_handles_that_lie_are_garbage() {
    assert!(answer(READ, Decoder::new(&results(&[0, 0, 8, 1, 4, 0]))).is_err(), "8 bytes, of which 4 are there");
    assert!(answer(LOOKUP, Decoder::new(&results(&[0, 68]))).is_err(), "a handle of 68 bytes");
    let listing = [&results(&[0, 0, 0, 0, 1, 0, 9, 1])[..], b"a\0\0\0", &results(&[0, 5, 0, 1])].concat();
    let listed = answer(READDIR, Decoder::new(&listing)).unwrap();
    assert_eq!((listed.entries.len(), listed.position.cookie, listed.eof), (1, 5, true));
}

/// Whatever a server sends: it is decoded or refused, and never taken for more than it is.
#[test]
fn any_bytes_are_bounded() {
    let mut dice = dice::of(11, 0);
    for _ in 0..20_000 {
        let mut bytes = vec![0; (dice.next_u32() % 200) as usize];
        dice.fill_bytes(&mut bytes);
        // Small words, so that it gets further than the first.
        for word in bytes.chunks_exact_mut(4) {
            word[..3].fill(0);
            word[3] %= 6;
        }
        let _ = reply(&bytes);
        let _ = mounted(Decoder::new(&bytes));
        for procedure in 0..22 {
            let entries = answer(procedure, Decoder::new(&bytes)).map_or(0, |answer| answer.entries.len());
            assert!(entries * 20 <= bytes.len(), "{entries} entries in {bytes:?}, seed 11");
        }
    }
}
