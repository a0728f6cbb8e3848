//! Extended attributes: a sorted list of names and values.
//!
//! Short lists are in the inode, longer ones in a chunk of their own, so that one inode with a large
//! attribute does not blow up the page of its neighbours. Which of both is decided by the length
//! alone: equal attributes are stored in the same way.

use bytes::Bytes;

use super::codec::Reader;
use super::{MAX_NAME, MAX_XATTRS};
use crate::chunk::{ChunkId, ChunkSink, Stored};
use crate::error::{Error, Result};

/// Encoded attributes up to this length are in the inode itself, in bytes.
pub const MAX_INLINE_XATTRS: usize = 512;

/// The extended attributes of one inode, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Xattrs {
    None,
    /// At most [`MAX_INLINE_XATTRS`] bytes.
    Inline(Bytes),
    /// A chunk that holds nothing else; it is listed in the tree of chunks like file data.
    Chunk {
        id: ChunkId,
        len: u32,
    },
}

impl Xattrs {
    /// Encode `list` (any order) and store it where its length says. `Invalid` for a list that is
    /// too long or names an attribute twice. The second part is the chunk to list in the manifest.
    pub fn store(list: &[(Vec<u8>, Vec<u8>)], sink: &dyn ChunkSink) -> Result<(Self, Option<Stored>)> {
        if list.is_empty() {
            return Ok((Self::None, None));
        }
        let bytes = encode_xattrs(list)?;
        if bytes.len() <= MAX_INLINE_XATTRS {
            return Ok((Self::Inline(bytes.into()), None));
        }
        let stored = sink.put(&bytes)?;
        Ok((Self::Chunk { id: stored.id, len: bytes.len() as u32 }, Some(stored)))
    }
}

/// The canonical bytes of a list of attributes: sorted by name, each name once.
pub fn encode_xattrs(list: &[(Vec<u8>, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut sorted: Vec<_> = list.iter().collect();
    sorted.sort();
    let total = sorted.iter().map(|(name, value)| 1 + name.len() + 4 + value.len()).sum::<usize>();
    if total > MAX_XATTRS {
        return Err(Error::invalid(format!("{total} bytes of extended attributes, {MAX_XATTRS} are possible")));
    }
    let mut out = Vec::with_capacity(total);
    let mut last: &[u8] = b"";
    for (name, value) in sorted {
        if name[..] <= *last || name.len() > MAX_NAME {
            return Err(Error::invalid(format!(
                "extended attribute {:?}: empty, too long or twice",
                name.escape_ascii()
            )));
        }
        out.push(name.len() as u8);
        out.extend_from_slice(name);
        out.extend_from_slice(&(value.len() as u32).to_be_bytes());
        out.extend_from_slice(value);
        last = name;
    }
    Ok(out)
}

/// The attributes in `bytes`, as slices of it.
pub fn decode_xattrs(bytes: &Bytes) -> Result<Vec<(Bytes, Bytes)>> {
    let mut list: Vec<(Bytes, Bytes)> = Vec::new();
    let mut reader = Reader::new(bytes);
    while reader.left() > 0 {
        let pair = decode_pair(&mut reader).ok_or_else(|| Error::corrupt("extended attributes do not decode"))?;
        if pair.0.is_empty() || list.last().is_some_and(|last| pair.0 <= last.0) {
            return Err(Error::corrupt("extended attributes are out of order"));
        }
        list.push(pair);
    }
    Ok(list)
}

fn decode_pair(reader: &mut Reader<'_>) -> Option<(Bytes, Bytes)> {
    let len = usize::from(reader.u8()?);
    let name = reader.bytes(len)?;
    let len = usize::try_from(reader.u32()?).ok()?;
    Some((name, reader.bytes(len)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::MemoryChunks;

    fn pair(name: &str, len: usize) -> (Vec<u8>, Vec<u8>) {
        (name.into(), vec![7; len])
    }

    #[test]
    fn round_trip_sorts() {
        let bytes = Bytes::from(encode_xattrs(&[pair("user.b", 3), pair("security.a", 0)]).unwrap());
        let list = decode_xattrs(&bytes).unwrap();
        assert_eq!(list, [(Bytes::from("security.a"), Bytes::new()), (Bytes::from("user.b"), Bytes::from(vec![7; 3]))]);
    }

    #[test]
    fn length_decides_where() {
        let chunks = MemoryChunks::new();
        let (short, none) = Xattrs::store(&[pair("a", 506)], &chunks).unwrap();
        assert!(matches!(short, Xattrs::Inline(bytes) if bytes.len() == 512) && none.is_none());
        let (long, stored) = Xattrs::store(&[pair("a", 507)], &chunks).unwrap();
        assert_eq!(long, Xattrs::Chunk { id: stored.unwrap().id, len: 513 });
        assert_eq!(Xattrs::store(&[], &chunks).unwrap(), (Xattrs::None, None));
    }

    #[test]
    fn bad_lists_are_refused() {
        assert!(encode_xattrs(&[pair("a", 1), pair("a", 2)]).is_err());
        assert!(encode_xattrs(&[pair("", 1)]).is_err());
        assert!(encode_xattrs(&[pair(&"n".repeat(256), 1)]).is_err());
        assert!(encode_xattrs(&[pair("a", MAX_XATTRS)]).is_err());
        let good = encode_xattrs(&[pair("a", 5), pair("b", 5)]).unwrap();
        for cut in 1..good.len() {
            let list = decode_xattrs(&Bytes::copy_from_slice(&good[..cut]));
            assert!(list.is_err() || cut == 11, "cut at {cut}");
        }
        let swapped = [&good[11..], &good[..11]].concat();
        assert!(decode_xattrs(&swapped.into()).is_err());
    }
}
