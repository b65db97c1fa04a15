//! What one object counts as, by the names that a quota limits, and which pods a quota with scopes sees.

use ironkeel_semantics::resources::{ResourceList, add, raise, spec_limits, spec_requests};
use ironkeel_semantics::{Amount, QosClass, pods, qos_class};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, ResourceQuota, ScopedResourceSelectorRequirement, Service,
};
use k8s_openapi::api::resource::v1::{DeviceRequest, ResourceClaim};

/// Ends the name of what is limited of a class of devices.
const DEVICES_OF_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
/// Most devices of one allocation; what "All" may come to.
const ALLOCATION_MAX_DEVICES: i64 = 32;

/// A number of objects.
pub(super) fn number(count: usize) -> Amount {
    Amount::from_units(i64::try_from(count).unwrap_or(i64::MAX))
}

/// A finished pod is still an object, and uses nothing.
pub(super) fn of_pod(pod: &Pod) -> ResourceList {
    let mut usage = ResourceList::from([("count/pods".to_owned(), number(1))]);
    if pods::is_terminal(pod) {
        return usage;
    }
    usage.insert("pods".to_owned(), number(1));
    let Some(spec) = &pod.spec else { return usage };
    let native = |name: &str| matches!(name, "cpu" | "memory" | "ephemeral-storage");
    for (name, amount) in spec_requests(spec) {
        if native(&name) || name.starts_with("hugepages-") {
            usage.insert(name.clone(), amount);
        }
        usage.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in spec_limits(spec).into_iter().filter(|(name, _)| native(name)) {
        usage.insert(format!("limits.{name}"), amount);
    }
    usage
}

pub(super) fn of_service(service: &Service) -> ResourceList {
    let names = ["services".to_owned(), "count/services".to_owned()];
    let mut usage = ResourceList::from(names.map(|name| (name, number(1))));
    let Some(spec) = &service.spec else { return usage };
    let ports = || spec.ports.iter().flatten();
    match spec.type_.as_deref() {
        Some("NodePort") => {
            usage.insert("services.nodeports".to_owned(), number(ports().count()));
        }
        Some("LoadBalancer") => {
            usage.insert("services.loadbalancers".to_owned(), number(1));
            let allocated = spec.allocate_load_balancer_node_ports.unwrap_or(true);
            let held = ports().filter(|port| allocated || port.node_port.is_some_and(|port| port != 0)).count();
            usage.insert("services.nodeports".to_owned(), number(held));
        }
        _ => {}
    }
    usage
}

pub(super) fn of_claim(claim: &PersistentVolumeClaim) -> ResourceList {
    let names = ["persistentvolumeclaims".to_owned(), "count/persistentvolumeclaims".to_owned()];
    let mut usage = ResourceList::from(names.map(|name| (name, number(1))));
    let spec = claim.spec.as_ref();
    let requests = spec.and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let storage = requests.and_then(|requests| requests.get("storage")).map(Amount::from);
    // What a growing volume was given already counts, even when less is asked for again.
    let given = claim.status.as_ref().and_then(|status| status.allocated_resources.as_ref()?.get("storage"));
    let given = given.map(Amount::from);
    let storage = storage.map(|wanted| given.filter(|given| *given > wanted).unwrap_or(wanted));
    if let Some(storage) = storage {
        usage.insert("requests.storage".to_owned(), storage);
    }
    let annotations = claim.metadata.annotations.as_ref();
    let class = annotations
        .and_then(|all| all.get("volume.beta.kubernetes.io/storage-class"))
        .or_else(|| spec.and_then(|spec| spec.storage_class_name.as_ref()))
        .filter(|class| !class.is_empty());
    if let Some(class) = class {
        let prefix = format!("{class}.storageclass.storage.k8s.io");
        usage.insert(format!("{prefix}/persistentvolumeclaims"), number(1));
        if let Some(storage) = storage {
            usage.insert(format!("{prefix}/requests.storage"), storage);
        }
    }
    usage
}

/// Whether the name limits devices of a class, as claims ask for them.
pub(super) fn is_of_devices(name: &str) -> bool {
    name.ends_with(DEVICES_OF_CLASS)
}

/// The devices that a claim may come to hold, by class. The claim's number is counted like other resources'.
pub(super) fn of_device_claim(claim: &ResourceClaim) -> ResourceList {
    let requests = claim.spec.devices.iter().flat_map(|devices| devices.requests.iter().flatten());
    let mut usage = ResourceList::new();
    requests.for_each(|request| add(&mut usage, &of_device_request(request)));
    usage
}

/// Of alternatives the most of each class.
fn of_device_request(request: &DeviceRequest) -> ResourceList {
    let asked = |class: &str, mode: Option<&str>, count: Option<i64>| {
        let count = match mode {
            Some("ExactCount") => count.unwrap_or(0),
            Some("All") => ALLOCATION_MAX_DEVICES,
            _ => 0,
        };
        ResourceList::from([(format!("{class}{DEVICES_OF_CLASS}"), Amount::from_units(count))])
    };
    let mut usage = ResourceList::new();
    match &request.exactly {
        Some(exactly) => {
            usage = asked(&exactly.device_class_name, exactly.allocation_mode.as_deref(), exactly.count);
        }
        None => request.first_available.iter().flatten().for_each(|one| {
            raise(&mut usage, &asked(&one.device_class_name, one.allocation_mode.as_deref(), one.count));
        }),
    }
    usage
}

/// Whether the quota sees the claim: by the classes of volume attributes that it has, gets or wants.
pub(super) fn sees_claim(quota: &ResourceQuota, claim: &PersistentVolumeClaim) -> bool {
    const SCOPE: &str = "VolumeAttributesClass";
    let Some(spec) = &quota.spec else { return true };
    let status = claim.status.as_ref();
    let classes: Vec<&str> = [
        claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref()),
        status.and_then(|status| status.current_volume_attributes_class_name.as_deref()),
        status.and_then(|status| status.modify_volume_status.as_ref()?.target_volume_attributes_class_name.as_deref()),
    ]
    .into_iter()
    .flatten()
    .filter(|class| !class.is_empty())
    .collect();
    let selected = |wanted: &ScopedResourceSelectorRequirement| {
        let listed = || wanted.values.iter().flatten().any(|value| classes.contains(&value.as_str()));
        wanted.scope_name == SCOPE
            && match wanted.operator.as_str() {
                "In" => listed(),
                "NotIn" => !listed(),
                "Exists" => !classes.is_empty(),
                "DoesNotExist" => classes.is_empty(),
                _ => false,
            }
    };
    let selector = spec.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten());
    spec.scopes.iter().flatten().all(|scope| scope == SCOPE && !classes.is_empty())
        && selector.into_iter().all(selected)
}

