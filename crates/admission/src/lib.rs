//! Should they: admission plugins, webhooks and policies.
//!
//! Each built-in plugin is a file that answers to upstream's plugin of the same name; webhooks and
//! policies have folders. [`Plugins`] calls them in upstream's order: what changes objects, once
//! more where webhooks or policies changed one, then what only refuses. What does not live here:
//! identity and permission (`auth`), how CEL works (`expr`), how a webhook is reached (`webhook`).

mod attributes;
mod cel;
mod certificates;
mod chain;
mod configuration;
mod declared_features;
mod default_toleration_seconds;
mod deny_service_external_ips;
mod devices;
mod event_rate_limit;
mod image_policy;
mod ingress_class;
mod limit_ranger;
mod matching;
mod namespace_lifecycle;
mod node_restriction;
mod observer;
mod owner_references;
mod plugin_set;
mod pod_node_selector;
mod pod_policies;
mod pod_resize;
mod pod_security;
mod pod_toleration_restriction;
mod pod_topology_labels;
mod policy;
mod priority;
mod reinvocation;
mod resource_quota;
mod runtime_class;
mod service_account;
mod services;
mod storage;
mod taint_nodes;
mod usage;
mod webhook;

use std::sync::Arc;

use ironkeel_auth::Authorizer;
use ironkeel_object::{ObjectSource, Value};
use ironkeel_registry::{ApiError, Attributes, Chain, Operation, Reason, Registry};
use ironkeel_webhook::{NoServices, WebhookClient};

pub use chain::Plugins;
pub use configuration::{ConfigurationError, PluginSettings};
pub use event_rate_limit::{Limit as EventLimit, LimitKind as EventLimitKind};
pub use image_policy::ImagePolicyConfig;
pub use observer::{AdmissionObserver, PluginCall, PolicyCall, WebhookCall};
pub use plugin_set::{PluginError, PluginSet};
pub use pod_security::{Exemptions as PodSecurityExemptions, PodSecurityConfig};
pub use policy::{ExpressionWarning, type_warnings};
pub use services::ClusterServices;

/// What plugins see of the cluster.
pub(crate) struct Cluster {
    source: Arc<dyn ObjectSource>,
    /// For what waits until an object is there, and for conversions; without it there is neither.
    registry: Option<Arc<Registry>>,
    /// For plugins and expressions that ask what a user may do.
    authorizer: Option<Arc<Authorizer>>,
}

impl Cluster {
    /// The time, as the registry tells it.
    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.registry.as_ref().map_or_else(jiff::Timestamp::now, |r| r.clock().now())
    }

    /// One stored object of a `v1` resource.
    pub(crate) fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.source.get(ironkeel_schema::resource(group, "v1", plural)?, namespace, name)
    }

    /// All stored objects of a `v1` resource; of all namespaces where `namespace` is empty.
    pub(crate) fn list(&self, group: &str, plural: &str, namespace: &str) -> Vec<Arc<Value>> {
        match ironkeel_schema::resource(group, "v1", plural) {
            Some(resource) => self.source.list(resource, namespace),
            None => Vec::new(),
        }
    }
}

/// How the chain is made.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The plugins that run.
    pub plugins: PluginSet,
    /// Defaults and exemptions of PodSecurity, unless the settings have any.
    pub pod_security: PodSecurityConfig,
    /// Settings of plugins.
    pub settings: PluginSettings,
    /// Checks that other crates bring; they run before webhooks.
    pub others: Vec<Chain>,
    /// Is told of what plugins, webhooks and policies come to.
    pub observer: Option<Arc<dyn AdmissionObserver>>,
}

impl Config {
    /// Takes over the file of `--admission-control-config-file`, and checks that plugins that run have the
    /// settings that they need.
    ///
    /// # Errors
    /// What cannot be read or means nothing, or is missing.
    pub fn configure(&mut self, file: Option<&std::path::Path>) -> Result<(), ConfigurationError> {
        if let Some(file) = file {
            self.settings = PluginSettings::load(file)?;
        }
        let lacks = |name: &str, has: bool| self.plugins.names().any(|n| n == name) && !has;
        let missing = [
            ("ImagePolicyWebhook", self.settings.image_policy.is_some()),
            ("EventRateLimit", !self.settings.event_limits.is_empty()),
        ];
        match missing.into_iter().find(|(name, has)| lacks(name, *has)) {
            Some((name, _)) => {
                let why = "no config specified; name one in --admission-control-config-file".to_owned();
                Err(ConfigurationError::Content { place: name.to_owned(), why })
            }
            None => Ok(()),
        }
    }
}

/// The chain over a registry.
pub fn chain(
    registry: Arc<Registry>,
    authorizer: Arc<Authorizer>,
    client: Arc<WebhookClient>,
    config: Config,
) -> Chain {
    let cluster = Cluster { source: registry.clone(), registry: Some(registry), authorizer: Some(authorizer) };
    Arc::new(Plugins::new(cluster, client, config))
}

/// [`chain_over`] with settings of plugins.
pub fn chain_with(source: Arc<dyn ObjectSource>, plugins: PluginSet, settings: PluginSettings) -> Chain {
    let cluster = Cluster { source, registry: None, authorizer: None };
    let client = Arc::new(WebhookClient::new(Arc::new(NoServices)));
    Arc::new(Plugins::new(cluster, client, Config { plugins, settings, ..Config::default() }))
}

/// The chain over any source of objects. Nothing waits: a Pod whose namespace has no ServiceAccount
/// yet is refused at once. Webhooks are reached by URL alone.
pub fn chain_over(source: Arc<dyn ObjectSource>, plugins: PluginSet) -> Chain {
    chain_with(source, plugins, PluginSettings::default())
}

/// An error that upstream answers without a reason of its own: 500, and the words alone.
pub(crate) fn unreasoned(why: impl Into<String>) -> ApiError {
    let mut error = ApiError::new(Reason::InternalError, why.into());
    error.chosen = Some(Box::new((500, String::new())));
    error
}

/// Whether this creates a Pod.
pub(crate) fn creates_pod(a: &Attributes<'_>) -> bool {
    a.operation == Operation::Create && a.is("", "pods")
}
