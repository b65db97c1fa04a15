//! Names of fields as expressions must write them: `__dash__`, `__namespace__`.

use std::borrow::Cow;

/// Words that CEL keeps for itself.
const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// The identifier for a field: `a-b` is `a__dash__b`. `None` if the name has characters that no
/// identifier can carry, or starts with a digit.
pub fn escape(name: &str) -> Option<Cow<'_, str>> {
    let first = name.bytes().next()?;
    if first.is_ascii_digit() {
        return None;
    }
    if RESERVED.contains(&name) {
        return Some(Cow::Owned(format!("__{name}__")));
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/')) {
        return None;
    }
    if !name.contains("__") && !name.bytes().any(|b| matches!(b, b'-' | b'.' | b'/')) {
        return Some(Cow::Borrowed(name));
    }
    let mut out = String::with_capacity(name.len() + 16);
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("__") {
            out.push_str("__underscores__");
            rest = after;
            continue;
        }
        match c {
            '.' => out.push_str("__dot__"),
            '-' => out.push_str("__dash__"),
            '/' => out.push_str("__slash__"),
            c => out.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    Some(Cow::Owned(out))
}

/// The field that an identifier stands for; `None` for an unknown `__…__`.
pub fn unescape(identifier: &str) -> Option<Cow<'_, str>> {
    if !identifier.contains("__") {
        return Some(Cow::Borrowed(identifier));
    }
    let mut out = String::with_capacity(identifier.len());
    let mut rest = identifier;
    while let Some(start) = rest.find("__") {
        let word_end = rest[start + 2..].find('_').map(|end| start + 2 + end);
        let word = word_end.map(|end| (&rest[start + 2..end], end));
        match word {
            Some((word, end)) if !word.is_empty() && rest[end..].starts_with("__") => {
                out.push_str(&rest[..start]);
                match word {
                    "underscores" => out.push_str("__"),
                    "dot" => out.push('.'),
                    "dash" => out.push('-'),
                    "slash" => out.push('/'),
                    word if RESERVED.contains(&word) && identifier.len() == word.len() + 4 => out.push_str(word),
                    _ => return None,
                }
                rest = &rest[end + 2..];
            }
            _ => {
                out.push_str(&rest[..start + 1]);
                rest = &rest[start + 1..];
            }
        }
    }
    out.push_str(rest);
    Some(Cow::Owned(out))
}

pub(crate) fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word)
}
