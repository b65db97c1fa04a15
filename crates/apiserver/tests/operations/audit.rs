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
  resources: [{group: "", resources: [secrets]}]
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
    let config = AuditConfig { policy_file: Some(policy), log: Some(ironkeel_audit::LogConfig::new(&log)) };
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
    for _ in 0..500 {
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
    for _ in 0..500 {
        if a.of("id-list").len() == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let events = a.of("id-list");
    assert_eq!(events[1]["responseObject"]["kind"], "ConfigMapList");
    assert!(events[1]["responseObject"]["items"].as_array().unwrap().len() >= 3);
}
