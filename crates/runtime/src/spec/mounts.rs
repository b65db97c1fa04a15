//! What a container sees mounted, in order.

use std::path::{Path, PathBuf};

use ironkeel_cri::v1::{ContainerConfig, LinuxContainerSecurityContext, MountPropagation};
use serde_json::{Value, json};

use super::SpecInput;
use crate::cgroup;
use crate::error::Error;
use crate::rootfs;

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

fn bind(destination: &str, source: &Path, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}

/// How mounts travel between the root and the host: only as far as a volume asks.
pub(super) fn root_propagation(config: &ContainerConfig) -> &'static str {
    let wants = |p| config.mounts.iter().any(|m| m.propagation() == p);
    if wants(MountPropagation::PropagationBidirectional) {
        "shared"
    } else if wants(MountPropagation::PropagationHostToContainer) {
        "slave"
    } else {
        "private"
    }
}

pub(super) fn all(input: &SpecInput<'_>, security: &LinuxContainerSecurityContext) -> Result<Vec<Value>, Error> {
    let write = if security.privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    if input.namespaces.network.is_some() {
        mounts.push(mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", write]));
    } else {
        // The kernel gives a sysfs only to whoever owns the network namespace.
        mounts.push(bind("/sys", Path::new("/sys"), &["rbind", "nosuid", "noexec", "nodev", write]));
    }
    if input.namespaces.network.is_some() {
        mounts.extend(control_groups(input.cgroup, write));
    }
    let mut given: Vec<(usize, &ironkeel_cri::v1::Mount)> = input.config.mounts.iter().enumerate().collect();
    // A mount below another must come after it.
    given.sort_by_key(|(_, m)| Path::new(&m.container_path).components().count());
    let taken = |path: &str| given.iter().any(|(_, m)| Path::new(&m.container_path) == Path::new(path));
    if !taken("/dev/shm") {
        mounts.push(bind("/dev/shm", input.shm, &["rbind", "rw"]));
    }
    let files = if security.readonly_rootfs { "ro" } else { "rw" };
    for (path, file) in [("/etc/resolv.conf", "resolv.conf"), ("/etc/hostname", "hostname"), ("/etc/hosts", "hosts")] {
        let source = input.sandbox_dir.join(file);
        if !taken(path) && source.exists() {
            mounts.push(bind(path, &source, &["rbind", "rprivate", files]));
        }
    }
    for (index, given) in given {
        mounts.push(volume(input, index, given)?);
    }
    Ok(mounts)
}

/// The container's own groups, read-only. libcontainer's mount of version 1 groups would be writable,
/// so they are bound one by one.
fn control_groups(group: &str, write: &str) -> Vec<Value> {
    if cgroup::unified() {
        return vec![mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", write])];
    }
    let mut mounts =
        vec![mount("/sys/fs/cgroup", "tmpfs", "tmpfs", &["nosuid", "noexec", "nodev", "mode=755", "size=64k"])];
    for hierarchy in cgroup::hierarchies() {
        let name = hierarchy.mount.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if hierarchy.controllers.is_empty() {
            continue;
        }
        let source = hierarchy.mount.join(group.trim_start_matches('/'));
        mounts.push(bind(&format!("/sys/fs/cgroup/{name}"), &source, &["bind", "nosuid", "noexec", "nodev", "ro"]));
    }
    mounts
}

fn volume(input: &SpecInput<'_>, index: usize, given: &ironkeel_cri::v1::Mount) -> Result<Value, Error> {
    if !given.container_path.starts_with('/') {
        return Err(Error::Invalid(format!("mount path \"{}\" is not absolute", given.container_path)));
    }
    if !given.uid_mappings.is_empty() || !given.gid_mappings.is_empty() {
        return Err(Error::Unsupported("id-mapped mounts"));
    }
    let image = input.image_volumes.iter().find(|(i, _)| *i == index).map(|(_, dir)| dir);
    let source = match image {
        Some(dir) if given.image_sub_path.is_empty() => dir.clone(),
        Some(dir) => {
            let inside = rootfs::resolve(dir, Path::new(&given.image_sub_path))
                .map_err(Error::io(format!("finding {} in the image", given.image_sub_path)))?;
            if !inside.exists() {
                return Err(Error::Invalid(format!("image volume has no path {}", given.image_sub_path)));
            }
            inside
        }
        None => host_path(&given.host_path)?,
    };
    let propagation = match given.propagation() {
        MountPropagation::PropagationPrivate => "rprivate",
        MountPropagation::PropagationHostToContainer => "rslave",
        MountPropagation::PropagationBidirectional => "rshared",
    };
    let mut options = vec!["rbind", propagation];
    if given.recursive_read_only {
        if !given.readonly || given.propagation() != MountPropagation::PropagationPrivate {
            return Err(Error::Invalid("a recursively read-only mount must be read-only and private".into()));
        }
        options.push("rro");
    } else if given.readonly || image.is_some() {
        options.push("ro");
    } else {
        options.push("rw");
    }
    if image.is_some() {
        options.push("noexec");
    }
    Ok(bind(&given.container_path, &source, &options))
}

/// Where a host path leads; made as a directory when absent, as upstream's runtimes do.
fn host_path(path: &str) -> Result<PathBuf, Error> {
    if !Path::new(path).exists() {
        std::fs::create_dir_all(path).map_err(Error::io(format!("creating mount source {path}")))?;
    }
    std::fs::canonicalize(path).map_err(Error::io(format!("finding mount source {path}")))
}
