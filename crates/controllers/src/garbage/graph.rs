//! Who owns what, as far as it is known. No I/O: changes go in, work comes out.
//!
//! Answers to upstream's GraphBuilder. An owner that was never seen is in the graph as a virtual node until it is seen,
//! or the API says that it does not exist.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ironkeel_semantics::well_known::{FOREGROUND_FINALIZER, ORPHAN_FINALIZER};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// A kind, as owner references name it. Shared by its objects.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) api_version: String,
    pub(super) kind: String,
}

/// An object, as owner references name it. There is one for every object of the cluster: it is kept small.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Item {
    pub(super) kind: Arc<Kind>,
    /// Empty for cluster-scoped resources.
    pub(super) namespace: Arc<str>,
    pub(super) name: Box<str>,
    pub(super) uid: Arc<str>,
}

impl Item {
    /// Whether a reference from `namespace` means this object.
    fn is_named_by(&self, owner: &OwnerReference, namespace: &Arc<str>) -> bool {
        let group =
            |api_version: &str| api_version.split_once('/').map_or(String::new(), |(group, _)| group.to_owned());
        *self.name == *owner.name
            && self.kind.kind == owner.kind
            && group(&self.kind.api_version) == group(&owner.api_version)
            && (self.namespace.is_empty() || self.namespace == *namespace)
    }

    /// The owner of an object in `namespace`.
    pub(super) fn owner(owner: &OwnerReference, namespace: &Arc<str>) -> Self {
        Self {
            kind: Arc::new(Kind { api_version: owner.api_version.clone(), kind: owner.kind.clone() }),
            namespace: namespace.clone(),
            name: owner.name.as_str().into(),
            uid: owner.uid.as_str().into(),
        }
    }
}

/// A change of one object.
pub(super) enum Change {
    /// Its state now.
    Applied(Arc<Kind>, Box<ObjectMeta>),
    /// The one with this uid is gone.
    Deleted(Arc<Kind>, String),
}

impl Change {
    pub(super) fn kind(&self) -> &Kind {
        match self {
            Change::Applied(kind, _) | Change::Deleted(kind, _) => kind,
        }
    }
}

/// What is to be done about an object, by uid.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Work {
    /// See whether it must go.
    Delete(Arc<str>),
    /// Free its dependents.
    Orphan(Arc<str>),
}

/// Uids of what an object owns. Most own nothing.
#[derive(Debug, Clone, Default)]
#[expect(clippy::box_collection, reason = "an empty set would be 48 bytes in each of a cluster's objects")]
pub(super) struct Dependents(Option<Box<HashSet<Arc<str>>>>);

impl Dependents {
    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|uids| uids.is_empty())
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter().flat_map(|uids| uids.iter())
    }

    /// Whether it is new.
    fn insert(&mut self, uid: &Arc<str>) -> bool {
        self.0.get_or_insert_default().insert(uid.clone())
    }

    fn remove(&mut self, uid: &str) {
        if let Some(uids) = &mut self.0 {
            uids.remove(uid);
        }
        if self.is_empty() {
            self.0 = None;
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) item: Item,
    pub(super) owners: Box<[OwnerReference]>,
    pub(super) dependents: Dependents,
    /// Known from owner references only.
    pub(super) is_virtual: bool,
    pub(super) being_deleted: bool,
    /// In foreground deletion: it goes after its dependents.
    pub(super) deleting_dependents: bool,
}

impl Node {
    fn new(item: Item, is_virtual: bool) -> Node {
        Node {
            item,
            owners: Box::default(),
            dependents: Dependents::default(),
            is_virtual,
            being_deleted: false,
            deleting_dependents: false,
        }
    }
}

/// The graph, by uid.
#[derive(Clone, Default)]
pub(super) struct Graph {
    nodes: HashMap<Arc<str>, Node>,
    /// Where virtual nodes were looked for in vain, by uid: several references may name one uid differently.
    tried: HashMap<Arc<str>, HashSet<Item>>,
    /// Names of namespaces, each held once; emptied of what nobody uses as it grows.
    namespaces: HashSet<Arc<str>>,
    namespaces_swept: usize,
}

