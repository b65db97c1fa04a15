//! `semver("1.2.3-rc.1")`: Semantic Versioning 2.0. Comparisons stand with quantities.

use std::cmp::Ordering;

use regex::Regex;

use crate::EvalError;
use crate::functions::{Answer, Cost, Row, refuse, text};
use crate::value::{OpaqueVal, Val};

/// A version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semver {
    numbers: [u64; 3],
    pre: Vec<String>,
    build: Vec<String>,
}

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "semver",
        cost: Cost::Parse { sized: false },
        code: semver,
        overloads: &["string_to_semver (string) -> semver", "string_bool_to_semver (string, bool) -> semver"],
    },
    Row {
        name: "isSemver",
        cost: Cost::Parse { sized: false },
        code: is_semver,
        overloads: &["is_semver_string (string) -> bool", "is_semver_string_bool (string, bool) -> bool"],
    },
    Row { name: "major", cost: Cost::One, code: major, overloads: &[".semver_major (semver) -> int"] },
    Row { name: "minor", cost: Cost::One, code: minor, overloads: &[".semver_minor (semver) -> int"] },
    Row { name: "patch", cost: Cost::One, code: patch, overloads: &[".semver_patch (semver) -> int"] },
];

impl Semver {
    fn parse(text: &str) -> Result<Semver, String> {
        if text.is_empty() {
            return Err("Version string empty".into());
        }
        let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
        let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
        let parts: Vec<&str> = core.split('.').collect();
        let [major, minor, patch] = parts[..] else {
            return Err("No Major.Minor.Patch elements found".into());
        };
        let number = |what: &str, part: &str| {
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(format!("Invalid character(s) found in {what} number {part:?}"));
            }
            if part.len() > 1 && part.starts_with('0') {
                return Err(format!("{} number must not contain leading zeroes {part:?}", capital(what)));
            }
            part.parse::<u64>().map_err(|_| format!("strconv.ParseUint: parsing {part:?}: value out of range"))
        };
        let numbers = [number("major", major)?, number("minor", minor)?, number("patch", patch)?];
        let identifiers = |list: Option<&str>, numeric: bool| -> Result<Vec<String>, String> {
            let Some(list) = list else { return Ok(Vec::new()) };
            let check = |part: &str| {
                if part.is_empty() {
                    return Err(if numeric { "Prerelease is empty" } else { "Build meta data is empty" }.to_owned());
                }
                if !part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                    return Err(format!("Invalid character(s) found in prerelease {part:?}"));
                }
                if numeric && part.len() > 1 && part.starts_with('0') && part.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(format!("Numeric PreRelease version must not contain leading zeroes {part:?}"));
                }
                Ok(part.to_owned())
            };
            list.split('.').map(check).collect()
        };
        Ok(Semver { numbers, pre: identifiers(pre, true)?, build: identifiers(build, false)? })
    }

    /// Forgives a leading `v`, leading zeros and missing numbers.
    fn parse_tolerant(text: &str) -> Result<Semver, String> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let mut parts: Vec<String> = text.splitn(3, '.').map(str::to_owned).collect();
        for part in &mut parts {
            if part.len() > 1 {
                let trimmed = part.trim_start_matches('0');
                *part = if trimmed.starts_with(|c: char| c.is_ascii_digit()) {
                    trimmed.into()
                } else {
                    format!("0{trimmed}")
                };
            }
        }
        if parts.len() < 3 {
            if parts.last().is_some_and(|last| last.contains(['+', '-'])) {
                return Err("short version cannot contain PreRelease/Build meta data".into());
            }
            parts.resize(3, "0".into());
        }
        Semver::parse(&parts.join("."))
    }

    /// Order of precedence; build data do not count.
    pub(crate) fn precedence(&self, other: &Semver) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let pairs = self.pre.iter().zip(&other.pre).map(|(a, b)| identifier_order(a, b));
                pairs.fold(Ordering::Equal, Ordering::then).then(self.pre.len().cmp(&other.pre.len()))
            }
        })
    }
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

fn identifier_order(a: &str, b: &str) -> Ordering {
    let numeric = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    match (numeric(a), numeric(b)) {
        // No leading zeros, so the longer number is the greater.
        (true, true) => a.len().cmp(&b.len()).then(a.cmp(b)),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.cmp(b),
    }
}

fn parse(args: &[Val<'_>]) -> Result<Result<Semver, String>, EvalError> {
    let text = text(args, 0)?;
    match args.get(1) {
        None | Some(Val::Bool(false)) => Ok(Semver::parse(text)),
        Some(Val::Bool(true)) => Ok(Semver::parse_tolerant(text)),
        Some(_) => Err(EvalError::NoSuchOverload),
    }
}

fn semver<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    match parse(args)? {
        Ok(version) => Ok(Val::from(OpaqueVal::Semver(version))),
        Err(reason) => refuse(reason),
    }
}

fn is_semver<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Bool(parse(args)?.is_ok()))
}

fn number<'a>(args: &[Val<'a>], at: usize) -> Answer<'a> {
    match args.first() {
        Some(Val::Opaque(o)) => match &**o {
            OpaqueVal::Semver(v) => Ok(Val::Int(v.numbers[at] as i64)),
            _ => Err(EvalError::NoSuchOverload),
        },
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn major<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    number(args, 0)
}

fn minor<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    number(args, 1)
}

fn patch<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    number(args, 2)
}
