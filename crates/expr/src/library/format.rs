//! `format.dns1123Label().validate("x")`: named formats.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use regex::Regex;

use crate::EvalError;
use crate::functions::{Answer, Cost, Row, text};
use crate::value::{OpaqueVal, Val};

/// A named format.
#[derive(Debug)]
pub struct NamedFormat {
    pub(crate) name: &'static str,
    /// Length of the pattern that it stands for; what a validation costs depends on it.
    pub(crate) regex_size: u64,
    validate: fn(&str) -> Vec<String>,
}

macro_rules! formats {
    ($($call:literal, $name:literal, $size:literal, $validate:expr, $row:ident;)*) => {
        static FORMATS: &[(&str, NamedFormat)] =
            &[$(($call, NamedFormat { name: $name, regex_size: $size, validate: $validate })),*];
        $(fn $row<'a>(_: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
            by_name($call).map_or(Err(EvalError::NoSuchOverload), |f| Ok(Val::from(OpaqueVal::Format(f))))
        })*
        pub(crate) const ROWS: &[Row] = &[
            $(Row {
                name: concat!("format.", $call),
                cost: Cost::One,
                code: $row,
                overloads: &[concat!("format.", $call, " () -> format")],
            },)*
            Row {
                name: "format.named",
                cost: Cost::One,
                code: named,
                overloads: &["format-named (string) -> optional<format>"],
            },
            Row {
                name: "validate",
                cost: Cost::Validate,
                code: validate,
                overloads: &[".format-validate (format, string) -> optional<list<string>>"],
            },
        ];
    };
}

formats! {
    "dns1123Label", "DNS1123Label", 30, |s| dns_label(s), dns1123_label;
    "dns1123Subdomain", "DNS1123Subdomain", 60, |s| dns_subdomain(s), dns1123_subdomain;
    "dns1035Label", "DNS1035Label", 30, |s| dns1035(s), dns1035_label;
    "qualifiedName", "QualifiedName", 60, |s| qualified_name(s), qualified;
    "dns1123LabelPrefix", "DNS1123LabelPrefix", 30, |s| dns_label(&unmask(s)), dns1123_label_prefix;
    "dns1123SubdomainPrefix", "DNS1123SubdomainPrefix", 60, |s| dns_subdomain(&unmask(s)), dns1123_subdomain_prefix;
    "dns1035LabelPrefix", "DNS1035LabelPrefix", 30, |s| dns1035(&unmask(s)), dns1035_label_prefix;
    "labelValue", "LabelValue", 40, |s| label_value(s), label;
    "uri", "URI", 1204, |s| super::url::Url::parse(s).err().into_iter().collect(), uri;
    "uuid", "uuid", 36, |s| uuid(s), uuid_format;
    "byte", "byte", 84, |s| byte(s), byte_format;
    "date", "date", 85, |s| date(s), date_format;
    "datetime", "datetime", 85, |s| datetime(s), datetime_format;
}

fn by_name(name: &str) -> Option<&'static NamedFormat> {
    FORMATS.iter().find(|(call, _)| *call == name).map(|(_, format)| format)
}

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;

/// Matches the whole of a text; patterns here are literals.
struct Whole(LazyLock<Regex>);

impl Whole {
    fn is_match(&self, s: &str) -> bool {
        self.0.is_match(s)
    }
}

macro_rules! whole {
    ($name:ident, $pattern:expr) => {
        static $name: Whole = Whole(LazyLock::new(|| {
            Regex::new(&format!("^(?:{})$", $pattern)).expect("a pattern of this file, compiled by its tests")
        }));
    };
}

whole!(LABEL_RE, LABEL);
whole!(SUBDOMAIN_RE, format!("{LABEL}(\\.{LABEL})*"));
whole!(LABEL_1035_RE, "[a-z]([-a-z0-9]*[a-z0-9])?");
whole!(QUALIFIED_RE, "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]");
whole!(UUID_RE, "(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}");

fn too_long(s: &str, max: usize) -> Option<String> {
    (s.len() > max).then(|| format!("must be no more than {max} bytes"))
}

/// A prefix may end in a dash: the name goes on after it.
fn unmask(s: &str) -> String {
    match s.strip_suffix('-') {
        Some(start) if !start.is_empty() => format!("{start}a"),
        _ => s.to_owned(),
    }
}

