//! Text: CEL's own functions and cel-go's `strings` extension, version 2.
//!
//! Positions count characters, not bytes.

use regex::Regex;

use super::strings_format::format;
use crate::EvalError;
use crate::functions::{Answer, Cost, Row, int, refuse, text};
use crate::value::{List, Val};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "contains",
        cost: Cost::Standard,
        code: contains,
        overloads: &[".contains_string (string, string) -> bool"],
    },
    Row {
        name: "startsWith",
        cost: Cost::Standard,
        code: starts_with,
        overloads: &[".starts_with_string (string, string) -> bool"],
    },
    Row {
        name: "endsWith",
        cost: Cost::Standard,
        code: ends_with,
        overloads: &[".ends_with_string (string, string) -> bool"],
    },
    Row { name: "charAt", cost: Cost::One, code: char_at, overloads: &[".string_char_at_int (string, int) -> string"] },
    Row {
        name: "indexOf",
        cost: Cost::Walk,
        code: index_of,
        overloads: &[
            ".list_a_index_of_int (list<A>, A) -> int",
            ".string_index_of_string (string, string) -> int",
            ".string_index_of_string_int (string, string, int) -> int",
        ],
    },
    Row {
        name: "lastIndexOf",
        cost: Cost::Walk,
        code: last_index_of,
        overloads: &[
            ".list_a_last_index_of_int (list<A>, A) -> int",
            ".string_last_index_of_string (string, string) -> int",
            ".string_last_index_of_string_int (string, string, int) -> int",
        ],
    },
    Row {
        name: "lowerAscii",
        cost: Cost::Parse { sized: true },
        code: lower,
        overloads: &[".string_lower_ascii (string) -> string"],
    },
    Row {
        name: "upperAscii",
        cost: Cost::Parse { sized: true },
        code: upper,
        overloads: &[".string_upper_ascii (string) -> string"],
    },
    Row {
        name: "trim",
        cost: Cost::Parse { sized: true },
        code: trim,
        overloads: &[".string_trim (string) -> string"],
    },
    Row {
        name: "substring",
        cost: Cost::Parse { sized: true },
        code: substring,
        overloads: &[
            ".string_substring_int (string, int) -> string",
            ".string_substring_int_int (string, int, int) -> string",
        ],
    },
    Row {
        name: "replace",
        cost: Cost::Replace,
        code: replace,
        overloads: &[
            ".string_replace_string_string (string, string, string) -> string",
            ".string_replace_string_string_int (string, string, string, int) -> string",
        ],
    },
    Row {
        name: "split",
        cost: Cost::Split,
        code: split,
        overloads: &[
            ".string_split_string (string, string) -> list<string>",
            ".string_split_string_int (string, string, int) -> list<string>",
        ],
    },
    Row {
        name: "join",
        cost: Cost::Join,
        code: join,
        overloads: &[".list_join (list<string>) -> string", ".list_join_string (list<string>, string) -> string"],
    },
    Row { name: "strings.quote", cost: Cost::Standard, code: quote, overloads: &["strings_quote (string) -> string"] },
    Row {
        name: "format",
        cost: Cost::Standard,
        code: format,
        overloads: &[".string_format (string, list<dyn>) -> string"],
    },
    Row {
        name: "jsonpatch.escapeKey",
        cost: Cost::Parse { sized: true },
        code: escape_key,
        overloads: &["string_jsonpatch_escapeKey_string (string) -> string"],
    },
];

/// Longest text that a function may make, in bytes; beyond it the cost would be over the limit too.
const MAX_TEXT_BYTES: usize = 32 << 20;

fn contains<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Bool(text(args, 0)?.contains(text(args, 1)?)))
}

fn starts_with<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Bool(text(args, 0)?.starts_with(text(args, 1)?)))
}

fn ends_with<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Bool(text(args, 0)?.ends_with(text(args, 1)?)))
}

fn out_of_range<T>(index: i64) -> Result<T, EvalError> {
    refuse(format!("index out of range: {index}"))
}

fn char_at<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let (s, at) = (text(args, 0)?, int(args, 1)?);
    let Ok(i) = usize::try_from(at) else { return out_of_range(at) };
    match byte_of(s, i) {
        Some(byte) => Ok(Val::from(s[byte..].chars().next().map(String::from).unwrap_or_default())),
        None => out_of_range(at),
    }
}

/// The byte at which the character with that number begins; the end counts.
fn byte_of(s: &str, chars: usize) -> Option<usize> {
    if s.is_ascii() {
        return (chars <= s.len()).then_some(chars);
    }
    s.char_indices().map(|(byte, _)| byte).chain([s.len()]).nth(chars)
}

fn chars_before(s: &str, byte: usize) -> i64 {
    s[..byte].chars().count() as i64
}

