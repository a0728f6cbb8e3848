//! Which statuses an operation may be answered with, as knfsd does it on a local filesystem.

use super::caller::Caller;
use super::op::{Guard, Name, Op};
use super::tree::{ObjectId, Tree, is_foreign};
use crate::common::nfs3::How;
use crate::common::nfs3::status::{
    BADTYPE, EXIST, INVAL, ISDIR, NAMETOOLONG, NOENT, NOT_SYNC, NOTDIR, NOTEMPTY, OK, PERM,
};

/// Longest name, in bytes.
const NAME_MAX: usize = 255;

impl Op {
    /// Where several things are wrong, any of them may be what the answer names.
    pub fn verdict(&self, tree: &Tree, caller: Caller) -> Vec<u32> {
        let mut wrong = caller.refusals(self, tree);
        match self {
            Self::Getattr { .. } | Self::Commit { .. } | Self::Readlink { .. } => {}
            Self::Lookup { dir, name } => missing(tree, *dir, name, &mut wrong),
            Self::Read { id, .. } | Self::Write { id, .. } if tree.is_dir(*id) => wrong.extend([ISDIR, INVAL]),
            Self::Read { id, .. } | Self::Write { id, .. } if !tree.is_file(*id) => wrong.push(INVAL),
            Self::Read { .. } | Self::Write { .. } => {}
            Self::Setattr { id, set, guard } => {
                if set.size.is_some() && !tree.is_file(*id) {
                    wrong.extend([ISDIR, INVAL, BADTYPE]);
                }
                if *guard == Guard::Wrong {
                    wrong.push(NOT_SYNC);
                }
            }
            Self::Create { dir, name, how } => {
                new_name(tree, *dir, name, &mut wrong);
                if let Some(id) = tree.lookup(*dir, &name.0) {
                    wrong.extend(create_over(tree, id, how));
                }
            }
            Self::Mkdir { dir, name, .. } | Self::Symlink { dir, name, .. } | Self::Mknod { dir, name, .. } => {
                free_name(tree, *dir, name, &mut wrong);
            }
            Self::Remove { dir, name } => match tree.lookup(*dir, &name.0) {
                Some(id) if tree.is_dir(id) => wrong.extend([ISDIR, PERM]),
                _ => missing(tree, *dir, name, &mut wrong),
            },
            Self::Rmdir { dir, name } => match tree.lookup(*dir, &name.0) {
                Some(id) => wrong.extend(not_removable(tree, id)),
                None => missing(tree, *dir, name, &mut wrong),
            },
            Self::Rename { from, to } => rename(tree, from, to, &mut wrong),
            Self::Link { id, dir, name } => {
                if tree.is_dir(*id) {
                    wrong.extend([PERM, ISDIR, INVAL, BADTYPE]);
                }
                free_name(tree, *dir, name, &mut wrong);
            }
        }
        if wrong.is_empty() { vec![OK] } else { wrong }
    }
}

/// A name that must be there.
fn missing(tree: &Tree, dir: ObjectId, name: &Name, wrong: &mut Vec<u32>) {
    if tree.lookup(dir, &name.0).is_some() {
        return;
    }
    wrong.push(if tree.is_dir(dir) { NOENT } else { NOTDIR });
    if name.0.len() > NAME_MAX {
        wrong.push(NAMETOOLONG);
    }
}

fn new_name(tree: &Tree, dir: ObjectId, name: &Name, wrong: &mut Vec<u32>) {
    if !tree.is_dir(dir) {
        wrong.push(NOTDIR);
    }
    if name.0.len() > NAME_MAX {
        wrong.push(NAMETOOLONG);
    }
}

fn free_name(tree: &Tree, dir: ObjectId, name: &Name, wrong: &mut Vec<u32>) {
    new_name(tree, dir, name, wrong);
    if tree.lookup(dir, &name.0).is_some() {
        wrong.push(EXIST);
    }
}

fn create_over(tree: &Tree, id: ObjectId, how: &How) -> Vec<u32> {
    match how {
        How::Unchecked(_) if tree.is_file(id) => Vec::new(),
        How::Unchecked(_) => vec![EXIST, ISDIR, INVAL, BADTYPE],
        How::Guarded(_) => vec![EXIST],
        How::Exclusive(verifier) if tree.object(id).verifier == Some(*verifier) => match is_foreign() {
            true => vec![OK, EXIST],
            false => Vec::new(),
        },
        How::Exclusive(_) => vec![EXIST],
    }
}

fn not_removable(tree: &Tree, id: ObjectId) -> Vec<u32> {
    match tree.entries(id) {
        None => vec![NOTDIR],
        Some(entries) if entries.is_empty() => Vec::new(),
        Some(_) => vec![NOTEMPTY, EXIST],
    }
}

fn rename(tree: &Tree, from: &(ObjectId, Name), to: &(ObjectId, Name), wrong: &mut Vec<u32>) {
    new_name(tree, to.0, &to.1, wrong);
    let Some(source) = tree.lookup(from.0, &from.1.0) else {
        return missing(tree, from.0, &from.1, wrong);
    };
    let target = tree.lookup(to.0, &to.1.0);
    if target == Some(source) {
        return;
    }
    if tree.is_dir(source) && tree.is_dir(to.0) && tree.is_within(to.0, source) {
        wrong.push(INVAL);
    }
    let Some(target) = target else { return };
    match (tree.is_dir(source), tree.is_dir(target)) {
        (true, false) => wrong.extend([NOTDIR, EXIST]),
        (false, true) => wrong.extend([ISDIR, EXIST].into_iter().chain(not_removable(tree, target))),
        (true, true) => wrong.extend(not_removable(tree, target)),
        (false, false) => {}
    }
}
