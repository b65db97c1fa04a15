//! Statistics: /stats/summary, and metrics in Prometheus' text form.

use std::{collections::BTreeMap, fmt::Write, fs};

use ironkeel_cri::v1 as cri;
use serde_json::{Value, json};

use crate::{kubelet::Kubelet, names, node::machine, runtime::timestamp};

/// Processor time of the whole machine since boot, nanoseconds.
fn machine_cpu_ns() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> =
        text.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|index| fields.get(*index)).sum();
    // The kernel counts in hundredths of a second.
    busy * 10_000_000
}

fn label<'a>(stats: &'a cri::ContainerStats, key: &str) -> &'a str {
    stats.attributes.as_ref().and_then(|attributes| attributes.labels.get(key)).map(String::as_str).unwrap_or_default()
}

fn cpu_ns(stats: &cri::ContainerStats) -> u64 {
    stats.cpu.as_ref().and_then(|cpu| cpu.usage_core_nano_seconds.as_ref()).map(|v| v.value).unwrap_or_default()
}

fn memory_bytes(stats: &cri::ContainerStats) -> u64 {
    stats.memory.as_ref().and_then(|memory| memory.working_set_bytes.as_ref()).map(|v| v.value).unwrap_or_default()
}

/// The body of /stats/summary.
pub(crate) async fn summary(kubelet: &Kubelet) -> Value {
    let now = jiff::Timestamp::now().to_string();
    let (total, available) = machine::memory();
    let disk = machine::filesystem(&kubelet.config.root_dir).unwrap_or_default();
    let filesystem = json!({
        "time": now,
        "availableBytes": disk.available_bytes,
        "capacityBytes": disk.capacity_bytes,
        "usedBytes": disk.capacity_bytes.saturating_sub(disk.available_bytes),
        "inodes": disk.inodes,
        "inodesFree": disk.inodes_free,
        "inodesUsed": disk.inodes.saturating_sub(disk.inodes_free),
    });
    let mut pods: BTreeMap<(String, String, String), Vec<Value>> = BTreeMap::new();
    let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for stats in kubelet.runtime.stats().await.unwrap_or_default() {
        let uid = label(&stats, names::POD_UID).to_owned();
        let key = (label(&stats, names::POD_NAMESPACE).into(), label(&stats, names::POD_NAME).into(), uid.clone());
        let sum = sums.entry(uid).or_default();
        sum.0 += cpu_ns(&stats);
        sum.1 += memory_bytes(&stats);
        let time = |nanoseconds: i64| timestamp(nanoseconds).to_string();
        let cpu = stats.cpu.as_ref();
        let memory = stats.memory.as_ref();
        let layer = stats.writable_layer.as_ref();
        pods.entry(key).or_default().push(json!({
            "name": label(&stats, names::CONTAINER_NAME),
            "cpu": {
                "time": cpu.map(|cpu| time(cpu.timestamp)),
                "usageCoreNanoSeconds": cpu_ns(&stats),
                "usageNanoCores": cpu.and_then(|cpu| cpu.usage_nano_cores.as_ref()).map(|v| v.value),
            },
            "memory": {
                "time": memory.map(|memory| time(memory.timestamp)),
                "workingSetBytes": memory_bytes(&stats),
                "usageBytes": memory.and_then(|memory| memory.usage_bytes.as_ref()).map(|v| v.value),
                "rssBytes": memory.and_then(|memory| memory.rss_bytes.as_ref()).map(|v| v.value),
            },
            "rootfs": {
                "time": layer.map(|layer| time(layer.timestamp)),
                "usedBytes": layer.and_then(|layer| layer.used_bytes.as_ref()).map(|v| v.value),
                "inodesUsed": layer.and_then(|layer| layer.inodes_used.as_ref()).map(|v| v.value),
            },
        }));
    }
    let pods: Vec<Value> = pods
        .into_iter()
        .map(|((namespace, name, uid), containers)| {
            let (cpu, memory) = sums.get(&uid).copied().unwrap_or_default();
            json!({
                "podRef": {"name": name, "namespace": namespace, "uid": uid},
                "containers": containers,
                "cpu": {"time": now, "usageCoreNanoSeconds": cpu},
                "memory": {"time": now, "workingSetBytes": memory},
            })
        })
        .collect();
    json!({
        "node": {
            "nodeName": kubelet.config.node_name,
            "cpu": {"time": now, "usageCoreNanoSeconds": machine_cpu_ns()},
            "memory": {
                "time": now,
                "availableBytes": available,
                "usageBytes": total.saturating_sub(available),
                "workingSetBytes": total.saturating_sub(available),
            },
            "fs": filesystem,
            "runtime": {"imageFs": filesystem},
        },
        "pods": pods,
    })
}

