//! What crosses modules inside a store: import, identity over re-import, promotion, the view switch as a
//! reader sees it. Method: a real store in a temporary folder, real source folders, the verbs of the vfs.

mod fsck;
mod identity;
mod import;
mod promote;
mod switch;
mod world;
