//! The kubelet itself: what its parts share, and the dispatcher that turns sources (API, manifests) into one worker a
//! pod.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use ironkeel_cri::v1 as cri;
use ironkeel_informer::{Delta, EventKind, EventRecorder, Informer, WatchConfig, reference_to};
use ironkeel_semantics::{QosClass, qos_class};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodStatus, Service};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Config,
    images::Images,
    names::{self, Paths},
    node::NodeState,
    pods::{
        admit::{self, Refusal},
        cgroups::Cgroups,
        kill, manifests, mirror,
        spec::{self, Role},
        worker::{self, Handle, Wish, resize},
    },
    resources,
    runtime::Runtime,
    volumes::Volumes,
};

/// How long after a failure a mirror pod is tried again.
const MIRROR_RETRY: Duration = Duration::from_secs(5);

/// What the containers of a pod that was deleted by force get to end.
const FORCED_GRACE: Duration = Duration::from_secs(2);

/// What the kubelet's parts share.
pub(crate) struct Kubelet {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) runtime: Runtime,
    pub(crate) paths: Paths,
    pub(crate) volumes: Volumes,
    pub(crate) services: Informer<Service>,
    pub(crate) node: NodeState,
    pub(crate) events: EventRecorder,
    pub(crate) images: Images,
    pub(crate) cgroups: Cgroups,
    pub(crate) host_dns: cri::DnsConfig,
    pub(crate) shutdown: CancellationToken,
    pub(crate) pods: Mutex<HashMap<String, Arc<Handle>>>,
    /// The pods' workers, which end with `shutdown`.
    pub(crate) workers: TaskTracker,
    /// Held while resources are granted and pods are admitted, so that two pods are not given the same.
    pub(crate) granting: Mutex<()>,
    pub(crate) ips: Mutex<HashMap<String, Vec<String>>>,
    pub(crate) port: AtomicU16,
}

impl Kubelet {
    /// The node's addresses.
    pub(crate) fn host_ips(&self) -> Vec<String> {
        self.config.node_ips.iter().map(ToString::to_string).collect()
    }

    /// The server's port.
    pub(crate) fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    /// The scheme of container ids.
    pub(crate) fn scheme(&self) -> String {
        self.config.container_id_scheme.clone().unwrap_or_else(|| self.node.runtime_name())
    }

    /// Addresses of a pod, as last seen.
    pub(crate) fn pod_ips(&self, uid: &str) -> Vec<String> {
        self.ips.lock().get(uid).cloned().unwrap_or_default()
    }

    /// Remembers a pod's addresses for hooks and probes during its end.
    pub(crate) fn remember_ips(&self, uid: &str, ips: &[String]) {
        if !ips.is_empty() {
            self.ips.lock().insert(uid.to_owned(), ips.to_vec());
        }
    }

    /// Wakes a pod's worker.
    pub(crate) fn wake(&self, uid: &str) {
        if let Some(handle) = self.pods.lock().get(uid) {
            handle.wake.notify_one();
        }
    }

    /// Wakes every worker.
    pub(crate) fn wake_all(&self) {
        for handle in self.pods.lock().values() {
            handle.wake.notify_one();
        }
    }

    /// Wakes the workers whose pods wait for resources that others have, but for one.
    pub(crate) fn wake_waiting(&self, but: &str) {
        for (uid, handle) in self.pods.lock().iter() {
            if uid != but && handle.granted.lock().is_some() {
                handle.wake.notify_one();
            }
        }
    }

    /// Forgets a pod of which nothing is left.
    pub(crate) fn forget(&self, uid: &str) {
        self.pods.lock().remove(uid);
        self.ips.lock().remove(uid);
        self.pods_changed();
    }

    /// The pods that the node has to run, without those that have ended.
    pub(crate) fn active_pods(&self) -> Vec<Arc<Pod>> {
        let handles: Vec<_> = self.pods.lock().values().cloned().collect();
        let ended = |handle: &Handle| {
            let status = handle.status.lock();
            let phase = status.as_ref().and_then(|status| status.phase.as_deref());
            matches!(phase, Some("Succeeded" | "Failed"))
        };
        let granted = |handle: &Handle| handle.granted.lock().clone().unwrap_or_else(|| handle.wish.lock().pod.clone());
        handles.iter().filter(|handle| !ended(handle)).map(|handle| granted(handle)).collect()
    }

