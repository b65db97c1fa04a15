//! Limits of requests: how many at once without priority and fairness, how long, and how long watches live.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::StreamBody;
use ironkeel_apiserver::{InFlightLimits, UserInfo};
use ironkeel_embedded::{Embedded, Options};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tower::Service;

use crate::gated::Gated;
use crate::support::{Cluster, start_over, start_tuned};

type Sender = mpsc::Sender<Result<http_body::Frame<Bytes>, std::io::Error>>;

/// A POST whose body never ends until the sender is dropped.
fn endless(c: &Cluster, user: &str, groups: &[&str]) -> (Sender, tokio::task::JoinHandle<u16>) {
    let (sender, receiver) = mpsc::channel(1);
    let body = StreamBody::new(futures::stream::unfold(receiver, |mut receiver: mpsc::Receiver<_>| async move {
        receiver.recv().await.map(|frame| (frame, receiver))
    }));
    let request = Request::post("/api/v1/namespaces/default/configmaps").header("content-type", "application/json");
    let request = request.body(Box::pin(body)).unwrap();
    let mut service = c.api.in_process(UserInfo::new(user, groups.iter().copied()));
    let task = tokio::spawn(async move { service.call(request).await.unwrap().status().as_u16() });
    (sender, task)
}

#[tokio::test]
async fn without_priority_and_fairness_two_counters_bound_requests() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let limits = InFlightLimits { reading: 1, mutating: 1 };
    let c = start_tuned(dir, Options::default(), |c| {
        c.in_flight_limits = Some(limits);
        c.authorization_modes = vec![ironkeel_auth::AuthorizationMode::AlwaysAllow];
    })
    .await;
    let (sender, slow) = endless(&c, "ann", &[]);
    let ann = c.as_user("ann", &[]);
    let maps = "/api/v1/namespaces/default/configmaps";
    let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "generateName": "a" } });
    // The slow one has the room before anybody else asks for it.
    let running = "apiserver_current_inflight_requests{request_kind=\"mutating\"} 1";
    for _ in 0..4000 {
        if String::from_utf8_lossy(&c.admin().get("/metrics").await.bytes).contains(running) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let refused = ann.post(maps, &object).await;
    assert_eq!(refused.status, 429, "{}", String::from_utf8_lossy(&refused.bytes));
    assert_eq!(refused.headers["retry-after"], "1");
    refused.refused(429, "TooManyRequests", "Too many requests, please try again later.");
    // Reading has room of its own, watches need none, and masters always get an answer.
    let answer = ann.get(maps).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.headers.contains_key("x-kubernetes-pf-flowschema-uid"));
    let _watches = (ann.watch(&format!("{maps}?watch=1")).await, ann.watch(&format!("{maps}?watch=1")).await);
    c.admin().post(maps, &object).await.expect(201);
    drop(sender);
    assert_eq!(slow.await.unwrap(), 400);
    ann.post(maps, &object).await.expect(201);
}

#[tokio::test]
async fn requests_may_ask_for_less_time_than_there_is() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let inner = Embedded::open(dir.path().join("store"), Options::default()).unwrap();
    let (_gate, open) = watch::channel(false);
    let store = Arc::new(Gated { inner, part: "/slow", open });
    let c = start_over(dir, store, |c| c.request_timeout = Duration::from_secs(6)).await;
    let admin = c.admin();
    let maps = "/api/v1/namespaces/default/configmaps";
    let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "slow" } });
    for (query, at_least, at_most) in [("timeout=50ms", 50, 5500), ("timeout=1h", 5900, 30_000), ("", 5900, 30_000)] {
        let began = Instant::now();
        let late = admin.post(&format!("{maps}?{query}"), &object).await;
        late.refused(504, "Timeout", "Timeout: request did not complete within requested timeout");
        let took = began.elapsed().as_millis();
        assert!((at_least..at_most).contains(&took), "{query} took {took} ms");
    }
    let wrong = admin.get(&format!("{maps}?timeout=soon")).await;
    wrong.refused(400, "BadRequest", "invalid timeout specified in the request URL");
}

#[tokio::test]
async fn a_watch_without_a_time_limit_lives_as_long_as_the_flag_says() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let shortest = Duration::from_millis(300);
    let c = start_tuned(dir, Options::default(), |c| c.min_request_timeout = shortest).await;
    let began = Instant::now();
    let mut watch = c.admin().watch("/api/v1/namespaces/default/secrets?watch=1").await;
    while watch.next().await.is_some() {}
    let took = began.elapsed();
    assert!(took >= shortest && took < shortest * 60, "{took:?}");
}
