//! Statistics: /stats/summary, and metrics in Prometheus' text form.

use std::{collections::HashMap, fmt::Write, fs};

use ironkeel_cri::v1 as cri;
use jiff::Timestamp;
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

fn number(value: Option<&cri::UInt64Value>) -> Option<u64> {
    value.map(|value| value.value)
}

fn cpu_ns(cpu: Option<&cri::CpuUsage>) -> u64 {
    number(cpu.and_then(|cpu| cpu.usage_core_nano_seconds.as_ref())).unwrap_or_default()
}

fn memory_bytes(memory: Option<&cri::MemoryUsage>) -> u64 {
    number(memory.and_then(|memory| memory.working_set_bytes.as_ref())).unwrap_or_default()
}

/// What the runtime measured of a pod.
struct PodUse {
    namespace: String,
    name: String,
    uid: String,
    cpu: Option<cri::CpuUsage>,
    memory: Option<cri::MemoryUsage>,
    network: Option<cri::NetworkUsage>,
    processes: Option<u64>,
    containers: Vec<cri::ContainerStats>,
}

fn container_name(stats: &cri::ContainerStats) -> &str {
    let labels = stats.attributes.as_ref().map(|attributes| &attributes.labels);
    labels.and_then(|labels| labels.get(names::CONTAINER_NAME)).map(String::as_str).unwrap_or_default()
}

/// What the runtime measured, pods in the order of their names.
async fn measure(kubelet: &Kubelet) -> Vec<PodUse> {
    let mut pods: Vec<PodUse> = match kubelet.runtime.pod_stats().await {
        Ok(stats) => stats.into_iter().map(of_sandbox).collect(),
        Err(error) => {
            tracing::debug!(%error, "no statistics of pods; asking for containers'");
            by_containers(kubelet).await
        }
    };
    pods.retain(|pod| !pod.containers.is_empty());
    pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    pods
}

fn of_sandbox(stats: cri::PodSandboxStats) -> PodUse {
    let labels = stats.attributes.map(|attributes| attributes.labels).unwrap_or_default();
    let linux = stats.linux.unwrap_or_default();
    let take = |key: &str| labels.get(key).cloned().unwrap_or_default();
    PodUse {
        namespace: take(names::POD_NAMESPACE),
        name: take(names::POD_NAME),
        uid: take(names::POD_UID),
        cpu: linux.cpu,
        memory: linux.memory,
        network: linux.network,
        processes: number(linux.process.and_then(|process| process.process_count).as_ref()),
        containers: linux.containers,
    }
}

/// For runtimes that measure containers only.
async fn by_containers(kubelet: &Kubelet) -> Vec<PodUse> {
    let mut pods: HashMap<String, PodUse> = HashMap::new();
    for stats in kubelet.runtime.stats().await.unwrap_or_default() {
        let labels = stats.attributes.as_ref().map(|attributes| attributes.labels.clone()).unwrap_or_default();
        let take = |key: &str| labels.get(key).cloned().unwrap_or_default();
        let pod = pods.entry(take(names::POD_UID)).or_insert_with(|| PodUse {
            namespace: take(names::POD_NAMESPACE),
            name: take(names::POD_NAME),
            uid: take(names::POD_UID),
            cpu: None,
            memory: None,
            network: None,
            processes: None,
            containers: Vec::new(),
        });
        let sum = |a: u64, b: u64| Some(cri::UInt64Value { value: a + b });
        let cpu = sum(cpu_ns(pod.cpu.as_ref()), cpu_ns(stats.cpu.as_ref()));
        let memory = sum(memory_bytes(pod.memory.as_ref()), memory_bytes(stats.memory.as_ref()));
        let now = stats.cpu.as_ref().map(|cpu| cpu.timestamp).unwrap_or_default();
        pod.cpu = Some(cri::CpuUsage { timestamp: now, usage_core_nano_seconds: cpu, ..Default::default() });
        pod.memory = Some(cri::MemoryUsage { timestamp: now, working_set_bytes: memory, ..Default::default() });
        pod.containers.push(stats);
    }
    pods.into_values().collect()
}

