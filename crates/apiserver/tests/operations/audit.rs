//! The audit log: what is recorded at each level and stage.

use std::path::PathBuf;
use std::sync::Arc;

use http::Method;
use ironkeel_apiserver::AuditConfig;
use serde_json::{Value, json};

use crate::support::{Cluster, start_tuned};

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitManagedFields: true
rules:
- level: None
  userGroups: ["system:nobody"]
- level: Metadata
  resources: [{group: "", resources: [secrets, pods, serviceaccounts]}]
- level: Request
  resources: [{group: "", resources: [services]}]
  omitStages: [RequestReceived]
- level: RequestResponse
  resources: [{group: "", resources: [configmaps]}]
- level: Metadata
  nonResourceURLs: ["/version"]
"#;

struct Audited {
    cluster: Cluster,
    log: PathBuf,
}

async fn audited() -> Audited {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let (policy, log) = (dir.path().join("policy.yaml"), dir.path().join("audit/audit.log"));
    std::fs::write(&policy, POLICY).unwrap();
    let config =
        AuditConfig { policy_file: Some(policy), log: Some(ironkeel_audit::LogConfig::new(&log)), webhook: None };
    let cluster = start_tuned(dir, ironkeel_embedded::Options::default(), |c| c.audit = config).await;
    Audited { cluster, log }
}

impl Audited {
    fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    fn of(&self, id: &str) -> Vec<Value> {
        self.events().into_iter().filter(|e| e["auditID"] == id).collect()
    }
}

fn stages(events: &[Value]) -> Vec<&str> {
    events.iter().map(|e| e["stage"].as_str().unwrap()).collect()
}

fn config_map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "a": "b" } })
}

#[tokio::test]
async fn each_level_records_what_it_should() {
    let a = audited().await;
    let admin = a.cluster.admin();
    let post = async |path: &str, id: &str, body: Value| {
        let headers = [("content-type", "application/json"), ("audit-id", id), ("user-agent", "test/1")];
        let answer = admin.send(Method::POST, path, &headers, body.to_string()).await;
        assert_eq!(answer.headers["audit-id"], id);
        answer.expect(201)
    };
    let created = post("/api/v1/namespaces/default/configmaps", "id-cm", config_map("one")).await;
    let events = a.of("id-cm");
    assert_eq!(stages(&events), ["RequestReceived", "ResponseComplete"]);
    let done = &events[1];
    assert_eq!(done["level"], "RequestResponse");
    assert_eq!(done["verb"], "create");
    assert_eq!(done["requestURI"], "/api/v1/namespaces/default/configmaps");
    assert_eq!(done["user"]["username"], "admin");
    assert_eq!(done["userAgent"], "test/1");
    let wanted = json!({ "resource": "configmaps", "namespace": "default", "name": "one", "apiVersion": "v1" });
    assert_eq!(done["objectRef"], wanted);
    assert_eq!(done["responseStatus"], json!({ "metadata": {}, "code": 201 }));
    assert_eq!(done["requestObject"]["data"], json!({ "a": "b" }));
    assert_eq!(done["responseObject"]["metadata"]["uid"], created["metadata"]["uid"]);
    assert!(done["responseObject"]["metadata"]["managedFields"].is_null());
    assert_eq!(done["annotations"]["authorization.k8s.io/decision"], "allow");
    assert!(events[0]["responseStatus"].is_null() && events[0]["requestObject"].is_null());

    let secret =
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" }, "stringData": { "k": "hush" } });
    post("/api/v1/namespaces/default/secrets", "id-secret", secret).await;
    let events = a.of("id-secret");
    assert_eq!(events[1]["objectRef"]["name"], "s");
    assert!(!std::fs::read_to_string(&a.log).unwrap().contains("hush"));
    assert!(events[1]["requestObject"].is_null() && events[1]["responseObject"].is_null());

    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "s" }, "spec": { "ports": [{ "port": 80 }] } });
    post("/api/v1/namespaces/default/services", "id-service", service).await;
    let events = a.of("id-service");
    assert_eq!(stages(&events), ["ResponseComplete"]);
    assert_eq!(events[0]["requestObject"]["spec"]["ports"][0]["port"], 80);
    assert!(events[0]["responseObject"].is_null());

    let before = a.events().len();
    admin.get("/api/v1/nodes").await.expect(200);
    assert_eq!(a.events().len(), before, "what no rule matches is not recorded");
}

