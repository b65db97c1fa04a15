//! The registry: rows, caches, store, and what every request needs of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use ironkeel_kinds::Kind;
use ironkeel_object::{ObjectSource, Value};
use ironkeel_schema::Resource;
use ironkeel_store::Store;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admit::Admission;
use crate::claims;
use crate::clock::Clock;
use crate::entry::{Entry, Format, View, complete, decode};
use crate::error::ApiError;
use crate::event_lease::EventLease;
use crate::feed::Feed;
use crate::media::StorageMedia;
use crate::selector::Selection;
use crate::services::ServiceAddresses;
use crate::storage::{self, CustomRows, Row, Stored, Table, object_key};
use crate::watch::{WatchStart, Watcher};

/// How long a request waits for the cache to reach a revision that a client has seen, in milliseconds.
const REVISION_WAIT_MS: u64 = 3_000;
/// Time between two tries to begin a watch that must go on, in milliseconds.
const FOLLOW_RETRY_MS: u64 = 1_000;
/// Time between two tries to read objects that could not be read, in seconds.
const MEND_SECONDS: u64 = 5;

/// Everything stored, and the only way to write it.
#[derive(Debug)]
pub struct Registry {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Rows of built-in kinds stay for good.
    built_in: Table,
    /// All rows; replaced whole when a custom resource comes, changes or goes.
    table: ArcSwap<Table>,
    /// One change of the table at a time.
    changing: tokio::sync::Mutex<()>,
    next_id: AtomicUsize,
    /// Counts the table's changes.
    generation: AtomicU64,
    pub(crate) feed: Arc<Feed>,
    pub(crate) event_lease: EventLease,
    pub(crate) services: ServiceAddresses,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

/// Whether the server itself decides by these objects, so that it must not take those for absent that cannot be read:
/// nobody would ask a webhook, and addresses would be given out twice.
fn decides(group: &str, plural: &str) -> bool {
    match group {
        "" => matches!(plural, "limitranges" | "namespaces" | "resourcequotas" | "services"),
        "networking.k8s.io" => matches!(plural, "ipaddresses" | "servicecidrs"),
        "policy" => plural == "poddisruptionbudgets",
        "admissionregistration.k8s.io"
        | "apiextensions.k8s.io"
        | "apiregistration.k8s.io"
        | "flowcontrol.apiserver.k8s.io"
        | "node.k8s.io"
        | "rbac.authorization.k8s.io"
        | "scheduling.k8s.io" => true,
        _ => false,
    }
}

impl Registry {
    /// Fills the caches from the store and begins to follow it.
    pub async fn start(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        kinds: &[Kind],
        services: ServiceAddresses,
    ) -> Result<Arc<Registry>, ApiError> {
        // What is shared may be shared with upstream's API server.
        let media = if store.shared() { StorageMedia::Protobuf } else { StorageMedia::Json };
        let (rows, stored) = storage::rows(kinds, media);
        let feed = Arc::new(Feed::new(store.clone(), &stored));
        let (base, current) = feed.fill_from_history().await?;
        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn({
            let (feed, shutdown) = (feed.clone(), shutdown.clone());
            async move { feed.follow(base, shutdown).await }
        });
        feed.reached(current).await?;
        for home in stored.iter().filter(|home| decides(home.group, home.plural)) {
            home.cache.all_readable("")?;
        }
        let registry = Arc::new(Registry {
            store,
            clock,
            next_id: AtomicUsize::new(rows.len()),
            generation: AtomicU64::new(0),
            built_in: Table::new(rows.clone(), stored.clone()),
            table: ArcSwap::from_pointee(Table::new(rows, stored)),
            changing: tokio::sync::Mutex::default(),
            feed,
            event_lease: EventLease::default(),
            services,
            shutdown,
            tasks,
        });
        if let Some(home) = registry.row("", "v1", "services").and_then(|r| r.stored.clone()) {
            registry.services.repair(&home.cache.snapshot("", "", |_| true).entries);
        }
        registry.repair_addresses().await?;
        let following = claims::follow(Arc::downgrade(&registry));
        registry.tasks.spawn(registry.shutdown.clone().run_until_cancelled_owned(following));
        let feed = registry.feed.clone();
        let mending = async move {
            loop {
                tokio::time::sleep(std::time::Duration::from_secs(MEND_SECONDS)).await;
                feed.mend().await;
            }
        };
        registry.tasks.spawn(registry.shutdown.clone().run_until_cancelled_owned(mending));
        Ok(registry)
    }

