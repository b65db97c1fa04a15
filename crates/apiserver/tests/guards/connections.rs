//! Connections that outlive what they were opened with, say nothing, or break off.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;
use ironkeel_apiserver::{AuditConfig, DelegatesConfig};
use ironkeel_auth::Identity;
use ironkeel_embedded::Options;
use ironkeel_registry::Clock;
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::delegates::webhook;
use crate::support::{cluster, start_tuned};
use crate::wire::{http1, http2, tls};

/// How long a test waits for what must come soon, in seconds.
const PATIENCE_SECONDS: u64 = 10;

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    let patience = Duration::from_secs(PATIENCE_SECONDS);
    tokio::time::timeout(patience, work).await.unwrap_or_else(|_| panic!("{what} takes too long"))
}

/// The machine's clock, so many hours ahead.
#[derive(Debug, Default)]
struct Ahead(AtomicI64);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        Timestamp::now().checked_add(self.0.load(Ordering::SeqCst).hours()).unwrap()
    }
}

fn dir() -> Arc<tempfile::TempDir> {
    Arc::new(tempfile::tempdir().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_expires_names_nobody_any_more() {
    let clock = Arc::new(Ahead::default());
    let c = start_tuned(dir(), Options::default(), |config| config.clock = clock.clone()).await;
    let mut admin = http1(&c, Some(c.pki.client(Identity::Admin))).await;
    let mut proxy = http1(&c, Some(c.pki.front_proxy_client())).await;
    let named = [("x-remote-user", "jane"), ("x-remote-group", "system:masters")];
    assert_eq!(admin.get("/api/v1/namespaces", &[]).await, 200);
    assert_eq!(proxy.get("/api/v1/namespaces", &named).await, 200);
    clock.0.store(5 * 365 * 24, Ordering::SeqCst);
    assert_eq!(admin.get("/api/v1/namespaces", &[]).await, 401);
    assert_eq!(proxy.get("/api/v1/namespaces", &named).await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_never_comes_is_not_waited_for() {
    let short = |config: &mut ironkeel_apiserver::Config| config.request_timeout = Duration::from_millis(300);
    let c = start_tuned(dir(), Options::default(), short).await;
    let mut io = tls(&c, Some(c.pki.client(Identity::Admin)), b"http/1.1").await;
    let head = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: api\r\n\
                content-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    io.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    soon("the answer", io.read_exact(&mut answer)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 504");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_nobody_gets_one_answer_a_connection() {
    let c = cluster().await;
    let (mut sender, connection) = http2(&c, None).await;
    let request = Request::builder().uri("https://api/api/v1/pods").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 401);
    if let Err(error) = soon("the end of the connection", connection).await.unwrap() {
        assert!(format!("{error:?}").contains("GoAway(b\"\", NO_ERROR"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_is_in_the_audit_log_all_the_same() {
    let dir = dir();
    let (policy, log) = (dir.path().join("policy.yaml"), dir.path().join("audit.log"));
    let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";
    std::fs::write(&policy, text).unwrap();
    let audit =
        AuditConfig { policy_file: Some(policy), log: Some(ironkeel_audit::LogConfig::new(&log)), webhook: None };
    // A webhook that is asked whether the caller may, and never says.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let delegates = DelegatesConfig { access: Some(webhook(url)), access_first: true, ..DelegatesConfig::default() };
    let tune = |config: &mut ironkeel_apiserver::Config| {
        (config.audit, config.delegates) = (audit, Arc::new(delegates));
    };
    let c = start_tuned(dir, Options::default(), tune).await;
    let ann = c.pki.issue_client("ann", Some("devs")).unwrap();
    let mut io = tls(&c, Some(&ann), b"http/1.1").await;
    let head = "DELETE /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: api\r\naudit-id: gone\r\n\r\n";
    io.write_all(head.as_bytes()).await.unwrap();
    let asked = soon("the question", silent.accept()).await.unwrap();
    drop(io);
    let recorded = async {
        loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let found =
                text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()).find(|e| e["auditID"] == "gone");
            if let Some(event) = found {
                return event;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let event = soon("the record", recorded).await;
    drop(asked);
    assert_eq!((event["stage"].as_str(), event["verb"].as_str()), (Some("ResponseComplete"), Some("deletecollection")));
    assert_eq!(
        (event["user"]["username"].as_str(), event["responseStatus"]["code"].as_i64()),
        (Some("ann"), Some(499))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_proxy_may_name_users_in_any_script() {
    let c = cluster().await;
    let mut proxy = http1(&c, Some(c.pki.front_proxy_client())).await;
    let request = Request::builder()
        .method("POST")
        .uri("/apis/authentication.k8s.io/v1/selfsubjectreviews")
        .header("content-type", "application/json")
        .header("x-remote-user", HeaderValue::from_bytes("josé".as_bytes()).unwrap())
        .header("x-remote-group", HeaderValue::from_bytes("größe".as_bytes()).unwrap())
        .body(Full::new(Bytes::from_static(b"{}")))
        .unwrap();
    let answer = proxy.send(request).await;
    assert_eq!(answer.status(), 201, "{}", String::from_utf8_lossy(answer.body()));
    let body: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(body["status"]["userInfo"]["username"], "josé");
    assert_eq!(body["status"]["userInfo"]["groups"][0], "größe");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_many_groups_is_no_oversized_request() {
    let c = cluster().await;
    let mut proxy = http1(&c, Some(c.pki.front_proxy_client())).await;
    let mut request = Request::builder().uri("/api/v1/namespaces").header("x-remote-user", "jane");
    for i in 0..300 {
        request = request.header("x-remote-group", format!("group-{i}"));
    }
    let request = request.header("x-remote-group", "system:masters").body(Full::default()).unwrap();
    assert_eq!(proxy.send(request).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_in_time_though_there_is_always_something_to_tell() {
    let c = cluster().await;
    let admin = c.admin();
    let path = "/api/v1/namespaces/default/configmaps";
    admin.post(path, &json!({ "metadata": { "name": "x" }, "data": { "n": "0" } })).await.expect(201);
    let mut watch = admin.watch(&format!("{path}?watch=1&timeoutSeconds=1")).await;
    let started = std::time::Instant::now();
    for n in 1.. {
        let change = json!({ "data": { "n": n.to_string() } });
        admin.patch(&format!("{path}/x"), "application/merge-patch+json", &change).await.expect(200);
        if watch.next().await.is_none() {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "it is still told of changes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_peer_is_asked_whether_it_is_there() {
    let c = cluster().await;
    let stream = tls(&c, None, b"http/1.1").await;
    let hexed = |address: std::net::SocketAddr| format!("0100007F:{:04X}", address.port());
    let (server, client) = (hexed(c.address), hexed(stream.get_ref().0.local_addr().unwrap()));
    // The kernel's second timer of a connection is the one of its keepalive probes.
    let probed = |table: &str| {
        let mut rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
        rows.any(|row| row[1] == server && row[2] == client && row[5].starts_with("02:"))
    };
    soon("a timer", async {
        while !probed(&std::fs::read_to_string("/proc/self/net/tcp").unwrap()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    drop(stream);
}