#[tokio::test]
async fn refusals_impersonation_and_unknown_callers_are_recorded() {
    let a = audited().await;
    let path = "/api/v1/namespaces/default/configmaps/none";
    let headers = [("audit-id", "id-forbidden")];
    a.cluster.as_user("ann", &[]).send(Method::GET, path, &headers, "").await;
    let events = a.of("id-forbidden");
    assert_eq!(events[1]["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(events[1]["responseStatus"]["code"], 403);
    assert_eq!(events[1]["responseStatus"]["reason"], "Forbidden");
    let headers = [("audit-id", "id-acting"), ("impersonate-user", "bob"), ("impersonate-group", "system:masters")];
    a.cluster.admin().send(Method::GET, path, &headers, "").await;
    let events = a.of("id-acting");
    assert_eq!(events[1]["user"]["username"], "admin");
    assert_eq!(events[1]["impersonatedUser"]["username"], "bob");
    assert_eq!(events[1]["responseObject"]["reason"], "NotFound");
    assert!(events[1]["authenticationMetadata"].is_null(), "the old way leaves no constraint");
    let headers = [("audit-id", "id-constrained"), ("impersonate-user", "bob")];
    // Whoever the old way has not served yet is asked about the narrower ways first.
    a.cluster.as_user("root", &["system:masters"]).send(Method::GET, path, &headers, "").await;
    let constraint = json!({ "impersonationConstraint": "impersonate:user-info" });
    assert_eq!(a.of("id-constrained")[1]["authenticationMetadata"], constraint);
    let nobody = a.cluster.as_user("x", &["system:nobody"]);
    let answer = nobody.send(Method::GET, path, &[("audit-id", "id-nobody")], "").await;
    assert_eq!(answer.headers["audit-id"], "id-nobody");
    assert!(a.of("id-nobody").is_empty());
}

#[tokio::test]
async fn watches_and_long_lists_are_recorded_when_they_begin_and_end() {
    let a = audited().await;
    let admin = a.cluster.admin();
    let uri = "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=1";
    let request = http::Request::builder().uri(uri).header("audit-id", "id-watch");
    let response = admin.raw(request.body(http_body_util::Full::default()).unwrap()).await;
    let begun = a.of("id-watch");
    assert_eq!(stages(&begun), ["RequestReceived", "ResponseStarted"]);
    assert_eq!(begun[1]["verb"], "watch");
    drop(response);
    for _ in 0..2000 {
        if a.of("id-watch").len() == 3 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(stages(&a.of("id-watch")), ["RequestReceived", "ResponseStarted", "ResponseComplete"]);
    // Large enough to be streamed: its record still holds all of it.
    for i in 0..3 {
        let mut object = config_map(&format!("large-{i}"));
        object["data"]["a"] = "x".repeat(60 << 10).into();
        admin.post("/api/v1/namespaces/default/configmaps", &object).await.expect(201);
    }
    admin.send(Method::GET, "/api/v1/namespaces/default/configmaps", &[("audit-id", "id-list")], "").await.expect(200);
    for _ in 0..2000 {
        if a.of("id-list").len() == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let events = a.of("id-list");
    assert_eq!(events[1]["responseObject"]["kind"], "ConfigMapList");
    assert!(events[1]["responseObject"]["items"].as_array().unwrap().len() >= 3);
}

#[tokio::test]
async fn a_webhook_gets_batches() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, mut bodies) = tokio::sync::mpsc::channel::<Value>(16);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut seen = Vec::new();
            let mut buffer = [0; 8192];
            loop {
                let n = socket.read(&mut buffer).await.unwrap();
                seen.extend_from_slice(&buffer[..n]);
                let text = String::from_utf8_lossy(&seen);
                let body = text.split_once("\r\n\r\n").map(|(_, b)| b.to_owned()).unwrap_or_default();
                if let Ok(value) = serde_json::from_str(&body) {
                    sender.send(value).await.unwrap();
                    break;
                }
                assert!(n > 0, "the connection ended early: {text}");
            }
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
        }
    });
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let (policy, kubeconfig) = (dir.path().join("policy.yaml"), dir.path().join("webhook.yaml"));
    std::fs::write(&policy, POLICY).unwrap();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{ "name": "c", "context": { "cluster": "k" } }],
        "clusters": [{ "name": "k", "cluster": { "server": format!("http://{address}/audit") } }],
    });
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let mut webhook = ironkeel_audit::WebhookConfig::new(kubeconfig);
    (webhook.batch.batch_events, webhook.batch.max_wait_ms) = (2, 60_000);
    let config = AuditConfig { policy_file: Some(policy), log: None, webhook: Some(webhook) };
    let c = start_tuned(dir, ironkeel_embedded::Options::default(), |c| c.audit = config).await;
    c.admin().get("/version").await.expect(200);
    let list = tokio::time::timeout(std::time::Duration::from_secs(20), bodies.recv()).await.unwrap().unwrap();
    assert_eq!(list["kind"], "EventList");
    let stages: Vec<&str> = list["items"].as_array().unwrap().iter().map(|e| e["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseComplete"]);
}

