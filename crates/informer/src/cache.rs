//! The shared cache: objects by namespace and name, indexes over them, and subscribers that are told of every change.
//!
//! Answers to client-go's SharedIndexInformer. What differs: a subscriber is a channel, not a callback, and it gets
//! everything known before the changes, without a gap and in order. Filling the cache is the reflector's work.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PartialObjectMeta;
use kube::{Api, Resource};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::reflector::{self, Sink, Source};

/// Which objects an informer holds. The default is all that its `Api` reaches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct WatchConfig {
    /// A label selector in its string form.
    pub label_selector: Option<String>,
    /// A field selector in its string form, for example `spec.nodeName=a`.
    pub field_selector: Option<String>,
}

/// A change, as a subscriber sees it.
#[derive(Debug)]
pub enum Delta<K> {
    /// An object that the subscriber did not know.
    Added(Arc<K>),
    /// A new state of a known object.
    Updated {
        /// The state that was known before.
        old: Arc<K>,
        /// The state now.
        new: Arc<K>,
    },
    /// The object is gone; this is its last known state.
    Deleted(Arc<K>),
    /// Sent once: everything that the API server listed has been sent.
    Synced,
}

impl<K> Clone for Delta<K> {
    fn clone(&self) -> Self {
        match self {
            Delta::Added(object) => Delta::Added(object.clone()),
            Delta::Updated { old, new } => Delta::Updated { old: old.clone(), new: new.clone() },
            Delta::Deleted(object) => Delta::Deleted(object.clone()),
            Delta::Synced => Delta::Synced,
        }
    }
}

impl<K> Delta<K> {
    /// The newest state of the object that this delta is about; none for `Synced`.
    pub fn object(&self) -> Option<&Arc<K>> {
        match self {
            Delta::Added(object) | Delta::Deleted(object) | Delta::Updated { new: object, .. } => Some(object),
            Delta::Synced => None,
        }
    }
}

/// A shared, indexed, watched view of one resource. Cloning is cheap and shares the cache.
///
/// The watch ends when the shutdown token is cancelled or the last clone is dropped; subscribers' channels close then.
pub struct Informer<K> {
    pub(crate) shared: Arc<Shared<K>>,
    guard: Arc<DropGuard>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), guard: self.guard.clone() }
    }
}

impl<K> Informer<K>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Lists and watches what `api` reaches, narrowed by `config`, until `shutdown`.
    ///
    /// Returns at once; wait for [`Informer::synced`] before believing that an absent object does not exist.
    pub fn start(api: Api<K>, config: WatchConfig, shutdown: CancellationToken) -> Self {
        Self::from_source(Source::objects(api), config, shutdown)
    }

    fn from_source(source: Source<K>, config: WatchConfig, shutdown: CancellationToken) -> Self {
        let (synced, _) = watch::channel(false);
        let shared = Arc::new(Shared { state: RwLock::new(State::default()), synced });
        let stop = shutdown.child_token();
        tokio::spawn(reflector::run(source, config, shared.clone(), stop.clone()));
        Self { shared, guard: Arc::new(stop.drop_guard()) }
    }
}

impl<D> Informer<PartialObjectMeta<D>>
where
    D: Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
    D::DynamicType: Clone + Send + Sync,
{
    /// As [`Informer::start`], but only the objects' metadata is transferred and held.
    pub fn start_metadata(api: Api<D>, config: WatchConfig, shutdown: CancellationToken) -> Self {
        Self::from_source(Source::metadata(api), config, shutdown)
    }
}

impl<K: Resource> Informer<K> {
    /// Resolves when the first complete list is in the cache. Pends for ever if the informer stops before.
    pub async fn synced(&self) {
        let mut synced = self.shared.synced.subscribe();
        if synced.wait_for(|synced| *synced).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the first complete list is in the cache.
    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    /// The object of that name; `namespace` is empty for cluster-scoped resources.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.shared.state.read().objects.get(namespace)?.get(name).cloned()
    }

    /// Every object, in no particular order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.state.read().objects.values().flat_map(HashMap::values).cloned().collect()
    }

    /// Every object of a namespace, in no particular order.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let state = self.shared.state.read();
        state.objects.get(namespace).map(|objects| objects.values().cloned().collect()).unwrap_or_default()
    }

    /// How many objects are known.
    pub fn len(&self) -> usize {
        self.shared.state.read().objects.values().map(HashMap::len).sum()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds the index `name`, whose keys of an object are `keys(object)`. A second index of the same name is ignored.
    pub fn add_index(&self, name: &'static str, keys: fn(&K) -> Vec<String>) {
        let mut state = self.shared.state.write();
        if state.indexes.iter().any(|index| index.name == name) {
            return;
        }
        let mut index = Index { name, keys, buckets: HashMap::new() };
        for object in state.objects.values().flat_map(HashMap::values) {
            index.insert(object);
        }
        state.indexes.push(index);
    }

    /// The objects that index `name` files under `key`; empty when there is no such index.
    pub fn by_index(&self, name: &str, key: &str) -> Vec<Arc<K>> {
        let state = self.shared.state.read();
        let Some(index) = state.indexes.iter().find(|index| index.name == name) else { return Vec::new() };
        index.buckets.get(key).map(|bucket| bucket.values().cloned().collect()).unwrap_or_default()
    }

    /// Every change from now on, after an `Added` for everything known and one `Synced`.
    ///
    /// If the cache is not complete yet, `Synced` follows when it is.
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Delta<K>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.shared.state.write();
        for object in state.objects.values().flat_map(HashMap::values) {
            // The receiver is alive: it is returned below.
            let _ = sender.send(Delta::Added(object.clone()));
        }
        if self.is_synced() {
            let _ = sender.send(Delta::Synced);
        }
        if !state.closed {
            state.subscribers.push(sender);
        }
        receiver
    }
}

