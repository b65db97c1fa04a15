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
    vec![Rule {
        prefixes: vec![b"/registry/secrets/".to_vec()],
        providers: providers.into_iter().map(Arc::new).collect(),
    }]
}

fn key(name: &str, byte: u8) -> Provider {
    Provider::aes_gcm(name, &[byte; 32]).unwrap()
}

async fn put(store: &dyn Store, key: &'static [u8], value: Bytes) {
    store.put(Bytes::from_static(key), value, Condition::Always, 0).await.unwrap();
}

#[tokio::test]
async fn a_watch_goes_on_though_what_stood_there_before_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let inner: Arc<dyn Store> = Embedded::open(dir.path(), Options::default()).unwrap();
    let lost = Encrypted::new(inner.clone(), rule(vec![key("lost", 1)]));
    let store = Encrypted::new(inner.clone(), rule(vec![key("new", 2)]));
    const OTHER: &[u8] = b"/registry/secrets/default/t";
    put(&lost, KEY, VALUE.to_vec().into()).await;
    put(&lost, OTHER, VALUE.to_vec().into()).await;
    let range =
        WatchRange { start: Bytes::from_static(b"/"), end: prefix_end(b"/"), previous: true, ..WatchRange::default() };
    let (_, mut watch) = store.watch(range).await.unwrap();
    put(&store, KEY, Bytes::from_static(b"repaired")).await;
    store.delete(Bytes::from_static(OTHER), Condition::Always).await.unwrap();
    put(&store, KEY, Bytes::from_static(b"again")).await;
    let mut events = Vec::new();
    while events.len() < 3 {
        let item = tokio::time::timeout(std::time::Duration::from_secs(10), watch.next()).await.expect("an event");
        if let WatchItem::Events(more) = item.unwrap().expect("the watch ends") {
            events.extend(more);
        }
    }
    let told: Vec<_> =
        events.iter().map(|e| (&e.kv.value[..], e.deleted, e.previous.as_ref().map(|p| &p.value[..]))).collect();
    let repaired: &[u8] = b"repaired";
    assert_eq!(told, [(repaired, false, None), (b"", true, None), (b"again", false, Some(repaired))]);
    // A value that cannot be read now is told as it stands beneath, and hides nothing else.
    put(&lost, KEY, VALUE.to_vec().into()).await;
    let item = tokio::time::timeout(std::time::Duration::from_secs(10), watch.next()).await.expect("an event");
    let WatchItem::Events(sealed) = item.unwrap().unwrap() else { panic!("no event") };
    assert!(ironkeel_encryption::is_sealed(&sealed[0].kv.value));
    put(&store, OTHER, VALUE.to_vec().into()).await;
    let range = Range { start: Bytes::from_static(b"/"), end: prefix_end(b"/"), ..Range::default() };
    let all = store.range(range).await.unwrap().kvs;
    let told: Vec<_> = all.iter().map(|kv| (&kv.key[..], ironkeel_encryption::is_sealed(&kv.value))).collect();
    assert_eq!(told, [(KEY, true), (OTHER, false)]);
    assert!(store.get(KEY, 0).await.unwrap_err().to_string().contains("cannot be read"));
}

#[tokio::test]
async fn only_what_a_rule_names_is_encrypted_and_keys_rotate() {
    let dir = tempfile::tempdir().unwrap();
    let inner: Arc<dyn Store> = Embedded::open(dir.path(), Options::default()).unwrap();
    put(inner.as_ref(), KEY, VALUE.to_vec().into()).await;
    let first = Encrypted::new(inner.clone(), rule(vec![key("one", 1), Provider::identity()]));
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
    assert!(first.get(KEY, 0).await.unwrap_err().to_string().contains("cannot be read"));
    // One that is plain where nothing says that it may be is refused as well, among others too.
    const PLAIN: &[u8] = b"/registry/secrets/default/plain";
    put(inner.as_ref(), PLAIN, VALUE.to_vec().into()).await;
    assert!(rotated.get(PLAIN, 0).await.is_err());
    let range = Range { start: Bytes::from_static(PLAIN), end: prefix_end(PLAIN), ..Range::default() };
    let among = rotated.range(range).await.unwrap().kvs;
    assert_eq!(&among[0].value[..], ironkeel_store::SEALED);
    // A value that was carried to another key is refused.
    put(inner.as_ref(), b"/registry/secrets/default/other", inner.get(KEY, 0).await.unwrap().0.unwrap().value).await;
    assert!(rotated.get(b"/registry/secrets/default/other", 0).await.is_err());
    // An encrypted value where no rule is: not handed out as if it were an object.
    assert!(Encrypted::new(inner.clone(), Vec::new()).get(KEY, 0).await.is_err());
}

