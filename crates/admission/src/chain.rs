//! The order of plugins.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use ironkeel_object::Value;
use ironkeel_registry::{Admission, ApiError, Attributes, Chain, Operation};
use ironkeel_webhook::WebhookClient;

use crate::configuration::PluginSettings;
use crate::event_rate_limit::EventRateLimit;
use crate::image_policy::ImagePolicy;
use crate::observer::{AdmissionObserver, PluginCall};
use crate::plugin_set::{Plugin, PluginSet};
use crate::policy::Policies;
use crate::reinvocation::Rounds;
use crate::webhook::Webhooks;
use crate::{
    Cluster, Config, certificates, creates_pod, declared_features, default_toleration_seconds,
    deny_service_external_ips, devices, ingress_class, limit_ranger, namespace_lifecycle, node_restriction,
    owner_references, pod_node_selector, pod_policies, pod_resize, pod_security, pod_toleration_restriction,
    pod_topology_labels, priority, resource_quota, runtime_class, service_account, storage, taint_nodes,
};

/// The chain of plugins.
pub struct Plugins {
    cluster: Cluster,
    set: PluginSet,
    pod_security: pod_security::PodSecurityConfig,
    settings: PluginSettings,
    event_limits: EventRateLimit,
    image_policy: Option<ImagePolicy>,
    client: Arc<WebhookClient>,
    quota: resource_quota::ResourceQuota,
    policies: Policies,
    webhooks: Webhooks,
    others: Vec<Chain>,
    observer: Option<Arc<dyn AdmissionObserver>>,
}

impl fmt::Debug for Plugins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugins").field("set", &self.set).field("others", &self.others).finish_non_exhaustive()
    }
}

/// Whose turn it is, and since when: a plugin's time is told when the next one's turn begins.
struct Turns<'p> {
    plugins: &'p Plugins,
    validating: bool,
    operation: Operation,
    running: Option<(Plugin, Instant)>,
}

impl<'p> Turns<'p> {
    fn new(plugins: &'p Plugins, a: &Attributes<'_>, validating: bool) -> Self {
        Turns { plugins, validating, operation: a.operation, running: None }
    }

    /// Whether the plugin is on; its turn begins then.
    fn of(&mut self, plugin: Plugin) -> bool {
        self.over(false);
        let on = self.plugins.set.has(plugin);
        if on && self.plugins.observer.is_some() {
            self.running = Some((plugin, Instant::now()));
        }
        on
    }

    /// Ends the present turn.
    fn over(&mut self, rejected: bool) {
        if let (Some((plugin, since)), Some(observer)) = (self.running.take(), &self.plugins.observer) {
            let (validating, operation, took) = (self.validating, self.operation, since.elapsed());
            observer.plugin(&PluginCall { name: plugin.name(), validating, operation, rejected, took });
        }
    }

    /// The end of the round.
    fn end(mut self, result: Result<(), ApiError>) -> Result<(), ApiError> {
        self.over(result.is_err());
        result
    }
}

impl Plugins {
    pub(crate) fn new(cluster: Cluster, client: Arc<WebhookClient>, config: Config) -> Self {
        Plugins {
            cluster,
            set: config.plugins,
            pod_security: config.settings.pod_security.clone().unwrap_or(config.pod_security),
            event_limits: EventRateLimit::new(config.settings.event_limits.clone()),
            image_policy: config.settings.image_policy.clone().map(ImagePolicy::new),
            settings: config.settings,
            client: client.clone(),
            quota: resource_quota::ResourceQuota::default(),
            policies: Policies::new(config.observer.clone()),
            webhooks: Webhooks::new(client, config.observer.clone()),
            observer: config.observer,
            others: config.others,
        }
    }

