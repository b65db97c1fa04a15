//! The order of plugins.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{Admission, ApiError, Attributes, Chain, Operation};
use ironkeel_webhook::WebhookClient;

use crate::plugin_set::{Plugin, PluginSet};
use crate::policy::Policies;
use crate::reinvocation::Rounds;
use crate::webhook::Webhooks;
use crate::{
    Cluster, Config, certificates, creates_pod, default_toleration_seconds, deny_service_external_ips, ingress_class,
    limit_ranger, namespace_lifecycle, node_restriction, owner_references, pod_policies, pod_resize, pod_security,
    pod_topology_labels, priority, resource_quota, runtime_class, service_account, storage, taint_nodes,
};

/// The chain of plugins.
pub struct Plugins {
    cluster: Cluster,
    set: PluginSet,
    pod_security: pod_security::PodSecurityConfig,
    quota: resource_quota::ResourceQuota,
    policies: Policies,
    webhooks: Webhooks,
    others: Vec<Chain>,
}

impl fmt::Debug for Plugins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugins").field("set", &self.set).field("others", &self.others).finish_non_exhaustive()
    }
}

impl Plugins {
    pub(crate) fn new(cluster: Cluster, client: Arc<WebhookClient>, config: Config) -> Self {
        Plugins {
            cluster,
            set: config.plugins,
            pod_security: config.pod_security,
            quota: resource_quota::ResourceQuota::default(),
            policies: Policies::default(),
            webhooks: Webhooks::new(client, config.webhook_observer),
            others: config.others,
        }
    }

    fn on(&self, plugin: Plugin) -> bool {
        self.set.has(plugin)
    }

    /// The built-in plugins that change objects; again after webhooks or policies changed one.
    async fn built_in(&self, a: &Attributes<'_>, object: &mut Value, old: Option<&Value>) -> Result<(), ApiError> {
        let c = &self.cluster;
        if self.on(Plugin::NamespaceLifecycle) {
            namespace_lifecycle::admit(c, a, Some(object))?;
        }
        if self.on(Plugin::NamespaceExists) {
            namespace_lifecycle::exists(c, a)?;
        }
        let pod = creates_pod(a);
        if self.on(Plugin::LimitRanger) {
            limit_ranger::mutate(c, a, object);
        }
        if pod && self.on(Plugin::ServiceAccount) {
            service_account::mutate(c, a, object).await?;
        }
        if self.on(Plugin::NodeRestriction) {
            node_restriction::admit(c, a, Some(object), old)?;
        }
        if self.on(Plugin::TaintNodesByCondition) {
            taint_nodes::mutate(a, object);
        }
        if self.on(Plugin::AlwaysPullImages) {
            pod_policies::always_pull(a, object, old);
        }
        if pod && self.on(Plugin::Priority) {
            priority::mutate(c, a, object)?;
        }
        if pod && self.on(Plugin::DefaultTolerationSeconds) {
            default_toleration_seconds::mutate(object);
        }
        if self.on(Plugin::ExtendedResourceToleration) {
            pod_policies::tolerate_extended_resources(a, object);
        }
        if self.on(Plugin::DefaultStorageClass) {
            storage::default_class(c, a, object);
        }
        if self.on(Plugin::StorageObjectInUseProtection) {
            storage::protect(a, object);
        }
        if pod && self.on(Plugin::RuntimeClass) {
            runtime_class::mutate(c, a, object)?;
        }
        if self.on(Plugin::DefaultIngressClass) {
            ingress_class::mutate(c, a, object)?;
        }
        if self.on(Plugin::PodTopologyLabels) {
            pod_topology_labels::mutate(c, a, object);
        }
        for other in &self.others {
            other.mutate(a, object, old).await?;
        }
        Ok(())
    }

