//! Rules for names: DNS labels and subdomains, label keys and values, ports, environment
//! variables, configuration keys. Each answers upstream's messages, empty when all is well.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::Path;
use crate::error::Errors;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;

/// Which rule `metadata.name` follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameRule {
    Subdomain,
    /// A subdomain, by the declared format.
    Declared,
    Label,
    /// May stand in a path segment: RBAC roles, bindings.
    PathSegment,
    /// A key of a ConfigMap.
    ConfigKey,
    Any,
}

impl NameRule {
    pub(crate) fn check(self, name: &str, prefix: bool) -> Vec<String> {
        let masked;
        let name = if prefix && self != NameRule::PathSegment && name.len() > 1 && name.ends_with('-') {
            masked = format!("{}a", &name[..name.len() - 1].trim_end_matches('-'));
            masked.as_str()
        } else {
            name
        };
        match self {
            NameRule::Subdomain => subdomain(name),
            NameRule::Declared => long_name(name),
            NameRule::Label => label(name),
            NameRule::PathSegment => path_segment(name, prefix),
            NameRule::ConfigKey => config_key(name),
            NameRule::Any => Vec::new(),
        }
    }
}

pub(crate) fn max_characters(n: usize) -> String {
    format!("must be no more than {n} characters")
}

fn max_bytes(n: usize) -> String {
    format!("must be no more than {n} bytes")
}

fn pattern(message: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{regex}')");
    }
    let mut shown = String::new();
    for (i, e) in examples.iter().enumerate() {
        shown.push_str(if i > 0 { " or " } else { "" });
        shown.push_str(&format!("'{e}', "));
    }
    format!("{message} (e.g. {shown}regex used for validation is '{regex}')")
}

fn lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn label_form(s: &str) -> bool {
    let b = s.as_bytes();
    !b.is_empty() && lower(b[0]) && lower(b[b.len() - 1]) && b.iter().all(|c| lower(*c) || *c == b'-')
}

pub(crate) fn label(s: &str) -> Vec<String> {
    let mut e = Vec::new();
    if s.len() > LABEL_MAX {
        e.push(max_characters(LABEL_MAX));
    }
    if !label_form(s) {
        if s.split('.').all(label_form) {
            e.push("must not contain dots".into());
        } else {
            e.push(pattern(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
                LABEL,
                &["my-name", "123-abc"],
            ));
        }
    }
    e
}

pub(crate) fn subdomain(s: &str) -> Vec<String> {
    let mut e = Vec::new();
    if s.len() > SUBDOMAIN_MAX {
        e.push(max_characters(SUBDOMAIN_MAX));
    }
    if !s.split('.').all(label_form) {
        e.push(pattern(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            &format!("{LABEL}(\\.{LABEL})*"),
            &["example.com"],
        ));
    }
    e
}

/// The lengths of declared formats are told in bytes.
fn in_bytes(messages: Vec<String>, max: usize) -> Vec<String> {
    let told = max_characters(max);
    messages.into_iter().map(|m| if m == told { max_bytes(max) } else { m }).collect()
}

/// The declared format `k8s-short-name`.
pub(crate) fn short_name(s: &str) -> Vec<String> {
    in_bytes(label(s), LABEL_MAX)
}

/// The declared format `k8s-long-name`.
pub(crate) fn long_name(s: &str) -> Vec<String> {
    in_bytes(subdomain(s), SUBDOMAIN_MAX)
}

/// The declared format `k8s-long-name-caseless`.
pub(crate) fn long_name_caseless(s: &str) -> Vec<String> {
    let mut e = Vec::new();
    if s.len() > SUBDOMAIN_MAX {
        e.push(max_bytes(SUBDOMAIN_MAX));
    }
    if !s.to_ascii_lowercase().split('.').all(label_form) {
        e.push(pattern(
            "an RFC 1123 subdomain must consist of alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            &format!("{LABEL}(\\.{LABEL})*"),
            &["Example.com"],
        ));
    }
    e
}

/// A search path of DNS, in which underscores are fine.
pub(crate) fn subdomain_with_underscore(s: &str) -> Vec<String> {
    const PART: &str = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
    let mut e = Vec::new();
    if s.len() > SUBDOMAIN_MAX {
        e.push(max_characters(SUBDOMAIN_MAX));
    }
    let part = |p: &str| {
        let p = p.strip_prefix('_').unwrap_or(p);
        let edge = |b: Option<u8>| b.is_some_and(lower);
        edge(p.bytes().next()) && edge(p.bytes().next_back()) && p.bytes().all(|b| lower(b) || matches!(b, b'-' | b'_'))
    };
    if !s.split('.').all(part) {
        e.push(pattern(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character",
            &format!("{PART}(\\.{PART})*"),
            &["example.com"],
        ));
    }
    e
}

