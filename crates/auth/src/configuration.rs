//! What files of configuration have in common (`apiserver.config.k8s.io`): strict reading, and what is
//! wrong by field path in upstream's words.

use std::fmt::Display;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Why a file of configuration is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationError {
    /// It cannot be read.
    #[error("{0}")]
    Malformed(String),
    /// It is of another kind or version.
    #[error("no kind {kind:?} is registered for version {version:?}")]
    Kind {
        /// What it is.
        kind: String,
        /// Of which version.
        version: String,
    },
    /// Fields that do not fit, all of them.
    #[error("{}", one_or_many(.0))]
    Invalid(Vec<String>),
}

/// Why a file of policies is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error reading policy file on line {line}: {reason}")]
pub struct PolicyFileError {
    /// Counted from 1.
    pub line: usize,
    /// Why it cannot be read.
    pub reason: String,
}

fn one_or_many(all: &[String]) -> String {
    match all {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// A duration as Go writes it: `1m30s`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GoDuration(pub(crate) Duration);

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || serde::de::Error::custom(format!("time: invalid duration {text:?}"));
        go_duration(&text).map(GoDuration).ok_or_else(wrong)
    }
}

fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text, 0.0_f64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |i| digits + i);
        seconds += number
            * match &rest[digits..end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(seconds).ok().filter(|_| !text.is_empty())
}

/// Reads YAML or JSON; unknown fields and fields that stand twice are errors.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, ConfigurationError> {
    serde_yaml_ng::from_str(text).map_err(|e| ConfigurationError::Malformed(format!("strict decoding error: {e}")))
}

pub(crate) fn check_version(
    wanted: &str,
    versions: &[&str],
    kind: &str,
    version: &str,
) -> Result<(), ConfigurationError> {
    let known = version.strip_prefix("apiserver.config.k8s.io/").is_some_and(|v| versions.contains(&v));
    if kind == wanted && known {
        return Ok(());
    }
    Err(ConfigurationError::Kind { kind: kind.to_owned(), version: version.to_owned() })
}

/// What is wrong with a text that is no [`is_subdomain`], in upstream's words.
pub(crate) const NOT_A_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// A lowercase RFC 1123 subdomain.
pub(crate) fn is_subdomain(name: &str) -> bool {
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let label = |l: &str| {
        let bytes = l.as_bytes();
        bytes.first().is_some_and(plain)
            && bytes.last().is_some_and(plain)
            && bytes.iter().all(|b| plain(b) || *b == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// What is wrong with fields.
#[derive(Default)]
pub(crate) struct Fields(Vec<String>);

impl Fields {
    pub(crate) fn required(&mut self, path: &str, why: &str) {
        let colon = if why.is_empty() { "" } else { ": " };
        self.0.push(format!("{path}: Required value{colon}{why}"));
    }

    pub(crate) fn invalid(&mut self, path: &str, value: &str, why: &str) {
        self.0.push(format!("{path}: Invalid value: {value:?}: {why}"));
    }

    pub(crate) fn duplicate(&mut self, path: &str, value: &str) {
        self.0.push(format!("{path}: Duplicate value: {value:?}"));
    }

    pub(crate) fn not_supported(&mut self, path: &str, value: &str, known: &[&str]) {
        let known: Vec<String> = known.iter().map(|k| format!("{k:?}")).collect();
        self.0.push(format!("{path}: Unsupported value: {value:?}: supported values: {}", known.join(", ")));
    }

    pub(crate) fn too_many(&mut self, path: &str, found: usize, most: usize) {
        self.0.push(format!("{path}: Too many: {found}: must have at most {most} items"));
    }

    /// An expression that does not compile.
    pub(crate) fn compile(&mut self, path: &str, expression: &str, error: &ironkeel_expr::CompileError) {
        let why = match error {
            ironkeel_expr::CompileError::OutputType(why) => why.clone(),
            other => format!("compilation failed: {other}"),
        };
        self.invalid(path, expression, &why);
    }

    /// The outcome, where nothing is wrong.
    pub(crate) fn done<T>(self, outcome: T) -> Result<T, ConfigurationError> {
        if self.0.is_empty() { Ok(outcome) } else { Err(ConfigurationError::Invalid(self.0)) }
    }
}

impl Extend<String> for Fields {
    fn extend<I: IntoIterator<Item = String>>(&mut self, wrong: I) {
        self.0.extend(wrong);
    }
}

/// `[a, b]`, as lists stand in messages.
pub(crate) fn shown<T: Display>(all: &[T]) -> String {
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    format!("[{}]", all.join(" "))
}
