//! The whole tree over the wire against the whole tree in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::content::BLOCK;
use super::driver::{Driver, difference};
use super::states::Window;
use super::tree::{Kind, ObjectId, Tree};
use crate::common::nfs3::{Answer, Call, Listed, status};

/// Bytes asked for in one READ.
const COUNT: u32 = 256 * 1024;
/// Files up to here are read whole; of longer ones what was ever written, and a block on both sides.
const WHOLE: u64 = 4 << 20;
/// Bytes of one READDIRPLUS: small enough that listings take several.
const LIST: u32 = 4096;

impl Driver {
    /// All names, attributes and bytes are those of the tree; what was not seen yet is learnt.
    pub fn compare(&mut self, tree: &mut Tree) -> io::Result<()> {
        self.walk(tree, None)
    }

    /// After a crash: each state is one that it may be, and all of them together are of one moment.
    pub fn compare_after(&mut self, tree: &mut Tree, window: &mut Window) -> io::Result<()> {
        self.walk(tree, Some(window))?;
        if !window.is_possible() {
            self.fail("after the crash a later operation is there and an earlier one is not");
        }
        Ok(())
    }

    fn walk(&mut self, tree: &mut Tree, mut window: Option<&mut Window>) -> io::Result<()> {
        self.observe(tree, tree.root, window.as_deref_mut())?;
        let mut dirs = vec![tree.root];
        let mut seen = BTreeSet::new();
        while let Some(dir) = dirs.pop() {
            self.compare_dir(tree, dir, window.as_deref_mut())?;
            for id in tree.entries(dir).expect("a directory").clone().into_values() {
                if tree.is_dir(id) {
                    dirs.push(id);
                } else if seen.insert(id) {
                    self.compare_object(tree, id, window.as_deref_mut())?;
                }
            }
        }
        self.unique(tree);
        Ok(())
    }

    /// Ask for an object's attributes.
    pub(super) fn observe(&mut self, tree: &mut Tree, id: ObjectId, window: Option<&mut Window>) -> io::Result<()> {
        let answer = self.link.call(&Call::getattr(tree.handle(id)))?;
        let Some(attr) = answer.attr else {
            self.fail(format!("GETATTR of {}: status {}", tree.path(id), answer.status));
        };
        let shown = tree.observe(id, &attr, window);
        self.check(|| format!("attributes of {}", tree.path(id)), shown);
        Ok(())
    }

    /// The names of a directory, their fileids, handles and attributes.
    fn compare_dir(&mut self, tree: &mut Tree, dir: ObjectId, mut window: Option<&mut Window>) -> io::Result<()> {
        let listed = self.list(tree, dir)?;
        let want: Vec<&Vec<u8>> = tree.entries(dir).expect("a directory").keys().collect();
        let got: Vec<&Vec<u8>> = listed.keys().collect();
        if want != got {
            let text =
                |names: Vec<&Vec<u8>>| names.iter().map(|name| name.escape_ascii().to_string()).collect::<Vec<_>>();
            self.fail(format!("names in {}: {:?} instead of {:?}", tree.path(dir), text(got), text(want)));
        }
        for (name, entry) in listed {
            let id = tree.lookup(dir, &name).expect("compared");
            let (handle, attr) = match (entry.handle, entry.attr) {
                (Some(handle), Some(attr)) => (handle, attr),
                _ => {
                    let answer = self.link.call(&Call::lookup(tree.handle(dir), &name))?;
                    (answer.handle.expect("listed"), answer.attr.expect("attributes with a LOOKUP"))
                }
            };
            if entry.fileid != attr.fileid {
                self.fail(format!("fileid {} in the listing, {} by itself", entry.fileid, attr.fileid));
            }
            self.learn(tree, id, handle, Some(&attr));
            // After a crash a file is looked at once: that narrows its states down to one.
            let narrowing = window.as_deref_mut().filter(|_| !tree.object(id).attr.is_certain());
            let shown = tree.observe(id, &attr, narrowing);
            self.check(|| format!("attributes of {} in its listing", tree.path(id)), shown);
        }
        Ok(())
    }

