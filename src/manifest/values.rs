//! Inodes and entries as bytes outside a manifest, for whoever has to sort many before building one.

use bytes::Bytes;

use super::codec::{decode_entry, decode_inode, encode_entry, encode_inode};
use super::{Content, Cookie, Entry, Inode, Xattrs};
use crate::error::{Error, Result};

impl Inode {
    /// The bytes that stand for it in a manifest; `Internal` if it breaks a bound.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        encode_inode(self, &mut bytes)?;
        Ok(bytes)
    }

    /// What [`encode`](Self::encode) gave.
    pub fn decode(bytes: &Bytes) -> Result<Self> {
        decode_inode(bytes).ok_or_else(|| Error::corrupt("an inode that does not decode"))
    }

    /// The same, with bytes of its own: no slice of a page.
    pub(super) fn owned(mut self) -> Self {
        if let Content::Symlink(target) = &mut self.content {
            *target = Bytes::copy_from_slice(target);
        }
        if let Xattrs::Inline(bytes) = &mut self.xattrs {
            *bytes = Bytes::copy_from_slice(bytes);
        }
        self
    }
}

impl Entry {
    /// The bytes that stand for it in a manifest (the cookie is in the key); `Internal` if it breaks a
    /// bound.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        encode_entry(self, &mut bytes)?;
        Ok(bytes)
    }

    /// What [`encode`](Self::encode) gave.
    pub fn decode(cookie: Cookie, bytes: &Bytes) -> Result<Self> {
        decode_entry(cookie, bytes).ok_or_else(|| Error::corrupt("an entry that does not decode"))
    }
}
