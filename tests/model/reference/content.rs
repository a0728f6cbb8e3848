//! A file's bytes, sparse, block by block. Bytes beyond the file's size are always zero here.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::states::{Seq, States, Window};

/// What a crash takes or leaves as a whole.
pub const BLOCK: u64 = 4096;

type Block = Arc<[u8; BLOCK as usize]>;

/// Blocks that are not there are zeros.
#[derive(Clone, Debug, Default)]
pub struct Content {
    blocks: BTreeMap<u64, States<Block>>,
}

fn zeros() -> Block {
    Arc::new([0; BLOCK as usize])
}

impl Content {
    pub fn of(bytes: &[u8]) -> Self {
        let mut content = Self::default();
        content.write(0, 0, bytes);
        content.settle(0);
        content
    }

    fn change(&mut self, seq: Seq, index: u64, change: impl FnOnce(&mut [u8; BLOCK as usize])) {
        let states = self.blocks.entry(index).or_insert_with(|| States::new(zeros()));
        let mut block = states.now().clone();
        change(Arc::make_mut(&mut block));
        states.push(seq, block);
    }

    pub fn write(&mut self, seq: Seq, offset: u64, data: &[u8]) {
        let mut at = 0;
        while at < data.len() {
            let place = offset + at as u64;
            let from = (place % BLOCK) as usize;
            let len = (BLOCK as usize - from).min(data.len() - at);
            self.change(seq, place / BLOCK, |block| block[from..from + len].copy_from_slice(&data[at..at + len]));
            at += len;
        }
    }

    /// Nothing at `size` or beyond.
    pub fn cut(&mut self, seq: Seq, size: u64) {
        let behind: Vec<u64> = self.blocks.range(size / BLOCK..).map(|(index, _)| *index).collect();
        for index in behind {
            let keep = size.saturating_sub(index * BLOCK).min(BLOCK) as usize;
            self.change(seq, index, |block| block[keep..].fill(0));
        }
    }

    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        let end = offset + len as u64;
        for (index, states) in self.blocks.range(offset / BLOCK..end.div_ceil(BLOCK)) {
            let start = index * BLOCK;
            let (from, to) = (start.max(offset), (start + BLOCK).min(end));
            let source = &states.now()[(from - start) as usize..(to - start) as usize];
            data[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
        }
        data
    }

    /// Runs of blocks that are or were something, as (offset, length).
    pub fn runs(&self) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for index in self.blocks.keys() {
            match runs.last_mut() {
                Some((start, len)) if *start + *len == index * BLOCK => *len += BLOCK,
                _ => runs.push((index * BLOCK, BLOCK)),
            }
        }
        runs
    }

    pub fn is_certain(&self) -> bool {
        self.blocks.values().all(States::is_certain)
    }

    pub fn settle(&mut self, stable: Seq) {
        self.blocks.values_mut().for_each(|states| states.settle(stable));
        self.drop_zeros();
    }

    pub fn settle_now(&mut self) {
        self.blocks.values_mut().for_each(States::settle_now);
        self.drop_zeros();
    }

    fn drop_zeros(&mut self) {
        self.blocks.retain(|_, states| !states.is_certain() || states.now().iter().any(|byte| *byte != 0));
    }

    /// After a crash these bytes were read at `offset`, a block's begin, up to a block's or the file's
    /// end; the first place that never was like that.
    pub fn after_crash(&mut self, window: &mut Window, offset: u64, data: &[u8]) -> Result<(), u64> {
        for (i, bytes) in data.chunks(BLOCK as usize).enumerate() {
            let index = offset / BLOCK + i as u64;
            let mut seen = [0; BLOCK as usize];
            seen[..bytes.len()].copy_from_slice(bytes);
            let was = match self.blocks.get_mut(&index) {
                Some(states) => states.after_crash(window, |block| **block == seen),
                None => seen.iter().all(|byte| *byte == 0),
            };
            if !was {
                return Err(index * BLOCK);
            }
        }
        Ok(())
    }

    /// After a crash the file ends at `size`: whatever was written beyond it is gone.
    pub fn forget_beyond(&mut self, size: u64) {
        self.blocks.retain(|index, _| index * BLOCK < size);
    }
}

#[test]
fn bytes_are_where_they_were_written() {
    let mut content = Content::of(&[1; 5000]);
    content.write(1, 4090, &[2; 10]);
    content.write(2, 1 << 40, b"far");
    assert_eq!(content.read(4088, 14), [1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1]);
    assert_eq!(content.read((1 << 40) - 1, 5), b"\0far\0");
    assert_eq!(content.runs(), [(0, 8192), (1 << 40, 4096)]);
    content.cut(3, 4092);
    assert_eq!(content.read(4088, 8), [1, 1, 2, 2, 0, 0, 0, 0]);
    content.settle(3);
    assert_eq!(content.runs(), [(0, 4096)]);
}
