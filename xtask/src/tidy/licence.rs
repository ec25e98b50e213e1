//! Reads an SPDX licence expression and says whether a list of allowed licences satisfies it.
//!
//! Grammar (SPDX 2.3, annex D): `OR` binds weaker than `AND`; `WITH` names an exception. A slash is the old spelling of `OR`.

/// Whether the allowed licences satisfy `expression`.
///
/// Errors: a word on what is wrong with the expression.
pub(crate) fn is_allowed(expression: &str, allowed: &[String]) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, allowed };
    let result = parser.any()?;
    match parser.words.first() {
        None => Ok(result),
        Some(word) => Err(format!("unexpected `{word}`")),
    }
}

struct Parser<'a> {
    words: &'a [&'a str],
    allowed: &'a [String],
}

impl Parser<'_> {
    fn next(&mut self) -> Option<&str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn next_is(&mut self, word: &str) -> bool {
        let matches = self.words.first() == Some(&word);
        if matches {
            self.words = &self.words[1..];
        }
        matches
    }

    fn any(&mut self) -> Result<bool, String> {
        let mut result = self.all()?;
        while self.next_is("OR") {
            result |= self.all()?;
        }
        Ok(result)
    }

    fn all(&mut self) -> Result<bool, String> {
        let mut result = self.one()?;
        while self.next_is("AND") {
            result &= self.one()?;
        }
        Ok(result)
    }

    fn one(&mut self) -> Result<bool, String> {
        if self.next_is("(") {
            let result = self.any()?;
            return if self.next_is(")") { Ok(result) } else { Err("a parenthesis is not closed".to_owned()) };
        }
        let mut id = match self.next() {
            None => return Err("it ends too early".to_owned()),
            Some(word @ ("OR" | "AND" | "WITH" | ")")) => return Err(format!("unexpected `{word}`")),
            Some(word) => word.to_owned(),
        };
        if self.next_is("WITH") {
            id = format!("{id} WITH {}", self.next().ok_or("it ends after WITH")?);
        }
        Ok(self.allowed.contains(&id))
    }
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn expressions_are_satisfied_by_the_list_or_not() {
        let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"].map(str::to_owned);
        for (expression, expected) in [
            ("MIT", Ok(true)),
            ("GPL-3.0", Ok(false)),
            ("MIT OR GPL-3.0", Ok(true)),
            ("GPL-3.0/MIT", Ok(true)),
            ("MIT AND GPL-3.0", Ok(false)),
            ("GPL-3.0 OR MIT AND Apache-2.0", Ok(true)),
            ("(MIT OR GPL-3.0) AND Unicode-3.0", Ok(true)),
            ("(MIT OR GPL-3.0) AND Zlib", Ok(false)),
            ("Apache-2.0 WITH LLVM-exception", Ok(true)),
            ("MIT WITH LLVM-exception", Ok(false)),
            ("(MIT", Err(())),
            ("MIT MIT", Err(())),
            ("MIT OR", Err(())),
            ("OR MIT", Err(())),
            ("", Err(())),
        ] {
            assert_eq!(is_allowed(expression, &allowed).map_err(|_| ()), expected, "case: {expression}");
        }
    }
}