/// When the pod and its running containers were started, as its status tells.
fn starts(kubelet: &Kubelet, uid: &str) -> (Option<Timestamp>, HashMap<String, Timestamp>) {
    let handle = kubelet.pods.lock().get(uid).cloned();
    let status = handle.and_then(|handle| handle.status.lock().clone()).unwrap_or_default();
    let lists = [status.init_container_statuses, status.container_statuses, status.ephemeral_container_statuses];
    let containers = lists.into_iter().flatten().flatten().filter_map(|status| {
        let started = status.state?.running?.started_at?;
        Some((status.name, started.0))
    });
    (status.start_time.map(|time| time.0), containers.collect())
}

fn cpu_json(cpu: Option<&cri::CpuUsage>) -> Value {
    let Some(cpu) = cpu else { return Value::Null };
    present(json!({
        "time": timestamp(cpu.timestamp).to_string(),
        "usageCoreNanoSeconds": number(cpu.usage_core_nano_seconds.as_ref()),
        "usageNanoCores": number(cpu.usage_nano_cores.as_ref()),
    }))
}

fn memory_json(memory: Option<&cri::MemoryUsage>) -> Value {
    let Some(memory) = memory else { return Value::Null };
    present(json!({
        "time": timestamp(memory.timestamp).to_string(),
        "availableBytes": number(memory.available_bytes.as_ref()),
        "usageBytes": number(memory.usage_bytes.as_ref()),
        "workingSetBytes": number(memory.working_set_bytes.as_ref()),
        "rssBytes": number(memory.rss_bytes.as_ref()),
        "pageFaults": number(memory.page_faults.as_ref()),
        "majorPageFaults": number(memory.major_page_faults.as_ref()),
    }))
}

fn interface_json(interface: &cri::NetworkInterfaceUsage) -> Value {
    present(json!({
        "name": interface.name,
        "rxBytes": number(interface.rx_bytes.as_ref()),
        "rxErrors": number(interface.rx_errors.as_ref()),
        "txBytes": number(interface.tx_bytes.as_ref()),
        "txErrors": number(interface.tx_errors.as_ref()),
    }))
}

fn network_json(network: Option<&cri::NetworkUsage>) -> Value {
    let Some(network) = network else { return Value::Null };
    let default = network.default_interface.as_ref();
    let mut value = default.map_or_else(|| json!({}), interface_json);
    value["time"] = timestamp(network.timestamp).to_string().into();
    let all = default.into_iter().chain(&network.interfaces).map(interface_json);
    value["interfaces"] = all.collect::<Vec<_>>().into();
    value
}

/// The members that have a value.
fn present(mut value: Value) -> Value {
    if let Some(members) = value.as_object_mut() {
        members.retain(|_, member| !member.is_null());
    }
    value
}

