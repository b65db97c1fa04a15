//! Arithmetic on pods' resources: quantities, requests and limits, QoS class, CPU shares and quotas, OOM score.
//! What a container or a pod asks for; where it is enforced is [`crate::pods::cgroups`] and the runtime.

use std::collections::BTreeMap;

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

/// The pod's quality of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    /// The value of `status.qosClass`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// A quantity in thousandths of its unit, rounded up; malformed text counts as zero, as the API has validated it.
pub(crate) fn milli(quantity: &Quantity) -> i128 {
    parse_milli(&quantity.0).unwrap_or_default()
}

/// A quantity in its unit, rounded up.
pub(crate) fn value(quantity: &Quantity) -> i64 {
    let milli = milli(quantity);
    let whole = milli.div_euclid(1000) + i128::from(milli.rem_euclid(1000) > 0);
    whole.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

fn parse_milli(text: &str) -> Option<i128> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (numerator, exponent): (i128, i32) = match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        other => (1, other.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut digits: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut scale = exponent.checked_add(3)?;
    for digit in fraction.bytes() {
        digits = digits.checked_mul(10)?.checked_add(i128::from(digit.checked_sub(b'0')?))?;
        scale -= 1;
    }
    let mut result = digits.checked_mul(numerator)?;
    while scale > 0 {
        result = result.checked_mul(10)?;
        scale -= 1;
    }
    while scale < 0 && result != 0 {
        result = result / 10 + i128::from(result % 10 > 0);
        scale += 1;
    }
    Some(if negative { -result } else { result })
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

/// Whether an init container stays for the pod's life.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
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

/// The pod's QoS class by its containers' requests and limits for CPU and memory.
pub(crate) fn qos(pod: &Pod) -> Qos {
    let Some(spec) = &pod.spec else { return Qos::BestEffort };
    if let Some(class) = pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
        match class {
            "Guaranteed" => return Qos::Guaranteed,
            "Burstable" => return Qos::Burstable,
            "BestEffort" => return Qos::BestEffort,
            _ => {}
        }
    }
    let (mut any, mut guaranteed) = (false, true);
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let sets: Vec<Container> = match &spec.resources {
        Some(resources) if resources.requests.is_some() || resources.limits.is_some() => {
            vec![Container { resources: Some(resources.clone()), ..Default::default() }]
        }
        _ => containers.cloned().collect(),
    };
    for container in &sets {
        for resource in ["cpu", "memory"] {
            let request = request_milli(container, resource);
            let limit = limit_milli(container, resource);
            any |= request > 0 || limit.is_some();
            guaranteed &= limit.is_some_and(|limit| limit == request);
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
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
    match qos(pod) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
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
    fn quantities_are_read_in_thousandths() {
        for (text, expected) in [
            ("1", 1000),
            ("100m", 100),
            ("1.5", 1500),
            ("1Ki", 1_024_000),
            ("2e3", 2_000_000),
            ("0.1m", 1),
            ("1G", 1_000_000_000_000),
            ("-1", -1000),
        ] {
            assert_eq!(milli(&Quantity(text.into())), expected, "{text}");
        }
        assert_eq!(value(&Quantity("1500m".into())), 2);
    }

    #[test]
    fn qos_follows_requests_and_limits() {
        let check = |resources: &str, expected| {
            let yaml = format!("{{spec: {{containers: [{{name: a, resources: {resources}}}]}}}}");
            assert_eq!(qos(&pod(&yaml)), expected, "{resources}");
        };
        check("{}", Qos::BestEffort);
        check("{requests: {cpu: 1}}", Qos::Burstable);
        check("{limits: {cpu: 1}}", Qos::Burstable);
        check("{limits: {cpu: 1, memory: 1Gi}}", Qos::Guaranteed);
        check("{limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 500m, memory: 1Gi}}", Qos::Burstable);
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
