//! Texts of modules without comments and indentation, made while the crate is compiled: what is downloaded with a page has no use for them.

/// Bytes of a text that are left.
pub const fn len(text: &str) -> usize {
    let (text, mut at, mut len) = (text.as_bytes(), 0, 0);
    while at < text.len() {
        let end = line_end(text, at);
        let (first, last) = code(text, at, end);
        if first < last {
            // And the end of the line.
            len += last - first + 1;
        }
        at = end + 1;
    }
    len
}

/// What is left of a text.
pub const fn strip<const LEN: usize>(text: &str) -> [u8; LEN] {
    let (text, mut at, mut stripped, mut len) = (text.as_bytes(), 0, [b'\n'; LEN], 0);
    while at < text.len() {
        let end = line_end(text, at);
        let (mut from, last) = code(text, at, end);
        if from < last {
            while from < last {
                stripped[len] = text[from];
                (from, len) = (from + 1, len + 1);
            }
            len += 1;
        }
        at = end + 1;
    }
    stripped
}

const fn line_end(text: &[u8], mut at: usize) -> usize {
    while at < text.len() && text[at] != b'\n' {
        at += 1;
    }
    at
}

/// Where the code of a line begins and ends.
const fn code(text: &[u8], mut first: usize, end: usize) -> (usize, usize) {
    while first < end && text[first] == b' ' {
        first += 1;
    }
    let mut last = first;
    while last < end && !(text[last] == b'/' && last + 1 < end && text[last + 1] == b'/') {
        last += 1;
    }
    while last > first && text[last - 1] == b' ' {
        last -= 1;
    }
    (first, last)
}

#[cfg(test)]
mod tests {
    #[test]
    fn code_is_left() {
        const TEXT: &str = "// A comment.\n\nfn f() -> f32 {\n    return 1.0 / 2.0; // half\n}\n";
        const LEN: usize = super::len(TEXT);
        let stripped = super::strip::<LEN>(TEXT);
        assert_eq!(std::str::from_utf8(&stripped), Ok("fn f() -> f32 {\nreturn 1.0 / 2.0;\n}\n"));
    }

    #[test]
    fn as_much_is_left_of_modules_as_they_have_of_code() {
        for text in super::super::modules::texts() {
            let code = text.lines().map(|line| line.split("//").next().unwrap_or_default().trim_matches(' '));
            let left: usize = code.filter(|line| !line.is_empty()).map(|line| line.len() + 1).sum();
            assert_eq!(super::len(text), left, "{text}");
        }
    }
}
