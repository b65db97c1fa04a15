//! The OCI runtime configuration of a container, from the CRI's words and the image's.
//!
//! Written as JSON: libcontainer reads it back from the bundle and checks it.

mod capabilities;
mod mounts;
mod resources;
mod seccomp;
mod syscalls;
mod user;

pub(crate) use resources::{apply_update, linux_resources};

use std::path::Path;

use ironkeel_cri::v1::security_profile::ProfileType;
use ironkeel_cri::v1::{ContainerConfig, NamespaceMode, PodSandboxConfig, SecurityProfile};
use serde_json::{Value, json};

use crate::error::Error;
use crate::image::ImageConfig;
use crate::shim::StoredPrograms;

/// What a new process sees when neither pod nor image say otherwise.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything a specification is made from.
pub(crate) struct SpecInput<'a> {
    pub(crate) config: &'a ContainerConfig,
    pub(crate) sandbox: &'a PodSandboxConfig,
    pub(crate) image: &'a ImageConfig,
    /// The mounted root file system.
    pub(crate) rootfs: &'a Path,
    /// Files that the runtime makes for the sandbox: resolv.conf and hostname.
    pub(crate) sandbox_dir: &'a Path,
    /// The sandbox's /dev/shm, or the host's.
    pub(crate) shm: &'a Path,
    pub(crate) namespaces: Namespaces,
    /// Path below the cgroup hierarchies.
    pub(crate) cgroup: &'a str,
    /// Image volumes, by mount index: the directory to bind.
    pub(crate) image_volumes: &'a [(usize, std::path::PathBuf)],
    pub(crate) seccomp_default: bool,
}

/// Files of the namespaces to join; none means the host's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Namespaces {
    pub(crate) network: Option<String>,
    pub(crate) ipc: Option<String>,
    pub(crate) uts: Option<String>,
    pub(crate) pid: PidNamespace,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum PidNamespace {
    /// The container's own.
    #[default]
    Container,
    /// The pod's, or another container's.
    Join(String),
    Host,
}

/// A specification and what goes beside it.
pub(crate) struct Generated {
    pub(crate) spec: Value,
    /// System call filters; none when unconfined.
    pub(crate) seccomp: Option<StoredPrograms>,
    pub(crate) user: user::Resolved,
}

/// Makes the specification.
pub(crate) fn generate(input: &SpecInput<'_>) -> Result<Generated, Error> {
    let config = input.config;
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.clone().unwrap_or_default();
    let options = security.namespace_options.clone().unwrap_or_default();
    if options.userns_options.as_ref().is_some_and(|u| u.mode() == NamespaceMode::Pod) {
        return Err(Error::Unsupported("user namespaces"));
    }
    if !config.cdi_devices.is_empty() {
        return Err(Error::Unsupported("CDI devices"));
    }
    if let Some(profile) = security.apparmor.as_ref().filter(|p| p.profile_type() == ProfileType::Localhost) {
        return Err(Error::Invalid(format!(
            "AppArmor profile {}: this runtime has no AppArmor",
            profile.localhost_ref
        )));
    }
    let user = user::resolve(input.rootfs, &security, input.image.user.as_deref().unwrap_or_default())?;
    let args = command(config, input.image)?;
    let env = environment(input);
    let cwd = [config.working_dir.as_str(), input.image.working_dir.as_deref().unwrap_or_default()]
        .into_iter()
        .find(|d| !d.is_empty())
        .unwrap_or("/");
    if !cwd.starts_with('/') {
        return Err(Error::Invalid(format!("working directory \"{cwd}\" is not absolute")));
    }
    let seccomp = seccomp_programs(&security, input.seccomp_default)?;
    let wanted = capabilities::wanted(&security)?;
    // The filter is installed after the capabilities are set; without no_new_privs that takes
    // CAP_SYS_ADMIN, which execve takes away again because it is not in the bounding set.
    let installs = seccomp.is_some() && !security.no_new_privs && !security.privileged;
    let resources = linux.resources.clone().unwrap_or_default();
    let process = json!({
        "terminal": config.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.groups},
        "args": args,
        "env": env,
        "cwd": cwd,
        "capabilities": capabilities::document(&wanted, &security, installs),
        "noNewPrivileges": security.no_new_privs,
        "oomScoreAdj": oom_score(resources.oom_score_adj),
    });
    let (masked, readonly) = if security.privileged {
        (&[][..], &[][..])
    } else {
        (&security.masked_paths[..], &security.readonly_paths[..])
    };
    let mut linux_document = json!({
        "cgroupsPath": input.cgroup,
        "namespaces": namespaces(&input.namespaces),
        "resources": linux_resources(&resources, device_rules(config, security.privileged)?),
        "rootfsPropagation": mounts::root_propagation(config),
        "maskedPaths": existing(masked),
        "readonlyPaths": existing(readonly),
        "devices": devices(config, security.privileged)?,
    });
    if security.privileged {
        linux_document["maskedPaths"] = json!([]);
    }
    let spec = json!({
        "ociVersion": "1.0.2",
        "hostname": null,
        "process": process,
        "root": {"path": input.rootfs, "readonly": security.readonly_rootfs},
        "mounts": mounts::all(input, &security)?,
        "annotations": {},
        "linux": linux_document,
    });
    Ok(Generated { spec: without_nulls(spec), seccomp, user })
}

