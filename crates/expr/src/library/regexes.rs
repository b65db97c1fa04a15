//! `matches`, `find`, `findAll`: RE2's syntax, linear time.

use regex::{Regex, RegexBuilder};

use crate::EvalError;
use crate::functions::{Answer, Cost, Row, int, refuse, text};
use crate::value::Val;

/// Largest compiled pattern, in bytes.
const MAX_PROGRAM_BYTES: usize = 4 << 20;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "matches",
        cost: Cost::Standard,
        code: matches,
        overloads: &["matches (string, string) -> bool", ".matches_string (string, string) -> bool"],
    },
    Row { name: "find", cost: Cost::Find, code: find, overloads: &[".string_find_string (string, string) -> string"] },
    Row {
        name: "findAll",
        cost: Cost::Find,
        code: find_all,
        overloads: &[
            ".string_find_all_string (string, string) -> list<string>",
            ".string_find_all_string_int (string, string, int) -> list<string>",
        ],
    },
];

/// Compiles a pattern; the error is worded as Go's.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(&to_rust(pattern)).size_limit(MAX_PROGRAM_BYTES).build().map_err(|e| {
        let reason = e.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        format!("error parsing regexp: {reason}: `{pattern}`")
    })
}

/// RE2's `\z`, `\Q…\E` and ASCII classes in the syntax of the `regex` crate.
fn to_rust(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.chars();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                // RE2's classes are ASCII.
                Some('d') => out.push_str(if in_class { "0-9" } else { "[0-9]" }),
                Some('D') if !in_class => out.push_str("[^0-9]"),
                Some('w') => out.push_str(if in_class { "0-9A-Za-z_" } else { "[0-9A-Za-z_]" }),
                Some('W') if !in_class => out.push_str("[^0-9A-Za-z_]"),
                Some('s') => out.push_str(if in_class { "\\t\\n\\f\\r " } else { "[\\t\\n\\f\\r ]" }),
                Some('S') if !in_class => out.push_str("[^\\t\\n\\f\\r ]"),
                Some('b') if !in_class => out.push_str("(?-u:\\b)"),
                Some('Q') if !in_class => {
                    let rest = chars.as_str();
                    let end = rest.find("\\E").unwrap_or(rest.len());
                    out.push_str(&regex::escape(&rest[..end]));
                    chars = rest.get(end + 2..).unwrap_or_default().chars();
                }
                Some(other) => {
                    out.push('\\');
                    out.push(other);
                }
                None => out.push('\\'),
            },
            '[' if in_class => {
                // Within a class RE2 knows no nesting, only `[:alpha:]`.
                if chars.as_str().starts_with(':') {
                    out.push('[');
                } else {
                    out.push_str("\\[");
                }
            }
            '[' => {
                in_class = true;
                out.push('[');
                let rest = chars.as_str();
                let negated = rest.starts_with('^');
                if negated {
                    out.push('^');
                    chars.next();
                }
                if chars.as_str().starts_with(']') {
                    out.push_str("\\]");
                    chars.next();
                }
            }
            ']' if in_class => {
                out.push(']');
                in_class = out.ends_with(":]");
            }
            // Operators of sets that RE2 does not have.
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

fn with<'v, T>(
    args: &'v [Val<'_>],
    known: Option<&Regex>,
    words: &str,
    use_it: impl FnOnce(&Regex, &'v str) -> T,
) -> Result<T, EvalError> {
    let (subject, pattern) = (text(args, 0)?, text(args, 1)?);
    match known {
        Some(regex) => Ok(use_it(regex, subject)),
        None => match compile(pattern) {
            Ok(regex) => Ok(use_it(&regex, subject)),
            Err(reason) => refuse(format!("{words}{reason}")),
        },
    }
}

fn matches<'a>(args: &mut [Val<'a>], regex: Option<&Regex>) -> Answer<'a> {
    with(args, regex, "", |regex, subject| Val::Bool(regex.is_match(subject)))
}

fn find<'a>(args: &mut [Val<'a>], regex: Option<&Regex>) -> Answer<'a> {
    with(args, regex, "Illegal regex: ", |regex, subject| {
        Val::from(regex.find(subject).map(|m| m.as_str().to_owned()).unwrap_or_default())
    })
}

fn find_all<'a>(args: &mut [Val<'a>], regex: Option<&Regex>) -> Answer<'a> {
    let limit = if args.len() > 2 { int(args, 2)? } else { -1 };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    with(args, regex, "Illegal regex: ", |regex, subject| {
        let found = regex.find_iter(subject).take(limit);
        Val::from(found.map(|m| Val::from(m.as_str().to_owned())).collect::<Vec<_>>())
    })
}
