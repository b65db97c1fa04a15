//! Resources, as the specification has them and as files of a running container's groups.

use std::path::{Path, PathBuf};

use ironkeel_cri::v1::LinuxContainerResources;
use serde_json::{Value, json};

use crate::cgroup;
use crate::error::Error;

/// The specification's `resources`.
pub(crate) fn linux_resources(resources: &LinuxContainerResources, devices: Value) -> Value {
    let mut cpu = serde_json::Map::new();
    let mut put = |key: &str, value: Value| drop(cpu.insert(key.into(), value));
    if resources.cpu_shares > 0 {
        put("shares", json!(resources.cpu_shares));
    }
    if resources.cpu_period > 0 {
        put("period", json!(resources.cpu_period));
    }
    if resources.cpu_quota != 0 {
        put("quota", json!(resources.cpu_quota));
    }
    if !resources.cpuset_cpus.is_empty() {
        put("cpus", json!(resources.cpuset_cpus));
    }
    if !resources.cpuset_mems.is_empty() {
        put("mems", json!(resources.cpuset_mems));
    }
    let mut memory = serde_json::Map::new();
    if resources.memory_limit_in_bytes > 0 {
        memory.insert("limit".into(), json!(resources.memory_limit_in_bytes));
    }
    if resources.memory_swap_limit_in_bytes > 0 && has_swap_accounting() {
        memory.insert("swap".into(), json!(resources.memory_swap_limit_in_bytes));
    }
    let pages: Vec<Value> = resources
        .hugepage_limits
        .iter()
        .filter(|_| cgroup::directory("hugetlb", "/").is_some())
        .map(|h| json!({"pageSize": h.page_size, "limit": h.limit}))
        .collect();
    json!({
        "devices": devices,
        "cpu": cpu,
        "memory": memory,
        "hugepageLimits": pages,
        "unified": if cgroup::unified() { json!(resources.unified) } else { json!({}) },
    })
}

fn has_swap_accounting() -> bool {
    cgroup::unified()
        || cgroup::directory("memory", "/").is_some_and(|d| d.join("memory.memsw.limit_in_bytes").exists())
}

/// Changes a running container's groups. Zero leaves a value as it is.
pub(crate) fn apply_update(group: &str, change: &LinuxContainerResources) -> Result<(), Error> {
    let dir = |controller: &'static str| -> Result<PathBuf, Error> {
        cgroup::directory(controller, group)
            .filter(|d| d.is_dir())
            .ok_or_else(|| Error::Precondition(format!("the container has no {controller} group")))
    };
    if change.cpu_shares > 0 || change.cpu_quota != 0 || change.cpu_period > 0 {
        cpu(&dir("cpu")?, change)?;
    }
    if change.memory_limit_in_bytes != 0 || change.memory_swap_limit_in_bytes != 0 {
        memory(&dir("memory")?, change)?;
    }
    for (file, value) in [("cpuset.cpus", &change.cpuset_cpus), ("cpuset.mems", &change.cpuset_mems)] {
        if !value.is_empty() {
            write(&dir("cpuset")?.join(file), value)?;
        }
    }
    if cgroup::unified() {
        let dir = dir("memory")?;
        for (file, value) in &change.unified {
            if file.contains('/') {
                return Err(Error::Invalid(format!("{file} is not the name of a cgroup file")));
            }
            write(&dir.join(file), value)?;
        }
    }
    Ok(())
}

fn cpu(dir: &Path, change: &LinuxContainerResources) -> Result<(), Error> {
    if cgroup::unified() {
        if change.cpu_shares > 0 {
            write(&dir.join("cpu.weight"), &weight(change.cpu_shares).to_string())?;
        }
        if change.cpu_quota != 0 || change.cpu_period > 0 {
            let quota = if change.cpu_quota > 0 { change.cpu_quota.to_string() } else { "max".into() };
            let period = if change.cpu_period > 0 { change.cpu_period } else { 100_000 };
            write(&dir.join("cpu.max"), &format!("{quota} {period}"))?;
        }
        return Ok(());
    }
    if change.cpu_shares > 0 {
        write(&dir.join("cpu.shares"), &change.cpu_shares.to_string())?;
    }
    if change.cpu_period > 0 {
        write(&dir.join("cpu.cfs_period_us"), &change.cpu_period.to_string())?;
    }
    if change.cpu_quota != 0 {
        write(&dir.join("cpu.cfs_quota_us"), &change.cpu_quota.to_string())?;
    }
    Ok(())
}

/// Version 2's weight for version 1's shares, the kernel documentation's formula as upstream uses it.
fn weight(shares: i64) -> i64 {
    1 + ((shares.clamp(2, 262_144) - 2) * 9_999) / 262_142
}

fn memory(dir: &Path, change: &LinuxContainerResources) -> Result<(), Error> {
    let text = |bytes: i64, none: &str| if bytes < 0 { none.to_owned() } else { bytes.to_string() };
    if cgroup::unified() {
        if change.memory_limit_in_bytes != 0 {
            write(&dir.join("memory.max"), &text(change.memory_limit_in_bytes, "max"))?;
        }
        let swap = change.memory_swap_limit_in_bytes;
        if swap != 0 {
            let only = if swap > 0 { (swap - change.memory_limit_in_bytes.max(0)).max(0) } else { -1 };
            write(&dir.join("memory.swap.max"), &text(only, "max"))?;
        }
        return Ok(());
    }
    let limit = (dir.join("memory.limit_in_bytes"), change.memory_limit_in_bytes);
    let swap = (dir.join("memory.memsw.limit_in_bytes"), change.memory_swap_limit_in_bytes);
    // The kernel wants limit ≤ swap limit at every moment.
    let grows = cgroup::number(&swap.0).is_some_and(|now| swap.1 < 0 || swap.1 as u64 > now);
    let order = if grows { [swap, limit] } else { [limit, swap] };
    for (file, value) in order {
        if value != 0 && file.exists() {
            write(&file, &text(value, "-1"))?;
        }
    }
    Ok(())
}

fn write(file: &Path, value: &str) -> Result<(), Error> {
    std::fs::write(file, value).map_err(Error::io(format!("writing {value} to {}", file.display())))
}