fn without_nulls(mut value: Value) -> Value {
    if let Value::Object(map) = &mut value {
        map.retain(|_, v| !v.is_null());
    }
    value
}

/// Upstream's rule: a command replaces entrypoint and arguments, arguments alone replace only those.
fn command(config: &ContainerConfig, image: &ImageConfig) -> Result<Vec<String>, Error> {
    let entrypoint = image.entrypoint.clone().unwrap_or_default();
    let mut args = if config.command.is_empty() { entrypoint } else { config.command.clone() };
    if !config.args.is_empty() {
        args.extend(config.args.iter().cloned());
    } else if config.command.is_empty() {
        args.extend(image.cmd.clone().unwrap_or_default());
    }
    if args.is_empty() {
        return Err(Error::Invalid("no command specified".into()));
    }
    Ok(args)
}

fn environment(input: &SpecInput<'_>) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    let mut set = |entry: String| {
        let key = format!("{}=", entry.split('=').next().unwrap_or_default());
        env.retain(|e| !e.starts_with(&key));
        env.push(entry);
    };
    set(DEFAULT_PATH.into());
    if input.config.tty {
        set("TERM=xterm".into());
    }
    set(format!("HOSTNAME={}", hostname(input.sandbox)));
    for entry in input.image.env.iter().flatten() {
        set(entry.clone());
    }
    for pair in &input.config.envs {
        set(format!("{}={}", pair.key, String::from_utf8_lossy(&pair.value)));
    }
    env
}

/// The sandbox's host name; the host's own for pods on its network.
pub(crate) fn hostname(sandbox: &PodSandboxConfig) -> String {
    if sandbox.hostname.is_empty() {
        nix::unistd::gethostname().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    } else {
        sandbox.hostname.clone()
    }
}

fn seccomp_programs(
    security: &ironkeel_cri::v1::LinuxContainerSecurityContext,
    seccomp_default: bool,
) -> Result<Option<StoredPrograms>, Error> {
    if security.privileged {
        return Ok(None);
    }
    let default = SecurityProfile {
        profile_type: if seccomp_default { ProfileType::RuntimeDefault } else { ProfileType::Unconfined } as i32,
        localhost_ref: String::new(),
    };
    let profile = security.seccomp.as_ref().unwrap_or(&default);
    match profile.profile_type() {
        ProfileType::Unconfined => Ok(None),
        ProfileType::RuntimeDefault => seccomp::runtime_default(&capabilities::wanted(security)?).map(Some),
        ProfileType::Localhost => seccomp::localhost(Path::new(&profile.localhost_ref)).map(Some),
    }
}

fn namespaces(wanted: &Namespaces) -> Vec<Value> {
    let mut all = vec![json!({"type": "mount"})];
    for (kind, path) in [("network", &wanted.network), ("ipc", &wanted.ipc), ("uts", &wanted.uts)] {
        if let Some(path) = path {
            all.push(json!({"type": kind, "path": path}));
        }
    }
    match &wanted.pid {
        PidNamespace::Container => all.push(json!({"type": "pid"})),
        PidNamespace::Join(path) => all.push(json!({"type": "pid", "path": path})),
        PidNamespace::Host => {}
    }
    if crate::cgroup::unified() {
        all.push(json!({"type": "cgroup"}));
    }
    all
}