/// The kubelet's own metrics.
pub(crate) fn metrics(kubelet: &Kubelet) -> String {
    let active = kubelet.active_pods().len();
    let all = kubelet.pods.lock().len();
    let node = &kubelet.config.node_name;
    format!(
        "# HELP kubelet_node_name The node's name. The count is always 1.\n# TYPE kubelet_node_name gauge\n\
         kubelet_node_name{{node={node:?}}} 1\n\
         # HELP kubelet_active_pods Pods that the kubelet considers active.\n# TYPE kubelet_active_pods gauge\n\
         kubelet_active_pods{{static=\"\"}} {active}\n\
         # HELP kubelet_desired_pods Pods that the kubelet has been told of.\n# TYPE kubelet_desired_pods gauge\n\
         kubelet_desired_pods{{static=\"\"}} {all}\n"
    )
}

fn samples(out: &mut String, name: &str, kind: &str, help: &str, rows: &[(String, f64)]) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in rows {
        let _ = writeln!(out, "{name}{labels} {value}");
    }
}

fn labels(stats: &cri::ContainerStats) -> String {
    format!(
        "{{container={:?},namespace={:?},pod={:?}}}",
        label(stats, names::CONTAINER_NAME),
        label(stats, names::POD_NAMESPACE),
        label(stats, names::POD_NAME)
    )
}

/// What metrics-server reads.
pub(crate) async fn resource_metrics(kubelet: &Kubelet) -> String {
    let all = kubelet.runtime.stats().await.unwrap_or_default();
    let mut out = String::new();
    let cpu: Vec<_> = all.iter().map(|stats| (labels(stats), cpu_ns(stats) as f64 / 1e9)).collect();
    let memory: Vec<_> = all.iter().map(|stats| (labels(stats), memory_bytes(stats) as f64)).collect();
    let (total, available) = machine::memory();
    samples(&mut out, "container_cpu_usage_seconds_total", "counter", "Processor time of the container.", &cpu);
    samples(&mut out, "container_memory_working_set_bytes", "gauge", "Working set of the container.", &memory);
    let node = [(String::new(), machine_cpu_ns() as f64 / 1e9)];
    samples(&mut out, "node_cpu_usage_seconds_total", "counter", "Processor time of the node.", &node);
    let node = [(String::new(), total.saturating_sub(available) as f64)];
    samples(&mut out, "node_memory_working_set_bytes", "gauge", "Working set of the node.", &node);
    samples(&mut out, "resource_scrape_error", "gauge", "1 if there was an error.", &[(String::new(), 0.0)]);
    out
}

/// Machine facts and containers' use under cAdvisor's names.
pub(crate) async fn cadvisor_metrics(kubelet: &Kubelet) -> String {
    let all = kubelet.runtime.stats().await.unwrap_or_default();
    let mut out = String::new();
    let machine_rows = [(String::new(), machine::processors() as f64)];
    samples(&mut out, "machine_cpu_cores", "gauge", "Number of logical CPU cores.", &machine_rows);
    let machine_rows = [(String::new(), machine::memory().0 as f64)];
    samples(&mut out, "machine_memory_bytes", "gauge", "Amount of memory installed on the machine.", &machine_rows);
    let cpu: Vec<_> = all.iter().map(|stats| (labels(stats), cpu_ns(stats) as f64 / 1e9)).collect();
    samples(&mut out, "container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed.", &cpu);
    let memory: Vec<_> = all.iter().map(|stats| (labels(stats), memory_bytes(stats) as f64)).collect();
    samples(&mut out, "container_memory_working_set_bytes", "gauge", "Current working set.", &memory);
    out
}
