//! The aggregator's one task: it follows APIServices, CustomResourceDefinitions, Services and their
//! EndpointSlices, and keeps table, own APIServices and conditions right. Without remote APIServices
//! it sleeps until something changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use ironkeel_registry::{Registry, Selection, WatchStart, WatchedEvent, Watcher};

use super::{Aggregator, autoregister, availability};
use crate::hooks::{Hook, Hooks};

/// Time between two checks of an available APIService, in seconds (upstream's resync).
const RESYNC_SECONDS: u64 = 30;
/// Time before an unavailable APIService is checked again, in milliseconds.
const RETRY_MS: u64 = 1_000;
/// Time before objects that could not be written are tried again, in milliseconds.
const WRITE_RETRY_MS: u64 = 1_000;

/// A watch that begins again where it was cut off.
struct Followed {
    registry: Arc<Registry>,
    resource: (&'static str, &'static str),
    watcher: Option<Watcher>,
    events: Vec<WatchedEvent>,
}

impl Followed {
    fn new(registry: &Arc<Registry>, group: &'static str, plural: &'static str) -> Self {
        Followed { registry: registry.clone(), resource: (group, plural), watcher: None, events: Vec::new() }
    }

    /// Waits for changes; they stand in `events`, which is empty where the watch has begun anew.
    async fn changed(&mut self) {
        self.events.clear();
        if let Some(watcher) = &mut self.watcher {
            if watcher.next(&mut self.events).await.is_ok() {
                return;
            }
            self.watcher = None;
        }
        let Some(row) = self.registry.row(self.resource.0, "v1", self.resource.1) else {
            return std::future::pending().await;
        };
        match self.registry.watch(&row, Selection::all(""), WatchStart::Now, 0).await {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                tracing::info!(%error, "a watch of the aggregator did not begin");
                tokio::time::sleep(Duration::from_millis(WRITE_RETRY_MS)).await;
            }
        }
    }

    /// Whether one of the events is about an object that `of` picks; always after a new beginning.
    fn concern(&self, of: impl Fn(&ironkeel_registry::Entry) -> bool) -> bool {
        self.events.is_empty() || self.events.iter().any(|e| e.object().is_none_or(|(_, entry)| of(&entry)))
    }
}

/// When each remote APIService (by its fingerprint) is to be looked at again.
type Due = HashMap<String, Instant>;

/// Runs until it is dropped.
pub(crate) async fn run(registry: Arc<Registry>, aggregator: Arc<Aggregator>, hooks: Hooks) {
    let followed = |group, plural| Followed::new(&registry, group, plural);
    let mut services = followed("", "services");
    let mut slices = followed("discovery.k8s.io", "endpointslices");
    let mut api_services = followed("apiregistration.k8s.io", "apiservices");
    let mut definitions = followed("apiextensions.k8s.io", "customresourcedefinitions");
    let mut due = Due::new();
    let (mut starting, mut register) = (true, true);
    hooks.finished(&[Hook::ApiServices]);
    loop {
        if register {
            match autoregister::sync(&registry, starting).await {
                Ok(()) => {
                    (starting, register) = (false, false);
                    hooks.finished(&[Hook::LocalAvailability, Hook::Autoregistration, Hook::AutoregistrationDone]);
                }
                Err(error) => {
                    tracing::info!(%error, "APIServices were not written; trying again")
                }
            }
        }
        aggregator.reload(&registry);
        hooks.finished(&[Hook::Registration]);
        look(&registry, &aggregator, &mut due).await;
        hooks.finished(&[Hook::RemoteAvailability, Hook::Discovery, Hook::OpenApi, Hook::OpenApiV3]);
        if !starting {
            hooks.finished(&[Hook::FirstSync]);
        }
        let next = due.values().min().copied();
        let wake = async {
            match (register, next) {
                (true, _) => tokio::time::sleep(Duration::from_millis(WRITE_RETRY_MS)).await,
                (false, Some(at)) => tokio::time::sleep_until(at.into()).await,
                (false, None) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wake => {}
            () = api_services.changed() => register = true,
            () = definitions.changed() => register = true,
            () = services.changed() => {
                let of = |e: &ironkeel_registry::Entry, namespace: &str, name: &str| e.namespace() == namespace && e.name() == name;
                hurry(&aggregator, &mut due, |ns, name| services.concern(|e| of(e, ns, name)));
            }
            () = slices.changed() => {
                let of = |e: &ironkeel_registry::Entry, namespace: &str, name: &str| {
                    e.namespace() == namespace && e.label("kubernetes.io/service-name") == Some(name)
                };
                hurry(&aggregator, &mut due, |ns, name| slices.concern(|e| of(e, ns, name)));
            }
        }
    }
}

/// Has those looked at now whose Service is concerned.
fn hurry(aggregator: &Aggregator, due: &mut Due, concerned: impl Fn(&str, &str) -> bool) {
    for remote in aggregator.remotes() {
        if concerned(&remote.namespace, &remote.service) {
            due.insert(remote.fingerprint(), Instant::now());
        }
    }
}

/// Checks the remote APIServices whose time has come, and new ones.
async fn look(registry: &Arc<Registry>, aggregator: &Aggregator, due: &mut Due) {
    let remotes = aggregator.remotes();
    due.retain(|name, _| remotes.iter().any(|r| r.fingerprint() == *name));
    let now = Instant::now();
    let ripe = remotes.iter().filter(|r| due.get(&r.fingerprint()).is_none_or(|at| *at <= now));
    let checks = ripe
        .map(|remote| async move { (remote.fingerprint(), availability::check(registry, aggregator, remote).await) });
    let checked = join_all(checks).await;
    for (name, available) in checked {
        let wait = if available { Duration::from_secs(RESYNC_SECONDS) } else { Duration::from_millis(RETRY_MS) };
        due.insert(name, Instant::now() + wait);
    }
}
