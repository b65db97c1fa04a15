//! What has to be done once before the server is whole, under the names of upstream's post-start hooks: each is a
//! health check that fails until the work behind it is finished.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One of the things to be done, in the order in which `/livez?verbose` tells of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Hook {
    /// The admission chain is made.
    Admission,
    /// The watch caches are filled.
    Informers,
    /// Stored FlowSchemas and PriorityLevelConfigurations are in force.
    FlowConsumer,
    /// Requests are seated.
    FlowFilter,
    /// Stored objects are counted.
    ObjectCounts,
    /// Definitions are followed.
    DefinitionInformers,
    /// Definitions are served.
    Definitions,
    /// Those that are established are served already.
    DefinitionsSynced,
    /// `default`, `kube-system` and their like are there.
    Namespaces,
    /// The ConfigMap of authorities is there.
    ClusterAuthentication,
    /// This server has its lease.
    IdentityLease,
    /// Leases of servers that are gone are looked for.
    IdentityLeases,
    /// The store has answered.
    Storage,
    /// Uses of tokens in Secrets are tracked.
    LegacyTokens,
    /// Addresses and ports of Services are known.
    ServiceAddresses,
    /// Default roles are there.
    Roles,
    /// Default priority classes are there.
    PriorityClasses,
    /// Default FlowSchemas and PriorityLevelConfigurations are there.
    FlowProducer,
    /// The `kubernetes` Service is there.
    Bootstrap,
    /// APIServices are followed.
    ApiServices,
    /// Conditions of this server's own APIServices are written.
    LocalAvailability,
    /// Extension API servers are looked at.
    RemoteAvailability,
    /// APIServices are routed.
    Registration,
    /// All APIServices are routed.
    FirstSync,
    /// What extension API servers serve is in the discovery documents.
    Discovery,
    /// Own APIServices are kept.
    Autoregistration,
    /// Own APIServices are there.
    AutoregistrationDone,
    /// OpenAPI v2 documents are merged.
    OpenApi,
    /// OpenAPI v3 documents are merged.
    OpenApiV3,
}

use Hook as H;

const TABLE: &[(Hook, &str)] = &[
    (H::Admission, "poststarthook/start-apiserver-admission-initializer"),
    (H::Informers, "poststarthook/generic-apiserver-start-informers"),
    (H::FlowConsumer, "poststarthook/priority-and-fairness-config-consumer"),
    (H::FlowFilter, "poststarthook/priority-and-fairness-filter"),
    (H::ObjectCounts, "poststarthook/storage-object-count-tracker-hook"),
    (H::DefinitionInformers, "poststarthook/start-apiextensions-informers"),
    (H::Definitions, "poststarthook/start-apiextensions-controllers"),
    (H::DefinitionsSynced, "poststarthook/crd-informer-synced"),
    (H::Namespaces, "poststarthook/start-system-namespaces-controller"),
    (H::ClusterAuthentication, "poststarthook/start-cluster-authentication-info-controller"),
    (H::IdentityLease, "poststarthook/start-kube-apiserver-identity-lease-controller"),
    (H::IdentityLeases, "poststarthook/start-kube-apiserver-identity-lease-garbage-collector"),
    (H::Storage, "poststarthook/storage-readiness"),
    (H::LegacyTokens, "poststarthook/start-legacy-token-tracking-controller"),
    (H::ServiceAddresses, "poststarthook/start-service-ip-repair-controllers"),
    (H::Roles, "poststarthook/rbac/bootstrap-roles"),
    (H::PriorityClasses, "poststarthook/scheduling/bootstrap-system-priority-classes"),
    (H::FlowProducer, "poststarthook/priority-and-fairness-config-producer"),
    (H::Bootstrap, "poststarthook/bootstrap-controller"),
    (H::ApiServices, "poststarthook/start-kube-aggregator-informers"),
    (H::LocalAvailability, "poststarthook/apiservice-status-local-available-controller"),
    (H::RemoteAvailability, "poststarthook/apiservice-status-remote-available-controller"),
    (H::Registration, "poststarthook/apiservice-registration-controller"),
    (H::FirstSync, "poststarthook/apiservice-wait-for-first-sync"),
    (H::Discovery, "poststarthook/apiservice-discovery-controller"),
    (H::Autoregistration, "poststarthook/kube-apiserver-autoregistration"),
    (H::AutoregistrationDone, "autoregister-completion"),
    (H::OpenApi, "poststarthook/apiservice-openapi-controller"),
    (H::OpenApiV3, "poststarthook/apiservice-openapiv3-controller"),
];

impl Hook {
    /// The check's name.
    pub(crate) fn name(self) -> &'static str {
        TABLE.get(self as usize).map_or("", |(_, name)| name)
    }
}

/// What is finished, of what this server has to do. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Hooks(Arc<[(Hook, AtomicBool)]>);

impl Hooks {
    /// Everything but `absent` is to be done.
    pub(crate) fn without(absent: &[Hook]) -> Self {
        let wanted = TABLE.iter().map(|(hook, _)| *hook).filter(|hook| !absent.contains(hook));
        Hooks(wanted.map(|hook| (hook, AtomicBool::new(false))).collect())
    }

    /// The work is done.
    pub(crate) fn finished(&self, done: &[Hook]) {
        for (_, flag) in self.0.iter().filter(|(hook, _)| done.contains(hook)) {
            flag.store(true, Ordering::Release);
        }
    }

    /// All of them, in order, and whether they are finished.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Hook, bool)> {
        self.0.iter().map(|(hook, flag)| (*hook, flag.load(Ordering::Acquire)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_stands_in_the_order_of_the_variants() {
        for (i, (hook, name)) in TABLE.iter().enumerate() {
            assert_eq!((*hook as usize, hook.name()), (i, *name));
        }
        let hooks = Hooks::without(&[Hook::IdentityLease]);
        assert!(hooks.all().all(|(hook, done)| !done && hook != Hook::IdentityLease));
        hooks.finished(&[Hook::IdentityLease, Hook::Roles]);
        assert_eq!(hooks.all().filter(|(_, done)| *done).map(|(h, _)| h).collect::<Vec<_>>(), [Hook::Roles]);
    }
}