pub(crate) fn wildcard_subdomain(s: &str) -> Vec<String> {
    let mut e = Vec::new();
    if s.len() > SUBDOMAIN_MAX {
        e.push(max_characters(SUBDOMAIN_MAX));
    }
    if !s.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(label_form)) {
        e.push(pattern(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!("\\*\\.{LABEL}(\\.{LABEL})*"),
            &["*.example.com"],
        ));
    }
    e
}

pub(crate) fn label_1035(s: &str) -> Vec<String> {
    let mut e = Vec::new();
    if s.len() > LABEL_MAX {
        e.push(max_characters(LABEL_MAX));
    }
    if !(label_form(s) && s.as_bytes()[0].is_ascii_lowercase()) {
        e.push(pattern(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    e
}

fn label_key_form(s: &str) -> bool {
    let b = s.as_bytes();
    !b.is_empty()
        && b[0].is_ascii_alphanumeric()
        && b[b.len() - 1].is_ascii_alphanumeric()
        && b.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

/// A label key, finalizer, resource name: `name` or `prefix/name`.
pub(crate) fn qualified(s: &str) -> Vec<String> {
    const MESSAGE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    let form = pattern(MESSAGE, LABEL_KEY, &["MyName", "my.name", "123-abc"]);
    let mut e = Vec::new();
    let parts: Vec<&str> = s.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                e.push("prefix part must be non-empty".into());
            } else {
                e.extend(long_name(prefix).into_iter().map(|m| format!("prefix part {m}")));
            }
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {form} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        e.push("name part must be non-empty".into());
    } else if name.len() > LABEL_MAX {
        e.push(format!("name part {}", max_bytes(LABEL_MAX)));
    }
    if !label_key_form(name) {
        e.push(format!("name part {form}"));
    }
    e
}

pub(crate) fn label_value(s: &str) -> Vec<String> {
    let mut e = Vec::new();
    if s.len() > LABEL_MAX {
        e.push(max_bytes(LABEL_MAX));
    }
    if !s.is_empty() && !label_key_form(s) {
        e.push(pattern(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            &format!("({LABEL_KEY})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    e
}

pub(crate) fn port_number(port: i64) -> Vec<String> {
    in_range(port, 1, 65535)
}

pub(crate) fn in_range(v: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&v) { Vec::new() } else { vec![format!("must be between {low} and {high}, inclusive")] }
}

/// A Unix user or group number.
pub(crate) fn unix_id(id: i64) -> Vec<String> {
    in_range(id, 0, i64::from(i32::MAX))
}

pub(crate) fn port_name(s: &str) -> Vec<String> {
    let mut e = Vec::new();
    if s.len() > 15 {
        e.push("must be no more than 15 characters".into());
    }
    if s.is_empty() || !s.bytes().all(|c| lower(c) || c == b'-') {
        e.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !s.bytes().any(|c| c.is_ascii_lowercase()) {
        e.push("must contain at least one letter (a-z)".into());
    }
    if s.contains("--") {
        e.push("must not contain consecutive hyphens".into());
    }
    if s.starts_with('-') || s.ends_with('-') {
        e.push("must not begin or end with a hyphen".into());
    }
    e
}

pub(crate) fn env_var(s: &str) -> Vec<String> {
    if s.is_empty() {
        return vec!["environment variable name must be non-empty".into()];
    }
    if s.bytes().all(|c| (0x20..0x7f).contains(&c) && c != b'=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".into()]
}

pub(crate) fn config_key(s: &str) -> Vec<String> {
    let mut e = Vec::new();
    if s.len() > SUBDOMAIN_MAX {
        e.push(max_characters(SUBDOMAIN_MAX));
    }
    if s.is_empty() || !s.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_')) {
        e.push(pattern(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match s {
        "." => e.push("must not be '.'".into()),
        ".." => e.push("must not be '..'".into()),
        s if s.starts_with("..") => e.push("must not start with '..'".into()),
        _ => {}
    }
    e
}

/// The name of a signer: `example.com/path`.
pub(crate) fn signer(name: &str, at: &Path, e: &mut Errors) {
    if name.is_empty() {
        e.required(at, "");
        return;
    }
    let parts: Vec<&str> = name.split('/').collect();
    let [domain, path] = parts[..] else {
        e.invalid(at, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'");
        return;
    };
    if domain.len() > SUBDOMAIN_MAX {
        e.too_long(at, SUBDOMAIN_MAX);
    }
    let mut first_wrong = |whole: &str, rule: fn(&str) -> Vec<String>| {
        if let Some(l) = whole.split('.').find(|l| !rule(l).is_empty()) {
            for m in rule(l) {
                e.invalid(at, whole, &format!("validating label \"{l}\": {m}"));
            }
        }
    };
    first_wrong(domain, label);
    first_wrong(path, subdomain);
    if !domain.contains('.') {
        e.invalid(at, domain, "should be a domain with at least two segments separated by dots");
    }
    let max = 2 * SUBDOMAIN_MAX + LABEL_MAX + 2;
    if name.len() > max {
        e.too_long(at, max);
    }
}

/// `acme.io/foo`: who manages something, or a controller's name.
pub(crate) fn domain_prefixed_path(name: &str, at: &Path, e: &mut Errors) {
    if name.is_empty() {
        e.required(at, "");
        return;
    }
    let Some((domain, path)) = name.split_once('/').filter(|(d, p)| !d.is_empty() && !p.is_empty()) else {
        e.invalid(at, name, "must be a domain-prefixed path (such as \"acme.io/foo\")");
        return;
    };
    e.invalid_each(at, domain, subdomain(domain));
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
    if !path.bytes().all(allowed) {
        e.invalid(at, path, "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')");
    }
}

/// The name of a ClusterTrustBundle: `signer:path:name`, or without colons where it has no signer.
pub(crate) fn trust_bundle(signer: &str, name: &str, prefix: bool) -> Vec<String> {
    if signer.is_empty() {
        if name.contains(':') {
            return vec!["ClusterTrustBundle without signer name must not have \":\" in its name".into()];
        }
        return NameRule::Subdomain.check(name, prefix);
    }
    let wanted = format!("{}:", signer.replace('/', ":"));
    match name.strip_prefix(&wanted) {
        Some(rest) => NameRule::Subdomain.check(rest, prefix),
        None => {
            vec![format!("ClusterTrustBundle for signerName {signer} must be named with prefix {wanted}")]
        }
    }
}

pub(crate) fn header(s: &str) -> Vec<String> {
    if !s.is_empty() && s.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
        return Vec::new();
    }
    vec![pattern(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

pub(crate) fn path_segment(s: &str, prefix: bool) -> Vec<String> {
    let mut e = Vec::new();
    if !prefix && (s == "." || s == "..") {
        e.push(format!("may not be '{s}'"));
        return e;
    }
    for c in ['/', '%'] {
        if s.contains(c) {
            e.push(format!("may not contain '{c}'"));
        }
    }
    e
}

/// `50%`.
pub(crate) fn percent(s: &str) -> Vec<String> {
    if s.strip_suffix('%').is_some_and(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit())) {
        return Vec::new();
    }
    vec![pattern(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

/// Numbers without the zeros that some write before them.
fn unpadded(s: &str) -> String {
    let plain = |n: &str| match n.trim_start_matches('0') {
        "" if !n.is_empty() => "0".to_owned(),
        rest => rest.to_owned(),
    };
    s.split('.').map(plain).collect::<Vec<_>>().join(".")
}

/// An IP address, without a zone or leading zeros.
pub(crate) fn ip(s: &str) -> Vec<String> {
    match s.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
            vec!["must not be an IPv4-mapped IPv6 address".into()]
        }
        Ok(_) => Vec::new(),
        Err(_) if unpadded(s).parse::<Ipv4Addr>().is_ok() => vec!["must not have leading 0s".into()],
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()],
    }
}

/// [`ip`], written in the one form that it has.
pub(crate) fn canonical_ip(s: &str) -> Vec<String> {
    let wrong = ip(s);
    match s.parse::<IpAddr>() {
        Ok(ip) if wrong.is_empty() && ip.to_string() != s => vec![format!("must be in canonical form (\"{ip}\")")],
        _ => wrong,
    }
}

/// An address block.
pub(crate) fn cidr(s: &str) -> Vec<String> {
    let padded = |(ip, bits): (&str, &str)| ip.parse::<IpAddr>().is_err() || (bits.len() > 1 && bits.starts_with('0'));
    let why = match s.parse::<IpNet>() {
        Ok(_) if s.split_once('/').is_some_and(padded) => "must not have leading 0s in IP or prefix length",
        Ok(IpNet::V6(n)) if n.addr().to_ipv4_mapped().is_some() => "must not have an IPv4-mapped IPv6 address",
        Ok(n) if n.addr() != n.network() => "must not have bits set beyond the prefix length",
        Ok(_) => return Vec::new(),
        Err(_) if unpadded_net(s).is_some() => "must not have leading 0s in IP or prefix length",
        Err(_) => "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
    };
    vec![why.into()]
}

fn unpadded_net(s: &str) -> Option<IpNet> {
    let (ip, bits) = s.split_once('/')?;
    format!("{}/{}", unpadded(ip), unpadded(bits)).parse().ok()
}

/// [`cidr`], written in the one form that it has.
pub(crate) fn canonical_cidr(s: &str) -> Vec<String> {
    let wrong = cidr(s);
    match s.parse::<IpNet>() {
        Ok(n) if wrong.is_empty() && n.to_string() != s => vec![format!("must be in canonical form (\"{n}\")")],
        _ => wrong,
    }
}
