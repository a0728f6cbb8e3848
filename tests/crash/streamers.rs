//! Callers that keep many writes of one file under way, over two connections, as a kernel's page cache
//! does. Each block of 4 KiB carries the number of the burst that wrote it.

use std::io;
use std::net::SocketAddr;

use rand::rngs::SmallRng;
use rand::seq::index;
use rand::{Rng, SeedableRng};

use crate::common::nfs3::{Answer, COMMIT, Call, Handle, How, Sattr, Stable, WRITE, status};
use crate::common::rpc::{Connection, fresh_xid};
use crate::progress::Progress;

const BLOCK: usize = 4096;
const BLOCKS: usize = 512;
/// Writes of one burst, of one to four blocks each.
const WRITES: usize = 24;
const MOST_BLOCKS: usize = 4;

/// What is known of a block, in numbers of bursts; 0 was never written.
#[derive(Clone, Debug, Default)]
struct Known {
    /// On stable storage.
    durable: u64,
    /// Written since, and not promised.
    possible: Vec<u64>,
}

pub struct Streamer {
    who: String,
    links: [Connection; 2],
    file: Handle,
    blocks: Vec<Known>,
    burst: u64,
    instance: Option<[u8; 8]>,
    rng: SmallRng,
}

/// One write of a burst.
struct Sent {
    xid: u32,
    first: usize,
    count: usize,
    stable: Stable,
}

fn stamp(block: usize, burst: u64) -> [u8; BLOCK] {
    let mut bytes = [0; BLOCK];
    if burst > 0 {
        let words = [block as u64, burst, block as u64 ^ burst.rotate_left(32), !burst];
        for (i, word) in bytes.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&words[i % words.len()].wrapping_add(i as u64).to_be_bytes());
        }
    }
    bytes
}

fn open(address: SocketAddr) -> io::Result<[Connection; 2]> {
    Ok([Connection::open(address)?, Connection::open(address)?])
}

impl Streamer {
    /// Make the file `stream` in the root of `clone`.
    pub fn start(address: SocketAddr, clone: &str, seed: u64) -> Self {
        let mut links = open(address).expect("it serves");
        let root = links[0].mount(&format!("/clones/{clone}")).expect("it serves");
        let how = How::Guarded(Sattr { mode: Some(0o600), ..Sattr::default() });
        let made = links[0].call(&Call::create(&root, b"stream", &how)).expect("it serves");
        assert_eq!(made.status, status::OK, "CREATE");
        let size = Sattr { size: Some((BLOCKS * BLOCK) as u64), ..Sattr::default() };
        let looked_up = links[0].call(&Call::lookup(&root, b"stream")).expect("it serves");
        let file = looked_up.handle.expect("just made");
        assert_eq!(links[0].call(&Call::setattr(&file, &size, None)).expect("it serves").status, status::OK);
        let who = format!("streamer of {clone}");
        let rng = SmallRng::seed_from_u64(seed);
        Self { who, links, file, blocks: vec![Known::default(); BLOCKS], burst: 0, instance: None, rng }
    }

    /// Write until the daemon is gone.
    pub fn work(&mut self, progress: &Progress) {
        while self.one_burst(progress).is_ok() {}
    }

    /// Many writes at once, all answers, and mostly a COMMIT.
    fn one_burst(&mut self, progress: &Progress) -> io::Result<()> {
        self.burst += 1;
        let mut sent: [Vec<Sent>; 2] = [Vec::new(), Vec::new()];
        // Places that do not overlap: which of two writes under way is the later one nobody could say.
        for place in index::sample(&mut self.rng, BLOCKS / MOST_BLOCKS, WRITES) {
            let count = self.rng.random_range(1..=MOST_BLOCKS);
            let stable = if self.rng.random_ratio(1, 6) { Stable::FileSync } else { Stable::Unstable };
            let (xid, first) = (fresh_xid(), place * MOST_BLOCKS);
            let blocks = first..first + count;
            let data: Vec<u8> = blocks.clone().flat_map(|block| stamp(block, self.burst)).collect();
            self.blocks[blocks].iter_mut().for_each(|known| known.possible.push(self.burst));
            let link = self.rng.random_range(0..2);
            sent[link].push(Sent { xid, first, count, stable });
            self.links[link].send(xid, &Call::write(&self.file, (first * BLOCK) as u64, stable, &data))?;
        }
        for (link, sent) in sent.iter().enumerate() {
            self.take_answers(link, sent, progress)?;
        }
        if self.rng.random_ratio(4, 5) { self.commit() } else { Ok(()) }
    }

