//! `process_*` and `kubernetes_build_info`: what the process takes from the machine.

use std::sync::LazyLock;

use ironkeel_metrics::{Family, Stability, Text};

const BUILD: Family =
    Family::gauge("kubernetes_build_info", Stability::Beta, "Version of the server; always 1.").by(&[
        "major",
        "minor",
        "git_version",
        "git_commit",
        "git_tree_state",
        "build_date",
        "go_version",
        "compiler",
        "platform",
    ]);
const CPU: Family =
    Family::counter("process_cpu_seconds_total", Stability::Unmarked, "CPU time of the process, in seconds.");
const RESIDENT: Family =
    Family::gauge("process_resident_memory_bytes", Stability::Unmarked, "Resident memory, in bytes.");
const VIRTUAL: Family = Family::gauge("process_virtual_memory_bytes", Stability::Unmarked, "Virtual memory, in bytes.");
const START: Family = Family::gauge(
    "process_start_time_seconds",
    Stability::Unmarked,
    "When the process started, in seconds since 1970.",
);
const OPEN: Family = Family::gauge("process_open_fds", Stability::Unmarked, "Open file descriptors.");
const MAX_OPEN: Family = Family::gauge("process_max_fds", Stability::Unmarked, "Most open file descriptors.");
const THREADS: Family = Family::gauge("process_threads", Stability::Unmarked, "Threads of the process.");

const VIRTUAL_MAX: Family =
    Family::gauge("process_virtual_memory_max_bytes", Stability::Unmarked, "Most virtual memory, in bytes.");
const RECEIVED: Family = Family::counter(
    "process_network_receive_bytes_total",
    Stability::Unmarked,
    "Bytes that the network of the process has received.",
);
const SENT: Family = Family::counter(
    "process_network_transmit_bytes_total",
    Stability::Unmarked,
    "Bytes that the network of the process has sent.",
);

/// See [`crate::measured::families`].
pub(crate) const FAMILIES: &[Family] =
    &[BUILD, CPU, RESIDENT, VIRTUAL, VIRTUAL_MAX, START, OPEN, MAX_OPEN, THREADS, RECEIVED, SENT];

/// Ticks a second of `/proc/self/stat`; fixed by the kernel's interface.
const TICKS_A_SECOND: f64 = 100.0;
/// Bytes of a page, as `/proc/self/statm` counts them on the architectures that are served.
const PAGE_BYTES: f64 = 4096.0;

static BUILT: LazyLock<Vec<String>> = LazyLock::new(|| {
    let version = ironkeel_openapi::version("", "");
    let text = |key: &str| version[key].as_str().unwrap_or_default().to_owned();
    ["major", "minor", "gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"]
        .into_iter()
        .map(text)
        .collect()
});

fn boot_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()
}

/// Writes what `/proc` tells; what cannot be read is left out.
pub fn render(text: &mut Text) {
    text.samples(&BUILD, [(BUILT.clone(), 1.0)]);
    if let Ok(stat) = std::fs::read_to_string("/proc/self/stat")
        && let Some((_, rest)) = stat.rsplit_once(')')
    {
        // The fields after the command begin with the third.
        let fields: Vec<f64> = rest.split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
        let field = |n: usize| fields.get(n - 3).copied().unwrap_or(0.0);
        text.single(&CPU, (field(14) + field(15)) / TICKS_A_SECOND);
        text.single(&THREADS, field(20));
        text.single(&VIRTUAL, field(23));
        text.single(&RESIDENT, field(24) * PAGE_BYTES);
        if let Some(boot) = boot_seconds() {
            text.single(&START, boot + field(22) / TICKS_A_SECOND);
        }
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        text.single(&OPEN, open.count() as f64);
    }
    if let Ok(limits) = std::fs::read_to_string("/proc/self/limits") {
        for (family, what) in [(&MAX_OPEN, "Max open files"), (&VIRTUAL_MAX, "Max address space")] {
            let line = limits.lines().find_map(|l| l.strip_prefix(what));
            match line.and_then(|l| l.split_whitespace().next()) {
                // As Go's client writes it: the greatest number of 64 bits.
                Some("unlimited") => text.single(family, u64::MAX as f64),
                Some(most) => {
                    if let Ok(most) = most.parse() {
                        text.single(family, most);
                    }
                }
                None => {}
            }
        }
    }
    if let Ok(links) = std::fs::read_to_string("/proc/self/net/dev") {
        let rows = links.lines().filter_map(|l| l.split_once(':')).map(|(_, row)| row);
        let numbers = rows.map(|row| row.split_whitespace().map(|n| n.parse().unwrap_or(0.0)).collect::<Vec<f64>>());
        let (received, sent) = numbers.fold((0.0, 0.0), |(received, sent), row| {
            (received + row.first().unwrap_or(&0.0), sent + row.get(8).unwrap_or(&0.0))
        });
        text.single(&RECEIVED, received);
        text.single(&SENT, sent);
    }
}
