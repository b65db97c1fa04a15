//! The sums: what the objects of one resource in one namespace use, and what is about to be written.

use std::collections::HashMap;
use std::sync::Arc;

use ironkeel_object::{ObjectMeta, Quantity, Value};
use ironkeel_registry::{Attributes, Entry, Followed, Row, Stored, object_key};
use parking_lot::{Mutex, MutexGuard};

use super::evaluate::{in_scope, usage_of, weighs};
use crate::Cluster;
use crate::usage::{Amounts, add, raise};

/// An admitted write that the cache may not show yet.
pub(super) struct Charge {
    /// Tells requests apart while they run.
    pub(super) request: usize,
    /// The revision that an update starts from; none of a create.
    pub(super) base: Option<u64>,
    /// Of the quotas whose scopes see the object.
    pub(super) shares: Vec<Share>,
}

/// What a write uses more than before of one quota.
pub(super) struct Share {
    /// The quota's name.
    pub(super) quota: String,
    pub(super) more: Amounts,
    /// Whether `status.used` has it.
    pub(super) told: bool,
}

/// A share that `status.used` of its quota does not have yet.
pub(super) struct Waiting {
    pub(super) request: usize,
    pub(super) more: Amounts,
}

/// What the objects use that one set of scopes sees. Quotas of the same scopes share it.
struct View {
    /// The first quota with these scopes.
    quota: Arc<Value>,
    total: Amounts,
}

#[derive(Default)]
struct State {
    /// Whose objects they are: another after a custom resource was defined anew.
    home: Option<Arc<Stored>>,
    cursor: Option<u64>,
    views: Vec<View>,
    /// By the object's key: several writes of one object may run, of which one will be stored.
    pending: HashMap<String, Vec<Charge>>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Book {
    state: Mutex<State>,
    /// Whose turn it is to raise `status.used`.
    pub(super) telling: tokio::sync::Mutex<()>,
}

fn same_scopes(a: &Value, b: &Value) -> bool {
    let part = |q: &Value, name: &str| q.at(&["spec", name]).cloned().unwrap_or_default();
    ["scopes", "scopeSelector"].iter().all(|name| part(a, name) == part(b, name))
}

impl Book {
    /// The sums as the cache has them now.
    pub(super) fn look(&self, c: &Cluster, a: &Attributes<'_>, quotas: &[Arc<Value>]) -> Sums<'_> {
        let mut state = self.state.lock();
        state.catch_up(c, a, quotas);
        Sums(state)
    }

    /// Takes a charge back.
    pub(super) fn give_back(&self, key: &str, request: usize) {
        self.state.lock().keep(key, |c| c.request != request);
    }

    /// What waits to be told of a quota together with a request. `None` where the request's own is told already.
    /// Quotas are told in their order, so that none is told of what one before it refuses.
    pub(super) fn waiting(&self, key: &str, request: usize, quota: &str) -> Option<Vec<Waiting>> {
        let state = self.state.lock();
        let next = |c: &Charge| c.shares.iter().find(|s| !s.told).filter(|s| s.quota == quota).map(|s| s.more.clone());
        state.pending.get(key)?.iter().find(|c| c.request == request).and_then(next)?;
        let others = state.pending.values().flatten().filter(|c| c.request != request);
        Some(others.filter_map(|c| Some(Waiting { request: c.request, more: next(c)? })).collect())
    }

    /// `status.used` of a quota has what these requests use of it.
    pub(super) fn told(&self, requests: &[usize], quota: &str) {
        let mut state = self.state.lock();
        let charges = state.pending.values_mut().flatten().filter(|c| requests.contains(&c.request));
        for share in charges.flat_map(|c| &mut c.shares).filter(|s| s.quota == quota) {
            share.told = true;
        }
    }

    /// Whether nothing is about to be written.
    pub(super) fn is_idle(&self) -> bool {
        self.state.lock().pending.is_empty()
    }
}

/// The sums, while nobody else reads or changes them.
pub(super) struct Sums<'b>(MutexGuard<'b, State>);

impl Sums<'_> {
    /// What is used of a quota: by stored objects, and by those of the pending writes whose share `which` means.
    /// Writes of `own` object apart, since of those one alone is stored.
    pub(super) fn used(&self, quota: &Value, own: &str, which: impl Fn(&Share) -> bool) -> Amounts {
        let view = self.0.views.iter().find(|v| same_scopes(&v.quota, quota));
        let mut total = view.map(|v| v.total.clone()).unwrap_or_default();
        for (_, charges) in self.0.pending.iter().filter(|(key, _)| *key != own) {
            let mut most = Amounts::new();
            for share in charges.iter().flat_map(|c| &c.shares) {
                if share.quota == quota.name() && which(share) {
                    raise(&mut most, &share.more);
                }
            }
            add(&mut total, &most);
        }
        total
    }

