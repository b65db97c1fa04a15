//! Capabilities: the default set, what a pod adds and drops.

use std::collections::BTreeSet;

use ironkeel_cri::v1::LinuxContainerSecurityContext;
use serde_json::{Value, json};

use crate::error::Error;

/// Every capability the kernel has a name for, by number.
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has when nobody says otherwise: upstream runtimes' set.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Nobody can give what this process does not have.
fn available() -> BTreeSet<&'static str> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = status.lines().find_map(|l| u64::from_str_radix(l.strip_prefix("CapBnd:")?.trim(), 16).ok());
    let bounding = bounding.unwrap_or(u64::MAX);
    ALL.iter().enumerate().filter(|(bit, _)| bounding & (1 << bit) != 0).map(|(_, name)| *name).collect()
}

fn known(name: &str) -> Result<&'static str, Error> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    ALL.into_iter().find(|c| *c == short).ok_or_else(|| Error::Invalid(format!("unknown capability {name}")))
}

/// The container's capabilities, without the `CAP_` prefix.
pub(super) fn wanted(security: &LinuxContainerSecurityContext) -> Result<BTreeSet<&'static str>, Error> {
    let available = available();
    if security.privileged {
        return Ok(available);
    }
    let change = security.capabilities.clone().unwrap_or_default();
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    let mut set: BTreeSet<&'static str> = DEFAULT.into();
    if change.add_capabilities.iter().any(is_all) {
        set = ALL.into();
    }
    if change.drop_capabilities.iter().any(is_all) {
        set.clear();
    }
    for name in change.add_capabilities.iter().filter(|n| !is_all(n)) {
        set.insert(known(name)?);
    }
    for name in change.drop_capabilities.iter().filter(|n| !is_all(n)) {
        set.remove(known(name)?);
    }
    Ok(set.intersection(&available).copied().collect())
}

/// The specification's sets. `installs` adds CAP_SYS_ADMIN until execve, see the caller.
pub(super) fn document(
    wanted: &BTreeSet<&'static str>,
    security: &LinuxContainerSecurityContext,
    installs: bool,
) -> Value {
    let names = |set: &BTreeSet<&'static str>| set.iter().map(|c| format!("CAP_{c}")).collect::<Vec<_>>();
    let mut until_exec = wanted.clone();
    if installs {
        until_exec.insert("SYS_ADMIN");
    }
    let change = security.capabilities.clone().unwrap_or_default();
    let ambient: BTreeSet<&'static str> =
        change.add_ambient_capabilities.iter().filter_map(|c| known(c).ok()).filter(|c| wanted.contains(c)).collect();
    json!({
        "bounding": names(wanted),
        "effective": names(&until_exec),
        "permitted": names(&until_exec),
        "inheritable": names(&ambient),
        "ambient": names(&ambient),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ironkeel_cri::v1::Capability;

    #[test]
    fn adds_and_drops() {
        let with = |add: &[&str], drop: &[&str]| {
            let words = |w: &[&str]| w.iter().map(|s| (*s).to_owned()).collect();
            let capabilities =
                Some(Capability { add_capabilities: words(add), drop_capabilities: words(drop), ..Default::default() });
            wanted(&LinuxContainerSecurityContext { capabilities, ..Default::default() })
        };
        assert!(with(&[], &["ALL"]).unwrap().is_empty());
        let some = with(&["CAP_CHOWN"], &["all"]).unwrap();
        assert!(some.len() <= 1 && some.iter().all(|c| *c == "CHOWN"));
        assert!(!with(&[], &["net_raw"]).unwrap().contains("NET_RAW"));
        assert!(with(&["FLY"], &[]).is_err());
    }
}