fn position_in_list(list: &List<'_>, wanted: impl Fn(&Val<'_>) -> bool, back: bool) -> Result<i64, EvalError> {
    let mut found = -1;
    for (i, item) in list.iter().enumerate() {
        if wanted(&item?) {
            found = i as i64;
            if !back {
                break;
            }
        }
    }
    Ok(found)
}

fn index_of<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    if let [Val::List(list), item] = args {
        return position_in_list(list, |v| v.equals(item), false).map(Val::Int);
    }
    let (s, part) = (text(args, 0)?, text(args, 1)?);
    let offset = if args.len() > 2 { int(args, 2)? } else { 0 };
    if part.is_empty() {
        return Ok(Val::Int(offset));
    }
    let Ok(from) = usize::try_from(offset) else { return out_of_range(offset) };
    let found = byte_of(s, from).and_then(|from| s[from..].find(part).map(|at| chars_before(s, from + at)));
    Ok(Val::Int(found.unwrap_or(-1)))
}

fn last_index_of<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    if let [Val::List(list), item] = args {
        return position_in_list(list, |v| v.equals(item), true).map(Val::Int);
    }
    let (s, part) = (text(args, 0)?, text(args, 1)?);
    let size = s.chars().count() as i64;
    let offset = if args.len() > 2 { int(args, 2)? } else { size - 1 };
    if part.is_empty() {
        return Ok(Val::Int(if args.len() > 2 { offset } else { size }));
    }
    if args.len() > 2 && offset < 0 {
        return out_of_range(offset);
    }
    if offset >= size || offset < 0 {
        return Ok(Val::Int(-1));
    }
    // A match may begin at the offset at the latest, and so ends a part's length after it.
    let end = byte_of(s, offset as usize + part.chars().count()).unwrap_or(s.len());
    Ok(Val::Int(s[..end].rfind(part).map_or(-1, |at| chars_before(s, at))))
}

fn lower<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::from(text(args, 0)?.to_ascii_lowercase()))
}

fn upper<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::from(text(args, 0)?.to_ascii_uppercase()))
}

fn trim<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::from(text(args, 0)?.trim().to_owned()))
}

fn substring<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let (s, start) = (text(args, 0)?, int(args, 1)?);
    let end = if args.len() > 2 { Some(int(args, 2)?) } else { None };
    if let Some(end) = end
        && start > end
    {
        return refuse(format!("invalid substring range. start: {start}, end: {end}"));
    }
    let byte = |at: i64| usize::try_from(at).ok().and_then(|at| byte_of(s, at));
    let Some(from) = byte(start) else { return out_of_range(start) };
    let to = match end {
        None => s.len(),
        Some(end) => match byte(end) {
            Some(to) => to,
            None => return out_of_range(end),
        },
    };
    Ok(Val::from(s[from..to].to_owned()))
}

fn replace<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let (s, old, new) = (text(args, 0)?, text(args, 1)?, text(args, 2)?);
    let limit = if args.len() > 3 { int(args, 3)? } else { -1 };
    let count = s.matches(old).count();
    let count = usize::try_from(limit).map_or(count, |limit| limit.min(count));
    if count.saturating_mul(new.len()) > MAX_TEXT_BYTES {
        return Err(EvalError::CostLimitExceeded);
    }
    Ok(Val::from(s.replacen(old, new, count)))
}

fn split<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let (s, separator) = (text(args, 0)?, text(args, 1)?);
    let limit = if args.len() > 2 { int(args, 2)? } else { -1 };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let owned = |part: &str| Val::from(part.to_owned());
    if limit == 0 {
        return Ok(Val::from(Vec::new()));
    }
    if separator.is_empty() {
        let mut out = Vec::new();
        let mut rest = s;
        while let Some(c) = rest.chars().next() {
            if out.len() + 1 >= limit {
                out.push(owned(rest));
                break;
            }
            out.push(owned(&rest[..c.len_utf8()]));
            rest = &rest[c.len_utf8()..];
        }
        return Ok(Val::from(out));
    }
    Ok(Val::from(s.splitn(limit, separator).map(owned).collect::<Vec<_>>()))
}

fn join<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let Some(Val::List(list)) = args.first() else { return Err(EvalError::NoSuchOverload) };
    let separator = if args.len() > 1 { text(args, 1)? } else { "" };
    if list.len().saturating_mul(separator.len()) > MAX_TEXT_BYTES {
        return Err(EvalError::CostLimitExceeded);
    }
    let mut out = String::new();
    for (i, item) in list.iter().enumerate() {
        if i > 0 {
            out.push_str(separator);
        }
        out.push_str(item?.as_str().ok_or(EvalError::NoSuchOverload)?);
        if out.len() > MAX_TEXT_BYTES {
            return Err(EvalError::CostLimitExceeded);
        }
    }
    Ok(Val::from(out))
}

fn quote<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::from(quoted(text(args, 0)?)))
}

/// A text as CEL writes it.
pub(crate) fn quoted(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn escape_key<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::from(text(args, 0)?.replace('~', "~0").replace('/', "~1")))
}