    /// Brings what depends on the set of pods up to date: the weight of the burstable class.
    pub(crate) fn pods_changed(&self) {
        let pods = self.active_pods();
        let burstable = pods.iter().filter(|pod| qos_class(pod) == QosClass::Burstable);
        let milli = burstable.filter_map(|pod| pod.spec.as_ref()).map(|s| resources::pod_request_milli(s, "cpu")).sum();
        self.cgroups.set_burstable_request(milli);
    }

    /// What events about a container refer to.
    pub(crate) fn container_reference(&self, pod: &Pod, container: &str) -> ObjectReference {
        let list = match spec::find(pod, container) {
            Some((Role::Init | Role::Sidecar, _)) => "initContainers",
            Some((Role::Ephemeral, _)) => "ephemeralContainers",
            _ => "containers",
        };
        ObjectReference { field_path: Some(format!("spec.{list}{{{container}}}")), ..self.pod_reference(pod) }
    }

    fn pod_reference(&self, pod: &Pod) -> ObjectReference {
        let mut reference = reference_to(pod);
        if names::is_static(pod) {
            reference.resource_version = None;
        }
        reference
    }

    /// Records an event about a container.
    pub(crate) fn container_event(&self, pod: &Pod, container: &str, kind: EventKind, reason: &str, message: &str) {
        self.events.event(self.container_reference(pod, container), kind, reason, message);
    }

    /// Records an event about a pod.
    pub(crate) fn pod_event(&self, pod: &Pod, kind: EventKind, reason: &str, message: &str) {
        self.events.event(self.pod_reference(pod), kind, reason, message);
    }

    /// Has a pod end because the node needs its resources back.
    pub(crate) fn evict(&self, uid: &str, message: String, grace: Duration) {
        if let Some(handle) = self.pods.lock().get(uid) {
            let mut wish = handle.wish.lock();
            wish.refusal = Some(Refusal { reason: "Evicted".into(), message });
            wish.grace = Some(grace);
            drop(wish);
            handle.wake.notify_one();
        }
    }

    fn set_pod(self: &Arc<Self>, pod: Arc<Pod>, mirror: Option<Arc<Pod>>) {
        let uid = names::uid(&pod).to_owned();
        let _granting = self.granting.lock();
        if let Some(handle) = self.pods.lock().get(&uid).cloned() {
            // What it asks for now is not its own before it is granted.
            let before = handle.wish.lock().pod.clone();
            if resize::asks_otherwise(&before, &pod) {
                handle.granted.lock().get_or_insert(before);
            }
            let mut wish = handle.wish.lock();
            wish.pod = pod.clone();
            wish.mirror = mirror;
            wish.gone = false;
            drop(wish);
            self.volumes.objects.register(&pod);
            handle.wake.notify_one();
            return;
        }
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let ended = matches!(phase, Some("Succeeded" | "Failed"));
        let started = pod.status.as_ref().is_some_and(|status| status.start_time.is_some());
        let mut refusal = None;
        if !started && !ended && pod.metadata.deletion_timestamp.is_none() {
            let node = self.node.object.read().clone();
            let others = self.active_pods();
            let allocatable = self.node.allocatable();
            refusal = admit::admit(&pod, &others, &allocatable, self.config.max_pods, node.as_ref()).err();
            if let Some(refusal) = &refusal {
                self.pod_event(&pod, EventKind::Warning, &refusal.reason, &refusal.message);
            }
        } else if ended && pod.metadata.deletion_timestamp.is_none() {
            // It has ended before; its worker gives back what may be left and keeps the status as it is.
            let status = pod.status.clone().unwrap_or_default();
            if let (Some("Failed"), Some(reason)) = (phase, status.reason) {
                refusal = Some(Refusal { reason, message: status.message.unwrap_or_default() });
            }
        }
        self.volumes.objects.register(&pod);
        let known = mirror.as_ref().unwrap_or(&pod).status.as_ref();
        let granted = known.and_then(|status| resize::in_force(&pod, status));
        // Nobody has to make room for one that was refused, from now on.
        let failed = |refusal: &Refusal| PodStatus {
            phase: Some("Failed".into()),
            reason: Some(refusal.reason.clone()),
            message: Some(refusal.message.clone()),
            ..known.cloned().unwrap_or_default()
        };
        let status = Mutex::new(refusal.as_ref().map(failed));
        let handle = Arc::new(Handle {
            wish: Mutex::new(Wish { pod, mirror, gone: false, refusal, grace: None }),
            wake: Arc::new(Notify::new()),
            status,
            granted: Mutex::new(granted),
        });
        self.start_worker(uid, handle);
    }

