//! The procedures that change something, over the real file service.

mod limits;
mod link;
mod make;
mod many;
mod policy;
mod remove;
mod rename;
mod repeat;
mod setattr;
mod stable;
mod views;
mod write;

use crate::client::{Client, Fattr};
use crate::ops::Wcc;
use crate::real::NOW;

/// `wcc` tells what the directory `dir` was before (`attr`) and what it is now, which is another.
#[track_caller]
fn assert_dir_changed(client: &mut Client, dir: &[u8], attr: &Fattr, wcc: &Wcc) {
    wcc.assert_changed(attr);
    let now = client.attr(dir);
    assert_eq!(wcc.after.as_ref(), Some(&now));
    assert_eq!(now.mtime, (NOW, 0), "its entries changed");
}