    /// The built-in plugins that change objects; again after webhooks or policies changed one.
    async fn built_in(
        &self,
        a: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
        turns: &mut Turns<'_>,
    ) -> Result<(), ApiError> {
        let c = &self.cluster;
        if turns.of(Plugin::NamespaceAutoProvision) {
            namespace_lifecycle::provide(c, a).await?;
        }
        if turns.of(Plugin::NamespaceLifecycle) {
            namespace_lifecycle::admit(c, a, Some(object))?;
        }
        if turns.of(Plugin::NamespaceExists) {
            namespace_lifecycle::exists(c, a)?;
        }
        let pod = creates_pod(a);
        if turns.of(Plugin::LimitRanger) {
            limit_ranger::mutate(c, a, object);
        }
        if turns.of(Plugin::ServiceAccount) && pod {
            service_account::mutate(c, a, object).await?;
        }
        if turns.of(Plugin::NodeRestriction) {
            node_restriction::admit(c, a, Some(object), old)?;
        }
        if turns.of(Plugin::TaintNodesByCondition) {
            taint_nodes::mutate(a, object);
        }
        if turns.of(Plugin::AlwaysPullImages) {
            pod_policies::always_pull(a, object, old);
        }
        if turns.of(Plugin::PodNodeSelector) {
            pod_node_selector::mutate(c, &self.settings.node_selectors, a, object)?;
        }
        if turns.of(Plugin::Priority) && pod {
            priority::mutate(c, a, object)?;
        }
        let updates = a.operation == Operation::Update && a.is("", "pods");
        if turns.of(Plugin::DefaultTolerationSeconds) && (pod || updates) {
            default_toleration_seconds::mutate(object);
        }
        if turns.of(Plugin::PodTolerationRestriction) {
            pod_toleration_restriction::mutate(c, &self.settings, a, object)?;
        }
        if turns.of(Plugin::ExtendedResourceToleration) {
            pod_policies::tolerate_extended_resources(a, object);
        }
        if turns.of(Plugin::DefaultStorageClass) {
            storage::default_class(c, a, object);
        }
        if turns.of(Plugin::StorageObjectInUseProtection) {
            storage::protect(a, object);
        }
        if turns.of(Plugin::RuntimeClass) && pod {
            runtime_class::mutate(c, a, object)?;
        }
        if turns.of(Plugin::DefaultIngressClass) {
            ingress_class::mutate(c, a, object)?;
        }
        if turns.of(Plugin::PodTopologyLabels) {
            pod_topology_labels::mutate(c, a, object);
        }
        turns.over(false);
        for other in &self.others {
            other.mutate(a, object, old).await?;
        }
        Ok(())
    }

    /// Everything that changes an object, in one round.
    async fn round(
        &self,
        a: &Attributes<'_>,
        object: Option<&mut Value>,
        old: Option<&Value>,
        rounds: &mut Rounds,
    ) -> Result<(), ApiError> {
        let mut turns = Turns::new(self, a, false);
        let result = self.turns(a, object, old, rounds, &mut turns).await;
        turns.end(result)
    }

    async fn turns(
        &self,
        a: &Attributes<'_>,
        mut object: Option<&mut Value>,
        old: Option<&Value>,
        rounds: &mut Rounds,
        turns: &mut Turns<'_>,
    ) -> Result<(), ApiError> {
        if let Some(object) = object.as_deref_mut()
            && a.operation != Operation::Connect
        {
            self.built_in(a, object, old, turns).await?;
        }
        if turns.of(Plugin::MutatingAdmissionPolicy)
            && let Some(object) = object.as_deref_mut()
        {
            self.policies.mutate(&self.cluster, a, object, old, rounds).await?;
        }
        if turns.of(Plugin::MutatingAdmissionWebhook) {
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
        let mut turns = Turns::new(self, a, false);
        let changing = self.of_whole_requests(a, object, old, &mut turns).await;
        turns.end(changing)?;
        let mut turns = Turns::new(self, a, true);
        let judging = self.judge(a, object, old, &mut turns).await;
        turns.end(judging)
    }

    fn rolled_back(&self, a: &Attributes<'_>, object: &Value) {
        self.quota.rolled_back(a, object);
    }
}

impl Plugins {
    /// What is asked of deletes and connects, whose objects nobody changes, before they are judged.
    async fn of_whole_requests(
        &self,
        a: &Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
        turns: &mut Turns<'_>,
    ) -> Result<(), ApiError> {
        let c = &self.cluster;
        match a.operation {
            Operation::Delete => {
                if turns.of(Plugin::NamespaceLifecycle) {
                    namespace_lifecycle::admit(c, a, None)?;
                }
                if turns.of(Plugin::NamespaceExists) {
                    namespace_lifecycle::exists(c, a)?;
                }
                if turns.of(Plugin::NodeRestriction) {
                    node_restriction::admit(c, a, None, old)?;
                }
                turns.over(false);
                self.both_rounds(a, None, old).await?;
            }
            // What is asked of a running container is not changed, but its options are shown.
            Operation::Connect => self.both_rounds(a, object.cloned().as_mut(), old).await?,
            Operation::Create | Operation::Update => {}
        }
        Ok(())
    }