    fn start_worker(self: &Arc<Self>, uid: String, handle: Arc<Handle>) {
        self.pods.lock().insert(uid, handle.clone());
        self.pods_changed();
        self.workers.spawn(worker::run(self.clone(), handle));
    }

    /// No source has the pod any more. One that the API dropped before its containers ended was deleted by force.
    fn drop_pod(&self, uid: &str, forced: bool) {
        if let Some(handle) = self.pods.lock().get(uid) {
            let mut wish = handle.wish.lock();
            wish.gone = true;
            if forced {
                wish.grace = Some(FORCED_GRACE);
            }
            drop(wish);
            handle.wake.notify_one();
        }
    }

    /// Ends pods that the runtime has and no source knows, and removes their directories.
    async fn adopt_orphans(self: &Arc<Self>) {
        let known = match self.runtime.known_pods().await {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%error, "orphaned pods cannot be listed");
                return;
            }
        };
        let mut uids: Vec<(String, String, String)> =
            known.into_iter().map(|pod| (pod.uid, pod.namespace, pod.name)).collect();
        for entry in std::fs::read_dir(self.paths.pods()).into_iter().flatten().flatten() {
            let uid = entry.file_name().to_string_lossy().into_owned();
            if !uids.iter().any(|(known, ..)| *known == uid) {
                uids.push((uid, String::new(), String::new()));
            }
        }
        for (uid, namespace, name) in uids {
            if self.pods.lock().contains_key(&uid) {
                continue;
            }
            tracing::info!(uid, namespace, name, "ending a pod that no source knows");
            let mut pod = Pod::default();
            pod.metadata.uid = Some(uid.clone());
            pod.metadata.name = Some(name);
            pod.metadata.namespace = Some(namespace);
            let grace = Some(kill::spec_grace(&pod));
            let wish = Wish { pod: Arc::new(pod), mirror: None, gone: true, refusal: None, grace };
            let handle = Arc::new(Handle {
                wish: Mutex::new(wish),
                wake: Arc::new(Notify::new()),
                status: Mutex::default(),
                granted: Mutex::default(),
            });
            self.start_worker(uid, handle);
        }
    }
}

/// What the sources have said so far.
#[derive(Default)]
struct Sources {
    api: HashMap<String, Arc<Pod>>,
    api_synced: bool,
    manifests: Option<manifests::StaticPods>,
}

impl Sources {
    fn mirror_of(&self, pod: &Pod) -> Option<Arc<Pod>> {
        let same = |mirror: &&Arc<Pod>| {
            names::is_mirror(mirror)
                && names::name(mirror) == names::name(pod)
                && names::namespace(mirror) == names::namespace(pod)
        };
        self.api.values().find(same).cloned()
    }
}

