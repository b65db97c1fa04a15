//! Statistics: from the containers' groups and the sandbox's network devices.

use std::path::Path;

use ironkeel_cri::v1::{
    ContainerAttributes, ContainerStats, CpuUsage, FilesystemIdentifier, FilesystemUsage, IoUsage,
    LinuxPodSandboxStats, MemoryUsage, NetworkInterfaceUsage, NetworkUsage, PodSandboxAttributes, PodSandboxStats,
    ProcessUsage, PsiData, PsiStats, SwapUsage, UInt64Value,
};

use crate::cgroup;
use crate::container::Container;
use crate::records;
use crate::runtime::Runtime;
use crate::sandbox::Sandbox;
use crate::usage;

/// The size of a writable layer is measured at most this often, in nanoseconds.
const DISK_INTERVAL_NS: i64 = 10_000_000_000;
/// Two CPU samples nearer than this say nothing of a rate, in nanoseconds.
const MIN_CPU_INTERVAL_NS: i64 = 100_000_000;
/// A version 1 group without a limit reports a number above this, in bytes.
const UNLIMITED_BYTES: u64 = 1 << 60;

fn value(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

pub(crate) fn container(runtime: &Runtime, container: &Container) -> ContainerStats {
    let config = container.config();
    let group = &container.record.cgroup;
    let now = records::now();
    let nanos = cpu_nanos(group);
    ContainerStats {
        attributes: Some(ContainerAttributes {
            id: container.record.id.clone(),
            metadata: config.metadata.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        }),
        cpu: nanos.map(|nanos| CpuUsage {
            timestamp: now,
            usage_core_nano_seconds: value(nanos),
            usage_nano_cores: rate(container, now, nanos),
            psi: pressure("cpu", group),
        }),
        memory: memory(group, now),
        writable_layer: Some(writable_layer(runtime, container, now)),
        swap: swap(group, now),
        io: Some(IoUsage { timestamp: now, psi: pressure("io", group) }),
    }
}

fn cpu_nanos(group: &str) -> Option<u64> {
    if cgroup::unified() {
        let dir = cgroup::directory("cpu", group)?;
        return Some(cgroup::keyed(&dir.join("cpu.stat"), "usage_usec")? * 1000);
    }
    cgroup::number(&cgroup::directory("cpuacct", group)?.join("cpuacct.usage"))
}

/// Cores in use since the last sample, in billionths.
fn rate(container: &Container, now: i64, nanos: u64) -> Option<UInt64Value> {
    let mut last = container.last_cpu.lock();
    let before = *last;
    match before {
        Some((then, _)) if now - then < MIN_CPU_INTERVAL_NS => None,
        Some((then, used)) => {
            *last = Some((now, nanos));
            let elapsed = u128::from((now - then).unsigned_abs());
            let rate = u128::from(nanos.saturating_sub(used)) * 1_000_000_000 / elapsed;
            value(u64::try_from(rate).unwrap_or(u64::MAX))
        }
        None => {
            *last = Some((now, nanos));
            None
        }
    }
}

fn memory(group: &str, now: i64) -> Option<MemoryUsage> {
    let dir = cgroup::directory("memory", group)?;
    let stat = dir.join("memory.stat");
    let field = |key: &str| cgroup::keyed(&stat, key).unwrap_or(0);
    let (used, limit, inactive, rss, faults, major) = if cgroup::unified() {
        let used = cgroup::number(&dir.join("memory.current"))?;
        let limit = cgroup::number(&dir.join("memory.max"));
        (used, limit, field("inactive_file"), field("anon"), field("pgfault"), field("pgmajfault"))
    } else {
        let used = cgroup::number(&dir.join("memory.usage_in_bytes"))?;
        let limit = cgroup::number(&dir.join("memory.limit_in_bytes"));
        (
            used,
            limit,
            field("total_inactive_file"),
            field("total_rss"),
            field("total_pgfault"),
            field("total_pgmajfault"),
        )
    };
    let working_set = used.saturating_sub(inactive);
    let limit = limit.filter(|l| *l < UNLIMITED_BYTES);
    Some(MemoryUsage {
        timestamp: now,
        working_set_bytes: value(working_set),
        available_bytes: limit.and_then(|l| value(l.saturating_sub(working_set))),
        usage_bytes: value(used),
        rss_bytes: value(rss),
        page_faults: value(faults),
        major_page_faults: value(major),
        psi: pressure("memory", group),
    })
}

fn swap(group: &str, now: i64) -> Option<SwapUsage> {
    let dir = cgroup::directory("memory", group)?;
    let (used, available) = if cgroup::unified() {
        let used = cgroup::number(&dir.join("memory.swap.current"))?;
        (used, cgroup::number(&dir.join("memory.swap.max")).map(|max| max.saturating_sub(used)))
    } else {
        (cgroup::keyed(&dir.join("memory.stat"), "total_swap")?, None)
    };
    Some(SwapUsage { timestamp: now, swap_available_bytes: available.and_then(value), swap_usage_bytes: value(used) })
}

/// Pressure stall information, where the kernel keeps it for groups.
fn pressure(resource: &str, group: &str) -> Option<PsiStats> {
    if !cgroup::unified() {
        return None;
    }
    let text =
        std::fs::read_to_string(cgroup::directory("memory", group)?.join(format!("{resource}.pressure"))).ok()?;
    let line = |kind: &str| {
        let fields = text.lines().find_map(|l| l.strip_prefix(kind))?;
        let field = |key: &str| fields.split(' ').find_map(|f| f.strip_prefix(key));
        let average = |key: &str| field(key).and_then(|v| v.parse().ok()).unwrap_or(0.0);
        Some(PsiData {
            total: field("total=").and_then(|v| v.parse().ok()).unwrap_or(0),
            avg10: average("avg10="),
            avg60: average("avg60="),
            avg300: average("avg300="),
        })
    };
    Some(PsiStats { full: line("full "), some: line("some ") })
}

fn writable_layer(runtime: &Runtime, container: &Container, now: i64) -> FilesystemUsage {
    let mut last = container.last_disk.lock();
    let fresh = last.filter(|(then, ..)| now - then < DISK_INTERVAL_NS);
    let (then, bytes, files) = fresh.unwrap_or_else(|| {
        let (bytes, files) = usage::tree(&runtime.container_dir(&container.record.id).join("upper"));
        (now, bytes, files)
    });
    *last = Some((then, bytes, files));
    FilesystemUsage {
        timestamp: then,
        fs_id: Some(FilesystemIdentifier { mountpoint: runtime.config.root_dir.display().to_string() }),
        used_bytes: value(bytes),
        inodes_used: value(files),
    }
}

pub(crate) fn sandbox(runtime: &Runtime, sandbox: &Sandbox) -> PodSandboxStats {
    let now = records::now();
    let containers = runtime.containers_of(&sandbox.id);
    let running: Vec<ContainerStats> = containers
        .iter()
        .filter(|c| c.state() == ironkeel_cri::v1::ContainerState::ContainerRunning)
        .map(|c| container(runtime, c))
        .collect();
    let parent = sandbox.config.linux.as_ref().map(|l| l.cgroup_parent.clone()).filter(|p| !p.is_empty());
    let processes = running.iter().filter_map(|s| s.attributes.as_ref()).count();
    let process_count =
        containers.iter().map(|c| cgroup::processes(&c.record.cgroup).len()).sum::<usize>().max(processes);
    let total = |field: fn(&ContainerStats) -> Option<u64>| running.iter().filter_map(field).sum::<u64>();
    let cpu = parent
        .as_ref()
        .and_then(|p| cpu_nanos(p))
        .unwrap_or_else(|| total(|s| s.cpu.as_ref()?.usage_core_nano_seconds.as_ref().map(|v| v.value)));
    let memory = parent.as_ref().and_then(|p| memory(p, now)).unwrap_or_else(|| MemoryUsage {
        timestamp: now,
        working_set_bytes: value(total(|s| s.memory.as_ref()?.working_set_bytes.as_ref().map(|v| v.value))),
        usage_bytes: value(total(|s| s.memory.as_ref()?.usage_bytes.as_ref().map(|v| v.value))),
        rss_bytes: value(total(|s| s.memory.as_ref()?.rss_bytes.as_ref().map(|v| v.value))),
        ..Default::default()
    });
    PodSandboxStats {
        attributes: Some(PodSandboxAttributes {
            id: sandbox.id.clone(),
            metadata: sandbox.config.metadata.clone(),
            labels: sandbox.config.labels.clone(),
            annotations: sandbox.config.annotations.clone(),
        }),
        linux: Some(LinuxPodSandboxStats {
            cpu: Some(CpuUsage {
                timestamp: now,
                usage_core_nano_seconds: value(cpu),
                usage_nano_cores: value(total(|s| s.cpu.as_ref()?.usage_nano_cores.as_ref().map(|v| v.value))),
                psi: None,
            }),
            memory: Some(memory),
            network: network(sandbox, now),
            process: Some(ProcessUsage { timestamp: now, process_count: value(process_count as u64) }),
            containers: running,
            io: None,
        }),
        windows: None,
    }
}

/// /proc/<pid>/net/dev of the shim's namespace holder: read through any process of the pod.
fn network(sandbox: &Sandbox, now: i64) -> Option<NetworkUsage> {
    if sandbox.host_network() {
        return None;
    }
    let netns = sandbox.shim.socket().parent()?.join("netns");
    let text = net_dev(&netns)?;
    let mut interfaces = Vec::new();
    for line in text.lines().skip(2) {
        let Some((name, numbers)) = line.split_once(':') else { continue };
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        if name.trim() == "lo" || numbers.len() < 11 {
            continue;
        }
        interfaces.push(NetworkInterfaceUsage {
            name: name.trim().to_owned(),
            rx_bytes: value(numbers[0]),
            rx_errors: value(numbers[2]),
            tx_bytes: value(numbers[8]),
            tx_errors: value(numbers[10]),
        });
    }
    let default = interfaces.iter().position(|i| i.name == "eth0").map(|i| interfaces.remove(i));
    Some(NetworkUsage { timestamp: now, default_interface: default, interfaces })
}

/// A short thread enters the namespace: /proc/thread-self/net shows the reader's own.
fn net_dev(netns: &Path) -> Option<String> {
    let file = std::fs::File::open(netns).ok()?;
    let read = move || {
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).ok()?;
        std::fs::read_to_string("/proc/thread-self/net/dev").ok()
    };
    std::thread::Builder::new().name("pod-network-stats".into()).spawn(read).ok()?.join().ok()?
}