/// Whether the quota sees only some pods, and nothing else.
pub(super) fn is_scoped(quota: &ResourceQuota) -> bool {
    let Some(spec) = &quota.spec else { return false };
    let selector = spec.scope_selector.as_ref().and_then(|selector| selector.match_expressions.as_ref());
    spec.scopes.as_ref().is_some_and(|scopes| !scopes.is_empty()) || selector.is_some_and(|all| !all.is_empty())
}

/// Whether the quota sees the pod.
pub(super) fn in_scope(quota: &ResourceQuota, pod: &Pod) -> bool {
    let Some(spec) = &quota.spec else { return true };
    let selector = spec.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten());
    spec.scopes.iter().flatten().all(|scope| has(scope, pod)) && selector.into_iter().all(|wanted| matches(wanted, pod))
}

fn class(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.priority_class_name.as_deref()).unwrap_or_default()
}

fn has(scope: &str, pod: &Pod) -> bool {
    let terminating = pod.spec.as_ref().is_some_and(|spec| spec.active_deadline_seconds.is_some());
    let best_effort = matches!(qos_class(pod), QosClass::BestEffort);
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "PriorityClass" => !class(pod).is_empty(),
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

fn matches(wanted: &ScopedResourceSelectorRequirement, pod: &Pod) -> bool {
    let listed = || wanted.values.iter().flatten().any(|value| value == class(pod));
    match (wanted.scope_name.as_str(), wanted.operator.as_str()) {
        ("PriorityClass", "In") => listed(),
        ("PriorityClass", "NotIn") => !listed(),
        (scope, "DoesNotExist") => !has(scope, pod),
        (scope, _) => has(scope, pod),
    }
}

fn crosses_namespaces(pod: &Pod) -> bool {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let with = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
    let without = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    let required = with
        .and_then(|terms| terms.required_during_scheduling_ignored_during_execution.as_ref())
        .into_iter()
        .chain(without.and_then(|terms| terms.required_during_scheduling_ignored_during_execution.as_ref()));
    let preferred = with
        .and_then(|terms| terms.preferred_during_scheduling_ignored_during_execution.as_ref())
        .into_iter()
        .chain(without.and_then(|terms| terms.preferred_during_scheduling_ignored_during_execution.as_ref()));
    let mut terms = required.flatten().chain(preferred.flatten().map(|weighted| &weighted.pod_affinity_term));
    terms.any(|term| term.namespace_selector.is_some() || term.namespaces.as_ref().is_some_and(|all| !all.is_empty()))
}