    /// Stops following the store, and returns when nothing here does any more. Writes that wait for
    /// the caches fail. Watchers end when their streams are dropped.
    pub async fn stop(&self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub(crate) fn stopped(&self) -> bool {
        self.shutdown.is_cancelled()
    }

    /// Every served resource.
    pub fn rows(&self) -> Arc<[Arc<Row>]> {
        self.table.load().rows.clone()
    }

    /// Every stored resource.
    pub fn stored(&self) -> Arc<[Arc<Stored>]> {
        self.table.load().stored.clone()
    }

    /// The row of a path.
    pub fn row(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Row>> {
        match self.built_in.row(group, version, plural) {
            Some(row) => Some(row.clone()),
            None => self.table.load().row(group, version, plural).cloned(),
        }
    }

    /// Changes whenever what is served does.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The row with this id, while it is served.
    pub fn row_by_id(&self, id: usize) -> Option<Arc<Row>> {
        match self.built_in.rows.get(id) {
            Some(row) => Some(row.clone()),
            None => self.table.load().rows.iter().find(|r| r.id == id).cloned(),
        }
    }

    /// Serves a custom resource, in the place of whatever was served under its group and plural
    /// before; watches of that end.
    pub async fn install(&self, custom: &CustomRows) -> Result<(), ApiError> {
        let _one = self.changing.lock().await;
        let id = self.next_id.fetch_add(custom.kinds.len(), Ordering::Relaxed);
        let Some((rows, stored)) = custom.build(id) else { return Ok(()) };
        let (group, plural) = (stored.group, stored.plural);
        self.feed.add(&stored).await?;
        let before = self.custom_home(group, plural);
        let table = self.table.load().with(group, plural, &rows, Some(stored));
        self.table.store(Arc::new(table));
        self.generation.fetch_add(1, Ordering::Release);
        if let Some(old) = before {
            self.feed.remove(&old);
        }
        Ok(())
    }

    /// Serves a custom resource no longer; its watches end.
    pub async fn uninstall(&self, group: &str, plural: &str) {
        let _one = self.changing.lock().await;
        let Some(old) = self.custom_home(group, plural) else { return };
        let table = self.table.load().with(group, plural, &[], None);
        self.table.store(Arc::new(table));
        self.generation.fetch_add(1, Ordering::Release);
        self.feed.remove(&old);
    }

    fn custom_home(&self, group: &str, plural: &str) -> Option<Arc<Stored>> {
        let table = self.table.load();
        let mut homes = table.stored.iter().filter(|s| s.kind.custom.is_some());
        homes.find(|s| s.group == group && s.plural == plural).cloned()
    }

    /// Whether any version of a group is served.
    pub fn has_group(&self, group: &str) -> bool {
        self.table.load().has_group(group)
    }

    /// The store's revision, as far as the caches are.
    pub fn revision(&self) -> u64 {
        self.feed.revision()
    }

    /// The clock that stamps objects.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The store beneath; for health checks and metrics.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Waits until the caches have reached a revision that a client has seen; 504 when it does not
    /// come.
    pub async fn wait_for_revision(&self, revision: u64) -> Result<(), ApiError> {
        if self.feed.revision() >= revision {
            return Ok(());
        }
        let wait = std::time::Duration::from_millis(REVISION_WAIT_MS);
        match tokio::time::timeout(wait, self.feed.reached(revision)).await {
            Ok(done) => done,
            Err(_) => Err(ApiError::too_large_revision(revision, self.feed.revision())),
        }
    }

    /// Returns when the caches are not older than this call: at once, unless other servers write the
    /// same store. Reads without a `resourceVersion`, and writes, come after it.
    pub async fn fresh(&self) -> Result<(), ApiError> {
        self.feed.fresh().await
    }

    /// One object, from the cache.
    pub fn get(&self, row: &Row, namespace: &str, name: &str) -> Result<Arc<Entry>, ApiError> {
        let (home, key) = (row.home()?, object_key(namespace, name));
        home.cache.readable(&key)?;
        let found = home.cache.get(&key);
        // It may have become unreadable meanwhile.
        home.cache.readable(&key)?;
        found.ok_or_else(|| ApiError::not_found(row.group(), row.plural(), name))
    }

    /// The tree of an entry in the row's version.
    pub fn tree(&self, row: &Row, entry: &Entry) -> Result<Value, ApiError> {
        if !row.converts_entry(entry) {
            let mut tree = Arc::unwrap_or_clone(entry.tree()?);
            complete(&row.kind, &mut tree);
            return Ok(tree);
        }
        if row.converter.is_some() {
            let made = entry.known_view(View { row: row.id, format: Format::Json });
            let made = made.ok_or_else(|| ApiError::internal("an object was read before it was converted"))?;
            return decode(&made, None);
        }
        let mut tree = Arc::unwrap_or_clone(entry.tree()?);
        row.from_stored(&mut tree);
        complete(&row.kind, &mut tree);
        Ok(tree)
    }

    /// Starts a watch.
    pub async fn watch(
        &self,
        row: &Row,
        selection: Selection,
        start: WatchStart,
        at_least: u64,
    ) -> Result<Watcher, ApiError> {
        let home = row.home()?;
        self.wait_for_revision(at_least).await?;
        home.cache.selected_readable(&selection)?;
        Watcher::new(home.cache.clone(), selection, start, home.target_field(), self.feed.applied())
    }

    /// A watch of all objects from their present state on, for who follows them for good: where it cannot begin now,
    /// it begins later. `None` when the registry has stopped.
    pub async fn follow(&self, row: &Row) -> Option<Watcher> {
        loop {
            match self.watch(row, Selection::all(""), WatchStart::State, 0).await {
                Ok(watcher) => return Some(watcher),
                Err(_) if self.stopped() => return None,
                Err(error) => {
                    tracing::info!(resource = row.plural(), %error, "a watch did not begin; trying again");
                    tokio::time::sleep(std::time::Duration::from_millis(FOLLOW_RETRY_MS)).await;
                }
            }
        }
    }

    /// The key in the store.
    pub(crate) fn store_key(stored: &Stored, key: &str) -> Bytes {
        Bytes::from([stored.prefix.as_str(), key].concat())
    }

    fn row_of(&self, resource: &'static Resource) -> Option<&Arc<Row>> {
        self.built_in.row(resource.group, resource.version, resource.plural)
    }
}

impl Row {
    /// Where the objects stand; 405 for what is not stored.
    pub fn home(&self) -> Result<&Arc<Stored>, ApiError> {
        self.stored.as_ref().ok_or_else(|| ApiError::method_not_supported(self.group(), self.plural(), "get"))
    }
}

impl ObjectSource for Registry {
    fn get(&self, resource: &'static Resource, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let row = self.row_of(resource)?;
        let entry = row.stored.as_ref()?.cache.get(&object_key(namespace, name))?;
        if row.converts { self.tree(row, &entry).ok().map(Arc::new) } else { entry.kept_tree().ok() }
    }

    fn list(&self, resource: &'static Resource, namespace: &str) -> Vec<Arc<Value>> {
        let Some((row, home)) = self.row_of(resource).and_then(|r| Some((r, r.stored.as_ref()?))) else {
            return Vec::new();
        };
        let entries = home.cache.snapshot(namespace, "", |_| true).entries;
        let tree = |e: &Arc<Entry>| {
            if row.converts { self.tree(row, e).ok().map(Arc::new) } else { e.kept_tree().ok() }
        };
        entries.iter().filter_map(tree).collect()
    }

    fn version(&self, resource: &'static Resource) -> u64 {
        self.row_of(resource).and_then(|r| r.stored.as_ref()).map_or(0, |s| s.cache.version())
    }
}

/// The admission chain as requests carry it.
pub type Chain = Arc<dyn Admission>;
