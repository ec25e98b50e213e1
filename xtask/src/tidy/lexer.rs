//! Splits Rust source into code and the rest, so that a word in a comment or a string is not taken for code.

/// The source with every comment, string and character literal blanked out; line breaks stay where they are.
pub(crate) fn code_only(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let rest = &bytes[at..];
        let skip = if rest.starts_with(b"//") {
            rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            block_comment_len(rest)
        } else if byte == b'"' {
            string_len(rest)
        } else if byte == b'r' && !is_word(out.last()) {
            raw_string_len(rest)
        } else if byte == b'b' && rest.get(1) == Some(&b'r') && !is_word(out.last()) {
            match raw_string_len(&rest[1..]) {
                0 => 0,
                len => len + 1,
            }
        } else if byte == b'\'' {
            char_len(rest)
        } else {
            0
        };
        if skip == 0 {
            out.push(byte);
            at += 1;
        } else {
            out.extend(rest[..skip].iter().map(|&b| if b == b'\n' { b'\n' } else { b' ' }));
            at += skip;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn is_word(byte: Option<&u8>) -> bool {
    byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

fn block_comment_len(rest: &[u8]) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn string_len(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Length of `r"…"` or `r#"…"#` at the start, 0 if there is none (as in `r#ident`).
fn raw_string_len(rest: &[u8]) -> usize {
    let hashes = rest.iter().skip(1).take_while(|&&b| b == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let end: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = 2 + hashes;
    rest[body..].windows(end.len()).position(|w| w == end).map_or(rest.len(), |found| body + found + end.len())
}

/// Length of a character literal at the start, 0 if it is a lifetime.
fn char_len(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        return rest.iter().skip(3).position(|&b| b == b'\'').map_or(rest.len(), |found| found + 4);
    }
    // One character may be up to four bytes of UTF-8; a lifetime has no quote behind its first character.
    let text = String::from_utf8_lossy(&rest[..rest.len().min(8)]).into_owned();
    let mut chars = text.chars().skip(1);
    match (chars.next(), chars.next()) {
        (Some(c), Some('\'')) => c.len_utf8() + 2,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::code_only;

    #[test]
    fn comments_strings_and_characters_are_blanked() {
        for (name, source, wanted) in [
            ("line comment", "a // x\nb", "a     \nb"),
            ("nested block comment", "a /* x /* y */ z */ b", "a                   b"),
            ("string with escapes", r#"f("x \" y") + 1"#, "f(        ) + 1"),
            ("raw string", r##"f(r#"x " y"#) + 1"##, "f(          ) + 1"),
            ("raw bytes", r##"f(br"x")"##, "f(     )"),
            ("raw identifier", "r#type + 1", "r#type + 1"),
            ("lifetime", "fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
            ("character", "x == 'y' || z", "x ==     || z"),
            ("quote character", r"x == '\'' || z", "x ==      || z"),
            ("quote in a character", "x == '\"' || z", "x ==     || z"),
            ("word ending in r", "for \"x\"", "for    "),
        ] {
            assert_eq!(code_only(source), wanted, "case: {name}");
        }
    }
}
