//! Decides about one object, by the API's word and not the graph's: delete it, drop references to owners that are gone,
//! free its dependents, or let it be.

use std::sync::Arc;
use std::time::Duration;

use ironkeel_informer::WorkQueue;
use ironkeel_semantics::well_known::{FOREGROUND_FINALIZER, ORPHAN_FINALIZER};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::graph::{Graph, Item, Node, Work};
use super::{Kinds, Unserved};
use crate::error::{Error, code, is_conflict, is_not_found};

/// How soon an owner that exists but was not seen is looked for again.
const UNSEEN_RETRY: Duration = Duration::from_millis(500);
/// How soon an object that changed meanwhile is looked at again.
const CHANGED_RETRY: Duration = Duration::from_millis(10);
/// How soon an object of a resource that is not served is looked at again, when no new resource comes before.
const UNSERVED_RETRY: Duration = Duration::from_secs(30);

pub(super) struct Collector {
    pub(super) client: Client,
    pub(super) graph: Arc<Mutex<Graph>>,
    pub(super) kinds: Kinds,
    pub(super) unserved: Unserved,
    pub(super) queue: WorkQueue<Work>,
}

/// What became of an owner.
#[derive(PartialEq)]
enum Owner {
    /// It lives.
    Solid,
    /// It does not exist.
    Absent,
    /// It waits for its dependents to be gone.
    Waiting,
    /// Its resource is not served: nothing can be said.
    Unknown,
}

/// What the API says of an object.
enum Live {
    Found(Box<ObjectMeta>),
    /// There is none of that name, or it is another one.
    Absent,
    /// Its resource is not served, whatever discovery said.
    Unserved,
}

impl Collector {
    pub(super) async fn work(&self, work: Work) -> Result<Option<Duration>, Error> {
        let (Work::Delete(uid) | Work::Orphan(uid)) = &work;
        let node = self.graph.lock().get(uid).cloned();
        let Some(node) = node else {
            self.unserved.lock().remove(&work);
            return Ok(None);
        };
        // Noted before it is looked at, so that no resource comes unnoticed in between.
        self.unserved.lock().insert(work.clone());
        let outcome = match &work {
            Work::Delete(_) => self.consider(&node).await,
            Work::Orphan(_) => self.orphan(&node).await,
        };
        if !matches!(outcome, Ok(Some(UNSERVED_RETRY))) {
            self.unserved.lock().remove(&work);
        }
        match outcome {
            Err(Error::Api(error)) if is_conflict(&error) => Ok(Some(CHANGED_RETRY)),
            other => other,
        }
    }

    fn api(&self, item: &Item) -> Option<Api<DynamicObject>> {
        let kinds = self.kinds.lock();
        let served = kinds.get(&(item.kind.api_version.clone(), item.kind.kind.clone()))?;
        Some(if served.namespaced && !item.namespace.is_empty() {
            Api::namespaced_with(self.client.clone(), &item.namespace, &served.resource)
        } else {
            Api::all_with(self.client.clone(), &served.resource)
        })
    }

