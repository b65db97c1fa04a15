//! EncryptionConfiguration (`apiserver.config.k8s.io/v1`), read strictly.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::{EncryptionError, Provider};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    resources: Vec<String>,
    providers: Vec<ProviderEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderEntry {
    aesgcm: Option<Keys>,
    #[serde(default, deserialize_with = "present")]
    identity: bool,
    aescbc: Option<serde_yaml_ng::Value>,
    secretbox: Option<serde_yaml_ng::Value>,
    kms: Option<serde_yaml_ng::Value>,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde_yaml_ng::Value::deserialize(deserializer).map(|_| true)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    name: String,
    secret: String,
}

/// Resources that are kept in one way.
#[derive(Debug)]
pub struct ResourceRule {
    /// `secrets`, `deployments.apps`, `*.apps`, `*.` (the core group) or `*.*`.
    pub resources: Vec<String>,
    /// The providers, the writing one first.
    pub providers: Vec<Provider>,
}

/// A whole file.
#[derive(Debug)]
pub struct Configuration {
    /// In order; the first that names a resource counts.
    pub rules: Vec<ResourceRule>,
}

impl Configuration {
    /// Reads a file's text.
    ///
    /// # Errors
    /// What is wrong, with its field path; never a key.
    pub fn read(text: &str) -> Result<Configuration, EncryptionError> {
        // The parser's words may quote the text, and so a key: only where it stumbled is told.
        let malformed = |e: serde_yaml_ng::Error| {
            let at = e.location().map_or_else(String::new, |l| format!(" at line {} column {}", l.line(), l.column()));
            EncryptionError::Malformed(format!("a field is missing, unknown or of another type{at}"))
        };
        let file: File = serde_yaml_ng::from_str(text).map_err(malformed)?;
        if file.api_version != "apiserver.config.k8s.io/v1" || file.kind != "EncryptionConfiguration" {
            return Err(EncryptionError::Malformed(format!("it is a {} of {}", file.kind, file.api_version)));
        }
        let mut rules = Vec::new();
        for (i, resource) in file.resources.into_iter().enumerate() {
            let at = format!("resources[{i}]");
            if resource.resources.is_empty() {
                return Err(invalid(format!("{at}.resources"), "Required value"));
            }
            let mut providers = Vec::new();
            for (j, entry) in resource.providers.into_iter().enumerate() {
                entry.into_providers(&format!("{at}.providers[{j}]"), &mut providers)?;
            }
            if providers.is_empty() {
                return Err(invalid(format!("{at}.providers"), "Required value"));
            }
            rules.push(ResourceRule { resources: resource.resources, providers });
        }
        Ok(Configuration { rules })
    }
}

fn invalid(path: String, reason: &str) -> EncryptionError {
    EncryptionError::Invalid { path, reason: reason.to_owned() }
}

impl ProviderEntry {
    fn into_providers(self, at: &str, out: &mut Vec<Provider>) -> Result<(), EncryptionError> {
        for (there, provider) in
            [(self.aescbc.is_some(), "aescbc"), (self.secretbox.is_some(), "secretbox"), (self.kms.is_some(), "kms")]
        {
            if there {
                return Err(EncryptionError::Provider { path: at.to_owned(), provider });
            }
        }
        match (self.aesgcm, self.identity) {
            (Some(aesgcm), false) => {
                if aesgcm.keys.is_empty() {
                    return Err(invalid(format!("{at}.aesgcm.keys"), "Required value"));
                }
                for (k, key) in aesgcm.keys.into_iter().enumerate() {
                    let at = format!("{at}.aesgcm.keys[{k}]");
                    if key.name.is_empty() || key.name.contains(':') {
                        return Err(invalid(format!("{at}.name"), "must be there, and have no colon"));
                    }
                    let secret = STANDARD
                        .decode(key.secret.trim())
                        .map_err(|_| invalid(format!("{at}.secret"), "must be base64 encoded"))?;
                    let provider = Provider::aes_gcm(&key.name, &secret);
                    let wrong = || invalid(format!("{at}.secret"), "must decode to 16 or 32 bytes");
                    out.push(provider.ok_or_else(wrong)?);
                }
                Ok(())
            }
            (None, true) => {
                out.push(Provider::Identity);
                Ok(())
            }
            _ => Err(invalid(at.to_owned(), "exactly one provider must be named")),
        }
    }
}
