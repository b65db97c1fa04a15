//! Stored values that cannot be read, among others that can.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use ironkeel_embedded::{Embedded, Options};
use ironkeel_registry::{
    ApiError, ListRequest, Reason, Registry, Selection, ServiceAddresses, SystemClock, WatchStart, Watcher,
};
use ironkeel_store::{Condition, SEALED, Store, WriteAnswer};

async fn start(store: &Arc<dyn Store>) -> Result<Arc<Registry>, ApiError> {
    let services = ServiceAddresses::new([10, 0, 0, 0].into(), 24, 30000..=30199);
    Registry::start(store.clone(), Arc::new(SystemClock), ironkeel_kinds::kinds(), services).await
}

async fn put(store: &Arc<dyn Store>, key: &'static str, value: impl Into<Vec<u8>>) -> u64 {
    let value: Vec<u8> = value.into();
    match store.put(key.into(), value.into(), Condition::Always, 0).await.unwrap() {
        WriteAnswer::Done { revision, .. } => revision,
        conflict => panic!("{conflict:?}"),
    }
}

fn config_map(name: &str) -> String {
    format!(r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"{name}","namespace":"n","uid":"{name}"}}}}"#)
}

async fn ends(mut watcher: Watcher) -> Reason {
    let mut events = Vec::new();
    let ended = async {
        loop {
            if let Err(error) = watcher.next(&mut events).await {
                return error.reason;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the watch goes on")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_cannot_be_read_is_an_error_where_it_would_be_missed_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Embedded::open(dir.path(), Options::default()).unwrap();
    let registry = start(&store).await.unwrap();
    let row = registry.row("", "v1", "configmaps").unwrap();
    put(&store, "/registry/configmaps/n/a", config_map("a")).await;
    put(&store, "/registry/configmaps/n/b", config_map("b")).await;
    let at = put(&store, "/registry/configmaps/other/c", config_map("c").replace("\"n\"", "\"other\"")).await;
    registry.wait_for_revision(at).await.unwrap();
    let list = async |namespace: &str, name: Option<&str>| {
        let mut selection = Selection::all(namespace);
        selection.name = name.map(str::to_owned);
        let request = ListRequest { selection, ..ListRequest::default() };
        registry.list(&row, &request).await.map(|answer| answer.entries.len()).map_err(|e| e.reason)
    };
    let watch = async |after: u64| registry.watch(&row, Selection::all("n"), WatchStart::After(after), after).await;
    assert_eq!(list("n", None).await, Ok(2));
    let watcher = watch(at).await.unwrap();

    let sealed = put(&store, "/registry/configmaps/n/b", SEALED).await;
    registry.wait_for_revision(sealed).await.unwrap();
    assert_eq!(ends(watcher).await, Reason::Expired, "whoever follows them has missed a change");
    assert_eq!(watch(sealed).await.unwrap_err().reason, Reason::InternalError);
    assert_eq!(registry.get(&row, "n", "b").unwrap_err().reason, Reason::InternalError);
    assert_eq!(list("n", None).await, Err(Reason::InternalError));
    assert_eq!(list("", None).await, Err(Reason::InternalError));
    assert_eq!(list("n", Some("b")).await, Err(Reason::InternalError));
    assert_eq!(list("n", Some("a")).await, Ok(1));
    assert_eq!(list("", Some("a")).await, Ok(1));
    assert_eq!(list("other", None).await, Ok(1));
    assert!(registry.get(&row, "n", "a").is_ok());

    // It goes: who asked before it was unreadable cannot be told of that.
    let WriteAnswer::Done { revision, .. } =
        store.delete("/registry/configmaps/n/b".into(), Condition::Always).await.unwrap()
    else {
        panic!("it is not deleted")
    };
    registry.wait_for_revision(revision).await.unwrap();
    assert_eq!(list("n", None).await, Ok(1));
    assert_eq!(watch(sealed).await.unwrap_err().reason, Reason::Expired);
    assert!(watch(revision).await.is_ok());
    registry.stop().await;
}

#[tokio::test]
async fn what_the_server_decides_by_must_be_readable() {
    for key in [
        "/registry/limitranges/default/x",
        "/registry/services/specs/default/x",
        "/registry/validatingwebhookconfigurations/x",
        "/registry/apiextensions.k8s.io/customresourcedefinitions/x",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Embedded::open(dir.path(), Options::default()).unwrap();
        put(&store, key, SEALED).await;
        let error = start(&store).await.unwrap_err();
        assert!(error.message.contains("x cannot be read from the store"), "{key}: {error}");
    }
}
