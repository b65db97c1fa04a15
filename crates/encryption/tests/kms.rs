//! KMS v2 against a plugin on a unix socket: seeds, rotation, caching, health.
#![allow(clippy::unwrap_used)]

mod plugin;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use ironkeel_embedded::{Embedded, Options};
use ironkeel_encryption::{Configuration, Encrypted, Provider, Rule};
use ironkeel_store::{Condition, Store};
use plugin::Plugin;

const KEY: &[u8] = b"/registry/secrets/default/s";
const OTHER: &[u8] = b"/registry/secrets/default/other";

fn rules(provider: Provider) -> Vec<Rule> {
    vec![Rule { prefixes: vec![b"/registry/secrets/".to_vec()], providers: vec![Arc::new(provider)] }]
}

async fn put(store: &dyn Store, key: &'static [u8], value: &'static str) -> Result<(), String> {
    let put = store.put(Bytes::from_static(key), value.into(), Condition::Always, 0).await;
    put.map(drop).map_err(|e| e.to_string())
}

async fn read(store: &dyn Store, key: &[u8]) -> Result<Bytes, String> {
    store.get(key, 0).await.map(|(kv, _)| kv.unwrap().value).map_err(|e| e.to_string())
}

#[tokio::test]
async fn values_are_kept_under_a_seed_that_the_plugin_encrypts_once() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = Plugin::start(dir.path());
    let inner: Arc<dyn Store> = Embedded::open(dir.path().join("store"), Options::default()).unwrap();
    let kms = plugin.kms();
    let store = Encrypted::new(inner.clone(), rules(Provider::kms(kms.clone())));
    let refused = put(&store, KEY, "early").await.unwrap_err();
    assert!(refused.contains("has not given a key yet"), "{refused}");

    kms.check().await.unwrap();
    put(&store, KEY, "uno").await.unwrap();
    put(&store, OTHER, "two").await.unwrap();
    assert_eq!(read(&store, KEY).await.unwrap(), "uno");
    assert_eq!(read(&store, OTHER).await.unwrap(), "two");
    let stored = read(inner.as_ref(), KEY).await.unwrap();
    assert!(stored.starts_with(b"k8s:enc:kms:v2:plugin:") && !stored.windows(3).any(|w| w == b"uno"));
    assert_eq!(plugin.behaviour.encrypted.load(Ordering::SeqCst), 1, "one seed for both");
    assert_eq!(plugin.behaviour.decrypted.load(Ordering::SeqCst), 0, "what was encrypted here is known");

    // Another server asks the plugin once for all that is under the seed.
    let again = Encrypted::new(inner.clone(), rules(Provider::kms(plugin.kms())));
    assert_eq!(read(&again, KEY).await.unwrap(), "uno");
    assert_eq!(read(&again, OTHER).await.unwrap(), "two");
    assert_eq!(plugin.behaviour.decrypted.load(Ordering::SeqCst), 1);

    // The key in the store is bound in.
    inner.put(Bytes::from_static(OTHER), stored, Condition::Always, 0).await.unwrap();
    assert!(read(&again, OTHER).await.is_err());
}

#[tokio::test]
async fn a_new_key_id_makes_a_new_seed_and_what_is_under_the_old_one_stale() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = Plugin::start(dir.path());
    let inner: Arc<dyn Store> = Embedded::open(dir.path().join("store"), Options::default()).unwrap();
    let kms = plugin.kms();
    let store = Encrypted::new(inner.clone(), rules(Provider::kms(kms.clone())));
    kms.check().await.unwrap();
    put(&store, KEY, "uno").await.unwrap();
    assert!(!store.stale(KEY).await.unwrap());

    plugin.behaviour.key.store(2, Ordering::SeqCst);
    // A server that begins now finds the new key; the answer of the first one is still young.
    let second = plugin.kms();
    second.check().await.unwrap();
    let store = Encrypted::new(inner.clone(), rules(Provider::kms(second)));
    assert_eq!(read(&store, KEY).await.unwrap(), "uno");
    assert!(store.stale(KEY).await.unwrap());
    put(&store, KEY, "uno").await.unwrap();
    assert!(!store.stale(KEY).await.unwrap());
    assert_eq!(plugin.behaviour.encrypted.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn health_tells_what_is_wrong_and_reading_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = Plugin::start(dir.path());
    plugin.behaviour.ill.store(true, Ordering::SeqCst);
    let kms = plugin.kms();
    let why = kms.check().await.unwrap_err();
    assert_eq!(why, "kmsv2 Provider plugin is not healthy, error: got unexpected healthz status: the safe is locked");
    // The seed is there all the same, as in upstream: only the check fails.
    let inner: Arc<dyn Store> = Embedded::open(dir.path().join("store"), Options::default()).unwrap();
    let store = Encrypted::new(inner, rules(Provider::kms(kms)));
    put(&store, KEY, "uno").await.unwrap();
    assert_eq!(read(&store, KEY).await.unwrap(), "uno");

    let nobody =
        ironkeel_encryption::Kms::new("gone", dir.path().join("no.sock"), std::time::Duration::from_millis(200));
    let why = nobody.check().await.unwrap_err();
    assert!(why.contains("failed to perform status section") && why.contains("DeadlineExceeded"), "{why}");
}

#[test]
fn a_plugin_is_configured_by_its_endpoint() {
    let read = |kms: &str| {
        Configuration::read(&format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  - kms: {kms}\n  - identity: {{}}\n"
        ))
    };
    let good = read("{apiVersion: v2, name: p, endpoint: 'unix:///run/p.sock', timeout: 5s}").unwrap();
    assert_eq!(format!("{:?}", good.rules[0].providers), "[k8s:enc:kms:v2:p:, identity]");
    assert_eq!(good.plugins.len(), 1);
    let check = |kms: &str, wanted: &str| {
        let error = read(kms).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    };
    check("{name: p, endpoint: 'unix:///p'}", "kms.apiVersion: Invalid value: \"v1\": KMSv1 is deprecated");
    check(
        "{apiVersion: v2, name: 'a:b', endpoint: 'unix:///p'}",
        "invalid KMS provider name a:b, must not contain ':'",
    );
    check(
        "{apiVersion: v2, name: p, endpoint: 'tcp://1'}",
        "unsupported scheme \"tcp\" for KMS provider, only unix is supported",
    );
    check("{apiVersion: v2, name: p}", "endpoint is a mandatory field for a kms");
    check("{apiVersion: v2, name: p, endpoint: 'unix:///p', timeout: 0s}", "timeout should be a positive value");
    check("{apiVersion: v2, name: p, endpoint: 'unix:///p', cachesize: 5}", "cachesize is not supported in v2");
}
