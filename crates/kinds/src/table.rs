//! One row a served resource.

use std::sync::{Arc, LazyLock};

use ironkeel_schema::{Resource, resources};

use crate::Kind;
use crate::rules::Rules;
use crate::strategy::Strategy;

/// A kind without rules of its own.
struct Plain;
impl Rules for Plain {}

static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    let row = |resource: &'static Resource| {
        let hooks = Arc::new(Strategy { resource, rules: rules(resource) });
        Kind { resource: Arc::new(resource.clone()), hooks, custom: None }
    };
    resources().iter().map(row).collect()
});

/// Every row, in the order of [`ironkeel_schema::resources`].
pub fn kinds() -> &'static [Kind] {
    &KINDS
}

/// The row of a resource.
pub fn kind(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| {
        let r = &k.resource;
        r.plural == plural && r.group == group && r.version == version
    })
}

/// The row that serves a group, version and kind.
pub fn kind_for_gvk(group: &str, version: &str, kind: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| {
        let r = &k.resource;
        r.kind == kind && r.group == group && r.version == version
    })
}

fn rules(r: &Resource) -> &'static dyn Rules {
    use crate::{apps, autoscaling, batch, coordination, core, devices::Devices, discovery, networking, policy, rbac};
    use crate::{flowcontrol, migration, registration, scheduling, storage};
    match (r.group, r.plural) {
        ("", "componentstatuses") => &core::service_account::Component,
        ("", "configmaps") => &core::config_map::Rules,
        ("", "endpoints") => &core::endpoints::Rules,
        ("" | "events.k8s.io", "events") => &core::event::Rules,
        ("", "limitranges") => &core::quota::Range,
        ("", "namespaces") => &core::namespace::Rules,
        ("", "nodes") => &core::node::Rules,
        ("", "persistentvolumeclaims") => &core::claim::Rules,
        ("", "persistentvolumes") => &core::volume::Rules,
        ("", "pods") => &core::pod::Rules,
        ("", "podtemplates") => &core::service_account::Template,
        ("", "replicationcontrollers") => &core::replication_controller::Rules,
        ("", "resourcequotas") => &core::quota::Quota,
        ("", "secrets") => &core::secret::Rules,
        ("", "serviceaccounts") => &core::service_account::Account,
        ("", "services") => &core::service::Rules,
        ("apiregistration.k8s.io", _) => &registration::ApiService,
        ("apps", "controllerrevisions") => &apps::controller_revision::Rules,
        ("apps", "daemonsets") => &apps::daemon_set::Rules,
        ("apps", "deployments") => &apps::deployment::Rules,
        ("apps", "replicasets") => &apps::replica_set::Rules,
        ("apps", "statefulsets") => &apps::stateful_set::Rules,
        ("autoscaling", "horizontalpodautoscalers") => &autoscaling::Autoscaler,
        ("batch", "cronjobs") => &batch::cron_job::Rules,
        ("batch", "jobs") => &batch::job::Rules,
        ("certificates.k8s.io", "certificatesigningrequests") => &registration::SigningRequest,
        ("certificates.k8s.io", "clustertrustbundles") => &registration::TrustBundle,
        ("certificates.k8s.io", "podcertificaterequests") => &registration::PodRequest,
        ("networking.k8s.io", "ingressclasses") => &networking::ingress_class::Rules,
        ("networking.k8s.io", "ingresses") => &networking::ingress::Rules,
        ("networking.k8s.io", "ipaddresses") => &networking::address::Address,
        ("networking.k8s.io", "networkpolicies") => &networking::network_policy::Rules,
        ("networking.k8s.io", "servicecidrs") => &networking::address::Range,
        ("policy", "poddisruptionbudgets") => &policy::Budget,
        ("rbac.authorization.k8s.io", "clusterrolebindings") => &rbac::Binding { cluster: true },
        ("rbac.authorization.k8s.io", "rolebindings") => &rbac::Binding { cluster: false },
        ("rbac.authorization.k8s.io", "clusterroles") => &rbac::Role { cluster: true },
        ("rbac.authorization.k8s.io", "roles") => &rbac::Role { cluster: false },
        ("storage.k8s.io", "csidrivers") => &storage::Driver,
        ("storage.k8s.io", "csinodes") => &storage::Node,
        ("storage.k8s.io", "csistoragecapacities") => &storage::Capacity,
        ("storage.k8s.io", "storageclasses") => &storage::Class,
        ("storage.k8s.io", "volumeattachments") => &storage::Attachment,
        ("storage.k8s.io", "volumeattributesclasses") => &storage::Attributes,
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations") => &registration::Webhooks { mutating: true },
        ("admissionregistration.k8s.io", "validatingwebhookconfigurations") => {
            &registration::Webhooks { mutating: false }
        }
        ("admissionregistration.k8s.io", p) if p.ends_with("bindings") => &registration::PolicyBinding,
        ("admissionregistration.k8s.io", "mutatingadmissionpolicies") => &registration::Policy { mutating: true },
        ("admissionregistration.k8s.io", _) => &registration::Policy { mutating: false },
        ("apiextensions.k8s.io", _) => &crate::definition::Rules,
        ("scheduling.k8s.io", "podgroups") => &scheduling::PodGroup,
        ("scheduling.k8s.io", "priorityclasses") => &scheduling::Class,
        ("scheduling.k8s.io", "workloads") => &scheduling::Workload,
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => &flowcontrol::Flow,
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => &flowcontrol::Level,
        ("storagemigration.k8s.io", "storageversionmigrations") => &migration::Migration,
        ("internal.apiserver.k8s.io", "storageversions") => &migration::Version,
        ("coordination.k8s.io", "leases") => &coordination::Lease,
        ("coordination.k8s.io", "leasecandidates") => &coordination::Candidate,
        ("node.k8s.io", "runtimeclasses") => &storage::Runtime,
        ("discovery.k8s.io", "endpointslices") => &discovery::Rules,
        ("resource.k8s.io", "deviceclasses") => &Devices::Class,
        ("resource.k8s.io", "resourceclaims") => &Devices::Claim,
        ("resource.k8s.io", "resourceclaimtemplates") => &Devices::ClaimTemplate,
        ("resource.k8s.io", "resourceslices") => &Devices::Slice,
        ("resource.k8s.io", "devicetaintrules") => &Devices::TaintRule,
        ("resource.k8s.io", "resourcepoolstatusrequests") => &Devices::PoolRequest,
        _ => &Plain,
    }
}
