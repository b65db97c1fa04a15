//! Levels, versions and policies, as a namespace's labels name them.

use std::fmt;

use ironkeel_kinds::{FieldError, FieldErrorKind, Path};
use ironkeel_object::{ObjectMeta, Value};

use super::checks::{self, Subject};

pub(super) const PREFIX: &str = "pod-security.kubernetes.io/";
/// The minor version of the API that is served here: `latest`.
const LATEST_MINOR: u32 = 36;

/// What the plugin leaves alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSecurityExemptions {
    /// User names.
    pub usernames: Vec<String>,
    /// Names of RuntimeClasses.
    pub runtime_classes: Vec<String>,
    /// Namespaces.
    pub namespaces: Vec<String>,
}

/// `PodSecurityConfiguration`: what holds for namespaces without labels, and what is exempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSecurityConfig {
    /// Levels and versions by mode: `enforce`, `enforce-version`, `audit`, …
    pub defaults: Vec<(String, String)>,
    /// What is left alone.
    pub exempt: PodSecurityExemptions,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd)]
pub(super) enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

/// `latest`, or the minor version of `v1.x`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Version(Option<u32>);

/// Whether a default of the plugin's configuration means something: a level, or with `-version` a version.
pub(crate) fn is_setting(mode: &str, text: &str) -> bool {
    if mode.ends_with("-version") { Version::parse(text).is_some() } else { Level::parse(text).is_some() }
}

/// A level as of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standard {
    pub(super) level: Level,
    pub(super) version: Version,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Level::Privileged),
            "baseline" => Some(Level::Baseline),
            "restricted" => Some(Level::Restricted),
            _ => None,
        }
    }
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Version(None));
        }
        let minor = text.strip_prefix("v1.")?;
        let plain = minor == "0" || (!minor.starts_with('0') && minor.bytes().all(|b| b.is_ascii_digit()));
        minor.parse().ok().filter(|_| plain).map(|m| Version(Some(m)))
    }

    fn minor(self) -> u32 {
        self.0.unwrap_or(LATEST_MINOR).min(LATEST_MINOR)
    }
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.level {
            Level::Privileged => "privileged:",
            Level::Baseline => "baseline:",
            Level::Restricted => "restricted:",
        })?;
        match self.version.0 {
            None => f.write_str("latest"),
            Some(minor) => write!(f, "v1.{minor}"),
        }
    }
}

impl Standard {
    /// What of a Pod's spec the standard forbids.
    pub(super) fn violations(&self, spec: &Value, annotations: Option<&Value>) -> Vec<String> {
        let subject = Subject { spec, annotations };
        match self.level {
            Level::Privileged => Vec::new(),
            level => checks::violations(&subject, self.version.minor(), level == Level::Restricted),
        }
    }
}

/// What upstream says of several violations.
pub(super) fn forbidden_detail(found: &[String]) -> String {
    found.join(", ")
}

/// What holds in a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) enforce: Standard,
    pub(super) audit: Standard,
    pub(super) warn: Standard,
}

impl Policy {
    pub(super) fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|s| s.level == Level::Privileged)
    }

    fn mode(&mut self, mode: &str) -> &mut Standard {
        match mode {
            "enforce" => &mut self.enforce,
            "audit" => &mut self.audit,
            _ => &mut self.warn,
        }
    }

    /// The policy of a namespace's labels over the defaults, and what is wrong with the labels. What
    /// cannot be read is enforced as restricted, and neither noted nor warned of.
    pub(super) fn of(namespace: &Value, config: &PodSecurityConfig) -> (Self, Vec<FieldError>) {
        let mut policy = Policy::default();
        for (key, value) in &config.defaults {
            let (mode, version) = match key.strip_suffix("-version") {
                Some(mode) => (mode, true),
                None => (key.as_str(), false),
            };
            let slot = policy.mode(mode);
            if version {
                slot.version = Version::parse(value).unwrap_or_default();
            } else {
                slot.level = Level::parse(value).unwrap_or(Level::Restricted);
            }
        }
        let mut errors = Vec::new();
        let mut wrong = |key: &str, value: &str, why: &str| {
            errors.push(FieldError {
                path: Path::new("metadata").child("labels").key(&format!("{PREFIX}{key}")),
                kind: FieldErrorKind::Invalid,
                message: format!("Invalid value: {value:?}: {why}"),
            });
        };
        let mut said = Vec::new();
        for mode in ["enforce", "audit", "warn"] {
            if let Some(text) = namespace.label(&format!("{PREFIX}{mode}")) {
                let level = Level::parse(text);
                if level.is_none() {
                    wrong(mode, text, "must be one of privileged, baseline, restricted");
                }
                let fallback = if mode == "enforce" { Level::Restricted } else { Level::Privileged };
                policy.mode(mode).level = level.unwrap_or(fallback);
                if level.is_some() || mode != "enforce" {
                    said.push(mode);
                }
            }
            let key = format!("{mode}-version");
            if let Some(text) = namespace.label(&format!("{PREFIX}{key}")) {
                let version = Version::parse(text);
                if version.is_none() {
                    wrong(&key, text, "must be \"latest\" or \"v1.x\"");
                }
                policy.mode(mode).version = version.unwrap_or_default();
            }
        }
        let stricter = policy.enforce.level > policy.warn.level;
        if said.contains(&"enforce") && !said.contains(&"warn") && stricter {
            policy.warn.level = policy.enforce.level;
            if namespace.label(&format!("{PREFIX}warn-version")).is_none() {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }
}
