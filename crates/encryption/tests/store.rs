//! Values are unreadable beneath and whole above; keys rotate; values cannot change places.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use ironkeel_embedded::{Embedded, Options};
use ironkeel_encryption::{Configuration, Encrypted, EncryptionError, Provider, Rule};
use ironkeel_store::{Condition, Range, Store, WatchItem, WatchRange, prefix_end};

const KEY: &[u8] = b"/registry/secrets/default/s";
const VALUE: &[u8] = b"{\"kind\":\"Secret\"}";

fn rule(providers: Vec<Provider>) -> Vec<Rule> {
    vec![Rule { prefixes: vec![b"/registry/secrets/".to_vec()], providers }]
}

fn key(name: &str, byte: u8) -> Provider {
    Provider::aes_gcm(name, &[byte; 32]).unwrap()
}

async fn put(store: &dyn Store, key: &'static [u8], value: Bytes) {
    store.put(Bytes::from_static(key), value, Condition::Always, 0).await.unwrap();
}

#[tokio::test]
async fn the_conformance_of_stores_holds_with_encryption() {
    let dir = tempfile::tempdir().unwrap();
    let inner: Arc<dyn Store> = Embedded::open(dir.path(), Options::default()).unwrap();
    let all = vec![Rule { prefixes: vec![b"/".to_vec(), b"".to_vec()], providers: vec![key("k", 1)] }];
    let store = Encrypted::new(inner.clone(), all);
    put(&store, b"/a", VALUE.to_vec().into()).await;
    let watch = WatchRange { start: Bytes::from_static(b"/"), end: prefix_end(b"/"), ..WatchRange::default() };
    let (_, mut events) = store.watch(watch).await.unwrap();
    put(&store, b"/b", VALUE.to_vec().into()).await;
    let Some(Ok(WatchItem::Events(found))) = events.next().await else { panic!("no events") };
    assert_eq!(&found[0].kv.value[..], VALUE);
    let range = Range { start: Bytes::from_static(b"/"), end: prefix_end(b"/"), ..Range::default() };
    assert!(store.range(range.clone()).await.unwrap().kvs.iter().all(|kv| kv.value == VALUE));
    assert!(inner.range(range).await.unwrap().kvs.iter().all(|kv| kv.value.starts_with(b"k8s:enc:aesgcm:v1:k:")));
}

#[tokio::test]
async fn only_what_a_rule_names_is_encrypted_and_keys_rotate() {
    let dir = tempfile::tempdir().unwrap();
    let inner: Arc<dyn Store> = Embedded::open(dir.path(), Options::default()).unwrap();
    put(inner.as_ref(), KEY, VALUE.to_vec().into()).await;
    let first = Encrypted::new(inner.clone(), rule(vec![key("one", 1), Provider::Identity]));
    assert_eq!(&first.get(KEY, 0).await.unwrap().0.unwrap().value[..], VALUE, "what was plain stays readable");
    put(&first, KEY, VALUE.to_vec().into()).await;
    put(&first, b"/registry/pods/default/p", VALUE.to_vec().into()).await;
    let beneath = inner.get(KEY, 0).await.unwrap().0.unwrap().value;
    assert!(beneath.starts_with(b"k8s:enc:aesgcm:v1:one:"));
    assert!(!beneath.windows(6).any(|w| w == b"Secret"));
    assert_eq!(&inner.get(b"/registry/pods/default/p", 0).await.unwrap().0.unwrap().value[..], VALUE);

    let rotated = Encrypted::new(inner.clone(), rule(vec![key("two", 2), key("one", 1)]));
    assert_eq!(&rotated.get(KEY, 0).await.unwrap().0.unwrap().value[..], VALUE);
    put(&rotated, KEY, VALUE.to_vec().into()).await;
    assert!(inner.get(KEY, 0).await.unwrap().0.unwrap().value.starts_with(b"k8s:enc:aesgcm:v1:two:"));
    assert!(first.get(KEY, 0).await.unwrap_err().to_string().contains("a key that is not configured"));
    // A value that was carried to another key is refused.
    put(inner.as_ref(), b"/registry/secrets/default/other", inner.get(KEY, 0).await.unwrap().0.unwrap().value).await;
    assert!(rotated.get(b"/registry/secrets/default/other", 0).await.is_err());
    // An encrypted value where no rule is: not handed out as if it were an object.
    assert!(Encrypted::new(inner.clone(), Vec::new()).get(KEY, 0).await.is_err());
}

#[test]
fn a_configuration_says_what_is_wrong_and_never_a_key() {
    let file = |providers: &str| {
        Configuration::read(&format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n{providers}"
        ))
    };
    let secret = "c2VjcmV0IGlzIHNlY3VyZSwgb3IgaXMgaXQ/MTIzNDU=";
    let good = file(&format!("  - aesgcm: {{keys: [{{name: k, secret: {secret}}}]}}\n  - identity: {{}}\n")).unwrap();
    assert_eq!(format!("{:?}", good.rules[0].providers), "[k8s:enc:aesgcm:v1:k:, identity]");
    let check = |providers: &str, wanted: &str| {
        let error = file(providers).unwrap_err().to_string();
        assert!(error.contains(wanted) && !error.contains(secret), "{error}");
    };
    check("  - secretbox: {keys: []}\n", "resources[0].providers[0]: the secretbox provider is not supported");
    check("  - aesgcm: {keys: [{name: k, secret: YQ==}]}\n", "keys[0].secret: must decode to 16 or 32 bytes");
    check(&format!("  - aesgcm: {{keys: [{{name: k, secret: [{secret}]}}]}}\n"), "cannot be read");
    check("  - {}\n", "exactly one provider must be named");
    assert!(matches!(Configuration::read("kind: x"), Err(EncryptionError::Malformed(_))));
}
