//! Where upstream's API server keeps each resource in etcd, and in which version; ours keeps it there too.
//!
//! The one difference: CustomResourceDefinitions, which upstream stores as v1beta1 and reads as v1 too.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use ironkeel_embedded::{Embedded, Options};
use ironkeel_registry::{Registry, ServiceAddresses, SystemClock};

const PLACES: &[(&str, &str, &str)] = &[
    ("v1", "configmaps", "/registry/configmaps/"),
    ("v1", "endpoints", "/registry/services/endpoints/"),
    ("v1", "events", "/registry/events/"),
    ("v1", "limitranges", "/registry/limitranges/"),
    ("v1", "namespaces", "/registry/namespaces/"),
    ("v1", "nodes", "/registry/minions/"),
    ("v1", "persistentvolumeclaims", "/registry/persistentvolumeclaims/"),
    ("v1", "persistentvolumes", "/registry/persistentvolumes/"),
    ("v1", "pods", "/registry/pods/"),
    ("v1", "podtemplates", "/registry/podtemplates/"),
    ("v1", "replicationcontrollers", "/registry/controllers/"),
    ("v1", "resourcequotas", "/registry/resourcequotas/"),
    ("v1", "secrets", "/registry/secrets/"),
    ("v1", "serviceaccounts", "/registry/serviceaccounts/"),
    ("v1", "services", "/registry/services/specs/"),
    ("admissionregistration.k8s.io/v1beta1", "mutatingadmissionpolicies", "/registry/mutatingadmissionpolicies/"),
    (
        "admissionregistration.k8s.io/v1beta1",
        "mutatingadmissionpolicybindings",
        "/registry/mutatingadmissionpolicybindings/",
    ),
    ("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations", "/registry/mutatingwebhookconfigurations/"),
    ("admissionregistration.k8s.io/v1", "validatingadmissionpolicies", "/registry/validatingadmissionpolicies/"),
    (
        "admissionregistration.k8s.io/v1",
        "validatingadmissionpolicybindings",
        "/registry/validatingadmissionpolicybindings/",
    ),
    (
        "admissionregistration.k8s.io/v1",
        "validatingwebhookconfigurations",
        "/registry/validatingwebhookconfigurations/",
    ),
    (
        "apiextensions.k8s.io/v1",
        "customresourcedefinitions",
        "/registry/apiextensions.k8s.io/customresourcedefinitions/",
    ),
    ("apiregistration.k8s.io/v1", "apiservices", "/registry/apiregistration.k8s.io/apiservices/"),
    ("apps/v1", "controllerrevisions", "/registry/controllerrevisions/"),
    ("apps/v1", "daemonsets", "/registry/daemonsets/"),
    ("apps/v1", "deployments", "/registry/deployments/"),
    ("apps/v1", "replicasets", "/registry/replicasets/"),
    ("apps/v1", "statefulsets", "/registry/statefulsets/"),
    ("autoscaling/v2", "horizontalpodautoscalers", "/registry/horizontalpodautoscalers/"),
    ("batch/v1", "cronjobs", "/registry/cronjobs/"),
    ("batch/v1", "jobs", "/registry/jobs/"),
    ("certificates.k8s.io/v1", "certificatesigningrequests", "/registry/certificatesigningrequests/"),
    ("certificates.k8s.io/v1beta1", "clustertrustbundles", "/registry/clustertrustbundles/"),
    ("certificates.k8s.io/v1beta1", "podcertificaterequests", "/registry/podcertificaterequests/"),
    ("coordination.k8s.io/v1beta1", "leasecandidates", "/registry/leasecandidates/"),
    ("coordination.k8s.io/v1", "leases", "/registry/leases/"),
    ("discovery.k8s.io/v1", "endpointslices", "/registry/endpointslices/"),
    ("flowcontrol.apiserver.k8s.io/v1", "flowschemas", "/registry/flowschemas/"),
    ("flowcontrol.apiserver.k8s.io/v1", "prioritylevelconfigurations", "/registry/prioritylevelconfigurations/"),
    ("internal.apiserver.k8s.io/v1alpha1", "storageversions", "/registry/storageversions/"),
    ("networking.k8s.io/v1", "ingressclasses", "/registry/ingressclasses/"),
    ("networking.k8s.io/v1", "ingresses", "/registry/ingress/"),
    ("networking.k8s.io/v1", "ipaddresses", "/registry/ipaddresses/"),
    ("networking.k8s.io/v1", "networkpolicies", "/registry/networkpolicies/"),
    ("networking.k8s.io/v1", "servicecidrs", "/registry/servicecidrs/"),
    ("node.k8s.io/v1", "runtimeclasses", "/registry/runtimeclasses/"),
    ("policy/v1", "poddisruptionbudgets", "/registry/poddisruptionbudgets/"),
    ("rbac.authorization.k8s.io/v1", "clusterrolebindings", "/registry/clusterrolebindings/"),
    ("rbac.authorization.k8s.io/v1", "clusterroles", "/registry/clusterroles/"),
    ("rbac.authorization.k8s.io/v1", "rolebindings", "/registry/rolebindings/"),
    ("rbac.authorization.k8s.io/v1", "roles", "/registry/roles/"),
    ("resource.k8s.io/v1", "deviceclasses", "/registry/deviceclasses/"),
    ("resource.k8s.io/v1alpha3", "devicetaintrules", "/registry/devicetaintrules/"),
    ("resource.k8s.io/v1", "resourceclaims", "/registry/resourceclaims/"),
    ("resource.k8s.io/v1", "resourceclaimtemplates", "/registry/resourceclaimtemplates/"),
    ("resource.k8s.io/v1alpha3", "resourcepoolstatusrequests", "/registry/resourcepoolstatusrequests/"),
    ("resource.k8s.io/v1", "resourceslices", "/registry/resourceslices/"),
    ("scheduling.k8s.io/v1alpha2", "podgroups", "/registry/podgroups/"),
    ("scheduling.k8s.io/v1", "priorityclasses", "/registry/priorityclasses/"),
    ("scheduling.k8s.io/v1alpha2", "workloads", "/registry/workloads/"),
    ("storage.k8s.io/v1", "csidrivers", "/registry/csidrivers/"),
    ("storage.k8s.io/v1", "csinodes", "/registry/csinodes/"),
    ("storage.k8s.io/v1", "csistoragecapacities", "/registry/csistoragecapacities/"),
    ("storage.k8s.io/v1", "storageclasses", "/registry/storageclasses/"),
    ("storage.k8s.io/v1", "volumeattachments", "/registry/volumeattachments/"),
    ("storage.k8s.io/v1", "volumeattributesclasses", "/registry/volumeattributesclasses/"),
    ("storagemigration.k8s.io/v1beta1", "storageversionmigrations", "/registry/storageversionmigrations/"),
];

#[tokio::test]
async fn every_resource_stands_where_upstream_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), Options::default()).unwrap();
    let services = ServiceAddresses::new([10, 0, 0, 0].into(), 24, 30000..=32767);
    let registry = Registry::start(store, Arc::new(SystemClock), ironkeel_kinds::kinds(), services).await.unwrap();
    let mut ours: Vec<_> =
        registry.stored().iter().map(|s| (s.api_version.clone(), s.plural, s.prefix.clone())).collect();
    let mut theirs: Vec<_> = PLACES.iter().map(|(v, p, at)| ((*v).to_owned(), *p, (*at).to_owned())).collect();
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs);
    registry.stop().await;
}
