//! What CustomResourceDefinitions ask for: their conditions, the rows that serve them, and the end of
//! their objects when they go. Driven by the watch cache; every API server does this on its own.
//!
//! What does not live here: rules of a definition (`kinds::definition`), rows (`kinds::custom`),
//! conversion (`conversion`).

mod finalize;
mod status;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ironkeel_kinds::{custom, definition};
use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{ApiError, Change, Converter, CustomRows, Reason, Registry, Row, WriteRequest};
use ironkeel_webhook::WebhookClient;
use tokio_util::sync::CancellationToken;

use crate::bootstrap;
use crate::conversion::Webhook;
use crate::tasks::Tasks;

/// What is served of one definition.
struct Installed {
    group: String,
    plural: String,
    spec: Value,
    names: Value,
    terminating: Arc<AtomicBool>,
}

/// The controller of one server.
pub(crate) struct Definitions {
    registry: Arc<Registry>,
    client: Arc<WebhookClient>,
    row: Arc<Row>,
    installed: HashMap<String, Installed>,
    /// Definitions whose objects are being deleted.
    finalizing: HashMap<String, String>,
    /// The tasks that delete them, and when they end.
    ends: (Tasks, CancellationToken),
}

/// A change of the present object, whatever it is by now.
pub(crate) struct Edit<F>(pub(crate) F);

impl<F: Fn(&mut Value) + Send + Sync> Change for Edit<F> {
    fn apply(&self, current: &Value) -> Result<Value, ApiError> {
        let mut out = current.clone();
        (self.0)(&mut out);
        Ok(out)
    }
}

impl Definitions {
    /// `None` where definitions are not served.
    pub(crate) fn new(
        registry: Arc<Registry>,
        client: Arc<WebhookClient>,
        ends: (Tasks, CancellationToken),
    ) -> Option<Self> {
        let row = registry.row("apiextensions.k8s.io", "v1", "customresourcedefinitions")?;
        Some(Definitions { registry, client, row, installed: HashMap::new(), finalizing: HashMap::new(), ends })
    }

    /// Serves what is established already. Before the server is.
    pub(crate) async fn install_all(&mut self) {
        for definition in self.all() {
            if definition::is_true(&definition, "Established") {
                self.sync(&definition).await;
            }
        }
    }