/// Paths to hide need not exist in every container.
fn existing(paths: &[String]) -> Vec<String> {
    paths
        .iter()
        .filter(|p| Path::new(p.as_str()).exists() || !p.starts_with("/proc") && !p.starts_with("/sys"))
        .cloned()
        .collect()
}

/// Everything is denied but what every container has; a privileged one may use all.
fn device_rules(config: &ContainerConfig, privileged: bool) -> Result<Value, Error> {
    if privileged {
        return Ok(json!([{"allow": true, "access": "rwm"}]));
    }
    let mut rules = vec![
        json!({"allow": false, "access": "rwm"}),
        // Making a node is not using it.
        json!({"allow": true, "type": "c", "access": "m"}),
        json!({"allow": true, "type": "b", "access": "m"}),
    ];
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"}));
    }
    rules.push(json!({"allow": true, "type": "c", "major": 136, "access": "rwm"}));
    for device in &config.devices {
        for node in nodes(&device.host_path, &device.container_path)? {
            let access = if device.permissions.is_empty() { "rwm" } else { device.permissions.as_str() };
            rules.push(json!({
                "allow": true, "type": node.kind, "major": node.major, "minor": node.minor, "access": access,
            }));
        }
    }
    Ok(Value::Array(rules))
}

struct Node {
    path: String,
    kind: &'static str,
    major: u32,
    minor: u32,
    mode: u32,
    uid: u32,
    gid: u32,
}

/// The device at a path, or every device of a directory.
fn nodes(host: &str, container: &str) -> Result<Vec<Node>, Error> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let metadata = std::fs::metadata(host).map_err(|e| Error::Invalid(format!("device {host}: {e}")))?;
    if metadata.is_dir() {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(host).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            all.extend(nodes(&format!("{host}/{name}"), &format!("{container}/{name}")).unwrap_or_default());
        }
        return Ok(all);
    }
    let kind = match metadata.file_type() {
        t if t.is_char_device() => "c",
        t if t.is_block_device() => "b",
        _ => return Err(Error::Invalid(format!("{host} is not a device"))),
    };
    Ok(vec![Node {
        path: container.to_owned(),
        kind,
        major: libc::major(metadata.rdev()) as u32,
        minor: libc::minor(metadata.rdev()) as u32,
        mode: metadata.mode() & 0o777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    }])
}

fn devices(config: &ContainerConfig, privileged: bool) -> Result<Vec<Value>, Error> {
    let mut all = Vec::new();
    if privileged {
        for entry in std::fs::read_dir("/dev").into_iter().flatten().flatten() {
            let path = entry.path().to_string_lossy().into_owned();
            let special = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/console", "/dev/ptmx", "/dev/fd"];
            if !special.contains(&path.as_str()) && !entry.file_type().is_ok_and(|t| t.is_symlink()) {
                all.extend(nodes(&path, &path).unwrap_or_default());
            }
        }
    }
    for device in &config.devices {
        all.extend(nodes(&device.host_path, &device.container_path)?);
    }
    // libcontainer makes these itself.
    let own = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
    Ok(all
        .into_iter()
        .filter(|n| !own.contains(&n.path.as_str()))
        .map(|n| {
            json!({
                "path": n.path, "type": n.kind, "major": n.major, "minor": n.minor,
                "fileMode": n.mode, "uid": n.uid, "gid": n.gid,
            })
        })
        .collect())
}

/// Without CAP_SYS_RESOURCE the score may not go below our own.
fn oom_score(wanted: i64) -> i64 {
    const SYS_RESOURCE: u64 = 1 << 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|l| u64::from_str_radix(l.strip_prefix("CapEff:")?.trim(), 16).ok());
    if effective.is_some_and(|caps| caps & SYS_RESOURCE != 0) {
        return wanted;
    }
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0);
    wanted.max(own)
}
