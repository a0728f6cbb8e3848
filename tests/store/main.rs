//! What crosses modules inside a store: import, identity over re-import, promotion, background work, the view switch as a
//! reader sees it. Method: a real store in a temporary folder, real source folders, the verbs of the vfs.

mod corners;
mod dedup;
mod diff;
mod fsck;
mod identity;
mod import;
mod layout;
mod promote;
mod rebase;
mod sparse;
mod switch;
mod world;
