//! Values of upstream's API server are read here, to the byte; what is written here has the same form.
#![allow(clippy::unwrap_used)]

mod plugin;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ironkeel_embedded::{Embedded, Options};
use ironkeel_encryption::{Encrypted, Kms, Provider, Rule};
use ironkeel_store::{Condition, Store};
use plugin::Plugin;

const KEY: &[u8] = b"/registry/secrets/default/s";
/// A place in the encrypted part of all of them.
const CIPHERTEXT: usize = 60;

fn values() -> BTreeMap<&'static str, Bytes> {
    let lines = include_str!("upstream/values.txt").lines().filter(|l| !l.starts_with('#'));
    let pair = |line: &'static str| line.split_once(' ').map(|(k, v)| (k, STANDARD.decode(v).unwrap().into()));
    lines.map(|l| pair(l).unwrap()).collect()
}

fn provider(name: &str, kms: &Arc<Kms>) -> Provider {
    if name.starts_with("kms") {
        return Provider::kms(kms.clone());
    }
    let (kind, key) = name.split_once(":v1:").unwrap();
    let n: u8 = key[1..].parse().unwrap();
    let secret: Vec<u8> = (n..2 * n).collect();
    match kind {
        "aesgcm" => Provider::aes_gcm(key, &secret),
        "aescbc" => Provider::aes_cbc(key, &secret),
        _ => Provider::secretbox(key, &secret),
    }
    .unwrap()
}

#[tokio::test]
async fn every_envelope_of_upstream_opens_and_ours_has_its_length() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = Plugin::start(dir.path());
    let kms = plugin.kms();
    kms.check().await.unwrap();
    let mut values = values();
    let wanted = values.remove("value").unwrap();
    assert_eq!(values.len(), 9, "three of aesgcm and aescbc, secretbox, two of kms");
    let inner: Arc<dyn Store> = Embedded::open(dir.path().join("store"), Options::default()).unwrap();
    let key = || Bytes::from_static(KEY);
    for (name, stored) in values {
        inner.put(key(), stored.clone(), Condition::Always, 0).await.unwrap();
        let rule = Rule { prefixes: vec![b"/".to_vec()], providers: vec![Arc::new(provider(name, &kms))] };
        let store = Encrypted::new(inner.clone(), vec![rule]);
        let found = store.get(KEY, 0).await.unwrap_or_else(|e| panic!("{name}: {e}")).0.unwrap().value;
        assert_eq!(found, wanted, "{name}");
        // A plain key is stale beside a seed.
        assert_eq!(store.stale(KEY).await.unwrap(), name == "kms:v2:plain", "{name}");

        store.put(key(), wanted.clone(), Condition::Always, 0).await.unwrap();
        let ours = inner.get(KEY, 0).await.unwrap().0.unwrap().value;
        if name != "kms:v2:plain" {
            assert_eq!(ours.len(), stored.len(), "{name}");
        }
        assert_eq!(store.get(KEY, 0).await.unwrap().0.unwrap().value, wanted, "{name}");
        // One bit, and it is refused: CBC alone does not notice every change.
        let mut damaged = stored.to_vec();
        damaged[CIPHERTEXT] ^= 1;
        inner.put(key(), damaged.into(), Condition::Always, 0).await.unwrap();
        let read = store.get(KEY, 0).await.map(|(kv, _)| kv.unwrap().value);
        assert!(read.is_err() || name.starts_with("aescbc") && read.unwrap() != wanted, "{name}");
    }
}
