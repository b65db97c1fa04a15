//! Aggregation: APIServices that lead to extension API servers, and those that stand for what this
//! server serves itself.
//!
//! [`Aggregator`] keeps the table of remote group versions in memory, so that a request finds its
//! backend without reading objects. The table follows the stored APIServices ([`follow`]); conditions
//! are written by [`availability`], own APIServices by [`autoregister`]. Upstream: kube-aggregator.

mod autoregister;
mod availability;
mod discovery;
mod follow;
mod priorities;
mod proxy;
mod remote;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use ironkeel_registry::Registry;
use parking_lot::Mutex;

pub(crate) use follow::run;
pub(crate) use proxy::proxy;
pub(crate) use remote::Remote;

use crate::outbound::ClientIdentity;
use availability::Found;

/// One APIService as discovery orders it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) group_priority: i64,
    pub(crate) version_priority: i64,
    pub(crate) remote: bool,
}

#[derive(Default)]
struct Table {
    remotes: HashMap<String, HashMap<String, Arc<Remote>>>,
    listed: Vec<Listed>,
}

/// See the module.
pub(crate) struct Aggregator {
    table: ArcSwap<Table>,
    /// What remote servers said they serve, by the APIService's name.
    found: Mutex<HashMap<String, Arc<Found>>>,
    generation: AtomicU64,
    identity: Option<Arc<ClientIdentity>>,
}

impl Aggregator {
    pub(crate) fn new(identity: Option<Arc<ClientIdentity>>) -> Self {
        Aggregator { table: ArcSwap::default(), found: Mutex::default(), generation: AtomicU64::new(0), identity }
    }

    /// The remote server of a group version, where it has one.
    pub(crate) fn remote(&self, group: &str, version: &str) -> Option<Arc<Remote>> {
        let table = self.table.load();
        if table.remotes.is_empty() {
            return None;
        }
        table.remotes.get(group)?.get(version).cloned()
    }

    /// Changes whenever what the documents say of remote groups may have changed.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn remotes(&self) -> Vec<Arc<Remote>> {
        self.table.load().remotes.values().flat_map(HashMap::values).cloned().collect()
    }

    fn bump(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Reads the stored APIServices again.
    fn reload(&self, registry: &Registry) {
        let Some(resource) = ironkeel_schema::resource("apiregistration.k8s.io", "v1", "apiservices") else { return };
        let old = self.table.load();
        let mut table = Table::default();
        for object in ironkeel_object::ObjectSource::list(registry, resource, "") {
            let spec = |key: &str| object.str_at(&["spec", key]).unwrap_or_default().to_owned();
            let number = |key: &str| object.i64_at(&["spec", key]).unwrap_or(0);
            let (group, version) = (spec("group"), spec("version"));
            let remote = Remote::of(&object, self.identity.as_deref(), |name| {
                old.remotes.get(&group)?.get(&version).filter(|r| r.name == name).cloned()
            });
            table.listed.push(Listed {
                group: group.clone(),
                version: version.clone(),
                group_priority: number("groupPriorityMinimum"),
                version_priority: number("versionPriority"),
                remote: remote.is_some(),
            });
            if let Some(remote) = remote {
                table.remotes.entry(group).or_default().insert(version, remote);
            }
        }
        discovery::sort(&mut table.listed);
        if table.listed != old.listed {
            self.bump();
        }
        let names: Vec<String> = table.remotes.values().flat_map(|v| v.values().map(|r| r.name.clone())).collect();
        self.found.lock().retain(|name, _| names.contains(name));
        self.table.store(Arc::new(table));
    }
}