/// So many names of namespaces are kept without a look at whether they are used.
const NAMESPACES_AT_LEAST: usize = 64;

fn has_finalizer(meta: &ObjectMeta, name: &str) -> bool {
    meta.finalizers.iter().flatten().any(|finalizer| finalizer == name)
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// Takes in a change; the answer is what is to be done.
    pub(super) fn apply(&mut self, change: Change) -> Vec<Work> {
        match change {
            Change::Applied(kind, meta) => self.upsert(kind, *meta),
            Change::Deleted(_, uid) => self.remove(&uid),
        }
    }

    fn namespace(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.namespaces.get(name) {
            return known.clone();
        }
        if self.namespaces.len() > self.namespaces_swept * 2 + NAMESPACES_AT_LEAST {
            self.namespaces.retain(|name| Arc::strong_count(name) > 1);
            self.namespaces_swept = self.namespaces.len();
        }
        let name: Arc<str> = name.into();
        self.namespaces.insert(name.clone());
        name
    }

    /// Takes an object out: those that it owns may have to go, and those that waited for it may.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<Work> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        self.tried.remove(uid);
        let mut work: Vec<Work> = node.dependents.iter().cloned().map(Work::Delete).collect();
        for owner in &node.owners {
            if let Some(owner) = self.nodes.get_mut(owner.uid.as_str()) {
                owner.dependents.remove(uid);
                if owner.deleting_dependents {
                    work.push(Work::Delete(owner.item.uid.clone()));
                }
            }
        }
        self.drop_unowning(&node.owners);
        work
    }

    /// Takes in that the API has no such object. One that is known from references only may stand where another
    /// reference says.
    pub(super) fn absent(&mut self, item: &Item) -> Vec<Work> {
        let uid = &item.uid;
        let Some(node) = self.nodes.get(uid) else { return Vec::new() };
        if !node.is_virtual {
            return self.remove(uid);
        }
        if node.item != *item {
            return Vec::new();
        }
        let tried = self.tried.entry(uid.clone()).or_default();
        tried.insert(item.clone());
        let mut next = None;
        let mut work = Vec::new();
        for dependent in node.dependents.iter().filter_map(|dependent| self.nodes.get(dependent)) {
            for owner in dependent.owners.iter().filter(|owner| *owner.uid == **uid) {
                let named = Item::owner(owner, &dependent.item.namespace);
                if tried.contains(&named) {
                    work.push(Work::Delete(dependent.item.uid.clone()));
                } else {
                    next = Some(named);
                }
            }
        }
        let Some(next) = next else { return self.remove(uid) };
        if let Some(node) = self.nodes.get_mut(uid) {
            node.item = next;
        }
        work.push(Work::Delete(uid.clone()));
        work
    }

    fn upsert(&mut self, kind: Arc<Kind>, mut meta: ObjectMeta) -> Vec<Work> {
        let mut work = Vec::new();
        let namespace = self.namespace(meta.namespace.as_deref().unwrap_or_default());
        let uid = meta.uid.as_deref().unwrap_or_default();
        let uid = self.nodes.get_key_value(uid).map_or_else(|| uid.into(), |(known, _)| known.clone());
        let name = meta.name.as_deref().unwrap_or_default().into();
        let item = Item { kind, namespace: namespace.clone(), name, uid: uid.clone() };
        let owners: Box<[OwnerReference]> = meta.owner_references.take().unwrap_or_default().into();
        let deleting = meta.deletion_timestamp.is_some();
        let node = self.nodes.entry(uid.clone()).or_insert_with(|| Node::new(item.clone(), false));
        let was_virtual = std::mem::replace(&mut node.is_virtual, false);
        if was_virtual {
            self.tried.remove(&uid);
        }
        if was_virtual && node.item != item {
            // Its dependents named it wrongly: each must be looked at.
            work.extend(node.dependents.iter().cloned().map(Work::Delete));
        }
        node.item = item;
        let before = std::mem::replace(&mut node.owners, owners.clone());
        node.being_deleted = deleting;
        if deleting && has_finalizer(&meta, ORPHAN_FINALIZER) {
            work.push(Work::Orphan(uid.clone()));
        }
        if deleting && has_finalizer(&meta, FOREGROUND_FINALIZER) {
            if !std::mem::replace(&mut node.deleting_dependents, true) {
                work.extend(node.dependents.iter().cloned().map(Work::Delete));
            }
            work.push(Work::Delete(uid.clone()));
        }
        for owner in &owners {
            let known = match self.nodes.get_mut(owner.uid.as_str()) {
                Some(known) => known,
                None => {
                    let item = Item::owner(owner, &namespace);
                    work.push(Work::Delete(item.uid.clone()));
                    self.nodes.entry(item.uid.clone()).or_insert(Node::new(item, true))
                }
            };
            let new = known.dependents.insert(&uid);
            if new && known.is_virtual && known.item.namespace.is_empty() && !namespace.is_empty() {
                // Named so far by what is in no namespace, which tells nothing of an owner that is in one.
                known.item = Item { uid: known.item.uid.clone(), ..Item::owner(owner, &namespace) };
                work.push(Work::Delete(known.item.uid.clone()));
            }
            // A reference to another place than the owner's may be one to nothing.
            if new && (known.deleting_dependents || !known.item.is_named_by(owner, &namespace)) {
                work.push(Work::Delete(uid.clone()));
            }
        }
        for old in &before {
            let now = owners.iter().find(|owner| owner.uid == old.uid);
            let unblocked = old.block_owner_deletion == Some(true)
                && now.is_none_or(|owner| owner.block_owner_deletion != Some(true));
            if let Some(owner) = self.nodes.get_mut(old.uid.as_str()) {
                if now.is_none() {
                    owner.dependents.remove(&uid);
                }
                if unblocked && owner.deleting_dependents {
                    work.push(Work::Delete(owner.item.uid.clone()));
                }
            }
        }
        if before.len() > owners.len() || before.iter().any(|old| owners.iter().all(|new| new.uid != old.uid)) {
            // An owner that it kept alive may be the only one left to decide by.
            work.push(Work::Delete(uid));
            self.drop_unowning(&before);
        }
        work
    }

    /// Forgets virtual nodes that own nothing any more.
    fn drop_unowning(&mut self, owners: &[OwnerReference]) {
        for owner in owners {
            let uid = owner.uid.as_str();
            if self.nodes.get(uid).is_some_and(|node| node.is_virtual && node.dependents.is_empty()) {
                self.nodes.remove(uid);
            }
        }
    }

    /// The dependents of a node whose foreground deletion waits for them.
    pub(super) fn blocking_dependents(&self, uid: &str) -> Vec<Node> {
        let Some(node) = self.nodes.get(uid) else { return Vec::new() };
        let dependents = node.dependents.iter().filter_map(|dependent| self.nodes.get(dependent));
        dependents
            .filter(|dependent| {
                dependent.owners.iter().any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
            })
            .cloned()
            .collect()
    }

    pub(super) fn dependents(&self, uid: &str) -> Vec<Node> {
        let Some(node) = self.nodes.get(uid) else { return Vec::new() };
        node.dependents.iter().filter_map(|dependent| self.nodes.get(dependent)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn change(name: &str, owner: Option<&str>, finalizer: Option<&str>, deleted: bool) -> Change {
        let owners = owner
            .map(|uid| json!([{"apiVersion": "v1", "kind": "X", "name": uid, "uid": uid, "blockOwnerDeletion": true}]));
        let meta = json!({
            "name": name, "uid": name, "namespace": "n", "ownerReferences": owners,
            "finalizers": finalizer.map(|finalizer| [finalizer]),
            "deletionTimestamp": finalizer.map(|_| "2026-01-01T00:00:00Z"),
        });
        let kind = Arc::new(Kind { api_version: "v1".into(), kind: "X".into() });
        if deleted {
            return Change::Deleted(kind, name.into());
        }
        Change::Applied(kind, Box::new(serde_json::from_value(meta).unwrap()))
    }

    #[test]
    fn the_dependents_of_a_deleted_owner_are_looked_at() {
        let mut graph = Graph::default();
        assert_eq!(graph.apply(change("owner", None, None, false)), []);
        assert_eq!(graph.apply(change("child", Some("owner"), None, false)), []);
        assert_eq!(graph.apply(change("owner", None, None, true)), [Work::Delete("child".into())]);
    }

    #[test]
    fn an_owner_that_was_never_seen_is_looked_for() {
        let mut graph = Graph::default();
        assert_eq!(graph.apply(change("child", Some("owner"), None, false)), [Work::Delete("owner".into())]);
        assert!(graph.get("owner").unwrap().is_virtual);
        assert_eq!(graph.apply(change("owner", None, None, false)), []);
        assert!(!graph.get("owner").unwrap().is_virtual);
    }

    #[test]
    fn a_foreground_deletion_waits_for_blocking_dependents() {
        let mut graph = Graph::default();
        graph.apply(change("owner", None, None, false));
        graph.apply(change("child", Some("owner"), None, false));
        let work = graph.apply(change("owner", None, Some(FOREGROUND_FINALIZER), false));
        assert_eq!(work, [Work::Delete("child".into()), Work::Delete("owner".into())]);
        assert_eq!(graph.blocking_dependents("owner").len(), 1);
        assert_eq!(graph.apply(change("child", Some("owner"), None, true)), [Work::Delete("owner".into())]);
        assert!(graph.blocking_dependents("owner").is_empty());
    }

    #[test]
    fn an_owner_is_looked_for_wherever_references_say() {
        let mut graph = Graph::default();
        let child = |name: &str, namespace: &str| {
            let owner = json!([{"apiVersion": "v1", "kind": "X", "name": "owner", "uid": "owner"}]);
            let meta = json!({"name": name, "uid": name, "namespace": namespace, "ownerReferences": owner});
            let kind = Arc::new(Kind { api_version: "v1".into(), kind: "X".into() });
            Change::Applied(kind, Box::new(serde_json::from_value(meta).unwrap()))
        };
        assert_eq!(graph.apply(child("stray", "m")), [Work::Delete("owner".into())]);
        // It may be the one that names it rightly.
        assert_eq!(graph.apply(child("child", "n")), [Work::Delete("child".into())]);
        let first = graph.get("owner").unwrap().item.clone();
        assert_eq!(graph.absent(&first), [Work::Delete("stray".into()), Work::Delete("owner".into())]);
        assert_eq!(&*graph.get("owner").unwrap().item.namespace, "n");
        // The same answer twice changes nothing.
        assert_eq!(graph.absent(&first), []);
        let mut both = graph.clone();
        // It is there: its end is the end of those that it owns.
        graph.apply(change("owner", None, None, false));
        let mut work = graph.apply(change("owner", None, None, true));
        work.sort_by_key(|work| format!("{work:?}"));
        assert_eq!(work, [Work::Delete("child".into()), Work::Delete("stray".into())]);
        // Or it is not.
        let second = both.get("owner").unwrap().item.clone();
        let work = both.absent(&second);
        assert_eq!(work.len(), 2, "{work:?}");
        assert!(both.get("owner").is_none() && both.tried.is_empty());
    }

    #[test]
    fn orphaning_is_asked_for_by_the_finalizer() {
        let mut graph = Graph::default();
        let work = graph.apply(change("owner", None, Some(ORPHAN_FINALIZER), false));
        assert_eq!(work, [Work::Orphan("owner".into())]);
    }
}