/// The body of /stats/summary.
pub(crate) async fn summary(kubelet: &Kubelet) -> Value {
    let now = Timestamp::now().to_string();
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
    // A writable layer lies on the node's file system.
    let layer_json = |layer: Option<&cri::FilesystemUsage>| {
        layer.map(|layer| {
            present(json!({
                "time": timestamp(layer.timestamp).to_string(),
                "availableBytes": disk.available_bytes,
                "capacityBytes": disk.capacity_bytes,
                "usedBytes": number(layer.used_bytes.as_ref()),
                "inodes": disk.inodes,
                "inodesFree": disk.inodes_free,
                "inodesUsed": number(layer.inodes_used.as_ref()),
            }))
        })
    };
    let mut pods = Vec::new();
    for pod in measure(kubelet).await {
        let (started, container_starts) = starts(kubelet, &pod.uid);
        let containers = pod.containers.iter().map(|stats| {
            let name = container_name(stats);
            present(json!({
                "name": name,
                "startTime": container_starts.get(name).map(ToString::to_string),
                "cpu": cpu_json(stats.cpu.as_ref()),
                "memory": memory_json(stats.memory.as_ref()),
                "rootfs": layer_json(stats.writable_layer.as_ref()),
            }))
        });
        pods.push(present(json!({
            "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
            "startTime": started.map(|time| time.to_string()),
            "containers": containers.collect::<Vec<_>>(),
            "cpu": cpu_json(pod.cpu.as_ref()),
            "memory": memory_json(pod.memory.as_ref()),
            "network": network_json(pod.network.as_ref()),
            "process_stats": pod.processes.map(|count| json!({"process_count": count})),
        })));
    }
    json!({
        "node": {
            "nodeName": kubelet.config.node_name,
            "startTime": Timestamp::from_second(machine::booted_at()).unwrap_or_default().to_string(),
            "cpu": {"time": now, "usageCoreNanoSeconds": machine_cpu_ns()},
            "memory": {
                "time": now,
                "availableBytes": available,
                "usageBytes": total.saturating_sub(available),
                "workingSetBytes": total.saturating_sub(available),
            },
            "fs": filesystem,
            "runtime": {"imageFs": filesystem, "containerFs": filesystem},
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

/// One metric: its labels and value for each subject.
type Rows = Vec<(String, f64)>;

fn samples(out: &mut String, name: &str, kind: &str, help: &str, rows: &Rows) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in rows {
        let _ = writeln!(out, "{name}{labels} {value}");
    }
}

/// Rows of every container: a value of none has no row.
fn by_container(pods: &[PodUse], value: impl Fn(&PodUse, &cri::ContainerStats) -> Option<f64>) -> Rows {
    let rows = pods.iter().flat_map(|pod| pod.containers.iter().map(move |stats| (pod, stats)));
    rows.filter_map(|(pod, stats)| {
        let labels =
            format!("{{container={:?},namespace={:?},pod={:?}}}", container_name(stats), pod.namespace, pod.name);
        Some((labels, value(pod, stats)?))
    })
    .collect()
}

fn by_pod(pods: &[PodUse], value: impl Fn(&PodUse) -> f64) -> Rows {
    pods.iter().map(|pod| (format!("{{namespace={:?},pod={:?}}}", pod.namespace, pod.name), value(pod))).collect()
}

fn of_node(value: f64) -> Rows {
    vec![(String::new(), value)]
}

fn container_use(out: &mut String, pods: &[PodUse]) {
    let cpu = by_container(pods, |_, stats| Some(cpu_ns(stats.cpu.as_ref()) as f64 / 1e9));
    samples(out, "container_cpu_usage_seconds_total", "counter", "Processor time of the container.", &cpu);
    let memory = by_container(pods, |_, stats| Some(memory_bytes(stats.memory.as_ref()) as f64));
    samples(out, "container_memory_working_set_bytes", "gauge", "Working set of the container.", &memory);
}

/// What metrics-server reads.
pub(crate) async fn resource_metrics(kubelet: &Kubelet) -> String {
    let pods = measure(kubelet).await;
    let mut out = String::new();
    container_use(&mut out, &pods);
    let started: HashMap<&str, _> = pods.iter().map(|pod| (pod.uid.as_str(), starts(kubelet, &pod.uid).1)).collect();
    let start = by_container(&pods, |pod, stats| {
        let started = started.get(pod.uid.as_str())?.get(container_name(stats))?;
        Some(started.as_millisecond() as f64 / 1e3)
    });
    samples(&mut out, "container_start_time_seconds", "gauge", "Start of the container since the epoch.", &start);
    let cpu = by_pod(&pods, |pod| cpu_ns(pod.cpu.as_ref()) as f64 / 1e9);
    samples(&mut out, "pod_cpu_usage_seconds_total", "counter", "Processor time of the pod.", &cpu);
    let memory = by_pod(&pods, |pod| memory_bytes(pod.memory.as_ref()) as f64);
    samples(&mut out, "pod_memory_working_set_bytes", "gauge", "Working set of the pod.", &memory);
    let (total, available) = machine::memory();
    let cpu = of_node(machine_cpu_ns() as f64 / 1e9);
    samples(&mut out, "node_cpu_usage_seconds_total", "counter", "Processor time of the node.", &cpu);
    let memory = of_node(total.saturating_sub(available) as f64);
    samples(&mut out, "node_memory_working_set_bytes", "gauge", "Working set of the node.", &memory);
    samples(&mut out, "resource_scrape_error", "gauge", "1 if there was an error.", &of_node(0.0));
    out
}

/// Machine facts and containers' use under cAdvisor's names.
pub(crate) async fn cadvisor_metrics(kubelet: &Kubelet) -> String {
    let mut out = String::new();
    let cores = of_node(machine::processors() as f64);
    samples(&mut out, "machine_cpu_cores", "gauge", "Number of logical CPU cores.", &cores);
    let memory = of_node(machine::memory().0 as f64);
    samples(&mut out, "machine_memory_bytes", "gauge", "Amount of memory installed on the machine.", &memory);
    container_use(&mut out, &measure(kubelet).await);
    out
}