fn explain(message: &str, pattern: &str, examples: &str) -> String {
    format!("{message} ({examples}, regex used for validation is '{pattern}')")
}

fn dns_label(s: &str) -> Vec<String> {
    let mut out: Vec<String> = too_long(s, LABEL_MAX).into_iter().collect();
    if !LABEL_RE.is_match(s) {
        if SUBDOMAIN_RE.is_match(s) {
            out.push("must not contain dots".into());
        } else {
            out.push(explain(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
                LABEL,
                "e.g. 'my-name',  or '123-abc'",
            ));
        }
    }
    out
}

fn dns_subdomain(s: &str) -> Vec<String> {
    let mut out: Vec<String> = too_long(s, SUBDOMAIN_MAX).into_iter().collect();
    if !SUBDOMAIN_RE.is_match(s) {
        out.push(explain(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            &format!("{LABEL}(\\.{LABEL})*"),
            "e.g. 'example.com'",
        ));
    }
    out
}

fn dns1035(s: &str) -> Vec<String> {
    let mut out: Vec<String> = too_long(s, LABEL_MAX).into_iter().collect();
    if !LABEL_1035_RE.is_match(s) {
        out.push(explain(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            "e.g. 'my-name',  or 'abc-123'",
        ));
    }
    out
}

fn qualified_name(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    let name = match s.split('/').collect::<Vec<_>>()[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                out.push("prefix part must be non-empty".into());
            } else {
                out.extend(dns_subdomain(prefix).into_iter().map(|e| format!("prefix part {e}")));
            }
            name
        }
        _ => {
            out.push(explain(
                "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character with an optional DNS subdomain prefix and '/'",
                "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]",
                "e.g. 'MyName',  or 'my.name',  or '123-abc'",
            ));
            return out;
        }
    };
    if name.is_empty() {
        out.push("name part must be non-empty".into());
    } else {
        out.extend(too_long(name, LABEL_MAX).map(|e| format!("name part {e}")));
    }
    if !QUALIFIED_RE.is_match(name) {
        out.push(explain(
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]",
            "e.g. 'MyName',  or 'my.name',  or '123-abc'",
        ));
    }
    out
}

fn label_value(s: &str) -> Vec<String> {
    let mut out: Vec<String> = too_long(s, LABEL_MAX).into_iter().collect();
    if !s.is_empty() && !QUALIFIED_RE.is_match(s) {
        out.push(explain(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            "e.g. 'MyValue',  or 'my_value',  or '12345'",
        ));
    }
    out
}

fn unless(valid: bool, message: &str) -> Vec<String> {
    if valid { Vec::new() } else { vec![message.to_owned()] }
}

fn uuid(s: &str) -> Vec<String> {
    unless(UUID_RE.is_match(s), "does not match the UUID format")
}

fn byte(s: &str) -> Vec<String> {
    unless(base64::engine::general_purpose::STANDARD.decode(s).is_ok(), "invalid base64")
}

fn date(s: &str) -> Vec<String> {
    let valid = s.len() == 10 && ironkeel_object::Timestamp::parse(&format!("{s}T00:00:00Z")).is_some();
    unless(valid, "invalid date")
}

fn datetime(s: &str) -> Vec<String> {
    unless(ironkeel_object::Timestamp::parse(s).is_some(), "invalid datetime")
}

fn named<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let found = by_name(text(args, 0)?);
    Ok(Val::Optional(found.map(|f| Arc::new(Val::from(OpaqueVal::Format(f))))))
}

fn validate<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let Some(Val::Opaque(o)) = args.first() else { return Err(EvalError::NoSuchOverload) };
    let OpaqueVal::Format(format) = &**o else { return Err(EvalError::NoSuchOverload) };
    let errors = (format.validate)(text(args, 1)?);
    if errors.is_empty() {
        return Ok(Val::Optional(None));
    }
    Ok(Val::Optional(Some(Arc::new(Val::from(errors.into_iter().map(Val::from).collect::<Vec<_>>())))))
}

/// A DNS label of RFC 1123.
pub(crate) fn is_dns_label(s: &str) -> bool {
    dns_label(s).is_empty()
}

/// A DNS subdomain of RFC 1123.
pub(crate) fn is_dns_subdomain(s: &str) -> bool {
    dns_subdomain(s).is_empty()
}
