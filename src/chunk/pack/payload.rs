//! How the bytes of one chunk are stored: as they are, or compressed where that is worth it.

use std::borrow::Cow;
use std::cell::RefCell;

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};

use super::Span;

/// Compression is kept if it saves at least one part in this many.
const WORTH: usize = 16;

/// How a payload is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    Raw = 0,
    /// One zstd frame (RFC 8878).
    Zstd = 1,
}

impl Encoding {
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Raw),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

thread_local! {
    // A context is some hundred KiB: made once per thread, not once per chunk.
    static COMPRESSOR: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// The payload to store for `raw`. Level 0 never compresses.
pub fn encode(raw: &[u8], level: i32) -> (Cow<'_, [u8]>, Encoding) {
    match compress(raw, level) {
        Some(small) => (Cow::Owned(small), Encoding::Zstd),
        None => (Cow::Borrowed(raw), Encoding::Raw),
    }
}

fn compress(raw: &[u8], level: i32) -> Option<Vec<u8>> {
    // A buffer of just the length that is worth it: zstd gives up early on what does not fit.
    let mut small = Vec::with_capacity(raw.len() - raw.len().div_ceil(WORTH));
    if level == 0 || small.capacity() == 0 {
        return None;
    }
    COMPRESSOR.with_borrow_mut(|slot| {
        let fresh = slot.as_ref().is_none_or(|(made_for, _)| *made_for != level);
        if fresh {
            *slot = Some((level, Compressor::new(level).ok()?));
        }
        let (_, compressor) = slot.as_mut()?;
        compressor.compress_to_buffer(raw, &mut small).ok()?;
        Some(small)
    })
}

/// The chunk behind a payload; what is wrong with it otherwise. Takes `span.raw_len` bytes of memory,
/// whatever the payload says of itself.
pub fn decode(payload: Bytes, span: &Span) -> Result<Bytes, String> {
    if payload.len() != span.stored_len as usize {
        return Err(format!("its payload has {} bytes instead of {}", payload.len(), span.stored_len));
    }
    let raw = match span.encoding {
        Encoding::Raw => payload,
        Encoding::Zstd => Bytes::from(decompress(&payload, span.raw_len as usize)?),
    };
    if raw.len() != span.raw_len as usize {
        return Err(format!("it has {} bytes instead of {}", raw.len(), span.raw_len));
    }
    Ok(raw)
}

fn decompress(payload: &[u8], raw_len: usize) -> Result<Vec<u8>, String> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(Decompressor::new().map_err(|e| format!("zstd: {e}"))?),
        };
        decompressor.decompress(payload, raw_len).map_err(|e| format!("it does not decompress: {e}"))
    })
}
