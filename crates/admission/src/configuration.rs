//! The file of `--admission-control-config-file`: settings of plugins, in upstream's formats, each inline
//! or in a file of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ironkeel_object::{Map, Value};

use crate::event_rate_limit::Limit;
use crate::image_policy::ImagePolicyConfig;
use crate::pod_security::PodSecurityConfig;

/// A file that says nothing that can be done.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// Cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Is no YAML and no JSON.
    #[error("{place}: {error}")]
    Syntax {
        /// The file, or the plugin.
        place: String,
        /// Why.
        error: ironkeel_codec::DecodeError,
    },
    /// Says what is not known or not allowed.
    #[error("{place}: {why}")]
    Content {
        /// The file, or the plugin.
        place: String,
        /// What is wrong.
        why: String,
    },
}

/// Settings of the plugins that have any.
#[derive(Clone, Debug, Default)]
pub struct PluginSettings {
    /// PodSecurity's defaults and exemptions.
    pub pod_security: Option<PodSecurityConfig>,
    /// PodNodeSelector: selectors by namespace, and the cluster's as `clusterDefaultNodeSelector`.
    pub node_selectors: BTreeMap<String, String>,
    /// PodTolerationRestriction: tolerations for namespaces that name none.
    pub default_tolerations: Vec<Value>,
    /// PodTolerationRestriction: what namespaces that name none may tolerate; anything where empty.
    pub allowed_tolerations: Vec<Value>,
    /// EventRateLimit's limits.
    pub event_limits: Vec<Limit>,
    /// ImagePolicyWebhook's backend.
    pub image_policy: Option<ImagePolicyConfig>,
}

const GROUPS: [&str; 3] =
    ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1alpha1", "apiserver.k8s.io/v1alpha1"];

fn content(place: &str, why: impl Into<String>) -> ConfigurationError {
    ConfigurationError::Content { place: place.to_owned(), why: why.into() }
}

fn read(path: &Path) -> Result<Value, ConfigurationError> {
    let bytes = std::fs::read(path).map_err(|error| ConfigurationError::Read { path: path.to_owned(), error })?;
    let place = path.display().to_string();
    let (tree, problems) = ironkeel_codec::decode_yaml(&bytes, None)
        .map_err(|error| ConfigurationError::Syntax { place: place.clone(), error })?;
    match problems.first() {
        Some(problem) => Err(content(&place, problem.to_string())),
        None => Ok(tree),
    }
}

fn texts(v: &Value, path: &[&str]) -> Vec<String> {
    v.items_at(path).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Refuses members that mean nothing.
fn known(place: &str, v: &Value, names: &[&str]) -> Result<(), ConfigurationError> {
    let members = v.as_object().into_iter().flat_map(Map::keys);
    match members.into_iter().find(|k| !names.contains(&k.as_ref()) && !matches!(k.as_ref(), "kind" | "apiVersion")) {
        Some(odd) => Err(content(place, format!("unknown field {odd:?}"))),
        None => Ok(()),
    }
}

impl PluginSettings {
    /// Reads an `AdmissionConfiguration`. Files that it names are looked for beside it.
    ///
    /// # Errors
    /// What cannot be read, or means nothing.
    pub fn load(path: &Path) -> Result<Self, ConfigurationError> {
        let file = read(path)?;
        let place = path.display().to_string();
        let version = file.str_at(&["apiVersion"]).unwrap_or_default();
        if file.str_at(&["kind"]) != Some("AdmissionConfiguration") || !GROUPS.contains(&version) {
            return Err(content(&place, "must be an AdmissionConfiguration of apiserver.config.k8s.io/v1"));
        }
        known(&place, &file, &["plugins"])?;
        let mut out = PluginSettings::default();
        for plugin in file.items_at(&["plugins"]) {
            known(&place, plugin, &["name", "path", "configuration"])?;
            let name = plugin.str_at(&["name"]).unwrap_or_default();
            let inline = plugin.get("configuration").filter(|c| !c.is_null());
            let named = plugin.str_at(&["path"]).filter(|p| !p.is_empty());
            let here = path.parent().unwrap_or(Path::new("."));
            let (settings, beside) = match (inline, named) {
                (Some(inline), _) => (inline.clone(), here.to_owned()),
                (None, Some(file)) => {
                    let file = here.join(file);
                    (read(&file)?, file.parent().unwrap_or(here).to_owned())
                }
                (None, None) => continue,
            };
            out.take(name, &settings, &beside)?;
        }
        Ok(out)
    }

    fn take(&mut self, name: &str, v: &Value, beside: &Path) -> Result<(), ConfigurationError> {
        match name {
            "PodSecurity" => self.pod_security = Some(pod_security(name, v)?),
            "PodNodeSelector" => {
                known(name, v, &["podNodeSelectorPluginConfig"])?;
                let selectors = v.get("podNodeSelectorPluginConfig").and_then(Value::as_object);
                for (namespace, selector) in selectors.into_iter().flat_map(Map::iter) {
                    let selector = selector.as_str().ok_or_else(|| content(name, "selectors must be strings"))?;
                    self.node_selectors.insert(namespace.to_string(), selector.to_owned());
                }
            }
            "PodTolerationRestriction" => {
                known(name, v, &["default", "whitelist"])?;
                self.default_tolerations = v.items_at(&["default"]).to_vec();
                self.allowed_tolerations = v.items_at(&["whitelist"]).to_vec();
            }
            "EventRateLimit" => {
                known(name, v, &["limits"])?;
                let limits = v.items_at(&["limits"]).iter().enumerate();
                self.event_limits = limits
                    .map(|(i, l)| Limit::read(l).map_err(|why| content(name, format!("limits[{i}].{why}"))))
                    .collect::<Result<_, _>>()?;
                if self.event_limits.is_empty() {
                    return Err(content(name, "limits: Invalid value: []: must not be empty"));
                }
            }
            "ImagePolicyWebhook" => {
                known(name, v, &["imagePolicy"])?;
                let of = v.get("imagePolicy").cloned().unwrap_or_default();
                self.image_policy = Some(ImagePolicyConfig::read(&of, beside).map_err(|why| content(name, why))?);
            }
            other => {
                return Err(content(other, "this plugin takes no configuration here"));
            }
        }
        Ok(())
    }
}

fn pod_security(place: &str, v: &Value) -> Result<PodSecurityConfig, ConfigurationError> {
    let mut out = PodSecurityConfig::default();
    known(place, v, &["defaults", "exemptions"])?;
    const MODES: [&str; 6] = ["enforce", "enforce-version", "audit", "audit-version", "warn", "warn-version"];
    for (mode, value) in v.get("defaults").and_then(Value::as_object).into_iter().flat_map(Map::iter) {
        let text = value.as_str().unwrap_or_default();
        if !MODES.contains(&mode.as_ref()) || !crate::pod_security::is_setting(mode, text) {
            return Err(content(place, format!("defaults.{mode}: Invalid value: {text:?}")));
        }
        out.defaults.push((mode.to_string(), text.to_owned()));
    }
    out.exempt.usernames = texts(v, &["exemptions", "usernames"]);
    out.exempt.runtime_classes = texts(v, &["exemptions", "runtimeClasses"]);
    out.exempt.namespaces = texts(v, &["exemptions", "namespaces"]);
    Ok(out)
}
