//! One informer a type and selector in a process, however many components ask for it.
//!
//! Answers to client-go's SharedInformerFactory. Informers of a factory live until its shutdown token is cancelled.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use kube::api::{DynamicObject, PartialObjectMeta};
use kube::core::ApiResource;
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::cache::{Informer, WatchConfig};

type Key = (TypeId, String, WatchConfig);

/// Hands out shared informers. Cloning shares them.
#[derive(Clone)]
pub struct InformerFactory {
    client: Client,
    shutdown: CancellationToken,
    informers: Arc<Mutex<HashMap<Key, Box<dyn Any + Send + Sync>>>>,
}

impl InformerFactory {
    /// A factory whose informers read through `client` until `shutdown`.
    pub fn new(client: Client, shutdown: CancellationToken) -> Self {
        Self { client, shutdown, informers: Arc::default() }
    }

    /// The client that the informers read through.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The token that ends the informers.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// All objects of a type, in all namespaces.
    pub fn informer<K>(&self) -> Informer<K>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
    {
        self.informer_with(WatchConfig::default())
    }

    /// The objects of a type that `config` selects, in all namespaces.
    pub fn informer_with<K>(&self, config: WatchConfig) -> Informer<K>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let key = (TypeId::of::<K>(), String::new(), config.clone());
        self.shared(key, || Informer::start(Api::all(self.client.clone()), config, self.shutdown.clone()))
    }

    /// The metadata of all objects of a resource that is known by discovery only.
    pub fn metadata(&self, resource: &ApiResource) -> Informer<PartialObjectMeta<DynamicObject>> {
        let name = format!("{}/{}", resource.api_version, resource.plural);
        let key = (TypeId::of::<PartialObjectMeta<DynamicObject>>(), name, WatchConfig::default());
        self.shared(key, || {
            let api = Api::all_with(self.client.clone(), resource);
            Informer::start_metadata(api, WatchConfig::default(), self.shutdown.clone())
        })
    }

    fn shared<K: 'static + Send + Sync>(&self, key: Key, start: impl FnOnce() -> Informer<K>) -> Informer<K> {
        let mut informers = self.informers.lock();
        if let Some(known) = informers.get(&key).and_then(|known| known.downcast_ref::<Informer<K>>()) {
            return known.clone();
        }
        let informer = start();
        informers.insert(key, Box::new(informer.clone()));
        informer
    }
}