    /// Keeps a charge until its request is over.
    pub(super) fn keep(&mut self, key: String, charge: Charge) {
        let charges = self.0.pending.entry(key).or_default();
        charges.retain(|c| c.request != charge.request);
        charges.push(charge);
    }
}

/// What changes one object's share.
struct Change<'e> {
    key: &'e str,
    revision: u64,
    before: Option<&'e Entry>,
    after: Option<&'e Entry>,
}

/// How entries are read: in the version that usage is told in; `None` where only their number counts.
struct Reader<'r> {
    c: &'r Cluster,
    row: Option<Arc<Row>>,
    group: &'r str,
    plural: &'r str,
}

impl Reader<'_> {
    fn tree(&self, entry: &Entry) -> Option<Value> {
        match &self.row {
            Some(row) => self.c.registry.as_ref()?.tree(row, entry).ok(),
            None => Some(Value::Null),
        }
    }
}

impl State {
    fn keep(&mut self, key: &str, which: impl Fn(&Charge) -> bool) {
        if let Some(charges) = self.pending.get_mut(key) {
            charges.retain(which);
            if charges.is_empty() {
                self.pending.remove(key);
            }
        }
    }

    fn catch_up(&mut self, c: &Cluster, a: &Attributes<'_>, quotas: &[Arc<Value>]) {
        let (group, plural) = (a.row.group(), a.row.plural());
        let known = |q: &Value, views: &[View]| views.iter().any(|v| same_scopes(&v.quota, q));
        if quotas.iter().any(|q| !known(q, &self.views)) {
            self.views.clear();
            for quota in quotas {
                if !known(quota, &self.views) {
                    self.views.push(View { quota: quota.clone(), total: Amounts::new() });
                }
            }
            self.cursor = None;
        }
        let Some((home, registry)) = a.row.stored.as_ref().zip(c.registry.as_ref()) else {
            return self.read_all(c, a);
        };
        if self.home.as_ref().is_none_or(|h| !Arc::ptr_eq(h, home)) {
            self.home = Some(home.clone());
            self.cursor = None;
        }
        let row = weighs(group, plural).then(|| registry.row(group, "v1", plural)).flatten();
        let reader = Reader { c, row, group, plural };
        match home.cache.follow(&mut self.cursor, a.namespace) {
            Followed::Anew(all) => {
                self.views.iter_mut().for_each(|v| v.total.clear());
                for entry in &all {
                    let after = Some(&**entry);
                    self.apply(&reader, &Change { key: entry.key(), revision: entry.revision, before: None, after });
                }
            }
            Followed::Since(changes) => {
                for change in &changes {
                    let (before, after) = (change.previous.as_deref(), (!change.deleted).then_some(&*change.entry));
                    self.apply(&reader, &Change { key: change.entry.key(), revision: change.revision, before, after });
                }
            }
        }
    }

    fn apply(&mut self, reader: &Reader<'_>, change: &Change<'_>) {
        if !self.pending.is_empty() {
            // A create is counted as soon as it is shown, be it another's of the same name, which makes this one fail.
            let created = change.before.is_none();
            self.keep(change.key, |c| match c.base {
                None => !created,
                Some(base) => change.after.is_some() && base == change.revision,
            });
        }
        let share = |entry: Option<&Entry>| {
            let tree = reader.tree(entry?)?;
            let usage = usage_of(reader.group, reader.plural, &tree);
            Some((tree, usage))
        };
        // Only the number counts, and that stays.
        if reader.row.is_none() && change.before.is_some() && change.after.is_some() {
            return;
        }
        let (before, after) = (share(change.before), share(change.after));
        for view in &mut self.views {
            let seen = |o: &&(Value, Amounts)| in_scope(&view.quota, reader.plural, &o.0);
            let (before, after) = (before.as_ref().filter(seen), after.as_ref().filter(seen));
            for (name, q) in before.iter().flat_map(|(_, usage)| usage) {
                let have = view.total.get(name).copied().unwrap_or(Quantity::ZERO);
                view.total.insert(name.clone(), have - *q);
            }
            if let Some((_, usage)) = after {
                add(&mut view.total, usage);
            }
        }
    }

    /// For sources without a cache to follow.
    fn read_all(&mut self, c: &Cluster, a: &Attributes<'_>) {
        let (group, plural) = (a.row.group(), a.row.plural());
        self.views.iter_mut().for_each(|v| v.total.clear());
        for object in c.list(group, plural, a.namespace) {
            let revision = object.resource_version().parse().unwrap_or(0);
            let key = object_key(a.namespace, object.name());
            self.keep(&key, |c| c.base == Some(revision));
            let usage = usage_of(group, plural, &object);
            for view in self.views.iter_mut().filter(|v| in_scope(&v.quota, plural, &object)) {
                add(&mut view.total, &usage);
            }
        }
    }
}