    /// Follows the definitions until it is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            let Some(mut watcher) = self.registry.follow(&self.row).await else { return };
            // What went while nobody watched is told by no event.
            for name in self.gone() {
                self.reconcile(&name).await;
            }
            let mut events = Vec::new();
            loop {
                events.clear();
                let ended = watcher.next(&mut events).await.is_err() || events.is_empty();
                let mut names: Vec<String> = Vec::new();
                for event in &events {
                    let Some((_, entry)) = event.object() else { continue };
                    if !names.iter().any(|n| n == entry.name()) {
                        names.push(entry.name().to_owned());
                    }
                }
                for name in names {
                    self.reconcile(&name).await;
                }
                if ended {
                    break;
                }
            }
        }
    }

    /// Definitions that are taken for there, and are not.
    fn gone(&self) -> Vec<String> {
        let known: BTreeSet<&String> = self.installed.keys().chain(self.finalizing.keys()).collect();
        let is_gone =
            |name: &&&String| matches!(self.registry.get(&self.row, "", name), Err(e) if e.reason == Reason::NotFound);
        known.iter().filter(is_gone).map(|name| (*name).clone()).collect()
    }

    fn all(&self) -> Vec<Arc<Value>> {
        let Ok(home) = self.row.home() else { return Vec::new() };
        home.cache.snapshot("", "", |_| true).entries.iter().filter_map(|e| e.kept_tree().ok()).collect()
    }

    async fn reconcile(&mut self, name: &str) {
        let entry = match self.registry.get(&self.row, "", name) {
            // One that cannot be read now is served as it was.
            Err(e) if e.reason != Reason::NotFound => return,
            found => found,
        };
        let freed = match entry.and_then(|e| e.kept_tree()) {
            Ok(definition) => self.sync(&definition).await,
            Err(_) => {
                self.finalizing.remove(name);
                match self.installed.remove(name) {
                    Some(gone) => {
                        self.registry.uninstall(&gone.group, &gone.plural).await;
                        true
                    }
                    None => true,
                }
            }
        };
        if !freed {
            return;
        }
        // Names may have become free for others of the group.
        let group = name.split_once('.').map_or("", |(_, group)| group).to_owned();
        for other in self.all() {
            if other.name() != name && other.str_at(&["spec", "group"]) == Some(&group) && !settled(&other) {
                self.sync(&other).await;
            }
        }
    }

    /// Brings one definition's status and rows up to date; answers whether its accepted names changed.
    async fn sync(&mut self, definition: &Value) -> bool {
        let name = definition.name();
        if definition.deletion_timestamp().is_some() {
            if definition::is_true(definition, "Established") {
                // What is left of its objects is served until they are gone, over a restart, too.
                self.install(definition).await;
            }
            if let Some(here) = self.installed.get(name) {
                here.terminating.store(true, Ordering::Relaxed);
            }
            let again = self.finalizing.get(name).is_some_and(|uid| uid == definition.uid());
            if definition.finalizers().contains(&definition::CLEANUP_FINALIZER) && !again {
                self.finalizing.insert(name.to_owned(), definition.uid().to_owned());
                let rows = self.rows_of(definition, &Arc::new(AtomicBool::new(true)));
                let served = definition::is_true(definition, "Established");
                let (registry, row) = (self.registry.clone(), self.row.clone());
                let (tasks, stop) = &self.ends;
                tasks.until(stop, finalize::run(registry, row, definition.clone(), rows, served));
            }
            return false;
        }
        let all = self.all();
        let others: Vec<&Value> = all
            .iter()
            .map(AsRef::as_ref)
            .filter(|o: &&Value| o.name() != name && o.at(&["spec", "group"]) == definition.at(&["spec", "group"]))
            .collect();
        let now = ironkeel_registry::rfc3339(self.registry.clock().now());
        let (mut wanted, establish) = status::wanted(definition, &others, &now);
        if establish || definition::is_true(definition, "Established") {
            let mut served = definition.clone();
            *served.slot(&["status"]) = wanted.clone();
            self.install(&served).await;
        }
        if establish {
            status::establish(&mut wanted, &now);
        }
        let before = definition.get("status").unwrap_or(&Value::Null);
        if *before == wanted {
            return false;
        }
        let renamed = before.get("acceptedNames") != wanted.get("acceptedNames");
        let version = definition.resource_version().to_owned();
        let mut new = definition.clone();
        *new.slot(&["status"]) = wanted;
        // Another writer's change brings an event of its own.
        let change = Edit(move |o: &mut Value| {
            *o = new.clone();
            o.meta_mut().insert("resourceVersion", version.as_str());
        });
        match self.registry.update(&self.status_request(definition), &change).await {
            Ok(_) => renamed,
            Err(e) if matches!(e.reason, Reason::Conflict | Reason::NotFound) => false,
            Err(error) => {
                tracing::error!(name, %error, "a definition's status cannot be written");
                false
            }
        }
    }

    fn status_request(&self, definition: &Value) -> WriteRequest {
        status_request(&self.row, definition)
    }

    fn rows_of(&self, definition: &Value, terminating: &Arc<AtomicBool>) -> CustomRows {
        let versions = definition.items_at(&["spec", "versions"]);
        let flag = |v: &Value, f: &str| v.get(f).and_then(Value::as_bool) == Some(true);
        let name = |v: &Value| v.str_at(&["name"]).unwrap_or_default().to_owned();
        let converter = (definition.str_at(&["spec", "conversion", "strategy"]) == Some("Webhook"))
            .then(|| Arc::new(Webhook::new(self.client.clone(), definition)) as Arc<dyn Converter>);
        CustomRows {
            kinds: custom::kinds_of(definition, terminating),
            storage_version: versions.iter().find(|v| flag(v, "storage")).map(name).unwrap_or_default(),
            served: versions.iter().filter(|v| flag(v, "served")).map(name).collect(),
            converter,
        }
    }

    async fn install(&mut self, definition: &Value) {
        let name = definition.name();
        let spec = definition.get("spec").cloned().unwrap_or_default();
        let names = definition.at(&["status", "acceptedNames"]).cloned().unwrap_or_default();
        if self.installed.get(name).is_some_and(|i| i.spec == spec && i.names == names) {
            return;
        }
        let terminating = Arc::new(AtomicBool::new(false));
        let rows = self.rows_of(definition, &terminating);
        if let Err(error) = self.registry.install(&rows).await {
            tracing::error!(name, %error, "a custom resource cannot be served");
            return;
        }
        let text = |v: &Value, path: &[&str]| v.str_at(path).unwrap_or_default().to_owned();
        let installed =
            Installed { group: text(&spec, &["group"]), plural: text(&names, &["plural"]), spec, names, terminating };
        self.installed.insert(name.to_owned(), installed);
    }
}

/// A write of a definition's status by the server itself.
fn status_request(row: &Arc<Row>, definition: &Value) -> WriteRequest {
    WriteRequest { subresource: "status".to_owned(), ..bootstrap::request(row, definition) }
}

/// Whether a definition has all the names that it wants.
fn settled(definition: &Value) -> bool {
    definition.at(&["spec", "names"]) == definition.at(&["status", "acceptedNames"])
        && definition::is_true(definition, "NamesAccepted")
}
