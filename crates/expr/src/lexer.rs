//! From characters to tokens.

use std::sync::Arc;

use crate::source::Fault;
use crate::value::{Text, Val};

/// A token and where it stands, in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum TokenKind {
    Ident,
    /// A name in backticks.
    Quoted,
    Int,
    Uint,
    Double,
    /// Text or bytes, read already.
    Literal(Val<'static>),
    /// An operator or a bracket.
    Punct(&'static str),
    End,
}

/// Operators and brackets, longest first.
const PUNCTUATION: &[&str] = &[
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ",", ".", "(", ")", "[", "]",
    "{", "}",
];

/// Splits a source; the last token is the end.
pub(crate) fn tokens(source: &str) -> Result<Vec<Token>, Vec<Fault>> {
    let bytes = source.as_bytes();
    let mut out = Vec::with_capacity(source.len() / 3 + 2);
    let mut faults = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let b = bytes[at];
        if b.is_ascii_whitespace() || b == 0x0c {
            at += 1;
            continue;
        }
        if source[at..].starts_with("//") {
            at += source[at..].find('\n').unwrap_or(source.len() - at);
            continue;
        }
        if let Some((prefix, raw, octets)) = string_prefix(&source[at..]) {
            match string(source, at + prefix, raw, octets) {
                Ok((value, end)) => {
                    out.push(Token { kind: TokenKind::Literal(value), start, end });
                    at = end;
                }
                Err(fault) => {
                    faults.push(fault);
                    return Err(faults);
                }
            }
            continue;
        }
        if b.is_ascii_alphabetic() || b == b'_' {
            at += bytes[at..].iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
            out.push(Token { kind: TokenKind::Ident, start, end: at });
            continue;
        }
        if b == b'`' {
            let inner = bytes[at + 1..]
                .iter()
                .take_while(|b| b.is_ascii_alphanumeric() || matches!(**b, b'_' | b'.' | b'-' | b'/' | b' '))
                .count();
            if inner > 0 && bytes.get(at + 1 + inner) == Some(&b'`') {
                at += inner + 2;
                out.push(Token { kind: TokenKind::Quoted, start, end: at });
                continue;
            }
        }
        if b.is_ascii_digit() || (b == b'.' && bytes.get(at + 1).is_some_and(u8::is_ascii_digit)) {
            let (kind, end) = number(bytes, at);
            at = end;
            out.push(Token { kind, start, end });
            continue;
        }
        if let Some(punct) = PUNCTUATION.iter().find(|p| source[at..].starts_with(**p)) {
            at += punct.len();
            out.push(Token { kind: TokenKind::Punct(punct), start, end: at });
            continue;
        }
        let c = source[at..].chars().next().unwrap_or_default();
        faults.push(Fault::at(start, format!("Syntax error: token recognition error at: '{c}'")));
        if faults.len() >= crate::source::MAX_ISSUES {
            return Err(faults);
        }
        at += c.len_utf8();
    }
    out.push(Token { kind: TokenKind::End, start: source.len(), end: source.len() });
    if faults.is_empty() { Ok(out) } else { Err(faults) }
}

fn number(bytes: &[u8], start: usize) -> (TokenKind, usize) {
    let digits = |from: usize| from + bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let is = |at: usize, set: &[u8]| bytes.get(at).is_some_and(|b| set.contains(b));
    if bytes[start] == b'0' && is(start + 1, b"xX") && bytes.get(start + 2).is_some_and(u8::is_ascii_hexdigit) {
        let end = start + 2 + bytes[start + 2..].iter().take_while(|b| b.is_ascii_hexdigit()).count();
        return if is(end, b"uU") { (TokenKind::Uint, end + 1) } else { (TokenKind::Int, end) };
    }
    let mut end = digits(start);
    let mut double = false;
    if is(end, b".") && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
        double = true;
        end = digits(end + 1);
    }
    if is(end, b"eE") {
        let sign = usize::from(is(end + 1, b"+-"));
        if bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
            double = true;
            end = digits(end + 1 + sign);
        }
    }
    if double {
        return (TokenKind::Double, end);
    }
    if is(end, b"uU") { (TokenKind::Uint, end + 1) } else { (TokenKind::Int, end) }
}