/// Turns sources into workers, until shutdown.
pub(crate) async fn dispatch(kubelet: Arc<Kubelet>, mut changed: mpsc::UnboundedReceiver<Vec<String>>) {
    let api: Api<Pod> = Api::all(kubelet.client.clone());
    let selector = format!("spec.nodeName={}", kubelet.config.node_name);
    let config = WatchConfig { field_selector: Some(selector), ..WatchConfig::default() };
    let informer = Informer::start(api, config, kubelet.shutdown.clone());
    let mut deltas = informer.subscribe();
    let (sender, mut manifests) = watch::channel(None);
    match kubelet.config.static_pods_dir.clone() {
        Some(directory) => {
            let (node, shutdown) = (kubelet.config.node_name.clone(), kubelet.shutdown.clone());
            tokio::spawn(async move {
                if let Err(error) = manifests::run(directory, node, sender, shutdown).await {
                    tracing::error!(%error, "static pods are not watched");
                }
            });
        }
        None => {
            sender.send_replace(Some(manifests::StaticPods::new()));
            // Keeps the channel open, so that waiting on it pends.
            tokio::spawn({
                let shutdown = kubelet.shutdown.clone();
                async move {
                    shutdown.cancelled().await;
                    drop(sender);
                }
            });
        }
    }
    let mut sources = Sources::default();
    let mut adopted = false;
    let mut mirrors = tokio::time::interval(MIRROR_RETRY);
    mirrors.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = kubelet.shutdown.cancelled() => return,
            delta = deltas.recv() => match delta {
                Some(delta) => take_delta(&kubelet, &mut sources, delta),
                None => return,
            },
            result = manifests.changed() => {
                if result.is_err() {
                    return;
                }
                let now = manifests.borrow_and_update().clone();
                take_manifests(&kubelet, &mut sources, now.unwrap_or_default());
            }
            users = changed.recv() => {
                for uid in users.into_iter().flatten() {
                    kubelet.wake(&uid);
                }
                continue;
            }
            _ = mirrors.tick(), if sources.manifests.as_ref().is_some_and(|pods| !pods.is_empty()) => {}
        }
        if sources.api_synced {
            sync_mirrors(&kubelet, &sources).await;
            if !adopted && sources.manifests.is_some() {
                adopted = true;
                kubelet.adopt_orphans().await;
            }
        }
    }
}

fn take_delta(kubelet: &Arc<Kubelet>, sources: &mut Sources, delta: Delta<Pod>) {
    let gone = matches!(delta, Delta::Deleted(_));
    let previous = match &delta {
        Delta::Updated { old, new } if old.metadata.uid != new.metadata.uid => Some(old.clone()),
        _ => None,
    };
    let Some(pod) = delta.object().cloned() else {
        sources.api_synced = true;
        return;
    };
    if let Some(old) = previous {
        sources.api.remove(names::uid(&old));
        kubelet.drop_pod(names::uid(&old), true);
    }
    let uid = names::uid(&pod).to_owned();
    if gone {
        sources.api.remove(&uid);
    } else {
        sources.api.insert(uid.clone(), pod.clone());
    }
    if names::is_mirror(&pod) {
        // The static pod learns of its image.
        let twin = sources
            .manifests
            .iter()
            .flat_map(|pods| pods.values())
            .find(|own| names::name(own) == names::name(&pod) && names::namespace(own) == names::namespace(&pod));
        if let Some(own) = twin.cloned() {
            let mirror = sources.mirror_of(&own);
            kubelet.set_pod(own, mirror);
        }
        return;
    }
    if gone { kubelet.drop_pod(&uid, true) } else { kubelet.set_pod(pod, None) }
}

fn take_manifests(kubelet: &Arc<Kubelet>, sources: &mut Sources, now: manifests::StaticPods) {
    let before = sources.manifests.replace(now.clone()).unwrap_or_default();
    for uid in before.keys().filter(|uid| !now.contains_key(*uid)) {
        kubelet.drop_pod(uid, false);
    }
    for (uid, pod) in now {
        if !before.contains_key(&uid) {
            let mirror = sources.mirror_of(&pod);
            kubelet.set_pod(pod, mirror);
        }
    }
}

/// Has every static pod its image, and no image without its pod.
async fn sync_mirrors(kubelet: &Kubelet, sources: &Sources) {
    let (Some(statics), Some(node)) = (&sources.manifests, kubelet.node.object.read().clone()) else { return };
    for pod in statics.values() {
        if let Err(error) = mirror::ensure(&kubelet.client, pod, sources.mirror_of(pod).as_deref(), &node).await {
            tracing::debug!(%error, pod = names::name(pod), "mirror pod not made");
        }
    }
    for orphan in sources.api.values().filter(|pod| names::is_mirror(pod)) {
        let has_pod = statics
            .values()
            .any(|pod| names::name(pod) == names::name(orphan) && names::namespace(pod) == names::namespace(orphan));
        if !has_pod && let Err(error) = mirror::delete(&kubelet.client, orphan).await {
            tracing::debug!(%error, pod = names::name(orphan), "mirror pod not deleted");
        }
    }
}
