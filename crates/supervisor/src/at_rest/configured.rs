//! The store as an EncryptionConfiguration file says (`--encryption-provider-config`), and the KMS
//! plugins that it names: they are looked at as long as this is kept.
//!
//! A file that has changed is taken over when it can be read and its plugins are well; until then
//! everything goes on as before.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ironkeel_encryption::{Configuration, Encrypted, Kms, Provider, Rule};
use ironkeel_store::Store;
use tokio::task::AbortHandle;

use crate::Error;

const FLAG: &str = "--encryption-provider-config";
/// How long the plugins of a changed file may take to be well.
const PLUGINS_SECONDS: u64 = 10;
/// Time between two looks at them, in milliseconds.
const PLUGINS_MILLIS: u64 = 100;
/// Time between two looks at the plugins that a start waits for.
const START_SECONDS: u64 = 3;
/// What stands in the store without being a resource's: never encrypted, whatever a wildcard says.
const NO_RESOURCES: &[&str] = &["/registry/masterleases/", "/registry/peerserverleases/", "/registry/ranges/"];

/// Plugins, each with the task that looks at it.
struct Plugins {
    all: Vec<Arc<Kms>>,
    tasks: Vec<AbortHandle>,
}

impl Plugins {
    fn follow(all: Vec<Arc<Kms>>) -> Plugins {
        let task = |kms: &Arc<Kms>| {
            let kms = kms.clone();
            tokio::spawn(async move { kms.follow().await }).abort_handle()
        };
        Plugins { tasks: all.iter().map(task).collect(), all }
    }
}

impl Drop for Plugins {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// See the module.
pub(crate) struct Configured {
    path: PathBuf,
    store: Arc<Encrypted>,
    plugins: ArcSwap<Plugins>,
}

fn read(path: &Path) -> Result<Configuration, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{FLAG} {}: {e}", path.display()))?;
    Configuration::read(&text).map_err(|e| format!("{FLAG} {}: {e}", path.display()))
}

fn rules(configuration: &Configuration) -> Vec<Rule> {
    let bare = Rule {
        prefixes: NO_RESOURCES.iter().map(|p| p.as_bytes().to_vec()).collect(),
        providers: vec![Arc::new(Provider::identity())],
    };
    let named = configuration.rules.iter().map(|rule| Rule {
        prefixes: ironkeel_apiserver::store_prefixes(&rule.resource),
        providers: rule.providers.clone(),
    });
    std::iter::once(bare).chain(named).collect()
}

/// What is wrong with plugins, by their place in the file.
async fn check(plugins: &[Arc<Kms>]) -> Result<(), String> {
    let mut wrong = Vec::new();
    for (i, kms) in plugins.iter().enumerate() {
        wrong.extend(kms.check().await.err().map(|e| format!("kms-provider-{i}: {e}")));
    }
    match wrong.len() {
        0 => Ok(()),
        1 => Err(wrong.remove(0)),
        _ => Err(format!("[{}]", wrong.join(", "))),
    }
}

impl Configured {
    /// Around a store. Waits until the plugins are well: without them nothing that they encrypted can
    /// be read, and reading everything is how a server begins.
    pub(crate) async fn start(store: Arc<dyn Store>, path: &Path) -> Result<Arc<Configured>, Error> {
        let configuration = read(path).map_err(Error::ApiServer)?;
        let store = Arc::new(Encrypted::new(store, rules(&configuration)));
        while let Err(error) = check(&configuration.plugins).await {
            eprintln!("kube-apiserver: waiting for the KMS plugins: {error}");
            tokio::time::sleep(Duration::from_secs(START_SECONDS)).await;
        }
        let plugins = ArcSwap::from_pointee(Plugins::follow(configuration.plugins));
        Ok(Arc::new(Configured { path: path.to_owned(), store, plugins }))
    }

    /// The store that encrypts.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// Whether the file names plugins.
    pub(crate) fn has_plugins(&self) -> bool {
        !self.plugins.load().all.is_empty()
    }