#[tokio::test]
async fn rules_are_replaced_while_the_store_is_used_and_what_they_would_write_otherwise_is_stale() {
    let dir = tempfile::tempdir().unwrap();
    let inner: Arc<dyn Store> = Embedded::open(dir.path(), Options::default()).unwrap();
    let store = Encrypted::new(inner.clone(), rule(vec![Provider::identity()]));
    put(&store, KEY, VALUE.to_vec().into()).await;
    assert!(!store.stale(KEY).await.unwrap());
    let secretbox = || Provider::secretbox("box", &[3; 32]).unwrap();
    store.replace(rule(vec![secretbox(), Provider::identity()]));
    assert!(store.stale(KEY).await.unwrap());
    assert_eq!(&store.get(KEY, 0).await.unwrap().0.unwrap().value[..], VALUE);
    put(&store, KEY, VALUE.to_vec().into()).await;
    assert!(!store.stale(KEY).await.unwrap());
    assert!(inner.get(KEY, 0).await.unwrap().0.unwrap().value.starts_with(b"k8s:enc:secretbox:v1:box:"));
    // Two keys of one name: the one that fits is found.
    let wrong = Provider::secretbox("box", &[4; 32]).unwrap();
    store.replace(rule(vec![wrong, secretbox()]));
    assert_eq!(&store.get(KEY, 0).await.unwrap().0.unwrap().value[..], VALUE);
    assert!(store.stale(KEY).await.unwrap());
    assert!(!store.stale(b"/registry/pods/default/p").await.unwrap(), "no rule, never stale");
}

#[test]
fn a_configuration_says_what_is_wrong_and_never_a_key() {
    let whole = |resources: &str| {
        Configuration::read(&format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n{resources}"
        ))
    };
    let file = |providers: &str| whole(&format!("- resources: [secrets]\n  providers:\n{providers}"));
    let secret = "c2VjcmV0IGlzIHNlY3VyZSwgb3IgaXMgaXQ/MTIzNDU=";
    let good = file(&format!(
        "  - aescbc: {{keys: [{{name: k, secret: {secret}}}]}}\n  - secretbox: {{keys: [{{name: s, secret: {secret}}}]}}\n  - aesgcm: {{keys: [{{name: k, secret: {secret}}}]}}\n  - identity: {{}}\n"
    ));
    let wanted = "[k8s:enc:aescbc:v1:k:, k8s:enc:secretbox:v1:s:, k8s:enc:aesgcm:v1:k:, identity]";
    assert_eq!(format!("{:?}", good.unwrap().rules[0].providers), wanted);
    let check = |found: Result<Configuration, EncryptionError>, wanted: &str| {
        let error = found.unwrap_err().to_string();
        assert!(error.contains(wanted) && !error.contains(secret), "{error}");
    };
    check(
        file("  - secretbox: {keys: []}\n"),
        "providers[0].secretbox.keys: Required value: at least one keys is required",
    );
    check(
        file("  - aesgcm: {keys: [{name: k, secret: YQ==}]}\n"),
        "keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 1, expected one of [16 24 32]",
    );
    check(file("  - aescbc: {keys: [{name: k, secret: '?'}]}\n"), "secrets must be base64 encoded");
    check(file(&format!("  - aesgcm: {{keys: [{{name: k, secret: [{secret}]}}]}}\n")), "cannot be read");
    check(file("  - {}\n"), "provider does not contain any of the expected providers");
    check(file("  - {identity: {}, aesgcm: {keys: []}}\n"), "more than one provider specified in a single element");
    let resources = |list: &str| whole(&format!("- resources: {list}\n  providers: [{{identity: {{}}}}]\n"));
    check(resources("[]"), "resources[0].resources: Required value: at least one resources[0].resources is required");
    check(resources("[Secrets]"), "resource name should not contain capital letters");
    check(resources("['*']"), "use '*.' to encrypt all the resources from core API group");
    check(resources("[secrets, '*.']"), "using overlapping resources");
    check(resources("[secrets, secrets]"), "the same resource cannot be specified multiple times");
    check(resources("['*.extensions']"), "'extensions' group has been removed");
    check(resources("['*.events.k8s.io']"), "Use 'events' instead");
    check(resources("['pods.*']"), "encrypting the same resource across groups is not supported");
    check(resources("[apiserveripinfo]"), "resources which do not have REST API/s cannot be encrypted");
    let two = |first: &str, second: &str| {
        let entry = |r: &str| format!("- resources: ['{r}']\n  providers: [{{identity: {{}}}}]\n");
        whole(&format!("{}{}", entry(first), entry(second)))
    };
    check(two("*.", "secrets"), "resource \"secrets\" is masked by earlier rule \"*.\"");
    check(two("*.*", "*.apps"), "resource \"*.apps\" is masked by earlier rule \"*.*\"");
    assert_eq!(two("secrets", "*.").unwrap().rules.len(), 2);
    assert_eq!(two("secrets", "secrets").unwrap().rules[0].providers.len(), 2, "the later ones come behind");
    check(whole("  []\n"), "resources: Required value: at least one resources is required");
    assert!(matches!(Configuration::read("kind: x"), Err(EncryptionError::Malformed(_))));
}
