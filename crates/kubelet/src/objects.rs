//! ConfigMaps and Secrets that pods refer to: each read once, then watched by name (the only watch that a node's
//! identity is allowed), forgotten when no pod refers to it. A change wakes the pods that use the object.

use std::{collections::HashMap, sync::Arc};

use ironkeel_informer::{Delta, Informer, WatchConfig};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{Error, names};

/// A ConfigMap or a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    ConfigMap,
    Secret,
}

/// One object that a pod refers to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Reference {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

enum Watched {
    ConfigMap(Informer<ConfigMap>),
    Secret(Informer<Secret>),
}

struct Entry {
    watched: Watched,
    users: Vec<String>,
    stop: CancellationToken,
}

/// The objects in use on this node.
pub(crate) struct Objects {
    client: Client,
    shutdown: CancellationToken,
    entries: Mutex<HashMap<Reference, Entry>>,
    changed: mpsc::UnboundedSender<Vec<String>>,
}

impl Objects {
    /// Nothing watched yet; uids of pods to wake go to `changed`.
    pub(crate) fn new(
        client: Client,
        shutdown: CancellationToken,
        changed: mpsc::UnboundedSender<Vec<String>>,
    ) -> Arc<Self> {
        Arc::new(Self { client, shutdown, entries: Mutex::default(), changed })
    }

    /// Watches what the pod refers to.
    pub(crate) fn register(self: &Arc<Self>, pod: &Pod) {
        let uid = names::uid(pod).to_owned();
        for reference in references(pod) {
            let mut entries = self.entries.lock();
            let entry = entries.entry(reference.clone()).or_insert_with(|| self.watch(&reference));
            if !entry.users.contains(&uid) {
                entry.users.push(uid.clone());
            }
        }
    }

    /// Forgets the pod, and what only it used.
    pub(crate) fn unregister(&self, uid: &str) {
        self.entries.lock().retain(|_, entry| {
            entry.users.retain(|user| user != uid);
            if entry.users.is_empty() {
                entry.stop.cancel();
            }
            !entry.users.is_empty()
        });
    }

    fn watch(self: &Arc<Self>, reference: &Reference) -> Entry {
        let stop = self.shutdown.child_token();
        let config =
            WatchConfig { field_selector: Some(format!("metadata.name={}", reference.name)), ..WatchConfig::default() };
        let watched = match reference.kind {
            Kind::ConfigMap => {
                let api = Api::namespaced(self.client.clone(), &reference.namespace);
                let informer = Informer::<ConfigMap>::start(api, config, stop.clone());
                self.forward(reference.clone(), informer.subscribe(), stop.clone());
                Watched::ConfigMap(informer)
            }
            Kind::Secret => {
                let api = Api::namespaced(self.client.clone(), &reference.namespace);
                let informer = Informer::<Secret>::start(api, config, stop.clone());
                self.forward(reference.clone(), informer.subscribe(), stop.clone());
                Watched::Secret(informer)
            }
        };
        Entry { watched, users: Vec::new(), stop }
    }

    fn forward<K: Send + Sync + 'static>(
        self: &Arc<Self>,
        reference: Reference,
        mut deltas: mpsc::UnboundedReceiver<Delta<K>>,
        stop: CancellationToken,
    ) {
        let objects = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(Some(delta)) = stop.run_until_cancelled(deltas.recv()).await {
                if matches!(delta, Delta::Synced) {
                    continue;
                }
                let Some(objects) = objects.upgrade() else { return };
                let users = objects.entries.lock().get(&reference).map(|entry| entry.users.clone());
                // The receiver lives as long as the kubelet.
                let _ = objects.changed.send(users.unwrap_or_default());
            }
        });
    }

    /// A ConfigMap; `None` when it does not exist.
    pub(crate) async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, Error> {
        let reference = Reference { kind: Kind::ConfigMap, namespace: namespace.into(), name: name.into() };
        let cached = match self.entries.lock().get(&reference).map(|entry| &entry.watched) {
            Some(Watched::ConfigMap(informer)) if informer.is_synced() => informer.get(namespace, name),
            _ => None,
        };
        match cached {
            Some(object) => Ok(Some(object)),
            None => Ok(Api::namespaced(self.client.clone(), namespace).get_opt(name).await?.map(Arc::new)),
        }
    }

    /// A Secret; `None` when it does not exist.
    pub(crate) async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, Error> {
        let reference = Reference { kind: Kind::Secret, namespace: namespace.into(), name: name.into() };
        let cached = match self.entries.lock().get(&reference).map(|entry| &entry.watched) {
            Some(Watched::Secret(informer)) if informer.is_synced() => informer.get(namespace, name),
            _ => None,
        };
        match cached {
            Some(object) => Ok(Some(object)),
            None => Ok(Api::namespaced(self.client.clone(), namespace).get_opt(name).await?.map(Arc::new)),
        }
    }
}

/// The ConfigMaps and Secrets that a pod names, once each.
pub(crate) fn references(pod: &Pod) -> Vec<Reference> {
    let mut found = Vec::new();
    let Some(spec) = &pod.spec else { return found };
    let namespace = names::namespace(pod);
    let mut add = |kind, name: &str| {
        let reference = Reference { kind, namespace: namespace.into(), name: name.into() };
        if !name.is_empty() && !found.contains(&reference) {
            found.push(reference);
        }
    };
    for secret in spec.image_pull_secrets.iter().flatten() {
        add(Kind::Secret, &secret.name);
    }
    for volume in spec.volumes.iter().flatten() {
        if let Some(source) = &volume.config_map {
            add(Kind::ConfigMap, &source.name);
        }
        if let Some(name) = volume.secret.as_ref().and_then(|source| source.secret_name.as_deref()) {
            add(Kind::Secret, name);
        }
        for source in volume.projected.iter().filter_map(|projected| projected.sources.as_ref()).flatten() {
            if let Some(source) = &source.config_map {
                add(Kind::ConfigMap, &source.name);
            }
            if let Some(source) = &source.secret {
                add(Kind::Secret, &source.name);
            }
        }
    }
    let inits = spec.init_containers.iter().flatten();
    for container in inits.chain(&spec.containers) {
        for from in container.env_from.iter().flatten() {
            if let Some(source) = &from.config_map_ref {
                add(Kind::ConfigMap, &source.name);
            }
            if let Some(source) = &from.secret_ref {
                add(Kind::Secret, &source.name);
            }
        }
        for source in container.env.iter().flatten().filter_map(|env| env.value_from.as_ref()) {
            if let Some(source) = &source.config_map_key_ref {
                add(Kind::ConfigMap, &source.name);
            }
            if let Some(source) = &source.secret_key_ref {
                add(Kind::Secret, &source.name);
            }
        }
    }
    found
}
