//! Should they: the built-in admission plugins.
//!
//! Each plugin is a file that answers to upstream's plugin of the same name. [`Plugins`] calls them
//! in upstream's order. What does not live here: webhooks and policies (CEL), identity and
//! permission (`auth`).

mod default_toleration_seconds;
mod deny_service_external_ips;
mod ingress_class;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod pod_security;
mod pod_topology_labels;
mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage;
mod taint_nodes;
mod usage;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use ironkeel_object::{ObjectMeta, ObjectSource, Value};
use ironkeel_registry::{Admission, ApiError, Attributes, Chain, Operation, Registry};

/// What plugins see of the cluster.
pub(crate) struct Cluster {
    source: Arc<dyn ObjectSource>,
    /// For what waits until an object is there; without it nothing waits.
    registry: Option<Arc<Registry>>,
}

impl Cluster {
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

/// The chain of plugins.
pub struct Plugins {
    cluster: Cluster,
    quota: resource_quota::ResourceQuota,
    others: Vec<Chain>,
}

impl fmt::Debug for Plugins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugins").field("others", &self.others).finish_non_exhaustive()
    }
}

/// The chain of built-in plugins over a registry, and `others` behind them.
pub fn chain(registry: Arc<Registry>, others: Vec<Chain>) -> Chain {
    let cluster = Cluster { source: registry.clone(), registry: Some(registry) };
    Arc::new(Plugins { cluster, quota: resource_quota::ResourceQuota::default(), others })
}

/// The chain of built-in plugins over any source of objects. Nothing waits: a Pod whose namespace
/// has no ServiceAccount yet is refused at once.
pub fn chain_over(source: Arc<dyn ObjectSource>) -> Chain {
    let cluster = Cluster { source, registry: None };
    Arc::new(Plugins { cluster, quota: resource_quota::ResourceQuota::default(), others: Vec::new() })
}

/// Whether this creates a Pod.
pub(crate) fn creates_pod(a: &Attributes<'_>) -> bool {
    a.operation == Operation::Create && a.is("", "pods")
}

#[async_trait]
impl Admission for Plugins {
    async fn mutate(&self, a: &Attributes<'_>, object: &mut Value, old: Option<&Value>) -> Result<(), ApiError> {
        let c = &self.cluster;
        namespace_lifecycle::admit(c, a, Some(object))?;
        if creates_pod(a) {
            service_account::mutate(c, a, object).await?;
            priority::mutate(c, a, object)?;
            runtime_class::mutate(c, a, object)?;
            default_toleration_seconds::mutate(object);
        }
        limit_ranger::mutate(c, a, object);
        taint_nodes::mutate(a, object);
        storage::mutate(c, a, object);
        ingress_class::mutate(c, a, object)?;
        pod_topology_labels::mutate(c, a, object);
        for other in &self.others {
            other.mutate(a, object, old).await?;
        }
        Ok(())
    }

    async fn validate(&self, a: &Attributes<'_>, object: Option<&Value>, old: Option<&Value>) -> Result<(), ApiError> {
        let c = &self.cluster;
        if a.operation == Operation::Delete {
            namespace_lifecycle::admit(c, a, None)?;
        }
        node_restriction::validate(c, a, object, old)?;
        priority::validate(c, a, object)?;
        if let Some(object) = object {
            limit_ranger::validate(c, a, object)?;
            pod_security::validate(c, a, object, old)?;
            storage::validate(c, a, object, old)?;
            deny_service_external_ips::validate(a, object, old)?;
        }
        for other in &self.others {
            other.validate(a, object, old).await?;
        }
        if let Some(old) = old {
            self.quota.seen(old.uid());
        }
        if let Some(object) = object {
            // Last, so that nothing is charged for what others refuse.
            self.quota.validate(c, a, object, old)?;
        }
        Ok(())
    }

    fn rolled_back(&self, a: &Attributes<'_>, object: &Value) {
        self.quota.rolled_back(a, object);
    }
}
