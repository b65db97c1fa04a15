//! Volumes and claims in use stay until they are not: a finalizer holds them.
//!
//! Answers to upstream's pvcprotection and pvprotection. Admission sets the finalizers on what is new; here they are set
//! on what came without, and taken when an object that is being deleted is free.

use std::fmt::Debug;

use ironkeel_informer::{WorkQueue, run_workers};
use ironkeel_semantics::pods;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{Api, ListParams, PostParams};
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::{Context, key_of, split};
use crate::error::{Error, is_conflict, unless_gone};

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// Index of pods by the claims that they use.
const BY_CLAIM: &str = "claim";

pub(crate) async fn run_claims(context: Context) {
    let claims = context.factory.informer::<PersistentVolumeClaim>();
    let pods = context.pods();
    pods.add_index(BY_CLAIM, claims_of);
    let client = context.client("pvc-protection-controller");
    let queue: WorkQueue<String> = WorkQueue::new();
    let own = queue.clone();
    context.feed(&claims, move |delta| {
        if let Some(claim) = delta.object() {
            own.add(key_of(claim.as_ref()));
        }
    });
    let by_pod = queue.clone();
    context.feed(&pods, move |delta| {
        if let Some(pod) = delta.object() {
            claims_of(pod).into_iter().for_each(|claim| by_pod.add(claim));
        }
    });
    claims.synced().await;
    pods.synced().await;
    run_workers(queue, context.config.workers, context.shutdown.clone(), move |key: String| {
        let (claims, pods, client) = (claims.clone(), pods.clone(), client.clone());
        async move {
            let (namespace, name) = split(&key);
            let Some(claim) = claims.get(namespace, name) else { return Ok(None) };
            let api = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace);
            let deleting = claim.metadata.deletion_timestamp.is_some();
            // The cache may not know yet of a pod that was bound just now; a freed claim cannot be taken back.
            let free = deleting && unused(pods.by_index(BY_CLAIM, &key).iter().map(AsRef::as_ref)) && {
                let live = Api::<Pod>::namespaced(client, namespace).list(&ListParams::default()).await?;
                unused(live.items.iter().filter(|pod| claims_of(pod).contains(&key)))
            };
            protect(&api, claim.as_ref(), CLAIM_FINALIZER, || free).await.map(|()| None)
        }
    })
    .await;
}

pub(crate) async fn run_volumes(context: Context) {
    let volumes = context.factory.informer::<PersistentVolume>();
    let client = context.client("pv-protection-controller");
    let queue: WorkQueue<String> = WorkQueue::new();
    let own = queue.clone();
    context.feed(&volumes, move |delta| {
        if let Some(volume) = delta.object() {
            own.add(volume.name_any());
        }
    });
    volumes.synced().await;
    run_workers(queue, context.config.workers, context.shutdown.clone(), move |name: String| {
        let (volumes, client) = (volumes.clone(), client.clone());
        async move {
            let Some(volume) = volumes.get("", &name) else { return Ok(None) };
            let api = Api::<PersistentVolume>::all(client);
            let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
            protect(&api, volume.as_ref(), VOLUME_FINALIZER, || phase != Some("Bound")).await.map(|()| None)
        }
    })
    .await;
}

/// The keys of the claims that a pod uses, those of its ephemeral volumes included.
fn claims_of(pod: &Pod) -> Vec<String> {
    let namespace = pod.namespace().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let names = volumes.filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.name_any(), volume.name)),
        (None, None) => None,
    });
    names.map(|name| format!("{namespace}/{name}")).collect()
}

/// Whether none of these pods needs its claim: one that never ran anywhere, or has ended, does not.
fn unused<'p>(mut users: impl Iterator<Item = &'p Pod>) -> bool {
    users.all(|pod| pods::node_name(pod).is_none() || pods::is_terminal(pod))
}

async fn protect<K>(api: &Api<K>, object: &K, finalizer: &str, free: impl Fn() -> bool) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
{
    let held = object.finalizers().iter().any(|known| known == finalizer);
    let mut changed = object.clone();
    match (object.meta().deletion_timestamp.is_some(), held) {
        (false, false) => changed.finalizers_mut().push(finalizer.to_owned()),
        (true, true) if free() => changed.finalizers_mut().retain(|known| known != finalizer),
        _ => return Ok(()),
    }
    match unless_gone(api.replace(&object.name_any(), &PostParams::default(), &changed).await) {
        // The newer state brings us back.
        Err(error) if is_conflict(&error) => Ok(()),
        other => Ok(other.map(drop)?),
    }
}