    fn take_answers(&mut self, link: usize, sent: &[Sent], progress: &Progress) -> io::Result<()> {
        for _ in sent {
            let (xid, results) = self.links[link].receive()?;
            let answer = Answer::parse(WRITE, &results);
            let write = sent.iter().find(|write| write.xid == xid).expect("an answer to what was sent");
            let whole = (write.count * BLOCK) as u32;
            assert_eq!((answer.status, answer.written.0), (status::OK, whole), "{}", self.who);
            assert!(answer.written.1 >= write.stable as u32, "{}: less stable than asked for", self.who);
            self.check_instance(&answer);
            if answer.written.1 != Stable::Unstable as u32 {
                let burst = self.burst;
                self.blocks[write.first..write.first + write.count]
                    .iter_mut()
                    .for_each(|known| known.is_durable(burst));
            }
            progress.answered();
        }
        Ok(())
    }

    /// All that was written by now is durable when this is answered.
    fn commit(&mut self) -> io::Result<()> {
        let results = self.links[0].call_as(fresh_xid(), &Call::commit(&self.file))?;
        let answer = Answer::parse(COMMIT, &results);
        assert_eq!(answer.status, status::OK, "{}: COMMIT", self.who);
        self.check_instance(&answer);
        for known in &mut self.blocks {
            if let Some(newest) = known.possible.last() {
                known.is_durable(*newest);
            }
        }
        Ok(())
    }

    fn check_instance(&mut self, answer: &Answer) {
        let verifier = answer.verifier.expect("WRITE and COMMIT have one");
        let known = *self.instance.get_or_insert(verifier);
        assert_eq!(known, verifier, "{}: another write verifier without a restart", self.who);
    }

    /// Every block is one whole burst's, not older than what was promised.
    pub fn recover(&mut self, address: SocketAddr) {
        self.links = open(address).expect("it serves again");
        for first in (0..BLOCKS).step_by(16) {
            let call = Call::read(&self.file, (first * BLOCK) as u64, (16 * BLOCK) as u32);
            let answer = self.links[1].call(&call).expect("it serves again");
            assert_eq!((answer.status, answer.data.len()), (status::OK, 16 * BLOCK), "{}", self.who);
            for (i, bytes) in answer.data.chunks(BLOCK).enumerate() {
                self.blocks[first + i].recover(&self.who, first + i, bytes);
            }
        }
        let before = self.instance.take();
        self.commit().expect("it serves again");
        assert!(before.is_none() || before != self.instance, "{}: the write verifier of before", self.who);
    }
}

impl Known {
    fn is_durable(&mut self, burst: u64) {
        self.durable = burst;
        self.possible.retain(|other| *other > burst);
    }

    fn recover(&mut self, who: &str, block: usize, bytes: &[u8]) {
        let mut may_be = std::iter::once(self.durable).chain(self.possible.iter().copied());
        let found = may_be.find(|burst| stamp(block, *burst) == *bytes);
        let found = found.unwrap_or_else(|| panic!("{who}: block {block} is none of {self:?}: {:02x?}", &bytes[..32]));
        *self = Self { durable: found, possible: Vec::new() };
    }
}

#[test]
fn a_mixed_block_is_noticed() {
    let mut known = Known { durable: 3, possible: vec![5, 6] };
    known.recover("test", 7, &stamp(7, 5));
    assert_eq!(known.durable, 5);
    let mut mixed = stamp(7, 5);
    mixed[2048..].copy_from_slice(&stamp(7, 6)[2048..]);
    let mut known = Known { durable: 3, possible: vec![5, 6] };
    assert!(std::panic::catch_unwind(move || known.recover("test", 7, &mixed)).is_err());
}
