//! What a clone must look like: a plain tree in memory, changed by the same operations.
//!
//! [`Tree`] is the state, [`Op`] an operation. [`Driver`] runs an operation over the wire and in the
//! tree, and compares status, attributes before and after, and data. [`Driver::compare`] compares the
//! whole tree. What a crash may take back is kept as [`States`]: each block of 4 KiB and each file's
//! attributes remember what they were since the last answer that promised stable storage.

mod apply;
mod caller;
mod compare;
pub mod content;
mod driver;
mod observe;
mod op;
mod random;
pub mod states;
mod tree;
mod verdict;

pub use caller::Caller;
pub use driver::Driver;
pub use op::{Data, Guard, Op};
pub use random::{Mix, random_op};
pub use tree::{Attr, Identity, Instant, Kind, Object, ObjectId, Tree, be_foreign};
