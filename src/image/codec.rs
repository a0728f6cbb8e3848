//! Bytes of the catalog's values: one version byte, then postcard. `docs/formats/catalog.md`.

use std::fmt::Display;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// The version of the encoding that is written, and the only one that is read.
pub(super) const FORMAT: u8 = 3;

pub(super) fn encode<T: Serialize>(what: impl Display, value: &T) -> Result<Vec<u8>> {
    postcard::to_extend(value, vec![FORMAT])
        .map_err(|e| Error::internal(format!("{what} cannot be encoded")).because(e))
}

/// Decode all of `bytes`; `what` names the value in the error.
pub(super) fn decode<T: DeserializeOwned>(what: impl Display, bytes: &[u8]) -> Result<T> {
    match bytes.split_first() {
        Some((&FORMAT, body)) => decode_body(what, body),
        Some((version, _)) => {
            Err(Error::corrupt(format!("{what} has format {version}, this mimeo reads {FORMAT} only"))
                .remedy("open the store with the mimeo that wrote it, or import into a new data directory"))
        }
        None => Err(Error::corrupt(format!("{what} is empty"))),
    }
}

fn decode_body<T: DeserializeOwned>(what: impl Display, body: &[u8]) -> Result<T> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(Error::corrupt(format!("{what} has {} bytes too many", rest.len()))),
        Err(e) => Err(Error::corrupt(format!("{what} cannot be read")).because(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn what_is_not_exactly_one_value_is_corrupt_by_name() {
        let good = encode("n", &7u32).unwrap();
        assert_eq!(decode::<u32>("n", &good).unwrap(), 7);
        for bad in [&[][..], &[2, 7], &[4, 7], &[3], &[3, 7, 0]] {
            let error = decode::<u32>("record 5", bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.what().starts_with("record 5"));
        }
    }
}
