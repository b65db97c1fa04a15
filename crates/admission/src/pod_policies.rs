//! Plugins about Pods that are off by default: AlwaysPullImages, LimitPodHardAntiAffinityTopology,
//! ExtendedResourceToleration.

use std::collections::BTreeSet;

use ironkeel_object::{Map, Value, object};
use ironkeel_registry::{ApiError, Attributes, Operation};

use crate::service_account::push;

const CONTAINERS: &[&str] = &["initContainers", "containers", "ephemeralContainers"];

fn about_pod(a: &Attributes<'_>) -> bool {
    a.is("", "pods") && matches!(a.operation, Operation::Create | Operation::Update)
}

fn images(pod: &Value) -> BTreeSet<&str> {
    let containers = CONTAINERS.iter().flat_map(|l| pod.items_at(&["spec", l])).filter_map(|c| c.str_at(&["image"]));
    let volumes = pod.items_at(&["spec", "volumes"]).iter().filter_map(|v| v.str_at(&["image", "reference"]));
    containers.chain(volumes).collect()
}

fn no_new_images(pod: &Value, old: Option<&Value>) -> bool {
    old.is_some_and(|old| images(pod).is_subset(&images(old)))
}

/// AlwaysPullImages: every image is pulled with the Pod's own credentials.
pub(crate) fn always_pull(a: &Attributes<'_>, pod: &mut Value, old: Option<&Value>) {
    if !about_pod(a) || no_new_images(pod, old) {
        return;
    }
    let Some(spec) = pod.get_mut("spec") else { return };
    for list in CONTAINERS {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            *container.slot(&["imagePullPolicy"]) = "Always".into();
        }
    }
    for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(image) = volume.get_mut("image").filter(|i| !i.is_null()) {
            *image.slot(&["pullPolicy"]) = "Always".into();
        }
    }
}

/// That nobody behind the plugin has set another policy.
pub(crate) fn always_pulled(a: &Attributes<'_>, pod: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    if !about_pod(a) || no_new_images(pod, old) {
        return Ok(());
    }
    for list in CONTAINERS {
        for (i, container) in pod.items_at(&["spec", list]).iter().enumerate() {
            let policy = container.str_at(&["imagePullPolicy"]).unwrap_or_default();
            if policy != "Always" {
                let why = format!(
                    "spec.{list}[{i}].imagePullPolicy: Unsupported value: {policy:?}: supported values: \"Always\""
                );
                return Err(a.forbidden(&why));
            }
        }
    }
    Ok(())
}

/// LimitPodHardAntiAffinityTopology: nobody keeps others off a whole zone.
pub(crate) fn anti_affinity(a: &Attributes<'_>, pod: &Value) -> Result<(), ApiError> {
    const ALLOWED: &str = "kubernetes.io/hostname";
    if !about_pod(a) {
        return Ok(());
    }
    let terms =
        pod.items_at(&["spec", "affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution"]);
    match terms.iter().filter_map(|t| t.str_at(&["topologyKey"])).find(|k| *k != ALLOWED) {
        Some(key) => Err(a.forbidden(&format!(
            "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {ALLOWED} is allowed"
        ))),
        None => Ok(()),
    }
}

/// Whether a resource is an extended one: in a domain that is not Kubernetes' own.
fn extended(name: &str) -> bool {
    name.split_once('/').is_some_and(|(domain, _)| !domain.ends_with("kubernetes.io") && !name.starts_with("requests."))
}

/// ExtendedResourceToleration: who asks for a device tolerates the nodes that are kept for it.
pub(crate) fn tolerate_extended_resources(a: &Attributes<'_>, pod: &mut Value) {
    if !about_pod(a) {
        return;
    }
    let wanted: BTreeSet<String> = ["initContainers", "containers"]
        .iter()
        .flat_map(|l| pod.items_at(&["spec", l]))
        .filter_map(|c| c.at(&["resources", "requests"]).and_then(Value::as_object))
        .flat_map(Map::keys)
        .filter(|k| extended(k))
        .map(|k| k.to_string())
        .collect();
    for key in wanted {
        let toleration = object!({ "key": (key.as_str()), "operator": "Exists", "effect": "NoSchedule" });
        if !pod.items_at(&["spec", "tolerations"]).contains(&toleration) {
            push(pod.slot(&["spec", "tolerations"]), toleration);
        }
    }
}
