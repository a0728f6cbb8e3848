//! SPDX licence expressions, as far as Cargo packages use them.

/// Whether the expression can be met with licences of the list.
pub fn permits(expression: &str, allowed: &[&str]) -> bool {
    // Before SPDX, Cargo separated alternatives with a slash.
    let text = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut parser = Parser { words: &words, allowed };
    parser.any() && parser.words.is_empty()
}

struct Parser<'a> {
    words: &'a [&'a str],
    allowed: &'a [&'a str],
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.words.first().is_some_and(|w| *w == word);
        if found {
            self.next();
        }
        found
    }

    // No short circuit: the words of both sides have to be consumed.
    fn any(&mut self) -> bool {
        let mut met = self.all();
        while self.take("OR") {
            met |= self.all();
        }
        met
    }

    fn all(&mut self) -> bool {
        let mut met = self.one();
        while self.take("AND") {
            met &= self.one();
        }
        met
    }

    fn one(&mut self) -> bool {
        if self.take("(") {
            let met = self.any();
            return self.take(")") && met;
        }
        let Some(licence) = self.next() else { return false };
        if self.take("WITH") {
            let exception = self.next().unwrap_or_default();
            return self.allowed.contains(&format!("{licence} WITH {exception}").as_str());
        }
        // `X+` is X or any later version.
        self.allowed.contains(&licence.trim_end_matches('+'))
    }
}

#[test]
fn expressions_are_evaluated() {
    let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"];
    for good in
        ["MIT", "MIT OR GPL-3.0", "MIT/GPL-3.0", "(MIT OR GPL-3.0) AND Apache-2.0", "Apache-2.0 WITH LLVM-exception"]
    {
        assert!(permits(good, &allowed), "{good}");
    }
    for bad in
        ["", "GPL-3.0", "MIT AND GPL-3.0", "Apache-2.0 WITH other", "(MIT OR GPL-3.0) AND Zlib", "MIT MIT", "(MIT"]
    {
        assert!(!permits(bad, &allowed), "{bad}");
    }
}