/// What the reflector fills and the informers read.
pub(crate) struct Shared<K> {
    state: RwLock<State<K>>,
    synced: watch::Sender<bool>,
}

struct State<K> {
    objects: HashMap<String, HashMap<String, Arc<K>>>,
    indexes: Vec<Index<K>>,
    subscribers: Vec<mpsc::UnboundedSender<Delta<K>>>,
    closed: bool,
}

impl<K> Default for State<K> {
    fn default() -> Self {
        Self { objects: HashMap::new(), indexes: Vec::new(), subscribers: Vec::new(), closed: false }
    }
}

struct Index<K> {
    name: &'static str,
    keys: fn(&K) -> Vec<String>,
    /// Key → objects, by the address of their allocation: removal is by identity.
    buckets: HashMap<String, HashMap<usize, Arc<K>>>,
}

impl<K> Index<K> {
    fn insert(&mut self, object: &Arc<K>) {
        for key in (self.keys)(object) {
            self.buckets.entry(key).or_default().insert(Arc::as_ptr(object) as usize, object.clone());
        }
    }

    fn remove(&mut self, object: &Arc<K>) {
        for key in (self.keys)(object) {
            if let Some(bucket) = self.buckets.get_mut(&key) {
                bucket.remove(&(Arc::as_ptr(object) as usize));
                if bucket.is_empty() {
                    self.buckets.remove(&key);
                }
            }
        }
    }
}

impl<K: Resource + Send + Sync + 'static> Sink<K> for Shared<K> {
    type List = Vec<K>;

    fn page(&self, list: &mut Vec<K>, page: Vec<K>) {
        list.extend(page);
    }

    fn apply(&self, object: K) {
        self.state.write().upsert(Arc::new(object));
    }

    fn delete(&self, object: K) {
        let mut state = self.state.write();
        let (namespace, name) = identity(object.meta());
        if let Some(known) = state.take(namespace, name) {
            let same = known.meta().resource_version == object.meta().resource_version;
            state.publish(Delta::Deleted(if same { known } else { Arc::new(object) }));
        }
    }

    fn listed(&self, listed: Vec<K>) {
        let mut state = self.state.write();
        let mut gone: HashMap<(String, String), ()> = HashMap::new();
        for (namespace, objects) in &state.objects {
            gone.extend(objects.keys().map(|name| ((namespace.clone(), name.clone()), ())));
        }
        for object in listed {
            let (namespace, name) = identity(object.meta());
            gone.remove(&(namespace.to_owned(), name.to_owned()));
            let replaced = state
                .objects
                .get(namespace)
                .and_then(|objects| objects.get(name))
                .is_some_and(|known| known.meta().uid != object.meta().uid);
            if replaced && let Some(known) = state.take(namespace, name) {
                state.publish(Delta::Deleted(known));
            }
            state.upsert(Arc::new(object));
        }
        for ((namespace, name), ()) in gone {
            if let Some(known) = state.take(&namespace, &name) {
                state.publish(Delta::Deleted(known));
            }
        }
        if !self.synced.send_replace(true) {
            state.publish(Delta::Synced);
        }
    }

    /// The subscribers' channels end.
    fn close(&self) {
        let mut state = self.state.write();
        state.closed = true;
        state.subscribers.clear();
    }
}

impl<K: Resource> State<K> {
    fn upsert(&mut self, object: Arc<K>) {
        let (namespace, name) = identity(object.meta());
        let objects = match self.objects.get_mut(namespace) {
            Some(objects) => objects,
            None => self.objects.entry(namespace.to_owned()).or_default(),
        };
        let old = match objects.get_mut(name) {
            Some(known) if known.meta().resource_version == object.meta().resource_version => return,
            Some(known) => Some(std::mem::replace(known, object.clone())),
            None => objects.insert(name.to_owned(), object.clone()),
        };
        for index in &mut self.indexes {
            if let Some(old) = &old {
                index.remove(old);
            }
            index.insert(&object);
        }
        self.publish(match old {
            Some(old) => Delta::Updated { old, new: object },
            None => Delta::Added(object),
        });
    }

    fn take(&mut self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let objects = self.objects.get_mut(namespace)?;
        let known = objects.remove(name)?;
        if objects.is_empty() {
            self.objects.remove(namespace);
        }
        for index in &mut self.indexes {
            index.remove(&known);
        }
        Some(known)
    }

    /// Sent under the write lock, so that every subscriber sees the changes in the order of the cache.
    fn publish(&mut self, delta: Delta<K>) {
        self.subscribers.retain(|subscriber| subscriber.send(delta.clone()).is_ok());
    }
}

fn identity(meta: &ObjectMeta) -> (&str, &str) {
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}
