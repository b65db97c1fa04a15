//! What the machine is: processors, memory, file systems, names of its system. Read from /proc, /sys and /etc.

use std::{collections::BTreeMap, fs, path::Path};

use k8s_openapi::api::core::v1::NodeSystemInfo;

/// Space of a file system.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filesystem {
    pub(crate) capacity_bytes: u64,
    pub(crate) available_bytes: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
}

/// The file system that holds `path`.
pub(crate) fn filesystem(path: &Path) -> Option<Filesystem> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    let block = stat.fragment_size();
    Some(Filesystem {
        capacity_bytes: stat.blocks() * block,
        available_bytes: stat.blocks_available() * block,
        inodes: stat.files(),
        inodes_free: stat.files_free(),
    })
}

/// When the machine was started, seconds since 1970.
pub(crate) fn booted_at() -> i64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or_default()
}

/// Processors that are online.
pub(crate) fn processors() -> u64 {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let count = text.lines().filter(|line| line.starts_with("processor")).count() as u64;
    if count > 0 { count } else { std::thread::available_parallelism().map_or(1, |count| count.get() as u64) }
}

/// Total and available memory, bytes.
pub(crate) fn memory() -> (u64, u64) {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
    };
    (of("MemTotal").unwrap_or_default(), of("MemAvailable").unwrap_or_default())
}

/// Huge pages by resource name, bytes.
pub(crate) fn huge_pages() -> BTreeMap<String, u64> {
    let mut pages = BTreeMap::new();
    for entry in fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let size = name.strip_prefix("hugepages-").and_then(|size| size.strip_suffix("kB")?.parse::<u64>().ok());
        let Some(kib) = size else { continue };
        let count = fs::read_to_string(entry.path().join("nr_hugepages")).unwrap_or_default();
        let count: u64 = count.trim().parse().unwrap_or_default();
        let size = match kib {
            kib if kib % (1 << 20) == 0 => format!("{}Gi", kib >> 20),
            kib if kib % (1 << 10) == 0 => format!("{}Mi", kib >> 10),
            kib => format!("{kib}Ki"),
        };
        pages.insert(format!("hugepages-{size}"), count * (kib << 10));
    }
    pages
}

/// Processes and threads now, and at most.
pub(crate) fn process_ids() -> (u64, u64) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let maximum = read("/proc/sys/kernel/pid_max").trim().parse().unwrap_or(32768);
    let loads = read("/proc/loadavg");
    let running = loads.split_whitespace().nth(3).and_then(|field| field.split('/').nth(1)?.parse().ok());
    (running.unwrap_or_default(), maximum)
}

fn first_line(paths: &[&str]) -> String {
    let found = paths.iter().find_map(|path| fs::read_to_string(path).ok());
    found.unwrap_or_default().lines().next().unwrap_or_default().trim().to_owned()
}

/// Go's name of the processor's architecture.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// The node's `nodeInfo`.
pub(crate) fn system_info(version: &str, runtime: &str) -> NodeSystemInfo {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
    let machine_id = first_line(&["/etc/machine-id", "/var/lib/dbus/machine-id"]);
    let system_uuid = first_line(&["/sys/class/dmi/id/product_uuid"]);
    NodeSystemInfo {
        architecture: architecture().into(),
        boot_id: first_line(&["/proc/sys/kernel/random/boot_id"]),
        container_runtime_version: runtime.into(),
        kernel_version: first_line(&["/proc/sys/kernel/osrelease"]),
        kube_proxy_version: String::new(),
        kubelet_version: version.into(),
        operating_system: "linux".into(),
        os_image: pretty.trim_matches('"').to_owned(),
        system_uuid: if system_uuid.is_empty() { machine_id.clone() } else { system_uuid },
        machine_id,
        swap: None,
    }
}