    /// Everything that changes an object, in one round.
    async fn round(
        &self,
        a: &Attributes<'_>,
        mut object: Option<&mut Value>,
        old: Option<&Value>,
        rounds: &mut Rounds,
    ) -> Result<(), ApiError> {
        if let Some(object) = object.as_deref_mut()
            && a.operation != Operation::Connect
        {
            self.built_in(a, object, old).await?;
        }
        if self.on(Plugin::MutatingAdmissionPolicy)
            && let Some(object) = object.as_deref_mut()
        {
            self.policies.mutate(&self.cluster, a, object, old, rounds).await?;
        }
        if self.on(Plugin::MutatingAdmissionWebhook) {
            self.webhooks.mutate(&self.cluster, a, object, old, rounds).await?;
        }
        Ok(())
    }

    async fn both_rounds(
        &self,
        a: &Attributes<'_>,
        mut object: Option<&mut Value>,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let mut rounds = Rounds::default();
        self.round(a, object.as_deref_mut(), old, &mut rounds).await?;
        if rounds.again {
            rounds.second = true;
            self.round(a, object, old, &mut rounds).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Admission for Plugins {
    async fn mutate(&self, a: &Attributes<'_>, object: &mut Value, old: Option<&Value>) -> Result<(), ApiError> {
        self.both_rounds(a, Some(object), old).await
    }

    async fn validate(&self, a: &Attributes<'_>, object: Option<&Value>, old: Option<&Value>) -> Result<(), ApiError> {
        let c = &self.cluster;
        match a.operation {
            Operation::Delete => {
                if self.on(Plugin::NamespaceLifecycle) {
                    namespace_lifecycle::admit(c, a, None)?;
                }
                if self.on(Plugin::NodeRestriction) {
                    node_restriction::admit(c, a, None, old)?;
                }
                self.both_rounds(a, None, old).await?;
            }
            // What is asked of a running container is not changed, but its options are shown.
            Operation::Connect => self.both_rounds(a, object.cloned().as_mut(), old).await?,
            Operation::Create | Operation::Update => {}
        }
        if let Some(object) = object {
            if self.on(Plugin::LimitPodHardAntiAffinityTopology) {
                pod_policies::anti_affinity(a, object)?;
            }
            if self.on(Plugin::LimitRanger) {
                limit_ranger::validate(c, a, object, old)?;
            }
        }
        if let Some(object) = object {
            if self.on(Plugin::AlwaysPullImages) {
                pod_policies::always_pulled(a, object, old)?;
            }
            if self.on(Plugin::PodSecurity) {
                pod_security::validate(c, &self.pod_security, a, object, old)?;
            }
        }
        if self.on(Plugin::Priority) {
            priority::validate(c, a, object)?;
        }
        if self.on(Plugin::RuntimeClass)
            && let Some(object) = object
        {
            runtime_class::validate(c, a, object)?;
        }
        if let Some(object) = object {
            if self.on(Plugin::OwnerReferencesPermissionEnforcement) {
                owner_references::validate(c, a, object, old)?;
            }
            if self.on(Plugin::PersistentVolumeClaimResize) {
                storage::resize(c, a, object, old)?;
            }
            certificates::validate(c, &self.set, a, object, old)?;
            if self.on(Plugin::DenyServiceExternalIPs) {
                deny_service_external_ips::validate(a, object, old)?;
            }
            if self.on(Plugin::PodResizeValidator) {
                pod_resize::validate(c, a, object, old)?;
            }
        }
        for other in &self.others {
            other.validate(a, object, old).await?;
        }
        if self.on(Plugin::ValidatingAdmissionPolicy) {
            self.policies.validate(c, a, object, old).await?;
        }
        if self.on(Plugin::ValidatingAdmissionWebhook) {
            self.webhooks.validate(c, a, object, old).await?;
        }
        if self.on(Plugin::ResourceQuota) {
            if let Some(old) = old {
                self.quota.seen(old.uid());
            }
            if let Some(object) = object {
                // Last, so that nothing is charged for what others refuse.
                self.quota.validate(c, a, object, old)?;
            }
        }
        if self.on(Plugin::AlwaysDeny) {
            return Err(a.forbidden("admission control is denying all modifications"));
        }
        Ok(())
    }

    fn rolled_back(&self, a: &Attributes<'_>, object: &Value) {
        self.quota.rolled_back(a, object);
    }
}