    fn list(&mut self, tree: &Tree, dir: ObjectId) -> io::Result<BTreeMap<Vec<u8>, Listed>> {
        let (mut all, mut cookie) = (BTreeMap::new(), 0);
        loop {
            let answer = self.link.call(&Call::readdirplus(tree.handle(dir), cookie, LIST))?;
            if answer.status != status::OK || (answer.listed.is_empty() && !answer.eof) {
                self.fail(format!("READDIRPLUS of {}: {answer:?}", tree.path(dir)));
            }
            for entry in answer.listed {
                cookie = entry.cookie;
                let dots = entry.name == b"." || entry.name == b"..";
                let name = entry.name.clone();
                if !dots && all.insert(name.clone(), entry).is_some() {
                    self.fail(format!("{} is listed twice", name.escape_ascii()));
                }
            }
            if answer.eof {
                return Ok(all);
            }
        }
    }

    fn compare_object(&mut self, tree: &mut Tree, id: ObjectId, window: Option<&mut Window>) -> io::Result<()> {
        match &tree.object(id).kind {
            Kind::File(_) => self.compare_file(tree, id, window),
            Kind::Link(target) => {
                let answer = self.link.call(&Call::readlink(tree.handle(id)))?;
                if answer.status != status::OK || answer.data != *target {
                    self.fail(format!("READLINK of {}: {answer:?}", tree.path(id)));
                }
                Ok(())
            }
            Kind::Dir { .. } | Kind::Fifo | Kind::Socket | Kind::Device(..) => Ok(()),
        }
    }

    fn compare_file(&mut self, tree: &mut Tree, id: ObjectId, mut window: Option<&mut Window>) -> io::Result<()> {
        let size = tree.attr(id).size;
        for (start, len) in parts(tree, id, size) {
            let mut offset = start;
            while offset < start + len {
                let count = (start + len - offset).min(u64::from(COUNT)) as u32;
                let answer = self.read_all(tree, id, offset, count, size)?;
                let good = match window.as_deref_mut() {
                    Some(window) => tree
                        .content_mut(id)
                        .after_crash(window, offset, &answer)
                        .map_err(|at| format!("the block at {at} is nothing that was ever written there")),
                    None => {
                        let want = tree.content(id).read(offset, answer.len());
                        if want == answer { Ok(()) } else { Err(difference(&want, &answer)) }
                    }
                };
                self.check(|| format!("bytes of {} from {offset}", tree.path(id)), good);
                offset += u64::from(count);
            }
        }
        if window.is_some() {
            tree.content_mut(id).forget_beyond(size);
            tree.certain_again(id);
        }
        Ok(())
    }

    /// `count` bytes; a server may answer with less.
    fn read_all(&mut self, tree: &Tree, id: ObjectId, offset: u64, count: u32, size: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while bytes.len() < count as usize {
            let at = offset + bytes.len() as u64;
            let answer = self.link.call(&Call::read(tree.handle(id), at, count - bytes.len() as u32))?;
            let Answer { status, eof, data, .. } = answer;
            if status != status::OK || data.is_empty() || eof != (at + data.len() as u64 >= size) {
                let got = data.len();
                self.fail(format!("READ of {} at {at}: status {status}, {got} bytes, eof {eof}", tree.path(id)));
            }
            bytes.extend(data);
        }
        Ok(bytes)
    }

    /// One object, one handle and one fileid.
    fn unique(&self, tree: &Tree) {
        let (mut handles, mut fileids) = (BTreeMap::new(), BTreeMap::new());
        for id in tree.objects.keys() {
            let identity = &tree.seen[id];
            let twice = handles.insert(&identity.handle, id).or(fileids.insert(identity.fileid, id));
            if let Some(other) = twice {
                self.fail(format!("{} and {} have one name: {identity:?}", tree.path(*id), tree.path(*other)));
            }
        }
    }
}

/// What of a file is read, as (offset, length): block by block, to the end of the file.
fn parts(tree: &Tree, id: ObjectId, size: u64) -> Vec<(u64, u64)> {
    if size <= WHOLE {
        return vec![(0, size)];
    }
    let wide = |(start, len): (u64, u64)| (start.saturating_sub(BLOCK), (start + len + BLOCK).min(size));
    let mut parts: Vec<(u64, u64)> = Vec::new();
    for (start, end) in tree.content(id).runs().into_iter().chain([(size / BLOCK * BLOCK, 0)]).map(wide) {
        match parts.last_mut() {
            _ if start >= end => {}
            Some((_, last)) if start <= *last => *last = end.max(*last),
            _ => parts.push((start, end)),
        }
    }
    parts.into_iter().map(|(start, end)| (start, end - start)).collect()
}
