//! Which plugins run: upstream's names, order and defaults, and how flags change them.

/// One plugin, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Plugin {
    AlwaysAdmit,
    NamespaceAutoProvision,
    NamespaceLifecycle,
    NamespaceExists,
    LimitPodHardAntiAffinityTopology,
    LimitRanger,
    ServiceAccount,
    NodeRestriction,
    TaintNodesByCondition,
    AlwaysPullImages,
    ImagePolicyWebhook,
    PodSecurity,
    PodNodeSelector,
    Priority,
    DefaultTolerationSeconds,
    PodTolerationRestriction,
    EventRateLimit,
    ExtendedResourceToleration,
    DefaultStorageClass,
    StorageObjectInUseProtection,
    PodGroupProtection,
    OwnerReferencesPermissionEnforcement,
    PersistentVolumeClaimResize,
    RuntimeClass,
    CertificateApproval,
    CertificateSigning,
    ClusterTrustBundleAttest,
    CertificateSubjectRestriction,
    DefaultIngressClass,
    DenyServiceExternalIPs,
    PodTopologyLabels,
    PodGroupWorkloadExists,
    NodeDeclaredFeatureValidator,
    JobValidation,
    PodResizeValidator,
    MutatingAdmissionPolicy,
    MutatingAdmissionWebhook,
    ValidatingAdmissionPolicy,
    ValidatingAdmissionWebhook,
    ResourceQuota,
    AlwaysDeny,
}

/// What stands behind a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Runs unless turned off.
    On,
    /// Runs when turned on.
    Off,
    /// Upstream's gate for it is off by default: the name is known and does nothing.
    Gated,
}

use Plugin as P;
use State::{Gated, Off, On};

const TABLE: &[(Plugin, &str, State)] = &[
    (P::AlwaysAdmit, "AlwaysAdmit", Off),
    (P::NamespaceAutoProvision, "NamespaceAutoProvision", Off),
    (P::NamespaceLifecycle, "NamespaceLifecycle", On),
    (P::NamespaceExists, "NamespaceExists", Off),
    (P::LimitPodHardAntiAffinityTopology, "LimitPodHardAntiAffinityTopology", Off),
    (P::LimitRanger, "LimitRanger", On),
    (P::ServiceAccount, "ServiceAccount", On),
    (P::NodeRestriction, "NodeRestriction", Off),
    (P::TaintNodesByCondition, "TaintNodesByCondition", On),
    (P::AlwaysPullImages, "AlwaysPullImages", Off),
    (P::ImagePolicyWebhook, "ImagePolicyWebhook", Off),
    (P::PodSecurity, "PodSecurity", On),
    (P::PodNodeSelector, "PodNodeSelector", Off),
    (P::Priority, "Priority", On),
    (P::DefaultTolerationSeconds, "DefaultTolerationSeconds", On),
    (P::PodTolerationRestriction, "PodTolerationRestriction", Off),
    (P::EventRateLimit, "EventRateLimit", Off),
    (P::ExtendedResourceToleration, "ExtendedResourceToleration", Off),
    (P::DefaultStorageClass, "DefaultStorageClass", On),
    (P::StorageObjectInUseProtection, "StorageObjectInUseProtection", On),
    (P::PodGroupProtection, "PodGroupProtection", Gated),
    (P::OwnerReferencesPermissionEnforcement, "OwnerReferencesPermissionEnforcement", Off),
    (P::PersistentVolumeClaimResize, "PersistentVolumeClaimResize", On),
    (P::RuntimeClass, "RuntimeClass", On),
    (P::CertificateApproval, "CertificateApproval", On),
    (P::CertificateSigning, "CertificateSigning", On),
    (P::ClusterTrustBundleAttest, "ClusterTrustBundleAttest", On),
    (P::CertificateSubjectRestriction, "CertificateSubjectRestriction", On),
    (P::DefaultIngressClass, "DefaultIngressClass", On),
    (P::DenyServiceExternalIPs, "DenyServiceExternalIPs", Off),
    (P::PodTopologyLabels, "PodTopologyLabels", On),
    (P::PodGroupWorkloadExists, "PodGroupWorkloadExists", Gated),
    (P::NodeDeclaredFeatureValidator, "NodeDeclaredFeatureValidator", On),
    (P::JobValidation, "JobValidation", Gated),
    (P::PodResizeValidator, "PodResizeValidator", On),
    (P::MutatingAdmissionPolicy, "MutatingAdmissionPolicy", On),
    (P::MutatingAdmissionWebhook, "MutatingAdmissionWebhook", On),
    (P::ValidatingAdmissionPolicy, "ValidatingAdmissionPolicy", On),
    (P::ValidatingAdmissionWebhook, "ValidatingAdmissionWebhook", On),
    (P::ResourceQuota, "ResourceQuota", On),
    (P::AlwaysDeny, "AlwaysDeny", Off),
];

/// A name that cannot be turned on or off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    /// Nobody knows it.
    #[error("admission plugin {0:?} is unknown")]
    Unknown(String),
    /// Named on both lists.
    #[error("admission plugin {0:?} is both enabled and disabled")]
    Both(String),
}

/// The plugins that run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PluginSet(u64);

impl std::fmt::Debug for PluginSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl Default for PluginSet {
    /// Upstream's default plugins.
    fn default() -> Self {
        PluginSet(TABLE.iter().filter(|(_, _, s)| matches!(s, On)).fold(0, |bits, (p, _, _)| bits | p.bit()))
    }
}

impl Plugin {
    fn bit(self) -> u64 {
        1 << (self as u8)
    }

    /// As flags say it; the table stands in the order of the variants.
    pub(crate) fn name(self) -> &'static str {
        TABLE.get(self as usize).map_or("", |(_, name, _)| name)
    }
}

impl PluginSet {
    /// What a cluster of one's own should have: the defaults, and the plugins that keep kubelets and
    /// Services' authors in bounds.
    pub fn recommended() -> Self {
        let set = PluginSet::default();
        PluginSet(set.0 | Plugin::NodeRestriction.bit() | Plugin::DenyServiceExternalIPs.bit())
    }

    /// `--enable-admission-plugins` and `--disable-admission-plugins` on top of the defaults.
    pub fn with_flags<S: AsRef<str>>(self, enable: &[S], disable: &[S]) -> Result<Self, PluginError> {
        let find = |name: &str| {
            let row = TABLE.iter().find(|(_, n, _)| *n == name);
            row.copied().ok_or_else(|| PluginError::Unknown(name.to_owned()))
        };
        let mut set = self;
        for name in enable.iter().map(S::as_ref) {
            let (plugin, _, state) = find(name)?;
            if disable.iter().any(|d| d.as_ref() == name) {
                return Err(PluginError::Both(name.to_owned()));
            }
            match state {
                Gated => {}
                On | Off => set.0 |= plugin.bit(),
            }
        }
        for name in disable.iter().map(S::as_ref) {
            set.0 &= !find(name)?.0.bit();
        }
        Ok(set)
    }

    /// Names of the plugins that run, in their order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        TABLE.iter().filter(|(p, _, _)| self.has(*p)).map(|(_, n, _)| *n)
    }

    pub(crate) fn has(&self, plugin: Plugin) -> bool {
        self.0 & plugin.bit() != 0
    }
}
