//! Names that the kubelet shares with runtimes, tools and its own past: labels and annotations of sandboxes and
//! containers, directories below the root, log paths. They are upstream's, so that either kubelet adopts the
//! other's pods.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Container, Pod};

/// Label: the pod's name.
pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
/// Label: the pod's namespace.
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label: the pod's uid.
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
/// Label: the container's name.
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation: hash of the container's spec.
pub(crate) const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
/// Annotation: restarts before this container.
pub(crate) const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Annotation: where the container writes its last words.
pub(crate) const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation: what else may serve as last words.
pub(crate) const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Annotation: the preStop hook, JSON.
pub(crate) const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
/// Annotation: grace period of the pod, seconds.
pub(crate) const POD_GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Annotation of static pods: where they come from (`file`).
pub(crate) const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// Annotation of static pods: hash of their manifest.
pub(crate) const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Annotation of mirror pods: the static pod's hash.
pub(crate) const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
/// Annotation of static pods: when the kubelet saw them.
pub(crate) const CONFIG_SEEN: &str = "kubernetes.io/config.seen";

/// The pod's uid, or the empty string for an object that never came from a source.
pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// The pod's name.
pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The pod's namespace.
pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

/// An annotation of the pod.
pub(crate) fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Whether the pod comes from a manifest on this node.
pub(crate) fn is_static(pod: &Pod) -> bool {
    annotation(pod, CONFIG_SOURCE).is_some_and(|source| source != "api")
}

/// Whether the pod is the API's image of a static pod.
pub(crate) fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, CONFIG_MIRROR).is_some()
}

/// Labels of the pod's sandboxes: the pod's own and the three that identify it.
pub(crate) fn sandbox_labels(pod: &Pod) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> = pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    labels.insert(POD_NAME.into(), name(pod).into());
    labels.insert(POD_NAMESPACE.into(), namespace(pod).into());
    labels.insert(POD_UID.into(), uid(pod).into());
    labels
}

/// Labels of one of the pod's containers.
pub(crate) fn container_labels(pod: &Pod, container: &str) -> HashMap<String, String> {
    HashMap::from([
        (POD_NAME.into(), name(pod).into()),
        (POD_NAMESPACE.into(), namespace(pod).into()),
        (POD_UID.into(), uid(pod).into()),
        (CONTAINER_NAME.into(), container.into()),
    ])
}

/// Hash of what makes a running container obsolete when it changes: name and image. 32-bit FNV-1a, in hex.
pub(crate) fn container_hash(container: &Container) -> String {
    let mut hash: u32 = 0x811c_9dc5;
    let image = container.image.as_deref().unwrap_or_default();
    for byte in container.name.bytes().chain([0]).chain(image.bytes()) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    format!("{hash:x}")
}

/// The paths below the kubelet's root.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    root: PathBuf,
    logs: PathBuf,
}

impl Paths {
    /// Below `root`, logs below `logs`.
    pub(crate) fn new(root: &Path, logs: &Path) -> Self {
        Self { root: root.to_owned(), logs: logs.to_owned() }
    }

    /// The root itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory with a directory a pod.
    pub(crate) fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// One pod's directory.
    pub(crate) fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    /// A pod's volume; `plugin` as in `kubernetes.io~empty-dir`.
    pub(crate) fn volume(&self, uid: &str, plugin: &str, name: &str) -> PathBuf {
        self.pod(uid).join("volumes").join(plugin).join(name)
    }

    /// Where a volume's subPath is bound for a container.
    pub(crate) fn subpath(&self, uid: &str, volume: &str, container: &str, index: usize) -> PathBuf {
        self.pod(uid).join("volume-subpaths").join(volume).join(container).join(index.to_string())
    }

    /// The managed hosts file.
    pub(crate) fn etc_hosts(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("etc-hosts")
    }

    /// Directory of a container's termination messages.
    pub(crate) fn container(&self, uid: &str, container: &str) -> PathBuf {
        self.pod(uid).join("containers").join(container)
    }

    /// The directory with a log directory a pod.
    pub(crate) fn logs(&self) -> &Path {
        &self.logs
    }

    /// One pod's log directory.
    pub(crate) fn pod_logs(&self, pod: &Pod) -> PathBuf {
        self.logs.join(format!("{}_{}_{}", namespace(pod), name(pod), uid(pod)))
    }

    /// A container's log, relative to the pod's log directory.
    pub(crate) fn container_log(container: &str, restarts: u32) -> String {
        format!("{container}/{restarts}.log")
    }
}
