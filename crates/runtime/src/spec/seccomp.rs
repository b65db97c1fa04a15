//! System call filters: the runtime's default profile and profiles from files.
//!
//! A filter program has one action for what it matches and one for the rest, so a profile may become
//! several: the kernel runs all of them and the strictest answer counts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use serde::Deserialize;

use super::syscalls;
use crate::error::Error;
use crate::shim::StoredPrograms;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls that the default profile refuses, and the capability that opens each (none: always refused).
/// The rest is allowed, as in upstream's runtimes.
const REFUSED: &[(&str, &[&str])] = &[
    ("SYS_PACCT", &["acct"]),
    ("SYS_TIME", &["clock_adjtime", "clock_settime", "settimeofday"]),
    (
        "SYS_MODULE",
        &["create_module", "delete_module", "finit_module", "init_module", "query_module", "get_kernel_syms"],
    ),
    ("SYS_RAWIO", &["ioperm", "iopl"]),
    ("SYS_BOOT", &["kexec_file_load", "kexec_load", "reboot"]),
    (
        "SYS_NICE",
        &["get_mempolicy", "mbind", "migrate_pages", "move_pages", "set_mempolicy", "set_mempolicy_home_node"],
    ),
    ("SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise"]),
    ("DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("SYS_TTY_CONFIG", &["vhangup"]),
    ("SYSLOG", &["syslog"]),
    ("SYS_CHROOT", &["chroot"]),
    (
        "SYS_ADMIN",
        &[
            "bpf",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "pivot_root",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "swapoff",
            "swapon",
            "umount2",
            "unshare",
        ],
    ),
    (
        "",
        &[
            "add_key",
            "io_uring_enter",
            "io_uring_register",
            "io_uring_setup",
            "keyctl",
            "nfsservctl",
            "request_key",
            "sysfs",
            "_sysctl",
            "uselib",
            "userfaultfd",
            "ustat",
            "vserver",
            "tuxcall",
            "security",
            "afs_syscall",
        ],
    ),
];

/// CLONE_NEW* of a clone call.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;
/// Address families are 32 bits wide, and this one leads to the hypervisor.
const AF_VSOCK: u64 = 40;
/// Linux, 32-bit Linux, their address-space variants, and "tell me".
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Invalid(format!("system call filter: {error}"))
}

fn compile(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<Vec<(u16, u8, u8, u32)>, Error> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(failed)?;
    let filter = SeccompFilter::new(rules, otherwise, matched, arch).map_err(failed)?;
    let program: BpfProgram = filter.try_into().map_err(failed)?;
    Ok(program.into_iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect())
}

fn condition(index: u8, length: SeccompCmpArgLen, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, Error> {
    let condition = SeccompCondition::new(index, length, operator, value).map_err(failed)?;
    SeccompRule::new(vec![condition]).map_err(failed)
}

/// The profile of `RuntimeDefault`, for a container with these capabilities.
pub(super) fn runtime_default(capabilities: &BTreeSet<&'static str>) -> Result<StoredPrograms, Error> {
    let closed = |name: &str| REFUSED.iter().any(|(cap, names)| names.contains(&name) && !capabilities.contains(cap));
    let mut rules: Rules =
        syscalls::all().filter(|(name, _)| !closed(name)).map(|(_, number)| (number, Vec::new())).collect();
    let mut limit = |name: &str, conditions: Vec<SeccompRule>| {
        if let Some(number) = syscalls::number(name) {
            rules.insert(number, conditions);
        }
    };
    let dword = SeccompCmpArgLen::Dword;
    limit("socket", vec![condition(0, dword.clone(), SeccompCmpOp::Ne, AF_VSOCK)?]);
    let personalities: Result<Vec<_>, _> =
        PERSONALITIES.iter().map(|p| condition(0, dword.clone(), SeccompCmpOp::Eq, *p)).collect();
    limit("personality", personalities?);
    let mut programs = Vec::new();
    if !capabilities.contains("SYS_ADMIN") {
        limit("clone", vec![condition(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(NAMESPACE_FLAGS), 0)?]);
        programs.push(compile(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)?);
        // clone3's flags are behind a pointer; "no such call" makes the C library use clone.
        let clone3: Rules = syscalls::number("clone3").map(|n| (n, Vec::new())).into_iter().collect();
        programs.push(compile(clone3, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))?);
    } else {
        programs.push(compile(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)?);
    }
    Ok(programs)
}

