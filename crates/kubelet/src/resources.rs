//! Arithmetic on pods' resources as a node enforces them: requests and limits, CPU shares and quotas, OOM score.
//! What a container or a pod asks for; where it is enforced is [`crate::pods::cgroups`] and the runtime.

use std::collections::BTreeMap;

use ironkeel_semantics::{Amount, QosClass, qos_class, resources::is_sidecar};
use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec},
    apimachinery::pkg::api::resource::Quantity,
};

/// Quantities by resource name.
pub(crate) type ResourceList = BTreeMap<String, Quantity>;

/// Period of CPU quotas, microseconds.
pub(crate) const CPU_PERIOD_US: i64 = 100_000;
/// Fewest shares that the kernel accepts.
const MIN_SHARES: i64 = 2;
/// Most shares that the kernel accepts.
const MAX_SHARES: i64 = 262_144;
/// Smallest quota that the kernel accepts, microseconds.
const MIN_QUOTA_US: i64 = 1_000;

/// A quantity in thousandths of its unit, rounded up; malformed text counts as zero, as the API has validated it.
pub(crate) fn milli(quantity: &Quantity) -> i128 {
    i128::from(Amount::from(quantity).millis())
}

/// A quantity in its unit, rounded up.
pub(crate) fn value(quantity: &Quantity) -> i64 {
    Amount::from(quantity).units()
}

/// The container's requests; a limit without a request is one.
pub(crate) fn requests(container: &Container) -> ResourceList {
    let Some(resources) = &container.resources else { return ResourceList::new() };
    let mut requests = resources.requests.clone().unwrap_or_default();
    for (name, limit) in resources.limits.iter().flatten() {
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
    requests
}

/// The container's limit on a resource, in thousandths.
pub(crate) fn limit_milli(container: &Container, resource: &str) -> Option<i128> {
    container.resources.as_ref()?.limits.as_ref()?.get(resource).map(milli).filter(|limit| *limit > 0)
}

/// The container's request for a resource, in thousandths.
pub(crate) fn request_milli(container: &Container, resource: &str) -> i128 {
    requests(container).get(resource).map(milli).unwrap_or_default()
}

/// What the pod asks for of one resource, in thousandths: the larger of the running set and of each step of
/// initialization, sidecars counted from their start, plus the overhead.
pub(crate) fn pod_request_milli(spec: &PodSpec, resource: &str) -> i128 {
    let overhead = spec.overhead.as_ref().and_then(|o| o.get(resource)).map(milli).unwrap_or_default();
    let explicit = spec.resources.as_ref().and_then(|resources| {
        let request = resources.requests.as_ref().and_then(|r| r.get(resource));
        request.or_else(|| resources.limits.as_ref().and_then(|l| l.get(resource)))
    });
    if let Some(request) = explicit {
        return milli(request) + overhead;
    }
    aggregate(spec, |container| Some(request_milli(container, resource))).unwrap_or_default() + overhead
}

/// The pod's limit on a resource, in thousandths; `None` when a container has none.
pub(crate) fn pod_limit_milli(spec: &PodSpec, resource: &str) -> Option<i128> {
    let overhead = spec.overhead.as_ref().and_then(|o| o.get(resource)).map(milli).unwrap_or_default();
    let explicit = spec.resources.as_ref().and_then(|resources| resources.limits.as_ref()?.get(resource));
    if let Some(limit) = explicit {
        return Some(milli(limit) + overhead);
    }
    aggregate(spec, |container| limit_milli(container, resource)).map(|limit| limit + overhead)
}

fn aggregate(spec: &PodSpec, of: impl Fn(&Container) -> Option<i128>) -> Option<i128> {
    let mut running = 0;
    for container in &spec.containers {
        running += of(container)?;
    }
    let (mut sidecars, mut peak) = (0, 0);
    for container in spec.init_containers.iter().flatten() {
        let amount = of(container)?;
        if is_sidecar(container) {
            sidecars += amount;
            peak = sidecars.max(peak);
        } else {
            peak = (sidecars + amount).max(peak);
        }
    }
    Some(peak.max(running + sidecars))
}

/// CPU shares for a request of so many thousandths of a core.
pub(crate) fn cpu_shares(milli: i128) -> i64 {
    let shares = (milli * 1024 / 1000).min(i128::from(MAX_SHARES)) as i64;
    shares.max(MIN_SHARES)
}

/// CPU quota in a period for a limit of so many thousandths of a core; zero for none.
pub(crate) fn cpu_quota_us(milli: i128) -> i64 {
    if milli <= 0 {
        return 0;
    }
    ((milli * i128::from(CPU_PERIOD_US) / 1000).min(i128::from(i64::MAX)) as i64).max(MIN_QUOTA_US)
}

/// How readily the kernel kills the container when memory runs out.
pub(crate) fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity_bytes: u64) -> i64 {
    let critical = names_critical(pod);
    if critical {
        return -997;
    }
    match qos_class(pod) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let request = request_milli(container, "memory") / 1000;
            let share = (1000 * request).checked_div(i128::from(memory_capacity_bytes)).unwrap_or_default();
            (1000 - share).clamp(3, 999) as i64
        }
    }
}

fn names_critical(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.priority).is_some_and(|priority| priority >= 2_000_001_000)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pod(yaml: &str) -> Pod {
        serde_yaml_ng::from_str(yaml).unwrap()
    }

    #[test]
    fn sidecars_count_beside_init_steps_and_containers() {
        let pod = pod("{spec: {containers: [{name: a, resources: {requests: {cpu: 1}}}], initContainers: [
            {name: s, restartPolicy: Always, resources: {requests: {cpu: 500m}}},
            {name: i, resources: {requests: {cpu: 2}}}]}}");
        assert_eq!(pod_request_milli(pod.spec.as_ref().unwrap(), "cpu"), 2500);
    }

    #[test]
    fn shares_and_quotas_stay_within_the_kernels_bounds() {
        assert_eq!((cpu_shares(0), cpu_shares(1000), cpu_shares(1 << 40)), (2, 1024, 262_144));
        assert_eq!((cpu_quota_us(0), cpu_quota_us(1), cpu_quota_us(500)), (0, 1000, 50_000));
    }
}
