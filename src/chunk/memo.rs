//! What this thread read from chunks lately: pages of trees, and values decoded from them.
//!
//! Owns a table of pages by chunk, and a table of decoded values, each named by the chunk that it comes from and a number within that
//! (of a manifest: the root page of a tree, and an inode number). Chunks never change and are named by their
//! bytes, so what is kept is never out of date, whoever's it is; and it is the same for all clones of a version,
//! so that a thousand clones cost what one does. Each thread has its own, as workers share nothing on the
//! way of a request: no lock, and no count that moves between cores.
//!
//! Invariant: at most [`SLOTS`] values and [`PAGES`] pages; what comes takes the place of what had its slot. A
//! value must own its bytes: a slice would keep a whole page in memory.

use std::any::Any;
use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;

use super::ChunkId;

/// Values that a thread keeps; a power of two. With inodes of a few hundred bytes some MiB.
const SLOTS: usize = 16 * 1024;
/// Pages that a thread keeps, of up to 64 KiB: those on the way to what is read most.
const PAGES: usize = 256;

/// Names a decoded value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoKey {
    /// The chunk below which everything lies that it is made of.
    pub of: ChunkId,
    pub number: u64,
}

impl MemoKey {
    /// A chunk id is a hash already; the number is spread by one multiplication.
    fn slot(&self) -> usize {
        let spread = (word(&self.of) ^ self.number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (spread >> (64 - SLOTS.trailing_zeros())) as usize
    }
}

fn word(id: &ChunkId) -> u64 {
    u64::from_le_bytes(*id.0.first_chunk().expect("an id has 32 bytes"))
}

type Value = Arc<dyn Any + Send + Sync>;
type Slots = Box<[Option<(MemoKey, Value)>]>;
type Pages = Box<[Option<(ChunkId, Bytes)>]>;

thread_local! {
    static DECODED: RefCell<Slots> = RefCell::new(vec![None; SLOTS].into_boxed_slice());
    static READ: RefCell<Pages> = RefCell::new(vec![None; PAGES].into_boxed_slice());
}

/// The chunk `id`, if it was kept as a page.
pub(super) fn page(id: &ChunkId) -> Option<Bytes> {
    READ.with_borrow(|pages| match &pages[word(id) as usize % PAGES] {
        Some((kept, bytes)) if kept == id => Some(bytes.clone()),
        _ => None,
    })
}

pub(super) fn put_page(id: ChunkId, bytes: Bytes) {
    READ.with_borrow_mut(|pages| pages[word(&id) as usize % PAGES] = Some((id, bytes)));
}

pub(super) fn get<T: Any + Send + Sync>(key: &MemoKey) -> Option<Arc<T>> {
    DECODED.with_borrow(|slots| match &slots[key.slot()] {
        Some((kept, value)) if kept == key => value.clone().downcast().ok(),
        _ => None,
    })
}

pub(super) fn put(key: MemoKey, value: Value) {
    DECODED.with_borrow_mut(|slots| slots[key.slot()] = Some((key, value)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(chunk: u8, number: u64) -> MemoKey {
        MemoKey { of: ChunkId([chunk; 32]), number }
    }

    #[test]
    fn a_value_is_found_under_its_whole_name_and_type_only() {
        put(key(1, 7), Arc::new("seven"));
        assert_eq!(get::<&str>(&key(1, 7)).as_deref(), Some(&"seven"));
        assert_eq!(get::<&str>(&key(1, 8)), None);
        assert_eq!(get::<&str>(&key(2, 7)), None);
        assert_eq!(get::<u64>(&key(1, 7)), None, "another type");
    }

    #[test]
    fn a_value_takes_the_place_of_the_one_that_had_its_slot() {
        let first = key(1, 0);
        let other = (1..).map(|number| key(1, number)).find(|other| other.slot() == first.slot()).unwrap();
        put(first, Arc::new(1_u8));
        put(other, Arc::new(2_u8));
        assert_eq!((get::<u8>(&first), get::<u8>(&other).as_deref()), (None, Some(&2)));
    }

    #[test]
    fn a_page_is_found_until_another_has_its_slot() {
        let (one, two) = (ChunkId([1; 32]), ChunkId(std::array::from_fn(|at| if at < 8 { 1 } else { 2 })));
        put_page(one, Bytes::from_static(b"one"));
        assert_eq!((page(&one).as_deref(), page(&two)), (Some(&b"one"[..]), None));
        put_page(two, Bytes::from_static(b"two"));
        assert_eq!((page(&one), page(&two).as_deref()), (None, Some(&b"two"[..])));
    }

    #[test]
    fn threads_share_nothing() {
        put(key(1, 7), Arc::new(7_u8));
        let elsewhere = std::thread::spawn(|| get::<u8>(&key(1, 7)));
        assert_eq!(elsewhere.join().unwrap(), None);
    }
}