/// The length of `r`, `b`, `rb` before a quote, and what they say.
fn string_prefix(rest: &str) -> Option<(usize, bool, bool)> {
    let bytes = rest.as_bytes();
    let (mut raw, mut octets, mut at) = (false, false, 0);
    while at < 2 {
        match bytes.get(at)? {
            b'r' | b'R' if !raw => raw = true,
            b'b' | b'B' if !octets && !raw => octets = true,
            _ => break,
        }
        at += 1;
    }
    matches!(bytes.get(at)?, b'"' | b'\'').then_some((at, raw, octets))
}

/// Reads from the opening quote on; answers the value and the end.
fn string(source: &str, open: usize, raw: bool, octets: bool) -> Result<(Val<'static>, usize), Fault> {
    let bytes = source.as_bytes();
    let quote = &source[open..open + 1];
    let triple = source[open..].starts_with(&quote.repeat(3));
    let end_mark = if triple { quote.repeat(3) } else { quote.to_owned() };
    let unterminated = || {
        let rest: String = source[open..].lines().next().unwrap_or_default().chars().take(64).collect();
        Fault::at(open, format!("Syntax error: token recognition error at: '{rest}'"))
    };
    let mut out: Vec<u8> = Vec::new();
    let mut at = open + end_mark.len();
    loop {
        let Some(&b) = bytes.get(at) else { return Err(unterminated()) };
        if source.get(at..).is_some_and(|rest| rest.starts_with(&end_mark)) {
            at += end_mark.len();
            break;
        }
        if b == b'\n' && !triple {
            return Err(unterminated());
        }
        if b == b'\\' && raw {
            // A raw string's backslash still guards the quote after it.
            out.push(b);
            at += 1;
            if let Some(&next) = bytes.get(at)
                && next.is_ascii()
                && !(triple && next == b'\\')
            {
                if next == b'\n' && !triple {
                    return Err(unterminated());
                }
                out.push(next);
                at += 1;
            }
            continue;
        }
        if b == b'\\' {
            at = escape(source, at, octets, &mut out)?;
            continue;
        }
        if b == b'\r' && triple {
            // Newlines are one character, however the source was saved.
            at += usize::from(bytes.get(at + 1) == Some(&b'\n'));
            out.push(b'\n');
            at += 1;
            continue;
        }
        out.push(b);
        at += 1;
    }
    let value = if octets {
        Val::Bytes(out.into())
    } else {
        let text = String::from_utf8(out).map_err(|_| Fault::at(open, "invalid UTF-8 in string"))?;
        Val::String(Text::Shared(Arc::from(text)))
    };
    Ok((value, at))
}

fn escape(source: &str, at: usize, octets: bool, out: &mut Vec<u8>) -> Result<usize, Fault> {
    let bytes = source.as_bytes();
    let bad = |message: &str| Fault::at(at, message.to_owned());
    let Some(&c) = bytes.get(at + 1) else {
        return Err(bad("unable to unescape string, found '\\' as last character"));
    };
    let simple = match c {
        b'a' => Some(7),
        b'b' => Some(8),
        b'f' => Some(12),
        b'n' => Some(b'\n'),
        b'r' => Some(b'\r'),
        b't' => Some(b'\t'),
        b'v' => Some(11),
        b'\\' | b'\'' | b'"' | b'`' | b'?' => Some(c),
        _ => None,
    };
    if let Some(b) = simple {
        out.push(b);
        return Ok(at + 2);
    }
    let (radix, digits, start) = match c {
        b'x' | b'X' => (16, 2, at + 2),
        b'u' if !octets => (16, 4, at + 2),
        b'U' if !octets => (16, 8, at + 2),
        b'0'..=b'3' => (8, 3, at + 1),
        _ => return Err(bad("Syntax error: token recognition error: invalid escape sequence")),
    };
    let text = source.get(start..start + digits).filter(|t| t.bytes().all(|b| (b as char).is_digit(radix)));
    let Some(code) = text.and_then(|t| u32::from_str_radix(t, radix).ok()) else {
        return Err(bad("Syntax error: token recognition error: invalid escape sequence"));
    };
    if octets {
        out.push(u8::try_from(code).map_err(|_| bad("octal escape sequence out of range"))?);
    } else {
        let c = char::from_u32(code).ok_or_else(|| bad("invalid unicode code point"))?;
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Ok(start + digits)
}
