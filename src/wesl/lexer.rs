//! Tokens of WGSL, as far as finding declarations and names takes.

/// A token, by where it stands in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An identifier or keyword.
    Word,
    Number,
    /// `::`.
    Path,
    /// One character of anything else. Operators of several are several tokens: none of them ends a statement or a block.
    Sign(u8),
}

/// The tokens of a text, without blanks and comments; where it is no WGSL, the byte that cannot be.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, usize> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let run = |from: usize, is: fn(&u8) -> bool| {
            from + bytes[from..].iter().position(|byte| !is(byte)).unwrap_or(bytes.len() - from)
        };
        let kind = match bytes[at] {
            byte if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'/' if bytes[at..].starts_with(b"//") => {
                at = run(at, |&byte| byte != b'\n');
                continue;
            }
            b'/' if bytes[at..].starts_with(b"/*") => {
                at = end_of_comment(bytes, at).ok_or(start)?;
                continue;
            }
            b':' if bytes[at..].starts_with(b"::") => {
                at += 2;
                Kind::Path
            }
            byte if byte.is_ascii_digit() => {
                at = end_of_number(bytes, at);
                Kind::Number
            }
            byte if is_of_word(&byte) => {
                at = run(at, is_of_word);
                Kind::Word
            }
            byte if byte.is_ascii() => {
                at += 1;
                Kind::Sign(byte)
            }
            _ => return Err(start),
        };
        tokens.push(Token { kind, start, end: at });
    }
    Ok(tokens)
}

/// Letters of any script may be in an identifier; what is none, the compiler of the linked text says.
fn is_of_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii()
}

/// Digits, point, exponent with its sign, suffix.
fn end_of_number(bytes: &[u8], mut at: usize) -> usize {
    let hexadecimal = bytes[at..].starts_with(b"0x") || bytes[at..].starts_with(b"0X");
    while at < bytes.len() {
        let is_exponent = match bytes[at] {
            b'e' | b'E' => !hexadecimal,
            b'p' | b'P' => hexadecimal,
            _ => false,
        };
        if is_exponent && matches!(bytes.get(at + 1), Some(b'+' | b'-')) {
            at += 2;
        } else if bytes[at].is_ascii_alphanumeric() || bytes[at] == b'.' {
            at += 1;
        } else {
            break;
        }
    }
    at
}

/// Comments nest.
fn end_of_comment(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0;
    while at < bytes.len() {
        let two = &bytes[at..bytes.len().min(at + 2)];
        match two {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        tokens(text).unwrap().iter().map(|token| &text[token.start..token.end]).collect()
    }

    #[test]
    fn comments_and_blanks_are_no_tokens() {
        assert_eq!(words("a // b\n/* c /* d */ e */ f"), ["a", "f"]);
        assert_eq!(tokens("a /* b"), Err(2));
    }

    #[test]
    fn numbers_keep_their_signs_points_and_suffixes() {
        assert_eq!(words("1.5e-3-0x1.fp+127f+2u"), ["1.5e-3", "-", "0x1.fp+127f", "+", "2u"]);
        assert_eq!(words("0xe-1"), ["0xe", "-", "1"]);
    }

    #[test]
    fn paths_are_no_types() {
        assert_eq!(words("a::b: c"), ["a", "::", "b", ":", "c"]);
    }
}
