//! Requests are classified, wait and are refused as the stored objects say.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use crate::support::{Cluster, Http, cluster, start_tuned};

const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";

fn level(name: &str, response: Value) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "PriorityLevelConfiguration",
        "metadata": { "name": name },
        "spec": { "type": "Limited", "limited": { "nominalConcurrencyShares": 1, "borrowingLimitPercent": 0, "limitResponse": response } },
    })
}

fn schema(name: &str, level: &str, user: &str) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": { "name": name },
        "spec": {
            "matchingPrecedence": 1000,
            "priorityLevelConfiguration": { "name": level },
            "distinguisherMethod": { "type": "ByUser" },
            "rules": [{
                "subjects": [{ "kind": "User", "user": { "name": user } }],
                "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }],
                "resourceRules": [{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true }],
            }],
        },
    })
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..2000 {
        if done().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{what} did not come");
}

async fn dangling(admin: &Http, name: &str) -> Option<String> {
    let object = admin.get(&format!("{SCHEMAS}/{name}")).await.json();
    let conditions = object["status"]["conditions"].as_array()?.clone();
    let found = conditions.into_iter().find(|c| c["type"] == "Dangling")?;
    found["status"].as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_every_cluster_has_is_there_and_mended() {
    let c = cluster().await;
    let admin = c.admin();
    let names = async |path| -> Vec<String> {
        let list = admin.get(path).await.expect(200);
        list["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let levels = names(LEVELS).await;
    for name in [
        "catch-all",
        "exempt",
        "global-default",
        "leader-election",
        "node-high",
        "system",
        "workload-high",
        "workload-low",
    ] {
        assert!(levels.iter().any(|l| l == name), "{name} is not among {levels:?}");
    }
    let schemas = names(SCHEMAS).await;
    assert_eq!(schemas.len(), 11, "{schemas:?}");
    for name in &schemas {
        assert_eq!(dangling(&admin, name).await.as_deref(), Some("False"), "{name}");
    }
    let exempt = admin.get(&format!("{SCHEMAS}/exempt")).await.json();
    assert_eq!(exempt["metadata"]["annotations"]["apf.kubernetes.io/autoupdate-spec"], "true");
    // A start on the same store leaves them as they are.
    let before = admin.get(LEVELS).await.json()["items"].clone();
    drop(admin);
    let c = c.restart().await;
    assert_eq!(c.admin().get(LEVELS).await.json()["items"], before);
}

#[tokio::test]
async fn answers_name_the_objects_that_requests_were_classified_by() {
    let c = cluster().await;
    let admin = c.admin();
    let fs = admin.post(SCHEMAS, &schema("testing", "testing", "noxu")).await.expect(201);
    until("the dangling condition", async || dangling(&admin, "testing").await.as_deref() == Some("True")).await;
    let pl = admin.post(LEVELS, &level("testing", json!({ "type": "Reject" }))).await.expect(201);
    until("the condition's end", async || dangling(&admin, "testing").await.as_deref() == Some("False")).await;
    let uid = |a: &crate::support::Answer, header: &str| {
        a.headers.get(header).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    let user = c.as_user("noxu", &[]);
    let answer = user.get("/version").await;
    assert_eq!(uid(&answer, "x-kubernetes-pf-flowschema-uid"), fs["metadata"]["uid"].as_str().unwrap());
    assert_eq!(uid(&answer, "x-kubernetes-pf-prioritylevel-uid"), pl["metadata"]["uid"].as_str().unwrap());
    let other = c.as_user("foo", &[]).get("/version").await;
    assert_ne!(uid(&other, "x-kubernetes-pf-flowschema-uid"), uid(&answer, "x-kubernetes-pf-flowschema-uid"));
    assert!(!uid(&other, "x-kubernetes-pf-prioritylevel-uid").is_empty());
    // Impersonation decides too.
    let headers = [("impersonate-user", "noxu")];
    let acted = admin.send(Method::GET, "/version", &headers, "").await;
    assert_eq!(uid(&acted, "x-kubernetes-pf-flowschema-uid"), fs["metadata"]["uid"].as_str().unwrap());
}

/// A cluster with one seat for user `ann`, taken by a watch that never begins: a write stuck in admission would do
/// as well, but a large body that is still being sent needs nothing else.
async fn one_seat(response: Value) -> Cluster {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let c = start_tuned(dir, ironkeel_embedded::Options::default(), |config| config.seats = 1).await;
    let admin = c.admin();
    admin.post(LEVELS, &level("small", response)).await.expect(201);
    admin.post(SCHEMAS, &schema("small", "small", "ann")).await.expect(201);
    until("the schema", async || dangling(&admin, "small").await.as_deref() == Some("False")).await;
    c
}

/// A request whose body is not complete until the sender is dropped: it holds its seat.
fn slow_request(c: &Cluster) -> (tokio::sync::mpsc::Sender<()>, tokio::task::JoinHandle<http::StatusCode>) {
    use bytes::Bytes;
    use http_body_util::StreamBody;
    use tower::Service;
    let (sender, receiver) = tokio::sync::mpsc::channel::<()>(1);
    let stream = futures::stream::unfold(receiver, |mut r| async move {
        r.recv().await.map(|()| (Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from_static(b" "))), r))
    });
    let request = http::Request::builder()
        .method(Method::POST)
        .uri("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
        .header("content-type", "application/json")
        .body(StreamBody::new(Box::pin(stream)))
        .unwrap();
    let mut service = c.api.in_process(ironkeel_apiserver::UserInfo::new("ann", ["x"]));
    let task = tokio::spawn(async move { service.call(request).await.unwrap().status() });
    (sender, task)
}

async fn executing(admin: &Http, level: &str) -> (u64, u64) {
    let table = admin.get("/debug/api_priority_and_fairness/dump_priority_levels").await;
    let text = String::from_utf8(table.bytes.to_vec()).unwrap();
    let row = text.lines().find(|l| l.starts_with(&format!("{level},"))).unwrap_or_else(|| panic!("{text}"));
    let cells: Vec<&str> = row.split(',').map(str::trim).collect();
    (cells[4].parse().unwrap(), cells[5].parse().unwrap())
}

#[tokio::test]
async fn a_full_level_refuses_and_says_when_to_try_again() {
    let c = one_seat(json!({ "type": "Reject" })).await;
    let admin = c.admin();
    let (sender, task) = slow_request(&c);
    until("the first request", async || executing(&admin, "small").await.1 == 1).await;
    let refused = c.as_user("ann", &[]).get("/version").await;
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(refused.headers.contains_key("x-kubernetes-pf-flowschema-uid"));
    refused.refused(429, "TooManyRequests", "Too many requests, please try again later.");
    // Exempt requests pass, and so do other levels'.
    for _ in 0..20 {
        admin.get("/version").await.expect(200);
    }
    c.as_user("bob", &[]).get("/version").await.expect(200);
    drop(sender);
    assert_eq!(task.await.unwrap(), 400);
    c.as_user("ann", &[]).get("/version").await.expect(200);
    let metrics = String::from_utf8(admin.get("/metrics").await.bytes.to_vec()).unwrap();
    let line = "apiserver_flowcontrol_rejected_requests_total{priority_level=\"small\",flow_schema=\"small\",reason=\"concurrency-limit\"} 1";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn requests_wait_in_queues_and_are_served_in_turn() {
    let queuing = json!({ "queues": 1, "handSize": 1, "queueLengthLimit": 3 });
    let c = one_seat(json!({ "type": "Queue", "queuing": queuing })).await;
    let admin = c.admin();
    let (sender, task) = slow_request(&c);
    until("the first request", async || executing(&admin, "small").await.1 == 1).await;
    let ann = c.as_user("ann", &[]);
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let ann = ann.clone();
            tokio::spawn(async move { ann.get("/version").await.status })
        })
        .collect();
    until("three in the queue", async || executing(&admin, "small").await == (3, 1)).await;
    let dump = admin.get("/debug/api_priority_and_fairness/dump_requests?includeRequestDetails=1").await;
    let dump = String::from_utf8(dump.bytes.to_vec()).unwrap();
    assert_eq!(dump.lines().filter(|l| l.starts_with("small,") && l.contains("/version")).count(), 3, "{dump}");
    ann.get("/version").await.refused(429, "TooManyRequests", "Too many requests");
    drop(sender);
    assert_eq!(task.await.unwrap(), 400);
    for w in waiting {
        assert_eq!(w.await.unwrap(), 200);
    }
    assert_eq!(executing(&admin, "small").await, (0, 0));
}
