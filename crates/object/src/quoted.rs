//! Text in quotes, as upstream's errors show what was sent.

use std::fmt::Write as _;

/// Go's `%q` (`strconv.Quote`).
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        // Writing to a String does not fail.
        let _ = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            '\x07' => write!(out, "\\a"),
            '\x08' => write!(out, "\\b"),
            '\x0c' => write!(out, "\\f"),
            '\n' => write!(out, "\\n"),
            '\r' => write!(out, "\\r"),
            '\t' => write!(out, "\\t"),
            '\x0b' => write!(out, "\\v"),
            c if is_print(c) => out.write_char(c),
            c if c.is_ascii() => write!(out, "\\x{:02x}", u32::from(c)),
            c if u32::from(c) < 0x1_0000 => write!(out, "\\u{:04x}", u32::from(c)),
            c => write!(out, "\\U{:08x}", u32::from(c)),
        };
    }
    out.push('"');
    out
}

/// Go's `unicode.IsPrint`, but for the code points that nobody has assigned.
pub fn is_print(c: char) -> bool {
    let format = matches!(u32::from(c), 0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x180e | 0x200b..=0x200f
        | 0x202a..=0x202e | 0x2060..=0x206f | 0xfeff | 0xfff9..=0xfffb | 0xe000..=0xf8ff | 0xe0001..=0xe007f
        | 0xf_0000..=0x10_ffff);
    c == ' ' || !(c.is_control() || c.is_whitespace() || format)
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn text_is_shown_as_go_shows_it() {
        for (text, shown) in [
            ("plain ä 世 😀", r#""plain ä 世 😀""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("\n\r\t\x07\x08\x0b\x0c\0\x1b\x7f", r#""\n\r\t\a\b\v\f\x00\x1b\x7f""#),
            ("\u{85}\u{a0}\u{200b}\u{feff}\u{e000}\u{10ffff}", r#""\u0085\u00a0\u200b\ufeff\ue000\U0010ffff""#),
        ] {
            assert_eq!(quoted(text), shown);
        }
    }
}
