//! Decisions where both sides changed the same: told as conflicts, and made if a side is to win.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::fit::{Fitter, Told};
use super::survey::{Facts, Name, Object, check_rows};
use super::{Did, Winner};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Cookie, Entry, FileKind, Ino, Inode, MAX_NAME, MAX_TIES};
use crate::overlay::Node;

/// Names that are tried for a copy beside a file.
const MAX_TRIES: u32 = 100;

impl Fitter<'_> {
    /// A name that the view has in a directory which is not in the version to come.
    pub(super) fn homeless(&mut self, at: (Ino, Cookie), name: &Name) -> Result<()> {
        let Some(mine) = &name.mine else { return Ok(()) };
        if !self.sight.is_homeless(at.0)? {
            return Ok(());
        }
        self.tell(Told::name(at.0, &mine.name), did(name.base.as_ref(), Some(mine)), Did::Removed)?;
        self.decide_name(at, Some(mine.clone()));
        self.revive(at.0)
    }

    /// A name that both sides changed, each in its way.
    pub(super) fn both_named(&mut self, at: (Ino, Cookie), name: &Name) -> Result<()> {
        let Name { base, mine, theirs } = name;
        if let Some(some) = mine.as_ref().or(base.as_ref()).or(theirs.as_ref()) {
            let disk_image = self.is_disk(base.as_ref())? || self.is_disk(theirs.as_ref())?;
            let told = Told { disk_image, ..Told::name(at.0, &some.name) };
            self.tell(told, did(base.as_ref(), mine.as_ref()), did(base.as_ref(), theirs.as_ref()))?;
        }
        match self.winner {
            Some(Winner::Image { .. }) => {
                self.decide_name(at, theirs.clone());
                if theirs.is_some() {
                    self.bring_back_dir(at.0)?;
                }
                mine.as_ref().map_or(Ok(()), |mine| self.save_at(at, mine))
            }
            _ => {
                self.decide_name(at, mine.clone());
                // In a directory that the image does not have any more.
                if mine.is_some() && self.sight.is_homeless(at.0)? { self.revive(at.0) } else { Ok(()) }
            }
        }
    }

    /// A file of the image that the view has changed, and the version to come does not have under this
    /// number: it has other data, or none.
    pub(super) fn gone_file(&mut self, ino: Ino, base: &Inode, mut mine: Node) -> Result<()> {
        let from = self.sight.from;
        let names = self.sight.names(from, ino, base)?;
        let mut left = Vec::new();
        for at in &names {
            left.extend(self.sight.shown(at.0, at.1)?.filter(|entry| entry.ino == ino).map(|entry| (*at, entry)));
        }
        // The order of cookies means nothing to anybody.
        left.sort_by(|(a, one), (b, other)| (a.0 != base.parent, &one.name).cmp(&(b.0 != base.parent, &other.name)));
        let renamed = left.len() != names.len() || mine.nlink != base.nlink;
        let content = self.has_own_content(ino, base, &mine)?;
        let rights = Facts::of_node(&mine).rights() != Facts::of_image(base).rights();
        if !renamed && !content && !rights {
            self.objects.insert(ino, None);
            return Ok(());
        }
        let clone = match (content, rights) {
            (true, _) => Did::Changed,
            (false, true) => Did::Attributes,
            (false, false) => Did::Renamed,
        };
        let image = self.fate(&names)?;
        self.tell(Told { disk_image: base.disk_image, ..Told::object(ino) }, clone, image)?;
        mine.base = mine.base.or(Some(*from.id()));
        self.objects.insert(ino, Some(mine.clone()));
        let clone_wins = !matches!(self.winner, Some(Winner::Image { .. }));
        if clone_wins {
            for (at, entry) in left {
                self.decide_name(at, Some(entry));
                self.revive(at.0)?;
            }
            return Ok(());
        }
        // Names that the clone gave it are its own; without any it is saved beside its first one.
        let own = i64::from(mine.nlink) - left.len() as i64;
        match left.into_iter().next() {
            Some((at, entry)) if own <= 0 => self.save_at(at, &entry),
            _ => Ok(()),
        }
    }

    /// A directory of the image that the view has, and the version to come has not.
    pub(super) fn gone_dir(&mut self, ino: Ino, base: &Inode, mine: Node) -> Result<()> {
        let at = (base.parent, base.parent_cookie);
        let renamed = self.sight.shown(at.0, at.1)?.is_none_or(|entry| entry.ino != ino);
        if renamed {
            let image = self.fate(&[at])?;
            // What lies in it unchanged is gone with the version before.
            self.tell(Told { undecidable: true, ..Told::object(ino) }, Did::Renamed, image)?;
        } else if Facts::of_node(&mine).rights() != Facts::of_image(base).rights() {
            let image = self.fate(&[at])?;
            self.tell(Told::object(ino), Did::Attributes, image)?;
            if !matches!(self.winner, Some(Winner::Image { .. })) {
                return self.revive(ino);
            }
            self.objects.entry(ino).or_insert(None);
        } else {
            // Only its names changed; what they are about is looked at by itself.
            self.objects.entry(ino).or_insert(None);
        }
        Ok(())
    }

    /// An object that the view removed, and the version to come has under other attributes, or with other
    /// names.
    pub(super) fn removed(&mut self, ino: Ino, base: &Inode, theirs: &Arc<Inode>) -> Result<()> {
        let (was, is) = (Facts::of_image(base), Facts::of_image(theirs));
        let dir = theirs.kind == FileKind::Directory;
        if dir {
            self.removed_dirs.insert(ino);
        }
        let left = if dir { self.sight.left_in(ino)? } else { Vec::new() };
        if was.rights() == is.rights() && left.is_empty() && self.sight.names_left(ino, theirs)?.is_empty() {
            return Ok(());
        }
        let image = if left.is_empty() { Did::Attributes } else { Did::Changed };
        self.tell(Told { disk_image: theirs.disk_image, ..Told::object(ino) }, Did::Removed, image)?;
        match self.winner {
            Some(Winner::Image { .. }) => self.bring_back(ino, theirs),
            _ => self.keep_removed(ino, theirs),
        }
    }

    /// It stays removed, with whatever the version to come added to it; but a name that led to something else
    /// is the image's to change.
    fn keep_removed(&mut self, ino: Ino, theirs: &Arc<Inode>) -> Result<()> {
        let from = self.sight.from;
        let mut is_named = false;
        for at in self.sight.names_left(ino, theirs)? {
            if theirs.kind != FileKind::Directory && self.sight.entry(from, at.0, at.1)?.is_some() {
                is_named = true;
            } else {
                self.decide_name(at, None);
            }
        }
        if is_named {
            self.give_back(ino, theirs);
            return Ok(());
        }
        self.objects.insert(ino, None);
        // Removed with names in it: that is said by the row that it gets now.
        self.said.insert(ino);
        Ok(())
    }

    /// The names in directories of the version to come that nobody sees do not count for what has others.
    pub(super) fn leave_out_hidden(&mut self) -> Result<()> {
        let (from, to) = (self.sight.from, self.sight.to);
        let mut left = self.hidden_dirs()?;
        let (mut hidden, mut known) = (BTreeSet::new(), Vec::new());
        while let Some(dir) = left.pop() {
            hidden.insert(dir);
            for entry in self.sight.entries_over(to, dir)? {
                let is_dir = entry.kind == FileKind::Directory;
                let is_new = self.sight.entry(from, dir, entry.cookie)?.as_ref() != Some(&entry);
                let Object { mine, theirs, .. } = self.sight.object(entry.ino)?;
                let moved = is_new && mine.is_some();
                if moved || (!is_dir && theirs.is_some_and(|theirs| theirs.nlink > 1)) {
                    known.push((dir, entry, moved));
                } else if is_dir {
                    left.push(entry.ino);
                }
            }
            check_rows(left.len() + hidden.len() + known.len())?;
        }
        for (dir, entry, moved) in known {
            let decided = self.names.contains_key(&(dir, entry.cookie));
            if !decided && (moved || self.has_name_outside(entry.ino, &hidden)?) {
                self.decide_name((dir, entry.cookie), None);
            }
        }
        Ok(())
    }

    /// Whether a file of the version to come has a name elsewhere.
    fn has_name_outside(&mut self, ino: Ino, hidden: &BTreeSet<Ino>) -> Result<bool> {
        let to = self.sight.to;
        let Some(theirs) = self.sight.inode(to, ino)? else { return Ok(false) };
        Ok(self.sight.names(to, ino, &theirs)?.iter().any(|(dir, _)| !hidden.contains(dir)))
    }

    /// Directories of the version to come that have lost their place to what the view has or removed there,
    /// now or before.
    fn hidden_dirs(&mut self) -> Result<Vec<Ino>> {
        let mut dirs = std::mem::take(&mut self.removed_dirs);
        for (at, decided) in &self.names {
            let to = self.sight.to;
            let theirs = self.sight.entry(to, at.0, at.1)?.filter(|theirs| decided.as_ref() != Some(theirs));
            dirs.extend(theirs.map(|entry| entry.ino));
        }
        let mut hidden = Vec::new();
        if dirs.is_empty() {
            return Ok(hidden);
        }
        let gains = self.gains()?;
        for dir in dirs {
            let Object { base, mine, theirs } = self.sight.object(dir)?;
            let there = [base.is_some(), mine.is_some(), theirs.is_some()];
            let is_dir = theirs.is_some_and(|theirs| theirs.kind == FileKind::Directory);
            // One that the view has would be lost with all that is in it, and is told.
            if is_dir && mine.is_none() && gains.names_of_dir(dir, there) <= 0 {
                hidden.push(dir);
            }
        }
        Ok(hidden)
    }

    /// It is there again, as the version to come has it, and so are the directories above.
    fn bring_back(&mut self, ino: Ino, theirs: &Arc<Inode>) -> Result<()> {
        let to = self.sight.to;
        let mut back = vec![(ino, theirs.clone())];
        while let Some((ino, theirs)) = back.pop() {
            if self.is_decided_there(ino) {
                continue;
            }
            self.give_back(ino, &theirs);
            for (dir, cookie) in self.sight.names(to, ino, &theirs)? {
                self.bring_back_name(ino, (dir, cookie))?;
                back.extend(self.removed_dir(dir)?);
            }
        }
        Ok(())
    }

    /// What the clone put in the place is saved.
    fn bring_back_name(&mut self, ino: Ino, (dir, cookie): (Ino, Cookie)) -> Result<()> {
        let to = self.sight.to;
        let entry = self.sight.entry(to, dir, cookie)?;
        if self.names.get(&(dir, cookie)) == Some(&entry) {
            return Ok(());
        }
        let Name { base, mine, .. } = self.sight.name(dir, cookie)?;
        match mine.filter(|mine| base.as_ref() != Some(mine)) {
            Some(other) if other.ino != ino => {
                self.save_beside(dir, &other)?;
                self.decide_name((dir, cookie), entry);
            }
            Some(_) => {}
            None => self.decide_name((dir, cookie), entry),
        }
        Ok(())
    }

    /// Whether an object was decided to be there.
    fn is_decided_there(&self, ino: Ino) -> bool {
        matches!(self.objects.get(&ino), Some(Some(_)))
    }

    /// An object is to be as the version to come has it, whatever the layers say of its data. Whoever held it
    /// before it was removed held something else.
    pub(super) fn give_back(&mut self, ino: Ino, theirs: &Arc<Inode>) {
        let mut node = Node::of_image(theirs.clone());
        node.base = (theirs.kind == FileKind::Regular).then_some(*self.sight.to.id());
        self.objects.insert(ino, Some(node));
        self.returned.insert(ino);
    }

    /// An object that the version before does not have, the view has, and the version to come has: it came
    /// from that one, or an earlier one, and was kept. Under names that are the version's, it is the same.
    pub(super) fn met_again(&mut self, ino: Ino, mine: Node, theirs: &Arc<Inode>) -> Result<()> {
        let to = self.sight.to;
        for (dir, cookie) in self.sight.names(to, ino, theirs)? {
            if self.sight.shown(dir, cookie)?.is_none_or(|entry| entry.ino != ino) {
                // One number cannot be both what the clone has here and what the image has there.
                return self.tell(Told { undecidable: true, ..Told::object(ino) }, Did::Changed, Did::Added);
            }
        }
        self.objects.insert(ino, Some(mine));
        Ok(())
    }

    /// A directory that the view removed, and both versions have.
    fn removed_dir(&mut self, dir: Ino) -> Result<Option<(Ino, Arc<Inode>)>> {
        let Object { base, mine, theirs } = self.sight.object(dir)?;
        let removed = base.is_some() && mine.is_none() && !self.is_decided_there(dir);
        Ok(theirs.filter(|_| removed).map(|theirs| (dir, theirs)))
    }

    /// [`bring_back`](Self::bring_back) a directory that the view removed.
    fn bring_back_dir(&mut self, dir: Ino) -> Result<()> {
        self.removed_dir(dir)?.map_or(Ok(()), |(dir, theirs)| self.bring_back(dir, &theirs))
    }

    /// See that a directory of the view is there, whatever the image says, and where it was; if the image is
    /// to win, under another name beside. So for all above it.
    fn revive(&mut self, mut dir: Ino) -> Result<()> {
        while self.sight.is_homeless(dir)? && !self.is_decided_there(dir) {
            let lost = || Error::corrupt(format!("directory {} is named but not there", dir.0));
            let node = self.sight.node(dir)?.ok_or_else(lost)?;
            let (parent, entry) = self.sight.home(dir)?.ok_or_else(lost)?;
            self.objects.insert(dir, Some(node));
            if !self.sight.is_homeless(parent)? && matches!(self.winner, Some(Winner::Image { .. })) {
                return self.save_beside(parent, &entry);
            }
            self.decide_name((parent, entry.cookie), Some(entry));
            dir = parent;
        }
        Ok(())
    }

    /// Save the object of a name of the view that the image is to have.
    fn save_at(&mut self, at: (Ino, Cookie), entry: &Entry) -> Result<()> {
        if self.sight.is_homeless(at.0)? {
            self.decide_name(at, Some(entry.clone()));
            return self.revive(at.0);
        }
        self.save_beside(at.0, entry)
    }

    /// Give the object of `entry` a name beside it.
    fn save_beside(&mut self, dir: Ino, entry: &Entry) -> Result<()> {
        let Some(Winner::Image { suffix }) = self.winner else { return Ok(()) };
        let seed = *self.sight.from.name_seed();
        for n in 1..=MAX_TRIES {
            let tail = if n == 1 { format!(".{suffix}") } else { format!(".{suffix}.{n}") };
            let mut name = entry.name[..entry.name.len().min(MAX_NAME - tail.len())].to_vec();
            name.extend_from_slice(tail.as_bytes());
            let base = seed.cookie_base(&name);
            let mut taken = false;
            let mut free = None;
            for cookie in (base.0..base.0 + MAX_TIES).map(Cookie) {
                let sides = self.sight.name(dir, cookie)?;
                let decided = self.names.get(&(dir, cookie)).cloned().flatten();
                let there = [decided, sides.mine, sides.theirs];
                taken |= there.iter().flatten().any(|other| other.name == name);
                if there.iter().all(Option::is_none) {
                    free = free.or(Some(cookie));
                }
            }
            if let Some(cookie) = free.filter(|_| !taken) {
                let saved = Entry { name: name.into(), cookie, ..entry.clone() };
                self.decide_name((dir, cookie), Some(saved));
                return Ok(());
            }
        }
        let what = format!("no free name beside {:?} for the clone's copy", entry.name.escape_ascii().to_string());
        Err(Error::new(ErrorKind::Conflict, what).remedy("remove saved copies that nobody needs"))
    }

    /// What the version to come did to a file of the version before, by its names.
    fn fate(&mut self, names: &[(Ino, Cookie)]) -> Result<Did> {
        for (dir, cookie) in names {
            let to = self.sight.to;
            if self.sight.entry(to, *dir, *cookie)?.is_some() {
                return Ok(Did::Changed);
            }
        }
        Ok(Did::Removed)
    }

    fn is_disk(&mut self, entry: Option<&Entry>) -> Result<bool> {
        let Some(entry) = entry else { return Ok(false) };
        let (from, to) = (self.sight.from, self.sight.to);
        for manifest in [from, to] {
            if self.sight.inode(manifest, entry.ino)?.is_some_and(|inode| inode.disk_image) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What became of a name.
fn did(base: Option<&Entry>, now: Option<&Entry>) -> Did {
    match (base, now) {
        (_, None) => Did::Removed,
        (None, Some(_)) => Did::Added,
        (Some(_), Some(_)) => Did::Changed,
    }
}
