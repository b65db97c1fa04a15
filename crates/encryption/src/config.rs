//! EncryptionConfiguration (`apiserver.config.k8s.io/v1`), read strictly, and its providers.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::validation::{self, group_resource, shown};
use crate::{EncryptionError, Kms, Provider};

/// How long a call of a plugin may take where the file does not say.
const KMS_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    pub(crate) resources: Vec<Resource>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Resource {
    #[serde(default)]
    pub(crate) resources: Vec<String>,
    #[serde(default)]
    pub(crate) providers: Vec<ProviderEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProviderEntry {
    pub(crate) aesgcm: Option<Keys>,
    pub(crate) aescbc: Option<Keys>,
    pub(crate) secretbox: Option<Keys>,
    #[serde(default, deserialize_with = "present")]
    pub(crate) identity: bool,
    pub(crate) kms: Option<KmsEntry>,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde_yaml_ng::Value::deserialize(deserializer).map(|_| true)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Keys {
    #[serde(default)]
    pub(crate) keys: Vec<Key>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) secret: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KmsEntry {
    #[serde(rename = "apiVersion", default)]
    pub(crate) api_version: String,
    #[serde(default)]
    pub(crate) name: String,
    pub(crate) cachesize: Option<i64>,
    #[serde(default)]
    pub(crate) endpoint: String,
    pub(crate) timeout: Option<String>,
}

impl KmsEntry {
    /// `None` where it is no duration.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout.as_deref().map_or(Some(KMS_TIMEOUT), go_duration)
    }
}

/// `1h2m3.5s`, `100ms`.
fn go_duration(text: &str) -> Option<Duration> {
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
    Duration::try_from_secs_f64(seconds).ok()
}

/// A resource, and how it is kept.
#[derive(Debug)]
pub struct ResourceRule {
    /// `secrets`, `deployments.apps`, `*.apps`, `*.` (the core group) or `*.*`.
    pub resource: String,
    /// The providers, the writing one first.
    pub providers: Vec<Arc<Provider>>,
}

/// A whole file.
#[derive(Debug)]
pub struct Configuration {
    /// In order; the first that names a resource counts.
    pub rules: Vec<ResourceRule>,
    /// The KMS plugins among the providers: somebody must [`Kms::follow`] each.
    pub plugins: Vec<Arc<Kms>>,
}

impl Configuration {
    /// Reads a file's text.
    ///
    /// # Errors
    /// What is wrong, with its field path, in upstream's words; never a key.
    pub fn read(text: &str) -> Result<Configuration, EncryptionError> {
        // The parser's words may quote the text, and so a key: only where it stumbled is told.
        let malformed = |e: serde_yaml_ng::Error| {
            let at = e.location().map_or_else(String::new, |l| format!(" at line {} column {}", l.line(), l.column()));
            EncryptionError::Malformed(format!("a field is missing, unknown or of another type{at}"))
        };
        if text.trim().is_empty() {
            return Err(EncryptionError::Malformed("it is empty".to_owned()));
        }
        let file: File = serde_yaml_ng::from_str(text).map_err(malformed)?;
        if file.api_version != "apiserver.config.k8s.io/v1" || file.kind != "EncryptionConfiguration" {
            return Err(EncryptionError::Malformed(format!("it is a {} of {}", file.kind, file.api_version)));
        }
        let wrong = validation::validate(&file);
        if !wrong.is_empty() {
            return Err(EncryptionError::Invalid(wrong));
        }
        build(&file)
    }
}

/// The providers of a file that was found valid.
fn build(file: &File) -> Result<Configuration, EncryptionError> {
    let mut all = Configuration { rules: Vec::new(), plugins: Vec::new() };
    for entry in &file.resources {
        let mut providers = Vec::new();
        for provider in &entry.providers {
            add(provider, &mut providers, &mut all.plugins);
        }
        for resource in &entry.resources {
            let (plural, group) = group_resource(resource);
            for earlier in [("*", group), ("*", "*")] {
                if all.rules.iter().any(|r| group_resource(&r.resource) == earlier) {
                    let (resource, earlier) = (shown((plural, group)), shown(earlier));
                    return Err(EncryptionError::Masked { resource, earlier });
                }
            }
            // Providers of a resource that is named again come behind those of before.
            match all.rules.iter_mut().find(|r| group_resource(&r.resource) == (plural, group)) {
                Some(rule) => rule.providers.extend(providers.iter().cloned()),
                None => all.rules.push(ResourceRule { resource: resource.clone(), providers: providers.clone() }),
            }
        }
    }
    Ok(all)
}

fn add(entry: &ProviderEntry, providers: &mut Vec<Arc<Provider>>, plugins: &mut Vec<Arc<Kms>>) {
    type Make = fn(&str, &[u8]) -> Option<Provider>;
    let kinds: [(&Option<Keys>, Make); 3] = [
        (&entry.aesgcm, Provider::aes_gcm),
        (&entry.aescbc, Provider::aes_cbc),
        (&entry.secretbox, Provider::secretbox),
    ];
    for (keys, make) in kinds {
        for key in keys.iter().flat_map(|k| &k.keys) {
            let secret = STANDARD.decode(&key.secret).unwrap_or_default();
            providers.extend(make(&key.name, &secret).map(Arc::new));
        }
    }
    if let Some(kms) = &entry.kms {
        let socket = kms.endpoint.strip_prefix("unix://").or_else(|| kms.endpoint.strip_prefix("unix:"));
        // `@name` is an abstract socket, which begins with a NUL.
        let socket = socket.unwrap_or_default();
        let socket = socket.trim_start_matches('/').strip_prefix('@').map_or(socket.to_owned(), |n| format!("\0{n}"));
        let plugin = Arc::new(Kms::new(kms.name.clone(), socket, kms.timeout().unwrap_or(KMS_TIMEOUT)));
        plugins.push(plugin.clone());
        providers.push(Arc::new(Provider::kms(plugin)));
    }
    if entry.identity {
        providers.push(Arc::new(Provider::identity()));
    }
}
