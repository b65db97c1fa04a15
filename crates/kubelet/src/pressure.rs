//! Pressure: memory, disk and process ids watched; conditions set, images collected, and a pod evicted when that is
//! not enough. One pod at a time, those without a claim on what is short first.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use ironkeel_informer::EventKind;
use ironkeel_semantics::{QosClass, qos_class};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::{
    images::gc::ImageAges,
    kubelet::Kubelet,
    names,
    node::{Pressure, machine},
    resources,
};

/// How often the machine is looked at.
const PERIOD: Duration = Duration::from_secs(10);
/// How often images are looked at without pressure.
const IMAGE_PERIOD: Duration = Duration::from_secs(300);
/// Priority from which a static pod is never evicted.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// Watches until shutdown.
pub(crate) async fn run(kubelet: Arc<Kubelet>) {
    let ages = ImageAges::default();
    let (mut held, mut images_at) = ([None::<Instant>; 3], Instant::now());
    loop {
        tokio::select! {
            () = kubelet.shutdown.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        let now = measure(&kubelet);
        let period = kubelet.config.eviction.pressure_transition_period;
        let mut shown = [now.memory, now.disk, now.pid];
        for (pressed, since) in shown.iter_mut().zip(&mut held) {
            if *pressed {
                *since = Some(Instant::now());
            }
            // A condition outlives its cause, so that it does not flap.
            *pressed = since.is_some_and(|since| since.elapsed() < period);
        }
        kubelet.node.set_pressure(Pressure { memory: shown[0], disk: shown[1], pid: shown[2] });
        if now.disk || images_at.elapsed() > IMAGE_PERIOD {
            images_at = Instant::now();
            match ages.collect(&kubelet.runtime, &kubelet.config.image_gc, Timestamp::now(), now.disk).await {
                Ok(0) => {}
                Ok(freed) => tracing::info!(freed_bytes = freed, "images deleted"),
                Err(error) => tracing::debug!(%error, "images not collected"),
            }
        }
        let now = measure(&kubelet);
        let resource = match now {
            Pressure { memory: true, .. } => "memory",
            Pressure { disk: true, .. } => "ephemeral-storage",
            Pressure { pid: true, .. } => "pids",
            _ => continue,
        };
        evict_one(&kubelet, resource).await;
    }
}

fn measure(kubelet: &Kubelet) -> Pressure {
    let limits = &kubelet.config.eviction;
    let (_, available) = machine::memory();
    let disk = machine::filesystem(&kubelet.config.root_dir);
    let percent = |part: u64, whole: u64| (part.saturating_mul(100)).checked_div(whole).unwrap_or(100);
    let (processes, maximum) = machine::process_ids();
    Pressure {
        memory: available < limits.memory_available_bytes,
        disk: disk.is_some_and(|disk| {
            percent(disk.available_bytes, disk.capacity_bytes) < limits.nodefs_available_percent
                || percent(disk.inodes_free, disk.inodes) < limits.nodefs_inodes_free_percent
        }),
        pid: percent(maximum.saturating_sub(processes), maximum) < limits.pid_available_percent,
    }
}

/// The order of eviction: pods above their request first, then low priority, then by how much they are above it.
pub(crate) fn rank(pod: &Pod, used_bytes: u64) -> (bool, i32, i128) {
    let request = pod.spec.as_ref().map(|spec| resources::pod_request_milli(spec, "memory") / 1000).unwrap_or_default();
    let over = i128::from(used_bytes) - request;
    let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default();
    (over <= 0, priority, -over)
}

async fn evict_one(kubelet: &Kubelet, resource: &str) {
    let mut used: HashMap<String, u64> = HashMap::new();
    for stats in kubelet.runtime.stats().await.unwrap_or_default() {
        let uid = stats.attributes.and_then(|attributes| attributes.labels.get(names::POD_UID).cloned());
        let bytes = stats.memory.and_then(|memory| memory.working_set_bytes).map(|bytes| bytes.value);
        *used.entry(uid.unwrap_or_default()).or_default() += bytes.unwrap_or_default();
    }
    let usage = |pod: &Pod| used.get(names::uid(pod)).copied().unwrap_or_default();
    let critical = |pod: &Pod| {
        let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default();
        names::is_static(pod) || priority >= CRITICAL_PRIORITY
    };
    let pods = kubelet.active_pods();
    let candidates = pods.iter().filter(|pod| !critical(pod) && pod.metadata.deletion_timestamp.is_none());
    let Some(pod) = candidates.min_by_key(|pod| rank(pod, usage(pod))) else { return };
    let message = format!("The node was low on resource: {resource}. ");
    kubelet.pod_event(pod, EventKind::Warning, "Evicted", &message);
    tracing::warn!(pod = names::name(pod), resource, "evicting a pod");
    let grace = if qos_class(pod) == QosClass::BestEffort { Duration::ZERO } else { Duration::from_secs(1) };
    kubelet.evict(names::uid(pod), message, grace);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pods_over_their_request_go_first_then_by_priority() {
        let pod = |request: &str, priority: i32| -> Pod {
            serde_yaml_ng::from_str(&format!(
                "{{spec: {{priority: {priority}, containers: [{{name: a, resources: {{requests: {{memory: {request}}}}}}}]}}}}"
            ))
            .unwrap()
        };
        assert!(rank(&pod("1Mi", 0), 2 << 20) < rank(&pod("4Mi", 0), 2 << 20));
        assert!(rank(&pod("1Mi", 0), 2 << 20) < rank(&pod("1Mi", 5), 9 << 20));
        assert!(rank(&pod("1Mi", 0), 9 << 20) < rank(&pod("1Mi", 0), 2 << 20));
    }
}