    /// The object's metadata from the API, if it is still the same object.
    async fn live(&self, api: &Api<DynamicObject>, item: &Item) -> kube::Result<Live> {
        match api.get_metadata(&item.name).await {
            Ok(found) if found.metadata.uid.as_deref() == Some(&item.uid) => Ok(Live::Found(Box::new(found.metadata))),
            Ok(_) => Ok(Live::Absent),
            Err(kube::Error::Api(status)) if status.code == 404 => {
                // Without a word about the object it is its resource that was not found.
                let named = status.details.as_ref().is_some_and(|details| *details.name == *item.name);
                Ok(if named { Live::Absent } else { Live::Unserved })
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the item's kind is namespaced, where it is served.
    fn is_namespaced(&self, item: &Item) -> bool {
        let kinds = self.kinds.lock();
        kinds.get(&(item.kind.api_version.clone(), item.kind.kind.clone())).is_some_and(|served| served.namespaced)
    }

    async fn consider(&self, node: &Node) -> Result<Option<Duration>, Error> {
        if !node.is_virtual && !node.deleting_dependents && (node.being_deleted || node.owners.is_empty()) {
            return Ok(None);
        }
        let Some(api) = self.api(&node.item) else {
            // A resource may come back; until then nothing is known of its objects.
            return Ok(Some(UNSERVED_RETRY));
        };
        if node.is_virtual && node.item.namespace.is_empty() && self.is_namespaced(&node.item) {
            // Named by something cluster-scoped, which cannot be owned by it.
            return Ok(None);
        }
        let live = match self.live(&api, &node.item).await? {
            Live::Found(live) => live,
            Live::Unserved => return Ok(Some(UNSERVED_RETRY)),
            Live::Absent => {
                let more = self.graph.lock().absent(&node.item);
                more.into_iter().for_each(|work| self.queue.add(work));
                return Ok(None);
            }
        };
        if node.is_virtual {
            return Ok(Some(UNSEEN_RETRY));
        }
        if node.deleting_dependents {
            return self.finish_foreground(&api, node, &live).await;
        }
        let owners = live.owner_references.clone().unwrap_or_default();
        if owners.is_empty() {
            return Ok(None);
        }
        let mut gone: Vec<&OwnerReference> = Vec::new();
        let mut waiting: Vec<&OwnerReference> = Vec::new();
        let mut solid = 0;
        for owner in &owners {
            match self.look_up(owner, &node.item.namespace).await? {
                Owner::Absent => gone.push(owner),
                Owner::Waiting => waiting.push(owner),
                Owner::Solid => solid += 1,
                Owner::Unknown => return Ok(Some(UNSERVED_RETRY)),
            }
        }
        if solid > 0 {
            if gone.is_empty() && waiting.is_empty() {
                return Ok(None);
            }
            let kept = |owner: &&OwnerReference| !gone.contains(owner) && !waiting.contains(owner);
            let kept: Vec<_> = owners.iter().filter(kept).collect();
            self.patch(&api, &node.item, &live, json!({"ownerReferences": kept})).await?;
            return Ok(None);
        }
        let policy = if !waiting.is_empty() && !node.dependents.is_empty() {
            self.unblock_cycles(node, &api, &live, &owners).await?;
            PropagationPolicy::Foreground
        } else {
            let finalizers = live.finalizers.as_deref().unwrap_or_default();
            let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
            if has(ORPHAN_FINALIZER) {
                PropagationPolicy::Orphan
            } else if has(FOREGROUND_FINALIZER) {
                PropagationPolicy::Foreground
            } else {
                PropagationPolicy::Background
            }
        };
        self.delete(&api, node, &live, policy).await
    }

    async fn delete(
        &self,
        api: &Api<DynamicObject>,
        node: &Node,
        live: &ObjectMeta,
        policy: PropagationPolicy,
    ) -> Result<Option<Duration>, Error> {
        // With the revision: an owner that was added meanwhile keeps the object.
        let same = Preconditions { uid: live.uid.clone(), resource_version: live.resource_version.clone() };
        let delete = DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
        match api.delete(&node.item.name, &delete.preconditions(same)).await {
            Ok(_) => Ok(None),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Owners that wait for each other in a circle would wait for ever: the references stop blocking.
    async fn unblock_cycles(
        &self,
        node: &Node,
        api: &Api<DynamicObject>,
        live: &ObjectMeta,
        owners: &[OwnerReference],
    ) -> Result<(), Error> {
        let circle = self.graph.lock().dependents(&node.item.uid).iter().any(|dependent| dependent.deleting_dependents);
        if !circle {
            return Ok(());
        }
        let mut free = owners.to_vec();
        for owner in &mut free {
            owner.block_owner_deletion = Some(false);
        }
        self.patch(api, &node.item, live, json!({"ownerReferences": free})).await
    }

    async fn look_up(&self, owner: &OwnerReference, namespace: &Arc<str>) -> Result<Owner, Error> {
        let item = Item::owner(owner, namespace);
        let Some(api) = self.api(&item) else { return Ok(Owner::Unknown) };
        if namespace.is_empty() && self.is_namespaced(&item) {
            // A cluster-scoped object cannot be owned by a namespaced one.
            return Ok(Owner::Unknown);
        }
        Ok(match self.live(&api, &item).await? {
            Live::Absent => Owner::Absent,
            Live::Unserved => Owner::Unknown,
            Live::Found(meta) => {
                let foreground = meta.finalizers.iter().flatten().any(|finalizer| finalizer == FOREGROUND_FINALIZER);
                let waits = meta.deletion_timestamp.is_some() && foreground;
                if waits { Owner::Waiting } else { Owner::Solid }
            }
        })
    }

    /// In foreground deletion: once nothing blocks it any more, the finalizer goes.
    async fn finish_foreground(
        &self,
        api: &Api<DynamicObject>,
        node: &Node,
        live: &ObjectMeta,
    ) -> Result<Option<Duration>, Error> {
        let blocking = self.graph.lock().blocking_dependents(&node.item.uid);
        if blocking.is_empty() {
            self.drop_finalizer(api, &node.item, live, FOREGROUND_FINALIZER).await?;
            return Ok(None);
        }
        for dependent in blocking.iter().filter(|dependent| !dependent.deleting_dependents) {
            self.queue.add(Work::Delete(dependent.item.uid.clone()));
        }
        Ok(None)
    }

    /// Takes the reference to this owner from its dependents, then its finalizer.
    async fn orphan(&self, node: &Node) -> Result<Option<Duration>, Error> {
        let Some(api) = self.api(&node.item) else { return Ok(Some(UNSERVED_RETRY)) };
        let live = match self.live(&api, &node.item).await? {
            Live::Found(live) => live,
            Live::Absent => return Ok(None),
            Live::Unserved => return Ok(Some(UNSERVED_RETRY)),
        };
        let dependents = self.graph.lock().dependents(&node.item.uid);
        for dependent in dependents {
            let Some(api) = self.api(&dependent.item) else { continue };
            let Live::Found(meta) = self.live(&api, &dependent.item).await? else { continue };
            let owners = meta.owner_references.clone().unwrap_or_default();
            let kept: Vec<_> = owners.iter().filter(|owner| *owner.uid != *node.item.uid).collect();
            if kept.len() < owners.len() {
                self.patch(&api, &dependent.item, &meta, json!({"ownerReferences": kept})).await?;
            }
        }
        self.drop_finalizer(&api, &node.item, &live, ORPHAN_FINALIZER).await?;
        Ok(None)
    }

    async fn drop_finalizer(
        &self,
        api: &Api<DynamicObject>,
        item: &Item,
        live: &ObjectMeta,
        finalizer: &str,
    ) -> Result<(), Error> {
        let all = live.finalizers.clone().unwrap_or_default();
        let kept: Vec<_> = all.iter().filter(|known| *known != finalizer).collect();
        if kept.len() == all.len() {
            return Ok(());
        }
        self.patch(api, item, live, json!({"finalizers": kept})).await
    }

    /// Changes metadata, provided that the object is what we read.
    async fn patch(
        &self,
        api: &Api<DynamicObject>,
        item: &Item,
        live: &ObjectMeta,
        mut metadata: Value,
    ) -> Result<(), Error> {
        metadata["uid"] = json!(live.uid);
        metadata["resourceVersion"] = json!(live.resource_version);
        let patch = Patch::Merge(json!({"metadata": metadata}));
        match api.patch_metadata(&item.name, &PatchParams::default(), &patch).await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == Some(404) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