#[tokio::test]
async fn what_admission_notes_reaches_the_log() {
    let a = audited().await;
    let admin = a.cluster.admin();
    let group = "/apis/admissionregistration.k8s.io/v1";
    let rules = json!({ "resourceRules": [{ "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"] }] });
    let policy = json!({ "metadata": { "name": "p" }, "spec": { "matchConstraints": rules,
        "validations": [{ "expression": "object.metadata.name != 'odd'", "message": "an odd name" }],
        "auditAnnotations": [{ "key": "size", "valueExpression": "string(size(object.data))" }] } });
    admin.post(&format!("{group}/validatingadmissionpolicies"), &policy).await.expect(201);
    let binding = json!({ "metadata": { "name": "b" }, "spec": { "policyName": "p", "validationActions": ["Audit"] } });
    admin.post(&format!("{group}/validatingadmissionpolicybindings"), &binding).await.expect(201);
    let post = async |path: &str, id: &str, body: Value| {
        let headers = [("content-type", "application/json"), ("audit-id", id)];
        admin.send(Method::POST, path, &headers, body.to_string()).await.expect(201);
        a.of(id).pop().unwrap()["annotations"].clone()
    };
    let noted = post("/api/v1/namespaces/default/configmaps", "id-odd", config_map("odd")).await;
    assert_eq!(noted["p/size"], "1");
    let failed: Value =
        serde_json::from_str(noted["validation.policy.admission.k8s.io/validation_failure"].as_str().unwrap()).unwrap();
    assert_eq!(failed[0]["message"], "an odd name");
    assert_eq!((&failed[0]["policy"], &failed[0]["binding"]), (&json!("p"), &json!("b")));
    assert_eq!((&failed[0]["expressionIndex"], &failed[0]["validationActions"]), (&json!(0), &json!(["Audit"])));
    let labels = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/audit": "baseline" } } });
    admin.patch("/api/v1/namespaces/default", "application/merge-patch+json", &labels).await.expect(200);
    let account = json!({ "metadata": { "name": "default" } });
    post("/api/v1/namespaces/default/serviceaccounts", "id-account", account).await;
    let pod = json!({ "metadata": { "name": "p" }, "spec": { "hostNetwork": true, "containers": [{ "name": "c", "image": "i" }] } });
    let noted = post("/api/v1/namespaces/default/pods", "id-pod", pod).await;
    assert_eq!(noted["pod-security.kubernetes.io/enforce-policy"], "privileged:latest");
    assert_eq!(
        noted["pod-security.kubernetes.io/audit-violations"],
        "would violate PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
    );
}

/// A webhook for audit events that refuses the first `failures` requests; the lists that it got.
async fn flaky_webhook(failures: usize) -> (std::net::SocketAddr, Arc<parking_lot::Mutex<Vec<Value>>>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let lists: Arc<parking_lot::Mutex<Vec<Value>>> = Arc::default();
    let kept = lists.clone();
    tokio::spawn(async move {
        let mut asked = 0;
        while let Ok((mut socket, _)) = listener.accept().await {
            let (mut seen, mut buffer) = (Vec::new(), [0; 8192]);
            let list = loop {
                let n = socket.read(&mut buffer).await.unwrap();
                seen.extend_from_slice(&buffer[..n]);
                let text = String::from_utf8_lossy(&seen);
                let body = text.split_once("\r\n\r\n").map(|(_, b)| b.to_owned()).unwrap_or_default();
                if let Ok(list) = serde_json::from_str::<Value>(&body) {
                    break list;
                }
            };
            asked += 1;
            let status = if asked > failures { "200 OK" } else { "500 No" };
            if asked > failures {
                kept.lock().push(list);
            }
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, lists)
}

#[tokio::test]
async fn a_blocking_webhook_has_the_event_before_the_answer_goes_out() {
    let (address, lists) = flaky_webhook(2).await;
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let (policy, kubeconfig) = (dir.path().join("policy.yaml"), dir.path().join("webhook.yaml"));
    std::fs::write(&policy, POLICY).unwrap();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{ "name": "c", "context": { "cluster": "k" } }],
        "clusters": [{ "name": "k", "cluster": { "server": format!("http://{address}/audit") } }],
    });
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let mut webhook = ironkeel_audit::WebhookConfig::new(kubeconfig);
    webhook.mode = ironkeel_audit::Mode::Blocking;
    webhook.initial_backoff = std::time::Duration::from_millis(20);
    webhook.truncate = Some(ironkeel_audit::Truncate { event_bytes: 2000, batch_bytes: 10_000 });
    let config = AuditConfig { policy_file: Some(policy), log: None, webhook: Some(webhook) };
    let c = start_tuned(dir, ironkeel_embedded::Options::default(), |c| c.audit = config).await;
    c.admin().get("/version").await.expect(200);
    let stages: Vec<String> =
        lists.lock().iter().map(|l| l["items"][0]["stage"].as_str().unwrap().to_owned()).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseComplete"], "what failed is sent again");
    // Too large with its bodies: it goes without them.
    let mut object = config_map("large");
    object["data"]["a"] = "x".repeat(5000).into();
    c.admin().post("/api/v1/namespaces/default/configmaps", &object).await.expect(201);
    let last = lists.lock().last().unwrap()["items"][0].clone();
    assert_eq!(last["annotations"]["audit.k8s.io/truncated"], "true");
    assert!(last["requestObject"].is_null() && last["responseObject"].is_null(), "{last}");
    assert_eq!(last["objectRef"]["name"], "large");
}
