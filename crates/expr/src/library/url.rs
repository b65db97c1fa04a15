//! `url("https://example.com:80/a?b=c")`: as Go's net/url reads a request URI.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::Regex;

use crate::EvalError;
use crate::functions::{Answer, Cost, Row, refuse, text};
use crate::value::{Entries, MapKey, MapVal, OpaqueVal, Text, Val};

/// An absolute URL or an absolute path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    user: String,
    host: String,
    path: String,
    query: String,
    fragment: String,
}

pub(crate) const ROWS: &[Row] = &[
    Row { name: "url", cost: Cost::Parse { sized: true }, code: url, overloads: &["string_to_url (string) -> url"] },
    Row { name: "isURL", cost: Cost::Standard, code: is_url, overloads: &["is_url_string (string) -> bool"] },
    Row { name: "getScheme", cost: Cost::One, code: scheme, overloads: &[".url_get_scheme (url) -> string"] },
    Row { name: "getHost", cost: Cost::One, code: host, overloads: &[".url_get_host (url) -> string"] },
    Row { name: "getHostname", cost: Cost::One, code: hostname, overloads: &[".url_get_hostname (url) -> string"] },
    Row { name: "getPort", cost: Cost::One, code: port, overloads: &[".url_get_port (url) -> string"] },
    Row {
        name: "getEscapedPath",
        cost: Cost::One,
        code: escaped_path,
        overloads: &[".url_get_escaped_path (url) -> string"],
    },
    Row {
        name: "getQuery",
        cost: Cost::One,
        code: query,
        overloads: &[".url_get_query (url) -> map<string, list<string>>"],
    },
];

impl Url {
    /// Reads it; the error says what Go says.
    pub(crate) fn parse(text: &str) -> Result<Url, String> {
        let fail = |why: &str| Err(format!("parse {text:?}: {why}"));
        if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return fail("net/url: invalid control character in URL");
        }
        if text.is_empty() {
            return fail("empty url");
        }
        let mut url = Url::default();
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        url.fragment = fragment.to_owned();
        let scheme_end = rest
            .char_indices()
            .find(|(i, c)| !(c.is_ascii_alphabetic() || (*i > 0 && (c.is_ascii_digit() || "+-.".contains(*c)))));
        let mut rest = rest;
        match scheme_end {
            Some((0, ':')) => return fail("missing protocol scheme"),
            Some((end, ':')) => {
                url.scheme = rest[..end].to_ascii_lowercase();
                rest = &rest[end + 1..];
            }
            _ => {}
        }
        let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
        url.query = query.to_owned();
        if !before.starts_with('/') {
            // An opaque URL (`mailto:x`) is one with a scheme.
            return if url.scheme.is_empty() { fail("invalid URI for request") } else { Ok(url) };
        }
        let mut path = before;
        if let Some(after) = before.strip_prefix("//")
            && (!url.scheme.is_empty() || !before.starts_with("///"))
            && !url.scheme.is_empty()
        {
            let (authority, tail) = after.find('/').map_or((after, ""), |at| after.split_at(at));
            path = tail;
            let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
            url.user = user.to_owned();
            if let Err(why) = check_host(host) {
                return fail(&why);
            }
            url.host = unescape(host);
        }
        if let Some(bad) = bad_escape(path) {
            return fail(&format!("invalid URL escape {bad:?}"));
        }
        url.path = path.to_owned();
        Ok(url)
    }

    fn split_host(&self) -> (&str, &str) {
        let host = self.host.as_str();
        if let Some(inner) = host.strip_prefix('[')
            && let Some(end) = inner.find(']')
        {
            return (&inner[..end], inner[end + 1..].strip_prefix(':').unwrap_or(""));
        }
        match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (name, port),
            _ => (host, ""),
        }
    }
}

fn check_host(host: &str) -> Result<(), String> {
    let port = if let Some(inner) = host.strip_prefix('[') {
        let Some(end) = inner.find(']') else { return Err("missing ']' in host".into()) };
        &inner[end + 1..]
    } else {
        host.rfind(':').map_or("", |at| &host[at..])
    };
    let valid = port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    if !valid {
        return Err(format!("invalid port {port:?} after host"));
    }
    if let Some(c) = host.chars().find(|c| matches!(c, ' ' | '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}')) {
        return Err(format!("invalid character {:?} in host name", c.to_string()));
    }
    match bad_escape(host) {
        Some(bad) => Err(format!("invalid URL escape {bad:?}")),
        None => Ok(()),
    }
}

/// The first `%` that two hexadecimal digits do not follow.
fn bad_escape(text: &str) -> Option<&str> {
    let at = text.match_indices('%').map(|(at, _)| at).find(|at| {
        let digits = text.as_bytes().get(at + 1..at + 3);
        !digits.is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit))
    })?;
    Some(text.get(at..at + 3).unwrap_or(&text[at..]))
}

fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn url<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    match Url::parse(text(args, 0)?) {
        Ok(url) => Ok(Val::from(OpaqueVal::Url(url))),
        Err(e) => refuse(format!("URL parse error during conversion from string: {e}")),
    }
}

fn is_url<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Bool(Url::parse(text(args, 0)?).is_ok()))
}

fn with<'a>(args: &[Val<'a>], part: impl FnOnce(&Url) -> String) -> Answer<'a> {
    match args.first() {
        Some(Val::Opaque(o)) => match &**o {
            OpaqueVal::Url(url) => Ok(Val::from(part(url))),
            _ => Err(EvalError::NoSuchOverload),
        },
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn scheme<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    with(args, |url| url.scheme.clone())
}

fn host<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    with(args, |url| url.host.clone())
}

fn hostname<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    with(args, |url| url.split_host().0.to_owned())
}

fn port<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    with(args, |url| url.split_host().1.to_owned())
}

/// Escapes what Go escapes in a path; what is escaped already stays.
fn escaped_path<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    with(args, |url| {
        url.path.bytes().fold(String::with_capacity(url.path.len()), |mut out, b| {
            if b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@%!'()*[]".contains(&b) {
                out.push(b as char);
            } else {
                out.push_str(&format!("%{b:02X}"));
            }
            out
        })
    })
}

fn query<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let text = with(args, |url| url.query.clone())?;
    let mut found: BTreeMap<String, Vec<Val<'a>>> = BTreeMap::new();
    for pair in text.as_str().unwrap_or_default().split('&').filter(|p| !p.is_empty() && !p.contains(';')) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if bad_escape(key).is_none() && bad_escape(value).is_none() {
            let plain = |s: &str| unescape(&s.replace('+', " "));
            found.entry(plain(key)).or_default().push(Val::from(plain(value)));
        }
    }
    let entries: Entries<'a> = found
        .into_iter()
        .map(|(key, values)| {
            let key: Text<'a> = key.into();
            (MapKey::Text(key.clone()), (Val::String(key), Val::from(values)))
        })
        .collect();
    Ok(Val::Map(MapVal::Owned(Arc::new(entries))))
}