/// A profile file: the OCI runtime specification's `linux.seccomp`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    syscalls: Vec<ProfileRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProfileRule {
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    name: Option<String>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<ProfileArg>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProfileArg {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

fn action(name: &str, errno: Option<u32>) -> Result<SeccompAction, Error> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => SeccompAction::Allow,
        "SCMP_ACT_ERRNO" => SeccompAction::Errno(errno.unwrap_or(libc::EPERM as u32)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => SeccompAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => SeccompAction::KillProcess,
        "SCMP_ACT_LOG" => SeccompAction::Log,
        "SCMP_ACT_TRACE" => SeccompAction::Trace(errno.unwrap_or(libc::EPERM as u32)),
        "SCMP_ACT_TRAP" => SeccompAction::Trap,
        other => return Err(failed(format!("unknown action {other}"))),
    })
}

fn rule(args: &[ProfileArg]) -> Result<Option<SeccompRule>, Error> {
    if args.is_empty() {
        return Ok(None);
    }
    let one = |arg: &ProfileArg| {
        let (operator, value) = match arg.op.as_str() {
            "SCMP_CMP_NE" => (SeccompCmpOp::Ne, arg.value),
            "SCMP_CMP_LT" => (SeccompCmpOp::Lt, arg.value),
            "SCMP_CMP_LE" => (SeccompCmpOp::Le, arg.value),
            "SCMP_CMP_EQ" => (SeccompCmpOp::Eq, arg.value),
            "SCMP_CMP_GE" => (SeccompCmpOp::Ge, arg.value),
            "SCMP_CMP_GT" => (SeccompCmpOp::Gt, arg.value),
            "SCMP_CMP_MASKED_EQ" => (SeccompCmpOp::MaskedEq(arg.value), arg.value_two),
            other => return Err(failed(format!("unknown operator {other}"))),
        };
        SeccompCondition::new(arg.index, SeccompCmpArgLen::Qword, operator, value).map_err(failed)
    };
    let conditions: Result<Vec<_>, _> = args.iter().map(one).collect();
    SeccompRule::new(conditions?).map(Some).map_err(failed)
}

/// The profile in a file on this node.
pub(super) fn localhost(path: &Path) -> Result<StoredPrograms, Error> {
    if !path.is_absolute() {
        return Err(Error::Invalid(format!("seccomp profile {} is not an absolute path", path.display())));
    }
    let bytes = std::fs::read(path).map_err(Error::path("reading seccomp profile", path))?;
    let profile: Profile = serde_json::from_slice(&bytes).map_err(Error::format(path.display().to_string()))?;
    from_profile(&profile)
}

fn from_profile(profile: &Profile) -> Result<StoredPrograms, Error> {
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let mut named = Rules::new();
    let mut strict: Vec<(SeccompAction, Rules)> = Vec::new();
    for entry in &profile.syscalls {
        let what = action(&entry.action, entry.errno_ret)?;
        let condition = rule(entry.args.as_deref().unwrap_or_default())?;
        for name in entry.names.iter().chain(&entry.name) {
            // Calls of other architectures and kernels are named in every profile.
            let Some(number) = syscalls::number(name) else { continue };
            add(&mut named, number, condition.clone());
            if what != SeccompAction::Allow && what != default {
                let rules = match strict.iter_mut().find(|(a, _)| *a == what) {
                    Some((_, rules)) => rules,
                    None => {
                        strict.push((what.clone(), Rules::new()));
                        &mut strict.last_mut().expect("just pushed").1
                    }
                };
                add(rules, number, condition.clone());
            } else if what == default && default != SeccompAction::Allow {
                named.remove(&number);
            }
        }
    }
    let mut programs = Vec::new();
    if default != SeccompAction::Allow {
        programs.push(compile(named, default, SeccompAction::Allow)?);
    }
    for (what, rules) in strict {
        programs.push(compile(rules, SeccompAction::Allow, what)?);
    }
    Ok(programs)
}

/// A call without conditions is matched always, whatever other rules say of it.
fn add(rules: &mut Rules, number: i64, condition: Option<SeccompRule>) {
    match condition {
        None => drop(rules.insert(number, Vec::new())),
        Some(condition) => match rules.get_mut(&number) {
            Some(all) if all.is_empty() => {}
            Some(all) => all.push(condition),
            None => drop(rules.insert(number, vec![condition])),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn profiles_compile() {
        assert_eq!(runtime_default(&BTreeSet::new()).unwrap().len(), 2);
        assert_eq!(runtime_default(&BTreeSet::from(["SYS_ADMIN"])).unwrap().len(), 1);
        let check = |text: &str, programs: usize| {
            let profile: Profile = serde_json::from_str(text).unwrap();
            assert_eq!(from_profile(&profile).unwrap().len(), programs, "{text}");
        };
        check(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#, 0);
        check(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","nosuch"],"action":"SCMP_ACT_ERRNO"}]}"#,
            1,
        );
        check(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"},
               {"names":["write"],"action":"SCMP_ACT_LOG","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}]}"#,
            2,
        );
    }
}
