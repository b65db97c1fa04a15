//! The cache against a small API server over a tower service: listing in pages, watching, breaking, listing again.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use ironkeel_client::from_service;
use ironkeel_informer::{Delta, Informer, MetadataChange, WatchConfig, follow_metadata};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// ConfigMaps of one namespace, and whoever watches them.
#[derive(Default)]
struct Server {
    state: Mutex<State>,
    lists: AtomicUsize,
}

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<String, Value>,
    watchers: Vec<mpsc::UnboundedSender<Value>>,
}

impl Server {
    fn put(&self, name: &str, value: &str) {
        let mut state = self.state.lock();
        state.revision += 1;
        let meta = json!({"name": name, "namespace": "n", "uid": name, "resourceVersion": state.revision.to_string(),
                          "managedFields": [{"manager": "m"}]});
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"v": value}});
        let known = state.objects.insert(name.to_owned(), object.clone()).is_some();
        state.tell(if known { "MODIFIED" } else { "ADDED" }, object);
    }

    fn remove(&self, name: &str) {
        let mut state = self.state.lock();
        state.revision += 1;
        let object = state.objects.remove(name).unwrap();
        state.tell("DELETED", object);
    }

    /// Ends every watch with 410, as after a compaction; changes until the next list are not told.
    fn expire(&self) {
        let mut state = self.state.lock();
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired"});
        state.tell("ERROR", status);
        state.watchers.clear();
    }

    fn answer(&self, uri: &http::Uri) -> http::Response<UnsyncBoxBody<bytes::Bytes, std::io::Error>> {
        let query = uri.query().unwrap_or_default();
        let mut state = self.state.lock();
        if query.contains("watch=true") {
            let (sender, receiver) = mpsc::unbounded_channel::<Value>();
            state.watchers.push(sender);
            let lines = futures::stream::unfold(receiver, |mut receiver| async move {
                let event = receiver.recv().await?;
                let frame = http_body::Frame::data(bytes::Bytes::from(format!("{event}\n")));
                Some((Ok::<_, std::io::Error>(frame), receiver))
            });
            return http::Response::new(StreamBody::new(lines).boxed_unsync());
        }
        self.lists.fetch_add(1, Ordering::Relaxed);
        let after = query.split('&').find_map(|pair| pair.strip_prefix("continue=")).unwrap_or_default();
        // Pages of two, whatever the limit.
        let page: Vec<_> = state.objects.iter().filter(|(name, _)| name.as_str() > after).take(2).collect();
        let last = page.last().map(|(name, _)| (*name).clone()).unwrap_or_default();
        let more = state.objects.keys().any(|name| *name > last) && !last.is_empty();
        let items: Vec<_> = page.into_iter().map(|(_, object)| object).collect();
        let list = json!({
            "apiVersion": "v1", "kind": "ConfigMapList", "items": items,
            "metadata": {"resourceVersion": state.revision.to_string(), "continue": if more { last } else { String::new() }},
        });
        let body = Full::new(bytes::Bytes::from(list.to_string()));
        http::Response::new(body.map_err(std::io::Error::other).boxed_unsync())
    }
}

impl State {
    fn tell(&mut self, type_: &str, object: Value) {
        self.watchers.retain(|watcher| watcher.send(json!({"type": type_, "object": object})).is_ok());
    }
}

fn api(server: &Arc<Server>) -> Api<ConfigMap> {
    let server = server.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let answer = server.answer(request.uri());
        async move { Ok::<_, std::io::Error>(answer) }
    });
    Api::all(from_service(service, "test"))
}

fn start(server: &Arc<Server>) -> (Informer<ConfigMap>, CancellationToken) {
    let shutdown = CancellationToken::new();
    (Informer::start(api(server), WatchConfig::default(), shutdown.clone()), shutdown)
}

/// The next delta, in a few words.
async fn next(deltas: &mut mpsc::UnboundedReceiver<Delta<ConfigMap>>) -> String {
    let name = |map: &ConfigMap| format!("{}={}", map.metadata.name.as_ref().unwrap(), map.data.as_ref().unwrap()["v"]);
    let delta = tokio::time::timeout(Duration::from_secs(5), deltas.recv()).await.unwrap().unwrap();
    match delta {
        Delta::Added(map) => format!("+{}", name(&map)),
        Delta::Updated { old, new } => format!("{}>{}", name(&old), name(&new)),
        Delta::Deleted(map) => format!("-{}", name(&map)),
        Delta::Synced => "synced".to_owned(),
    }
}

