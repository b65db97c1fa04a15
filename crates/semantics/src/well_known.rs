//! Names that the API gives a meaning: labels, annotations, taints and finalizers that several components use.

/// Annotation of a mirror pod: the hash of the static pod that it shows.
pub const MIRROR_POD_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// Annotation of a static pod: the hash of its manifest.
pub const CONFIG_HASH_ANNOTATION: &str = "kubernetes.io/config.hash";
/// Annotation of a static pod: when the kubelet first saw it.
pub const CONFIG_SEEN_ANNOTATION: &str = "kubernetes.io/config.seen";
/// Annotation of a pod that the kubelet runs: `file`, `http` or `api`.
pub const CONFIG_SOURCE_ANNOTATION: &str = "kubernetes.io/config.source";
/// Annotation that ranks a ReplicaSet's pods for deletion: lower goes first.
pub const POD_DELETION_COST_ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Label of a node's name.
pub const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";
/// Label of a node's zone.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Label of a node's region.
pub const REGION_LABEL: &str = "topology.kubernetes.io/region";
/// Label of a Deployment's ReplicaSets and pods.
pub const POD_TEMPLATE_HASH_LABEL: &str = "pod-template-hash";
/// Label of a DaemonSet's or StatefulSet's pods: the ControllerRevision that they were made from.
pub const CONTROLLER_REVISION_HASH_LABEL: &str = "controller-revision-hash";
/// Label of an EndpointSlice: the Service that it belongs to.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Label that moves a Service to another proxy than kube-proxy.
pub const SERVICE_PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Label of a headless Service's endpoints.
pub const HEADLESS_SERVICE_LABEL: &str = "service.kubernetes.io/headless";

/// Taint of a node that is not Ready.
pub const TAINT_NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Taint of a node whose kubelet is silent.
pub const TAINT_UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Taint of a cordoned node.
pub const TAINT_UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Taint of a node short of memory.
pub const TAINT_MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";
/// Taint of a node short of disk.
pub const TAINT_DISK_PRESSURE: &str = "node.kubernetes.io/disk-pressure";
/// Taint of a node short of process ids.
pub const TAINT_PID_PRESSURE: &str = "node.kubernetes.io/pid-pressure";
/// Taint of a node without a network.
pub const TAINT_NETWORK_UNAVAILABLE: &str = "node.kubernetes.io/network-unavailable";
/// Taint of a node that was shut down without draining.
pub const TAINT_OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Finalizer: delete what depends on the object first.
pub const FOREGROUND_FINALIZER: &str = "foregroundDeletion";
/// Finalizer: leave what depends on the object.
pub const ORPHAN_FINALIZER: &str = "orphan";
/// Finalizer of a Job's pods until they are counted.
pub const JOB_TRACKING_FINALIZER: &str = "batch.kubernetes.io/job-tracking";