    /// Whether the plugins are well.
    pub(crate) async fn check(&self) -> Result<(), String> {
        check(&self.plugins.load_full().all).await
    }

    /// Reads the file anew.
    pub(crate) async fn reload(&self) -> Result<(), String> {
        let configuration = read(&self.path)?;
        let well = async {
            let mut last = String::new();
            let deadline = tokio::time::Instant::now() + Duration::from_secs(PLUGINS_SECONDS);
            while tokio::time::Instant::now() < deadline {
                match tokio::time::timeout_at(deadline, check(&configuration.plugins)).await {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(error)) => last = error,
                    Err(_) => break,
                }
                tokio::time::sleep(Duration::from_millis(PLUGINS_MILLIS)).await;
            }
            Err(format!("health check for new transformers failed: {last}"))
        };
        well.await?;
        self.store.replace(rules(&configuration));
        self.plugins.store(Arc::new(Plugins::follow(configuration.plugins)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ironkeel_embedded::{Embedded, Options};
    use ironkeel_store::Condition;

    use super::*;

    fn file(path: &Path, resources: &str, providers: &str) {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: {resources}\n  providers: {providers}\n"
        );
        std::fs::write(path, text).unwrap();
    }

    async fn put(store: &dyn Store, key: &'static str) {
        store.put(key.as_bytes().into(), b"text"[..].into(), Condition::Always, 0).await.unwrap();
    }

    #[tokio::test]
    async fn wildcards_leave_leases_of_replicas_alone_and_a_changed_file_counts_when_it_is_right() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("encryption.yaml");
        let inner: Arc<dyn Store> = Embedded::open(dir.path().join("store"), Options::default()).unwrap();
        let key = "c2VjcmV0IGlzIHNlY3VyZSwgb3IgaXMgaXQ/MTIzNDU=";
        file(&path, "['*.*']", &format!("[{{secretbox: {{keys: [{{name: k, secret: {key}}}]}}}}, {{identity: {{}}}}]"));
        let configured = Configured::start(inner.clone(), &path).await.unwrap();
        assert!(!configured.has_plugins());
        let store = configured.store();
        for (key, wanted) in [
            ("/registry/configmaps/default/a", "k8s:enc:secretbox:v1:k:"),
            ("/registry/example.com/things/a", "k8s:enc:secretbox:v1:k:"),
            ("/registry/masterleases/192.0.2.1", "text"),
        ] {
            put(store.as_ref(), key).await;
            let stored = inner.get(key.as_bytes(), 0).await.unwrap().0.unwrap().value;
            assert!(stored.starts_with(wanted.as_bytes()), "{key}");
            assert_eq!(store.get(key.as_bytes(), 0).await.unwrap().0.unwrap().value, "text");
        }

        file(&path, "[secrets]", "[{rot13: {}}]");
        assert!(configured.reload().await.unwrap_err().contains("cannot be read"));
        file(&path, "['*.*']", "[{kms: {apiVersion: v2, name: p, endpoint: 'unix:///no/such.sock', timeout: 10ms}}]");
        let error = tokio::time::timeout(Duration::from_millis(1), configured.reload()).await;
        assert!(error.is_err(), "a plugin that is not there is waited for");
        put(store.as_ref(), "/registry/configmaps/default/a").await;
        let stored = inner.get(b"/registry/configmaps/default/a", 0).await.unwrap().0.unwrap().value;
        assert!(stored.starts_with(b"k8s:enc:secretbox"), "what held before still holds");

        file(
            &path,
            "[configmaps]",
            &format!("[{{identity: {{}}}}, {{secretbox: {{keys: [{{name: k, secret: {key}}}]}}}}]"),
        );
        configured.reload().await.unwrap();
        assert!(store.stale(b"/registry/configmaps/default/a").await.unwrap());
        put(store.as_ref(), "/registry/configmaps/default/a").await;
        assert_eq!(inner.get(b"/registry/configmaps/default/a", 0).await.unwrap().0.unwrap().value, "text");
    }
}