    /// The plugins that only judge.
    async fn judge(
        &self,
        a: &Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
        turns: &mut Turns<'_>,
    ) -> Result<(), ApiError> {
        let c = &self.cluster;
        if let Some(object) = object {
            if turns.of(Plugin::LimitPodHardAntiAffinityTopology) {
                pod_policies::anti_affinity(a, object)?;
            }
            if turns.of(Plugin::LimitRanger) {
                limit_ranger::validate(c, a, object, old)?;
            }
        }
        if let Some(object) = object {
            if turns.of(Plugin::AlwaysPullImages) {
                pod_policies::always_pulled(a, object, old)?;
            }
            if turns.of(Plugin::ImagePolicyWebhook)
                && let Some(policy) = &self.image_policy
            {
                policy.validate(&self.client, a, object, c.now()).await?;
            }
            if turns.of(Plugin::PodSecurity) {
                pod_security::validate(c, &self.pod_security, a, object, old)?;
            }
            if turns.of(Plugin::PodNodeSelector) {
                pod_node_selector::validate(c, &self.settings.node_selectors, a, object, true)?;
            }
        }
        if turns.of(Plugin::Priority) {
            priority::validate(c, a, object)?;
        }
        if let Some(object) = object {
            if turns.of(Plugin::PodTolerationRestriction) {
                pod_toleration_restriction::validate(c, &self.settings, a, object)?;
            }
            if turns.of(Plugin::EventRateLimit) {
                self.event_limits.validate(a, object, c.now())?;
            }
        }
        if turns.of(Plugin::RuntimeClass)
            && let Some(object) = object
        {
            runtime_class::validate(c, a, object)?;
        }
        if let Some(object) = object {
            if turns.of(Plugin::OwnerReferencesPermissionEnforcement) {
                owner_references::validate(c, a, object, old)?;
            }
            if turns.of(Plugin::PersistentVolumeClaimResize) {
                storage::resize(c, a, object, old)?;
            }
            turns.over(false);
            certificates::validate(c, &self.set, a, object, old)?;
            if turns.of(Plugin::DenyServiceExternalIPs) {
                deny_service_external_ips::validate(a, object, old)?;
            }
            if turns.of(Plugin::NodeDeclaredFeatureValidator) {
                declared_features::validate(c, a, object, old)?;
            }
            if turns.of(Plugin::PodResizeValidator) {
                pod_resize::validate(c, a, object, old)?;
            }
        }
        turns.over(false);
        if let Some(object) = object {
            devices::validate(c, a, object, old)?;
        }
        for other in &self.others {
            other.validate(a, object, old).await?;
        }
        if turns.of(Plugin::ValidatingAdmissionPolicy) {
            self.policies.validate(c, a, object, old).await?;
        }
        if turns.of(Plugin::ValidatingAdmissionWebhook) {
            self.webhooks.validate(c, a, object, old).await?;
        }
        if turns.of(Plugin::ResourceQuota)
            && let Some(object) = object
        {
            // Last, so that nothing is charged for what others refuse.
            self.quota.validate(c, a, object, old).await?;
        }
        if turns.of(Plugin::AlwaysDeny) {
            return Err(a.forbidden("admission control is denying all modifications"));
        }
        Ok(())
    }
}