#[tokio::test]
async fn a_subscriber_sees_what_is_known_then_synced_then_every_change_in_order() {
    let server = Arc::new(Server::default());
    for name in ["a", "b", "c", "d", "e"] {
        server.put(name, "1");
    }
    let (informer, _shutdown) = start(&server);
    let mut deltas = informer.subscribe();
    informer.synced().await;
    assert_eq!(server.lists.load(Ordering::Relaxed), 3, "five objects in pages of two");
    assert_eq!(informer.len(), 5);
    assert!(informer.get("n", "a").unwrap().metadata.managed_fields.is_none());
    let mut first = Vec::new();
    for _ in 0..5 {
        first.push(next(&mut deltas).await);
    }
    first.sort();
    assert_eq!(first, ["+a=1", "+b=1", "+c=1", "+d=1", "+e=1"]);
    assert_eq!(next(&mut deltas).await, "synced");
    watching(&server).await;
    server.put("a", "2");
    server.put("f", "1");
    server.remove("b");
    assert_eq!(next(&mut deltas).await, "a=1>a=2");
    assert_eq!(next(&mut deltas).await, "+f=1");
    assert_eq!(next(&mut deltas).await, "-b=1");
    let mut late = informer.subscribe();
    let mut known = Vec::new();
    for _ in 0..5 {
        known.push(next(&mut late).await);
    }
    known.sort();
    assert_eq!(known, ["+a=2", "+c=1", "+d=1", "+e=1", "+f=1"]);
    assert_eq!(next(&mut late).await, "synced");
}

/// Resolves when the informer watches.
async fn watching(server: &Server) {
    tokio::time::timeout(Duration::from_secs(5), async {
        while server.state.lock().watchers.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn after_a_gap_the_differences_are_told() {
    let server = Arc::new(Server::default());
    for name in ["a", "b", "c"] {
        server.put(name, "1");
    }
    let (informer, _shutdown) = start(&server);
    informer.synced().await;
    watching(&server).await;
    let mut deltas = informer.subscribe();
    for _ in 0..4 {
        next(&mut deltas).await;
    }
    server.expire();
    server.put("a", "2");
    server.remove("b");
    server.put("d", "1");
    let mut told = vec![next(&mut deltas).await, next(&mut deltas).await, next(&mut deltas).await];
    told.sort();
    assert_eq!(told, ["+d=1", "-b=1", "a=1>a=2"]);
}

/// The next that is told.
async fn take(told: &mut mpsc::UnboundedReceiver<String>, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(tokio::time::timeout(Duration::from_secs(5), told.recv()).await.unwrap().unwrap());
    }
    all
}

#[tokio::test]
async fn a_feed_of_metadata_tells_what_went_while_nobody_watched() {
    let server = Arc::new(Server::default());
    for name in ["a", "b", "c"] {
        server.put(name, "1");
    }
    let (sender, mut told) = mpsc::unbounded_channel();
    let shutdown = CancellationToken::new();
    follow_metadata(api(&server), &shutdown, move |change| {
        let text = match change {
            MetadataChange::Applied(meta) => {
                assert!(meta.managed_fields.is_none());
                format!("{}@{}", meta.name.unwrap(), meta.resource_version.unwrap())
            }
            MetadataChange::Deleted(uid) => format!("-{uid}"),
            MetadataChange::Synced => "synced".to_owned(),
        };
        let _ = sender.send(text);
    });
    assert_eq!(take(&mut told, 4).await, ["a@1", "b@2", "c@3", "synced"]);
    watching(&server).await;
    server.put("a", "2");
    server.remove("b");
    assert_eq!(take(&mut told, 2).await, ["a@4", "-b"]);
    server.expire();
    server.remove("a");
    server.put("d", "1");
    assert_eq!(take(&mut told, 3).await, ["c@3", "d@7", "-a"], "told once more, and \"synced\" not again");
    shutdown.cancel();
}

#[tokio::test]
async fn a_feed_of_metadata_goes_on_where_another_ended() {
    let server = Arc::new(Server::default());
    for name in ["a", "b"] {
        server.put(name, "1");
    }
    let (sender, mut told) = mpsc::unbounded_channel();
    let tell = move |change| {
        let text = match change {
            MetadataChange::Applied(meta) => meta.name.unwrap(),
            MetadataChange::Deleted(uid) => format!("-{uid}"),
            MetadataChange::Synced => "synced".to_owned(),
        };
        let _ = sender.send(text);
    };
    let shutdown = CancellationToken::new();
    let first = follow_metadata(api(&server), &shutdown, tell.clone());
    assert_eq!(take(&mut told, 3).await, ["a", "b", "synced"]);
    watching(&server).await;
    // The one is over without having seen this, and the other has not begun.
    first.stop();
    server.state.lock().watchers.clear();
    server.remove("a");
    server.put("c", "1");
    let _second = first.succeeded_by(api(&server), &shutdown, tell).await;
    assert_eq!(take(&mut told, 4).await, ["b", "c", "-a", "synced"]);
    shutdown.cancel();
}

#[tokio::test]
async fn an_index_follows_the_objects() {
    let server = Arc::new(Server::default());
    server.put("a", "x");
    server.put("b", "x");
    let (informer, shutdown) = start(&server);
    informer.synced().await;
    watching(&server).await;
    informer.add_index("value", |map| map.data.iter().flat_map(|data| data.get("v").cloned()).collect());
    assert_eq!(informer.by_index("value", "x").len(), 2);
    let mut deltas = informer.subscribe();
    for _ in 0..3 {
        next(&mut deltas).await;
    }
    server.put("a", "y");
    assert_eq!(next(&mut deltas).await, "a=x>a=y");
    assert_eq!(informer.by_index("value", "x").len(), 1);
    assert_eq!(informer.by_index("value", "y").len(), 1);
    shutdown.cancel();
    assert!(deltas.recv().await.is_none(), "the channel ends with the informer");
}
