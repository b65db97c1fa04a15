//! Who owns what, as far as it is known. No I/O: changes go in, work comes out.
//!
//! Answers to upstream's GraphBuilder. An owner that was never seen is in the graph as a virtual node until it is seen,
//! or the API says that it does not exist.

use std::collections::{HashMap, HashSet};

use ironkeel_semantics::well_known::{FOREGROUND_FINALIZER, ORPHAN_FINALIZER};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::discovery::Served;

/// An object, as owner references name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Item {
    pub(super) api_version: String,
    pub(super) kind: String,
    /// Empty for cluster-scoped resources.
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

impl Item {
    pub(super) fn of(served: &Served, meta: &ObjectMeta) -> Self {
        Self {
            api_version: served.resource.api_version.clone(),
            kind: served.resource.kind.clone(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
        }
    }

    /// The owner of an object in `namespace`.
    fn owner(owner: &OwnerReference, namespace: &str) -> Self {
        Self {
            api_version: owner.api_version.clone(),
            kind: owner.kind.clone(),
            namespace: namespace.to_owned(),
            name: owner.name.clone(),
            uid: owner.uid.clone(),
        }
    }
}

/// A change of one object.
pub(super) struct Change {
    pub(super) item: Item,
    pub(super) meta: Box<ObjectMeta>,
    pub(super) deleted: bool,
}

/// What is to be done about an object, by uid.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Work {
    /// See whether it must go.
    Delete(String),
    /// Free its dependents.
    Orphan(String),
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) item: Item,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) dependents: HashSet<String>,
    /// Known from owner references only.
    pub(super) is_virtual: bool,
    pub(super) being_deleted: bool,
    /// In foreground deletion: it goes after its dependents.
    pub(super) deleting_dependents: bool,
}

/// The graph, by uid.
#[derive(Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node>,
}

fn has_finalizer(meta: &ObjectMeta, name: &str) -> bool {
    meta.finalizers.iter().flatten().any(|finalizer| finalizer == name)
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// Takes in a change; the answer is what is to be done.
    pub(super) fn apply(&mut self, change: Change) -> Vec<Work> {
        if change.deleted { self.remove(&change.item.uid) } else { self.upsert(change.item, &change.meta) }
    }

    /// Takes an object out: those that it owns may have to go, and those that waited for it may.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<Work> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        let mut work: Vec<Work> = node.dependents.into_iter().map(Work::Delete).collect();
        for owner in &node.owners {
            if let Some(owner) = self.nodes.get_mut(&owner.uid) {
                owner.dependents.remove(uid);
                if owner.deleting_dependents {
                    work.push(Work::Delete(owner.item.uid.clone()));
                }
            }
        }
        self.drop_unowning(&node.owners);
        work
    }

    fn upsert(&mut self, item: Item, meta: &ObjectMeta) -> Vec<Work> {
        let mut work = Vec::new();
        let uid = item.uid.clone();
        let namespace = item.namespace.clone();
        let owners = meta.owner_references.clone().unwrap_or_default();
        let deleting = meta.deletion_timestamp.is_some();
        let node = self.nodes.entry(uid.clone()).or_insert_with(|| Node {
            item: item.clone(),
            owners: Vec::new(),
            dependents: HashSet::new(),
            is_virtual: false,
            being_deleted: false,
            deleting_dependents: false,
        });
        let was_virtual = std::mem::replace(&mut node.is_virtual, false);
        if was_virtual && node.item != item {
            // Its dependents named it wrongly: each must be looked at.
            work.extend(node.dependents.iter().cloned().map(Work::Delete));
        }
        node.item = item;
        let before = std::mem::replace(&mut node.owners, owners.clone());
        node.being_deleted = deleting;
        if deleting && has_finalizer(meta, ORPHAN_FINALIZER) {
            work.push(Work::Orphan(uid.clone()));
        }
        if deleting && has_finalizer(meta, FOREGROUND_FINALIZER) {
            if !std::mem::replace(&mut node.deleting_dependents, true) {
                work.extend(node.dependents.iter().cloned().map(Work::Delete));
            }
            work.push(Work::Delete(uid.clone()));
        }
        for owner in &owners {
            let known = self.nodes.entry(owner.uid.clone()).or_insert_with(|| {
                work.push(Work::Delete(owner.uid.clone()));
                Node {
                    item: Item::owner(owner, &namespace),
                    owners: Vec::new(),
                    dependents: HashSet::new(),
                    is_virtual: true,
                    being_deleted: false,
                    deleting_dependents: false,
                }
            });
            let new = known.dependents.insert(uid.clone());
            if known.deleting_dependents && new {
                work.push(Work::Delete(uid.clone()));
            }
        }
        for old in &before {
            let now = owners.iter().find(|owner| owner.uid == old.uid);
            let unblocked = old.block_owner_deletion == Some(true)
                && now.is_none_or(|owner| owner.block_owner_deletion != Some(true));
            if let Some(owner) = self.nodes.get_mut(&old.uid) {
                if now.is_none() {
                    owner.dependents.remove(&uid);
                }
                if unblocked && owner.deleting_dependents {
                    work.push(Work::Delete(old.uid.clone()));
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
            if self.nodes.get(&owner.uid).is_some_and(|node| node.is_virtual && node.dependents.is_empty()) {
                self.nodes.remove(&owner.uid);
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
        let item = Item {
            api_version: "v1".into(),
            kind: "X".into(),
            namespace: "n".into(),
            name: name.into(),
            uid: name.into(),
        };
        Change { item, meta: Box::new(serde_json::from_value(meta).unwrap()), deleted }
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
    fn orphaning_is_asked_for_by_the_finalizer() {
        let mut graph = Graph::default();
        let work = graph.apply(change("owner", None, Some(ORPHAN_FINALIZER), false));
        assert_eq!(work, [Work::Orphan("owner".into())]);
    }
}
