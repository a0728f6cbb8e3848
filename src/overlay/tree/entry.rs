//! What a layer says of one name of a directory, and its bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::manifest::{Cookie, Entry, FileKind, Ino};
use crate::overlay::keys::Key;
use crate::overlay::memtable::Version;

/// The version of the encoding.
const FORMAT: u8 = 1;

/// One version byte, then postcard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryState {
    /// The name was removed, although a lower layer or the image has it.
    Removed,
    Present {
        name: Vec<u8>,
        ino: Ino,
        kind: FileKind,
    },
}

impl EntryState {
    pub fn encode(&self) -> Result<Bytes> {
        let bytes = postcard::to_extend(self, vec![FORMAT]);
        bytes.map(Bytes::from).map_err(|e| Error::internal("a private name cannot be encoded").because(e))
    }

    /// `None` where the layer has nothing to say.
    pub fn of(dir: Ino, key: &Key, version: &Version) -> Result<Option<Self>> {
        let Some(bytes) = &version.value else { return Ok(None) };
        let decoded = bytes.split_first().filter(|(format, _)| **format == FORMAT);
        match decoded.map(|(_, body)| postcard::take_from_bytes(body)) {
            Some(Ok((state, []))) => Ok(Some(state)),
            _ => Err(Error::corrupt(format!("the private name {} of directory {} is damaged", key.b, dir.0))),
        }
    }

    pub fn entry(&self, cookie: Cookie) -> Option<Entry> {
        match self {
            Self::Removed => None,
            Self::Present { name, ino, kind } => {
                Some(Entry { name: Bytes::copy_from_slice(name), cookie, ino: *ino, kind: *kind })
            }
        }
    }
}
