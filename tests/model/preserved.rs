//! What `--writes preserve` takes along of a clone, by path.

use std::collections::BTreeSet;

use crate::reference::{ObjectId, Tree};
use crate::three_way::{Name, ThreeWay, grow, is_dir, lookup};

/// What is preserved of a clone.
pub struct Choice {
    names: BTreeSet<Name>,
    pub objects: BTreeSet<ObjectId>,
}

impl ThreeWay<'_> {
    /// What of the clone lies at or below `paths`; `None` if a directory would be in two places. Of the three
    /// sides the last one does not matter.
    pub fn choose(&self, paths: &[String]) -> Option<Choice> {
        let mut choice = Choice { names: BTreeSet::new(), objects: BTreeSet::new() };
        let mut homes = Vec::new();
        for name in self.names().into_iter().filter(|name| self.is_covered(name, paths)) {
            if self.is_hidden(&name) {
                continue;
            }
            if lookup(self.mine, &name) != lookup(self.base, &name) {
                self.choose_name(&mut choice, name);
            } else if let Some(id) = lookup(self.mine, &name).filter(|id| self.mine.attr(*id).touched) {
                choice.objects.insert(id);
                homes.push(name.0);
            }
        }
        let dirs: BTreeSet<ObjectId> = choice.names.iter().map(|(dir, _)| *dir).chain(homes).collect();
        dirs.into_iter().for_each(|dir| self.choose_above(&mut choice, dir));
        (!self.is_torn(&choice)).then_some(choice)
    }

    fn is_covered(&self, name: &Name, paths: &[String]) -> bool {
        let path = self.path(name);
        let covers = |folder: &String| {
            path.strip_prefix(folder.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        paths.iter().any(covers)
    }

    /// As the clone has it; what it removed, as the version before has it.
    fn path(&self, (dir, name): &Name) -> Vec<u8> {
        if *dir == self.mine.root {
            return name.clone();
        }
        let tree = [self.mine, self.base].into_iter().find(|tree| is_dir(tree, *dir)).unwrap_or(self.theirs);
        [&self.path(&self.name_of_dir(tree, *dir))[..], &name[..]].join(&b'/')
    }

    fn choose_name(&self, choice: &mut Choice, name: Name) {
        choice.objects.extend(lookup(self.mine, &name));
        choice.objects.extend(lookup(self.base, &name));
        choice.names.insert(name);
    }

    /// A directory in which something is preserved is where the clone has it.
    fn choose_above(&self, choice: &mut Choice, dir: ObjectId) {
        if dir == self.mine.root || !is_dir(self.mine, dir) {
            return;
        }
        let name = self.name_of_dir(self.mine, dir);
        if lookup(self.base, &name) != Some(dir) {
            self.choose_name(choice, name.clone());
            self.choose_above(choice, name.0);
        }
    }

    fn is_torn(&self, choice: &Choice) -> bool {
        let places = |id: ObjectId| {
            let gained = choice.names.iter().filter(|name| lookup(self.mine, name) == Some(id)).count();
            let lost = choice.names.iter().filter(|name| lookup(self.base, name) == Some(id)).count();
            usize::from(self.base.objects.contains_key(&id)) + gained - lost
        };
        let dirs = choice.objects.iter().filter(|id| is_dir(self.mine, **id) || is_dir(self.base, **id));
        dirs.copied().any(|id| places(id) > 1 || (places(id) == 0 && is_dir(self.mine, id)))
    }

    /// The version before, with the part of the clone's changes that was chosen.
    pub fn part(&self, choice: &Choice) -> Tree {
        let mut part = self.base.clone();
        part.objects.clear();
        let name = |name: &Name| lookup(if choice.names.contains(name) { self.mine } else { self.base }, name);
        let object = |id: ObjectId| {
            let chosen = self.mine.objects.get(&id).filter(|_| choice.objects.contains(&id));
            chosen.or_else(|| self.base.objects.get(&id)).expect("it has a name").clone()
        };
        grow(&mut part, &self.names(), name, object);
        let gone = |id: &ObjectId| !part.objects.contains_key(id) && self.base.objects.contains_key(id);
        part.gone = choice.objects.iter().copied().filter(gone).collect();
        part
    }
}
