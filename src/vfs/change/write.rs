//! WRITE and COMMIT.

use bytes::Bytes;

use super::super::read::check_regular;
use super::super::resolve::{Ended, Found, Run};
use super::super::{Changed, MAX_FILE_BYTES, Object, Refusal, Wcc, access};
use crate::overlay::Tree;
use crate::overlay::log::MAX_PIECE;

impl<'s> Run<'s, '_> {
    /// Put `data` at `offset`. The answer waits for stable storage only where `stable` asks for it.
    pub fn write(&mut self, file: Object, offset: u64, data: &[u8], stable: bool) -> Ended<Changed> {
        let (mut tree, mut file) = self.find_to_change(file)?;
        self.check_writable(&file)?;
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= MAX_FILE_BYTES);
        if end.is_none() {
            return Err(file.refuse(Refusal::FileTooBig));
        }
        let before = file.attr().before();
        if data.is_empty() {
            return Ok(Changed { object: None, wcc: file.unchanged(), to: None, durable: None });
        }
        self.check_space(&file)?;
        self.put_data(&mut tree, &mut file, offset, data)?;
        if !self.identity(&file.scope).is_root() {
            file.node.mode = access::without_privileges(file.node.mode);
        }
        file.touch_content(self.vfs.now());
        self.put(&mut tree, &file)?;
        let wcc = Wcc { before, after: file.attr() };
        let mut changed = self.take_effect(tree, Changed { object: None, wcc, to: None, durable: None })?;
        self.vfs.reserve().take(data.len() as u64);
        changed.durable = changed.durable.filter(|_| stable);
        Ok(changed)
    }

    /// Put the data, unless the clone would then hold more than its quota.
    fn put_data(&mut self, tree: &mut Tree<'s>, file: &mut Found<'s>, offset: u64, data: &[u8]) -> Ended<()> {
        let (allowance, refused) = (self.allowance(&file.scope, tree), file.refuse(Refusal::Quota));
        for (offset, piece) in pieces(offset, data) {
            tree.write(self.fetch, file.ino, &mut file.node, offset, piece)?;
        }
        match allowance {
            Some(allowance) if allowance.is_exceeded(tree) => Err(refused),
            _ => Ok(()),
        }
    }

    /// Everything written to `file` so far. Nothing is looked for: it is all in one log. It changes nothing,
    /// so whoever the clone admits may ask for it: what he wrote was let through when he wrote it.
    pub fn commit(&mut self, file: Object) -> Ended<Changed> {
        let (tree, file) = self.find(file)?;
        if file.scope.shown.is_none() {
            return Err(file.refuse(Refusal::ReadOnly));
        }
        check_regular(&file)?;
        let changed = Changed { object: None, wcc: file.unchanged(), to: None, durable: None };
        Ok(self.nothing_to_do(tree, &file, changed))
    }

    /// Refuse what is no file that the caller may write.
    fn check_writable(&self, file: &Found<'s>) -> Ended<()> {
        check_regular(file)?;
        let may = access::may_write_data(&self.identity(&file.scope), &file.attr());
        if may { Ok(()) } else { Err(file.refuse(Refusal::Access)) }
    }
}

/// The data as the log takes it, each piece in memory of its own: what is kept of one, keeps no other.
fn pieces(offset: u64, data: &[u8]) -> impl Iterator<Item = (u64, Bytes)> {
    let first = MAX_PIECE - (offset % MAX_PIECE as u64) as usize;
    let (head, rest) = data.split_at(first.min(data.len()));
    let mut at = offset;
    std::iter::once(head).chain(rest.chunks(MAX_PIECE)).map(move |piece| {
        let begin = at;
        at += piece.len() as u64;
        (begin, Bytes::copy_from_slice(piece))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_at_multiples_of_their_greatest_length_and_are_the_data() {
        const MAX: u64 = MAX_PIECE as u64;
        let data: Vec<u8> = (0..3 * MAX_PIECE).map(|i| (i % 251) as u8).collect();
        for (offset, len) in [(0, 1), (0, 3 * MAX), (5, 3 * MAX), (MAX - 1, 2), (MAX, MAX), (7 * MAX + 9, 100)] {
            let cut: Vec<_> = pieces(offset, &data[..len as usize]).collect();
            let mut at = offset;
            for (begin, piece) in &cut {
                assert_eq!(*begin, at);
                at += piece.len() as u64;
                assert!(at % MAX == 0 || at == offset + len, "{offset}+{len}: a piece ends at {at}");
                assert!(piece.len() <= MAX_PIECE);
            }
            assert_eq!(cut.into_iter().flat_map(|(_, piece)| piece).collect::<Vec<_>>(), data[..len as usize]);
        }
    }
}
