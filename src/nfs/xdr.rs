//! XDR (RFC 4506): a bounded decoder over borrowed bytes, and what is needed to append to a buffer.
//!
//! Owns nothing but the rules of the encoding. The decoder copies nothing: variable-length data comes
//! out as slices of the record. Every length is compared with the type's maximum and with what is
//! left before anything is taken.
//!
//! Failure story: bytes that are not what their type says are [`Garbage`]; the caller answers
//! GARBAGE_ARGS.

use nfsserve::xdr::XDR;

/// The bytes are not an encoding of the expected type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbage;

/// Bytes of padding that bring `len` to a multiple of four.
pub const fn padding(len: usize) -> usize {
    len.wrapping_neg() & 3
}

/// Reads XDR from a slice, front to back.
#[derive(Clone, Copy, Debug)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not decoded yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Garbage> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Garbage)?;
        self.rest = rest;
        Ok(*head)
    }

    pub fn u32(&mut self) -> Result<u32, Garbage> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Garbage> {
        self.array().map(u64::from_be_bytes)
    }

    /// A boolean: 0 or 1, nothing else.
    pub fn bool(&mut self) -> Result<bool, Garbage> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Garbage),
        }
    }

    /// Fixed-length opaque data whose length is a multiple of four.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Garbage> {
        const { assert!(padding(N) == 0) }
        self.array()
    }

    /// Variable-length opaque data or a string of at most `max` bytes. The padding may hold anything.
    pub fn opaque(&mut self, max: usize) -> Result<&'a [u8], Garbage> {
        let len = usize::try_from(self.u32()?).map_err(|_| Garbage)?;
        if len > max || self.rest.len() < len + padding(len) {
            return Err(Garbage);
        }
        let (data, rest) = self.rest.split_at(len);
        self.rest = &rest[padding(len)..];
        Ok(data)
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<(), Garbage> {
        if self.rest.is_empty() { Ok(()) } else { Err(Garbage) }
    }
}

/// A type that can be read from a call's arguments.
pub trait Decode<'a>: Sized {
    fn decode(from: &mut Decoder<'a>) -> Result<Self, Garbage>;

    /// The whole of `bytes`, with nothing after it.
    fn decode_all(bytes: &'a [u8]) -> Result<Self, Garbage> {
        let mut from = Decoder::new(bytes);
        let value = Self::decode(&mut from)?;
        from.finish()?;
        Ok(value)
    }
}

/// No arguments.
impl Decode<'_> for () {
    fn decode(_: &mut Decoder<'_>) -> Result<Self, Garbage> {
        Ok(())
    }
}

/// Appends XDR to a buffer.
pub trait Encode {
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
    fn put_bool(&mut self, value: bool);
    /// Variable-length opaque data: length, bytes, padding.
    fn put_opaque(&mut self, data: &[u8]);
    fn put_padding(&mut self, len: usize);
    /// A protocol type of `nfsserve`.
    fn put(&mut self, value: &impl XDR);
}

impl Encode for Vec<u8> {
    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_bool(&mut self, value: bool) {
        self.put_u32(u32::from(value));
    }

    fn put_opaque(&mut self, data: &[u8]) {
        self.put_u32(u32::try_from(data.len()).expect("replies are bounded far below 4 GiB"));
        self.extend_from_slice(data);
        self.put_padding(data.len());
    }

    fn put_padding(&mut self, len: usize) {
        self.extend_from_slice(&[0; 3][..padding(len)]);
    }

    fn put(&mut self, value: &impl XDR) {
        value.serialize(self).expect("a Vec takes every write");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_reaches_the_next_multiple_of_four() {
        assert_eq!([0, 1, 2, 3, 4, 5].map(padding), [0, 3, 2, 1, 0, 3]);
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut bytes = Vec::new();
        bytes.put_u32(7);
        bytes.put_u64(1 << 40);
        bytes.put_bool(true);
        bytes.put_opaque(b"hello");
        let mut from = Decoder::new(&bytes);
        assert_eq!((from.u32(), from.u64(), from.bool()), (Ok(7), Ok(1 << 40), Ok(true)));
        assert_eq!(from.opaque(5), Ok(&b"hello"[..]));
        assert_eq!(from.finish(), Ok(()));
    }

    #[test]
    fn a_length_that_lies_is_garbage() {
        let mut bytes = Vec::new();
        bytes.put_opaque(b"hello");
        assert_eq!(Decoder::new(&bytes).opaque(4), Err(Garbage), "above the maximum");
        for cut in 0..bytes.len() {
            assert_eq!(Decoder::new(&bytes[..cut]).opaque(64), Err(Garbage), "cut at {cut}");
        }
        assert_eq!(Decoder::new(&[0xff; 8]).opaque(usize::MAX), Err(Garbage), "4 GiB of nothing");
    }

    #[test]
    fn trailing_bytes_and_odd_booleans_are_garbage() {
        assert_eq!(<()>::decode_all(&[0; 4]), Err(Garbage));
        assert_eq!(Decoder::new(&[0, 0, 0, 2]).bool(), Err(Garbage));
    }
}
