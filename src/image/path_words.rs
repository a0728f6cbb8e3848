//! Paths as text: names are bytes, and what of them is no text is written as `\xNN`, the backslash too.

use std::fmt::Write as _;

/// The bytes that a path in words means. A backslash that begins no `\xNN` is one.
pub fn path_bytes(words: &[u8]) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::with_capacity(words.len()), words);
    while let Some((first, behind)) = rest.split_first() {
        let escaped = match rest {
            [b'\\', b'x', high, low, ..] => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = &rest[4..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    bytes
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// The words of a path: [`path_bytes`] of them are `path`.
pub fn path_words(path: &[u8]) -> String {
    let mut words = String::with_capacity(path.len());
    let escape = |words: &mut String, bytes: &[u8]| {
        bytes.iter().for_each(|byte| write!(words, "\\x{byte:02x}").expect("writing to a string cannot fail"));
    };
    for chunk in path.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '\\' => escape(&mut words, b"\\"),
                char if char.is_control() => escape(&mut words, char.encode_utf8(&mut [0; 4]).as_bytes()),
                char => words.push(char),
            }
        }
        escape(&mut words, chunk.invalid());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_words_and_they_mean_it() {
        let all: Vec<u8> = (1..=255).collect();
        for path in [&b""[..], b"var/lib", b"a\\x41", b"\\", b"\\x", b"\\x4", b"\\xg0", "caf\u{e9}".as_bytes(), &all] {
            assert_eq!(path_bytes(path_words(path).as_bytes()), path, "{path:?}");
        }
        assert_eq!(path_words(b"caf\xc3\xa9/\xff\n"), "caf\u{e9}/\\xff\\x0a");
        assert_eq!(path_bytes(br"a\xFf\b"), b"a\xff\\b");
    }
}
