//! Admission webhooks over real TLS: what they are sent, and what their answers do.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use support::{Cluster, Http, cluster};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const MERGE: &str = "application/merge-patch+json";

/// A webhook server that notes what it is asked.
struct Hooks {
    address: SocketAddr,
    ca: String,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hooks {
    async fn start() -> Hooks {
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "hook.default.svc".to_owned()];
        let cert = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let task = tokio::spawn({
            let seen = seen.clone();
            async move {
                loop {
                    let (socket, _) = listener.accept().await.unwrap();
                    let (acceptor, seen) = (acceptor.clone(), seen.clone());
                    tokio::spawn(async move {
                        let Ok(stream) = acceptor.accept(socket).await else { return };
                        let service = service_fn(move |r| answer(r, seen.clone()));
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    });
                }
            }
        });
        Hooks { address, ca: STANDARD.encode(cert.pem()), seen, task }
    }

    fn url(&self, path: &str) -> Value {
        json!({"url": format!("https://{}{path}", self.address), "caBundle": self.ca})
    }

    /// Requests to a path so far.
    fn asked(&self, path: &str) -> Vec<Value> {
        self.seen.lock().iter().filter(|(p, _)| p == path).map(|(_, v)| v.clone()).collect()
    }
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let path = request.uri().path().to_owned();
    let trace = request.headers().get("traceparent").map(|v| v.to_str().unwrap().to_owned());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut review: Value = serde_json::from_slice(&body).unwrap();
    if review["kind"] == "ImageReview" {
        return images(&path, review, &seen);
    }
    if let Some(trace) = trace {
        review["trace"] = trace.into();
    }
    let asked = review["request"].clone();
    seen.lock().push((path.clone(), review.clone()));
    let patch = |operations: Value| STANDARD.encode(operations.to_string());
    let mut response = match path.as_str() {
        "/deny" => json!({"allowed": false, "status": {"message": "why not"}}),
        "/teapot" => {
            json!({"allowed": false, "status": {"message": "short and stout", "code": 418, "reason": "Teapot"}})
        }
        "/warn" => json!({"allowed": true, "warnings": ["look out"], "auditAnnotations": {"k": "v"}}),
        "/label" => json!({"allowed": true, "patchType": "JSONPatch", "patch": patch(json!([
            {"op": "add", "path": "/metadata/labels", "value": {"touched": "yes"}}]))}),
        "/data-a" => json!({"allowed": true, "patchType": "JSONPatch", "patch": patch(json!([
            {"op": "add", "path": "/data/a", "value": "1"}]))}),
        "/data-b" => json!({"allowed": true, "patchType": "JSONPatch", "patch": patch(json!([
            {"op": "add", "path": "/data/b", "value": asked["object"]["data"]["a"]}]))}),
        "/bad-patch" => json!({"allowed": true, "patchType": "JSONPatch", "patch": patch(json!({"op": "add"}))}),
        "/no-type" => json!({"allowed": true, "patch": patch(json!([]))}),
        "/container" => json!({"allowed": true, "patchType": "JSONPatch", "patch": patch(json!([
            {"op": "add", "path": "/spec/initContainers", "value": [{"name": "added", "image": "i"}]}]))}),
        "/tamper" if asked["operation"] != "DELETE" => {
            // Whatever the client could not have written itself.
            let mut operations = vec![
                json!({"op": "add", "path": "/metadata/deletionTimestamp", "value": "2020-01-01T00:00:00Z"}),
                json!({"op": "add", "path": "/metadata/deletionGracePeriodSeconds", "value": 30}),
                json!({"op": "add", "path": "/metadata/generation", "value": 77}),
                json!({"op": "add", "path": "/metadata/resourceVersion", "value": "77"}),
                json!({"op": "add", "path": "/metadata/managedFields", "value": [{"manager": "x", "operation": "Nothing"}]}),
            ];
            if asked["operation"] == "UPDATE" {
                operations.drain(..2);
                operations
                    .push(json!({"op": "add", "path": "/metadata/creationTimestamp", "value": "2020-01-01T00:00:00Z"}));
            }
            if !asked["object"]["spec"].is_null() {
                operations.push(json!({"op": "add", "path": "/status", "value": {"observedGeneration": 99}}));
                operations.push(json!({"op": "add", "path": "/spec/paused", "value": true}));
            }
            json!({"allowed": true, "patchType": "JSONPatch", "patch": patch(operations.into())})
        }
        "/elsewhere" => json!({"allowed": true, "patchType": "JSONPatch", "patch": patch(json!([
            {"op": "replace", "path": "/metadata/namespace", "value": "kube-system"}]))}),
        "/other-kind" => json!({"allowed": true, "patchType": "JSONPatch", "patch": patch(json!([
            {"op": "replace", "path": "/kind", "value": "Secret"}, {"op": "add", "path": "/wrong", "value": 1}]))}),
        "/slow" => std::future::pending().await,
        "/broken" => return Ok(Response::builder().status(500).body(Full::new("it hurts".into())).unwrap()),
        _ => json!({"allowed": true}),
    };
    response["uid"] = if path == "/other-uid" { "x".into() } else { asked["uid"].clone() };
    let out = json!({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response});
    Ok(Response::builder().header("content-type", "application/json").body(Full::new(out.to_string().into())).unwrap())
}

/// A backend of image policies: says no to what is called so, and yes otherwise.
fn images(
    path: &str,
    mut review: Value,
    seen: &Mutex<Vec<(String, Value)>>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    seen.lock().push((path.to_owned(), review.clone()));
    if path == "/images-broken" {
        return Ok(Response::builder().status(403).body(Full::new("no business here".into())).unwrap());
    }
    let named = |part: &str| review["spec"]["containers"].to_string().contains(part);
    review["status"] = match (named("evil"), named("odd")) {
        (true, _) => json!({"allowed": false, "reason": "too evil", "auditAnnotations": {"judged": "evil"}}),
        (_, true) => json!({"allowed": false}),
        _ => json!({"allowed": true}),
    };
    Ok(Response::builder()
        .header("content-type", "application/json")
        .body(Full::new(review.to_string().into()))
        .unwrap())
}

fn hook(name: &str, config: &Value, resources: &[&str], more: Value) -> Value {
    let mut hook = json!({
        "name": format!("{name}.example.com"), "clientConfig": config, "sideEffects": "None",
        "admissionReviewVersions": ["v1", "v1beta1"],
        "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": resources}],
    });
    for (k, v) in more.as_object().unwrap() {
        hook[k] = v.clone();
    }
    hook
}

async fn configure(http: &Http, path: &str, name: &str, hooks: Vec<Value>) {
    http.post(path, &json!({"metadata": {"name": name}, "webhooks": hooks})).await.expect(201);
}

async fn start() -> (Cluster, Http, Hooks) {
    let c = cluster().await;
    let http = c.admin();
    (c, http, Hooks::start().await)
}

/// A refusal without a reason, as a webhook gives that names none.
#[track_caller]
fn denied_by(a: &support::Answer, who: &str) {
    let body = a.json();
    assert_eq!(a.status, 400, "{body}");
    assert!(body["message"].as_str().unwrap().contains(&format!("{who:?} denied the request: why not")), "{body}");
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"k": "v"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_shown_with_its_reason_and_code() {
    let (_c, http, hooks) = start().await;
    configure(&http, VALIDATING, "d", vec![hook("deny", &hooks.url("/deny"), &["configmaps"], json!({}))]).await;
    let a = http.post(MAPS, &map("a")).await;
    let body = a.json();
    assert_eq!(a.status, 400);
    assert_eq!(body["message"], "admission webhook \"deny.example.com\" denied the request: why not");
    assert!(body.get("reason").is_none(), "{body}");
    let review = hooks.asked("/deny").remove(0);
    assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
    let r = &review["request"];
    assert_eq!(r["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(r["resource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!(r["requestKind"], r["kind"]);
    assert_eq!((&r["name"], &r["namespace"], &r["operation"]), (&json!("a"), &json!("default"), &json!("CREATE")));
    assert_eq!(r["userInfo"]["username"], "admin");
    assert_eq!(r["object"]["data"], json!({"k": "v"}));
    assert_eq!((&r["oldObject"], &r["dryRun"]), (&Value::Null, &json!(false)));
    assert_eq!(r["options"], json!({"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"}));
    let to_teapot = json!({"webhooks": [hook("pot", &hooks.url("/teapot"), &["configmaps"], json!({}))]});
    http.patch(&format!("{VALIDATING}/d"), MERGE, &to_teapot).await.expect(200);
    http.post(MAPS, &map("a")).await.refused(418, "Teapot", "\"pot.example.com\" denied the request: short and stout");
    let counted = http.get("/metrics").await;
    let counted = String::from_utf8_lossy(&counted.bytes).into_owned();
    let line = r#"apiserver_admission_webhook_rejection_count{name="pot.example.com",type="validating",operation="CREATE",error_type="no_error",rejection_code="418"} 1"#;
    assert!(counted.lines().any(|l| l == line), "{counted}");
    http.delete(&format!("{VALIDATING}/d")).await.expect(200);
    http.post(MAPS, &map("a")).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_and_deletes_show_the_old_object_and_warnings_come_through() {
    let (_c, http, hooks) = start().await;
    http.post(MAPS, &map("a")).await.expect(201);
    configure(&http, VALIDATING, "w", vec![hook("warn", &hooks.url("/warn"), &["configmaps"], json!({}))]).await;
    let a = http.patch(&format!("{MAPS}/a?fieldManager=me"), MERGE, &json!({"data": {"k": "w"}})).await;
    assert_eq!(a.headers["warning"], "299 - \"look out\"");
    a.expect(200);
    let update = hooks.asked("/warn").remove(0);
    assert_eq!(update["request"]["operation"], "UPDATE");
    assert_eq!(update["request"]["oldObject"]["data"]["k"], "v");
    assert_eq!(update["request"]["object"]["data"]["k"], "w");
    assert_eq!(update["request"]["options"]["fieldManager"], "me");
    assert_eq!(update["request"]["options"]["kind"], "UpdateOptions");
    let dry = json!({"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"]}).to_string();
    let json_body = [("content-type", "application/json")];
    http.send(http::Method::DELETE, &format!("{MAPS}/a"), &json_body, dry).await.expect(200);
    assert_eq!(hooks.asked("/warn").remove(1)["request"]["dryRun"], true);
    http.get(&format!("{MAPS}/a")).await.expect(200);
    http.delete(&format!("{MAPS}/a?gracePeriodSeconds=0")).await.expect(200);
    let delete = hooks.asked("/warn").remove(2);
    assert_eq!(delete["request"]["operation"], "DELETE");
    assert_eq!(delete["request"]["object"], Value::Null);
    assert_eq!(delete["request"]["oldObject"]["data"]["k"], "w");
    assert_eq!(delete["request"]["options"]["gracePeriodSeconds"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn mutations_come_in_order_and_again_when_asked_for() {
    let (_c, http, hooks) = start().await;
    let of = |path: &str| hooks.url(path);
    configure(
        &http,
        MUTATING,
        "a",
        vec![hook("b", &of("/data-b"), &["configmaps"], json!({"reinvocationPolicy": "IfNeeded"}))],
    )
    .await;
    configure(&http, MUTATING, "b", vec![hook("a", &of("/data-a"), &["configmaps"], json!({}))]).await;
    let made = http.post(MAPS, &map("m")).await.expect(201);
    assert_eq!(made["data"], json!({"k": "v", "a": "1", "b": "1"}));
    assert_eq!((hooks.asked("/data-b").len(), hooks.asked("/data-a").len()), (2, 1));
    http.delete(&format!("{MUTATING}/a")).await.expect(200);
    http.delete(&format!("{MUTATING}/b")).await.expect(200);
    configure(&http, MUTATING, "p", vec![hook("p", &of("/container"), &["pods"], json!({}))]).await;
    http.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}}))
        .await
        .expect(201);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let made = http.post("/api/v1/namespaces/default/pods", &pod).await.expect(201);
    let added = &made["spec"]["initContainers"][0];
    assert_eq!(added["terminationMessagePolicy"], "File", "defaults come in: {added}");
    assert_eq!(
        added["volumeMounts"][0]["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount",
        "built-in plugins run again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_judged_by_the_policy() {
    let (_c, http, hooks) = start().await;
    let closed = |path: &str| {
        vec![hook(
            "x",
            &hooks.url(path),
            &["configmaps"],
            json!({"timeoutSeconds": if path == "/slow" { 1 } else { 20 }}),
        )]
    };
    for (path, why) in [
        (
            "/slow",
            format!(
                "failed calling webhook \"x.example.com\": failed to call webhook: Post \"https://{}/slow?timeout=1s\": context deadline exceeded",
                hooks.address
            ),
        ),
        ("/other-uid", "received invalid webhook response: expected response.uid=".to_owned()),
        (
            "/no-type",
            "received invalid webhook response: webhook returned response.patch but not response.patchType".to_owned(),
        ),
        ("/bad-patch", "received undecodable patch in webhook response: json: cannot unmarshal object".to_owned()),
    ] {
        configure(&http, MUTATING, "x", closed(path)).await;
        http.post(MAPS, &map("a")).await.refused(500, "InternalError", &why);
        http.delete(&format!("{MUTATING}/x")).await.expect(200);
    }
    configure(&http, VALIDATING, "x", closed("/label")).await;
    http.post(MAPS, &map("a")).await.refused(500, "InternalError", "validating webhook may not return response.patch");
    let open =
        vec![hook("x", &hooks.url("/slow"), &["configmaps"], json!({"timeoutSeconds": 1, "failurePolicy": "Ignore"}))];
    http.patch(&format!("{VALIDATING}/x"), MERGE, &json!({"webhooks": open})).await.expect(200);
    http.post(MAPS, &map("a")).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn selectors_scopes_versions_and_dry_runs_choose() {
    let (_c, http, hooks) = start().await;
    let deny = |resources: &[&str], more: Value| vec![hook("d", &hooks.url("/deny"), resources, more)];
    let denied = "d.example.com";
    configure(&http, VALIDATING, "o", deny(&["configmaps"], json!({"objectSelector": {"matchLabels": {"a": "b"}}})))
        .await;
    http.post(MAPS, &map("free")).await.expect(201);
    let mut labelled = map("caught");
    labelled["metadata"]["labels"] = json!({"a": "b"});
    denied_by(&http.post(MAPS, &labelled).await, denied);
    http.delete(&format!("{VALIDATING}/o")).await.expect(200);

    let exempt = json!({"namespaceSelector": {"matchExpressions": [{"key": "free", "operator": "DoesNotExist"}]}});
    configure(&http, VALIDATING, "n", deny(&["configmaps"], exempt)).await;
    denied_by(&http.post(MAPS, &map("x")).await, denied);
    http.patch("/api/v1/namespaces/default", MERGE, &json!({"metadata": {"labels": {"free": ""}}})).await.expect(200);
    http.post(MAPS, &map("x")).await.expect(201);
    http.delete(&format!("{VALIDATING}/n")).await.expect(200);

    let rules = json!([{"operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v1"], "resources": ["horizontalpodautoscalers"]}]);
    configure(&http, VALIDATING, "v", deny(&[], json!({"rules": rules}))).await;
    let scaler = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    let v2 = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    denied_by(&http.post(v2, &scaler).await, denied);
    let r = hooks.asked("/deny").pop().unwrap()["request"].clone();
    assert_eq!((&r["kind"]["version"], &r["requestKind"]["version"]), (&json!("v1"), &json!("v2")));
    assert_eq!(r["object"]["apiVersion"], "autoscaling/v1");
    let exact = json!({"webhooks": deny(&[], json!({"rules": rules, "matchPolicy": "Exact"}))});
    http.patch(&format!("{VALIDATING}/v"), MERGE, &exact).await.expect(200);
    http.post(v2, &scaler).await.expect(201);
    http.delete(&format!("{VALIDATING}/v")).await.expect(200);

    configure(&http, VALIDATING, "s", deny(&["*/*"], json!({}))).await;
    http.patch(&format!("{VALIDATING}/s"), MERGE, &json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    denied_by(&http.post(&format!("{MAPS}?dryRun=All"), &map("dry")).await, denied);
    assert_eq!(hooks.asked("/deny").pop().unwrap()["request"]["dryRun"], true);
    http.delete(&format!("{VALIDATING}/s")).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_an_address_is_not_called() {
    let (_c, http, hooks) = start().await;
    let service = json!({"metadata": {"name": "hook"}, "spec": {"clusterIP": "None", "ports": [{"port": 443}]}});
    http.post("/api/v1/namespaces/default/services", &service).await.expect(201);
    let config = json!({"service": {"namespace": "default", "name": "hook", "path": "/deny"}, "caBundle": hooks.ca});
    configure(&http, VALIDATING, "svc", vec![hook("s", &config, &["configmaps"], json!({}))]).await;
    http.post(MAPS, &map("a")).await.refused(
        500,
        "InternalError",
        "failed to call webhook: Post \"https://hook.default.svc:443/deny?timeout=10s\": cannot route to service with ClusterIP \"None\"",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connects_show_their_options() {
    let (_c, http, hooks) = start().await;
    http.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}}))
        .await
        .expect(201);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    http.post("/api/v1/namespaces/default/pods", &pod).await.expect(201);
    let rules =
        json!([{"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/attach"]}]);
    configure(&http, VALIDATING, "c", vec![hook("c", &hooks.url("/deny"), &[], json!({"rules": rules}))]).await;
    let a = http.post("/api/v1/namespaces/default/pods/p/attach?container=c&stdin=true", &json!({})).await;
    denied_by(&a, "c.example.com");
    let r = hooks.asked("/deny").remove(0)["request"].clone();
    assert_eq!((&r["operation"], &r["subResource"]), (&json!("CONNECT"), &json!("attach")));
    assert_eq!(r["kind"]["kind"], "PodAttachOptions");
    assert_eq!(r["object"], json!({"apiVersion": "v1", "kind": "PodAttachOptions", "stdin": true, "container": "c"}));
}

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn pods(http: &Http, names: &[&str]) {
    let account = json!({"metadata": {"name": "default"}});
    http.post("/api/v1/namespaces/default/serviceaccounts", &account).await.expect(201);
    for name in names {
        let pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        http.post(PODS, &pod).await.expect(201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_to_a_subresource_is_admitted_as_what_it_is() {
    let (_c, http, hooks) = start().await;
    pods(&http, &["a", "b"]).await;
    let watched = ["pods/eviction", "pods", "pods/status"];
    configure(&http, VALIDATING, "v", vec![hook("seen", &hooks.url("/seen"), &watched, json!({}))]).await;
    let label = hook("label", &hooks.url("/label"), &["pods/binding"], json!({}));
    configure(&http, MUTATING, "m", vec![label]).await;
    let eviction = |name: &str, options: Value| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}, "deleteOptions": options});
    let path = format!("{PODS}/a/eviction");
    http.post(&path, &eviction("a", json!({"dryRun": ["All"]}))).await.expect(201);
    let there = http.get(&format!("{PODS}/a")).await.expect(200);
    assert!(there["metadata"]["deletionTimestamp"].is_null(), "{there}");
    http.post(&path, &eviction("b", json!({}))).await.refused(400, "BadRequest", "name in URL does not match");
    http.post(&path, &eviction("a", json!({"gracePeriodSeconds": 0}))).await.expect(201);
    http.get(&format!("{PODS}/a")).await.refused(404, "NotFound", "");
    let seen = hooks.asked("/seen");
    assert_eq!(seen.len(), 2, "the delete of an evicted pod is not admitted again: {seen:?}");
    let r = &seen[0]["request"];
    assert_eq!(r["kind"], json!({"group": "policy", "version": "v1", "kind": "Eviction"}));
    assert_eq!((&r["operation"], &r["subResource"]), (&json!("CREATE"), &json!("eviction")));
    assert_eq!(r["resource"], json!({"group": "", "version": "v1", "resource": "pods"}));
    assert_eq!(r["object"]["metadata"]["namespace"], "default");
    let binding = json!({"metadata": {"name": "b"}, "target": {"kind": "Node", "name": "n"}});
    http.post(&format!("{PODS}/b/binding"), &binding).await.expect(201);
    let bound = http.get(&format!("{PODS}/b")).await.expect(200);
    assert_eq!((&bound["spec"]["nodeName"], &bound["metadata"]["labels"]["touched"]), (&json!("n"), &json!("yes")));
    assert_eq!(hooks.asked("/label")[0]["request"]["kind"]["kind"], "Binding");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_pod_says_why_it_goes() {
    let (_c, http, _hooks) = start().await;
    pods(&http, &["a"]).await;
    let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n"}});
    http.post(&format!("{PODS}/a/binding"), &binding).await.expect(201);
    let eviction = json!({"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "a"}});
    http.post(&format!("{PODS}/a/eviction"), &eviction).await.expect(201);
    let going = http.get(&format!("{PODS}/a")).await.expect(200);
    assert!(going["metadata"]["deletionTimestamp"].is_string(), "{going}");
    let conditions = going["status"]["conditions"].as_array().unwrap();
    let why = conditions.iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&why["status"], &why["reason"]), (&json!("True"), &json!("EvictionByEvictionAPI")));
}

#[tokio::test(flavor = "multi_thread")]
async fn old_reviews_generated_names_scales_and_collections() {
    let (_c, http, hooks) = start().await;
    let beta = json!({"admissionReviewVersions": ["v1beta1"]});
    configure(&http, MUTATING, "m", vec![hook("label", &hooks.url("/label"), &["configmaps"], beta)]).await;
    let scales = hook("scale", &hooks.url("/scale"), &["deployments/scale"], json!({}));
    let maps = hook("maps", &hooks.url("/maps"), &["configmaps"], json!({}));
    configure(&http, VALIDATING, "v", vec![maps, scales]).await;
    let made = http.post(MAPS, &json!({"metadata": {"generateName": "g-"}})).await.expect(201);
    assert_eq!(made["metadata"]["labels"]["touched"], "yes");
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("g-") && name.len() == 7, "{name}");
    let mutating = hooks.asked("/label").remove(0);
    assert_eq!(mutating["apiVersion"], "admission.k8s.io/v1beta1");
    let r = &mutating["request"];
    assert!(r.get("name").is_none() && r["object"]["metadata"].get("name").is_none(), "{r}");
    assert!(r["object"]["metadata"].get("uid").is_none(), "{r}");
    let r = &hooks.asked("/maps").remove(0)["request"];
    assert_eq!(r["object"]["metadata"]["name"], name, "it is chosen before validation");
    assert_eq!(r["object"]["metadata"]["uid"], made["metadata"]["uid"]);
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    http.post(deployments, &deployment).await.expect(201);
    http.patch(&format!("{deployments}/d/scale"), MERGE, &json!({"spec": {"replicas": 3}})).await.expect(200);
    let r = &hooks.asked("/scale").remove(0)["request"];
    assert_eq!(r["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!((&r["object"]["spec"]["replicas"], &r["oldObject"]["spec"]["replicas"]), (&json!(3), &json!(1)));
    http.post(MAPS, &map("other")).await.expect(201);
    http.delete(&format!("{MUTATING}/m")).await.expect(200);
    let before = hooks.asked("/maps").len();
    http.delete(MAPS).await.expect(200);
    let deletes: Vec<Value> = hooks.asked("/maps").split_off(before);
    let names: Vec<&Value> = deletes.iter().map(|d| &d["request"]["name"]).collect();
    assert!(deletes.iter().all(|d| d["request"]["operation"] == "DELETE"), "{deletes:?}");
    assert!(names.contains(&&json!("other")) && names.contains(&&json!(name)), "each on its own: {names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_may_ask_what_the_caller_may_do() {
    let (c, http, hooks) = start().await;
    let condition = json!({"matchConditions": [{"name": "not-for-breakers",
        "expression": "!authorizer.group('').resource('configmaps').namespace('default').check('break').allowed()"}]});
    configure(&http, VALIDATING, "d", vec![hook("deny", &hooks.url("/deny"), &["configmaps"], condition)]).await;
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]}]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    http.post(&format!("{rbac}/roles"), &json!({"metadata": {"name": "r"}, "rules": rules})).await.expect(201);
    let to = json!({"metadata": {"name": "r"}, "subjects": [{"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"}});
    http.post(&format!("{rbac}/rolebindings"), &to).await.expect(201);
    denied_by(&c.as_user("eve", &[]).post(MAPS, &map("a")).await, "deny.example.com");
    http.post(MAPS, &map("a")).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_resources_are_admitted_like_any_other() {
    let (_c, http, hooks) = start().await;
    let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}}, "schema": {"openAPIV3Schema":
            {"type": "object", "properties": {"data": {"type": "object", "additionalProperties": {"type": "string"}},
                "status": {"type": "object", "properties": {"n": {"type": "integer"}}}}}}}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let mut watch = http.watch(&format!("{definitions}?watch=true")).await;
    http.post(definitions, &definition).await.expect(201);
    loop {
        let (_, seen) = watch.event().await;
        let conditions = seen["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True") {
            break;
        }
    }
    configure(&http, MUTATING, "m", vec![hook("data", &hooks.url("/data-a"), &["widgets"], json!({}))]).await;
    let status = hook("status", &hooks.url("/deny"), &["widgets/status"], json!({}));
    configure(&http, VALIDATING, "v", vec![status]).await;
    let widgets = "/apis/example.com/v1/namespaces/default/widgets";
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "data": {}});
    let made = http.post(widgets, &widget).await.expect(201);
    assert_eq!(made["data"], json!({"a": "1"}));
    let a = http.patch(&format!("{widgets}/w/status"), MERGE, &json!({"status": {"n": 1}})).await;
    denied_by(&a, "status.example.com");
    let r = &hooks.asked("/deny").remove(0)["request"];
    assert_eq!((&r["subResource"], &r["kind"]["kind"]), (&json!("status"), &json!("Widget")));
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"count/widgets.example.com": "1"}}});
    http.post("/api/v1/namespaces/default/resourcequotas", &quota).await.expect(201);
    let mut second = widget;
    second["metadata"]["name"] = "x".into();
    http.post(widgets, &second).await.refused(
        403,
        "Forbidden",
        "exceeded quota: q, requested: count/widgets.example.com=1, used: count/widgets.example.com=1, limited: count/widgets.example.com=1",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_changes_nothing_that_the_request_could_not() {
    let (_c, http, hooks) = start().await;
    let tamper = hook("t", &hooks.url("/tamper"), &["deployments", "deployments/status", "configmaps"], json!({}));
    configure(&http, MUTATING, "t", vec![tamper]).await;
    let a = http.post(&format!("{MAPS}?fieldManager=me"), &map("a")).await;
    let warning = a.headers["warning"].to_str().unwrap().to_owned();
    assert!(warning.contains(".metadata.managedFields was in an invalid state after admission"), "{warning}");
    let made = a.expect(201);
    for gone in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        assert!(made["metadata"][gone].is_null(), "{gone}: {made}");
    }
    assert_eq!(made["metadata"]["managedFields"][0]["manager"], "me", "{made}");
    http.delete(&format!("{MAPS}/a")).await.expect(200);
    http.get(&format!("{MAPS}/a")).await.refused(404, "NotFound", "");

    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let made = http.post(deployments, &deployment).await.expect(201);
    let created = made["metadata"]["creationTimestamp"].clone();
    assert_eq!((&made["metadata"]["generation"], &made["spec"]["paused"]), (&json!(1), &json!(true)));
    assert!(made["status"]["observedGeneration"].is_null(), "{made}");
    // An update that the webhook alone makes one of the desired state raises the generation.
    http.delete(&format!("{MUTATING}/t")).await.expect(200);
    let own = http.patch(&format!("{deployments}/d"), MERGE, &json!({"spec": {"paused": null}})).await.expect(200);
    assert_eq!(own["metadata"]["generation"], 2);
    let tamper = hook("t", &hooks.url("/tamper"), &["deployments", "deployments/status", "configmaps"], json!({}));
    configure(&http, MUTATING, "t", vec![tamper]).await;
    let label = json!({"metadata": {"labels": {"x": "y"}}});
    let changed = http.patch(&format!("{deployments}/d"), MERGE, &label).await.expect(200);
    assert_eq!(
        (&changed["spec"]["paused"], &changed["metadata"]["generation"]),
        (&json!(true), &json!(3)),
        "{changed}"
    );
    assert!(changed["status"]["observedGeneration"].is_null(), "{changed}");
    assert_eq!(changed["metadata"]["creationTimestamp"], created);
    // Through the status nothing else is written.
    http.delete(&format!("{MUTATING}/t")).await.expect(200);
    http.patch(&format!("{deployments}/d"), MERGE, &json!({"spec": {"paused": null}})).await.expect(200);
    let tamper = hook("t", &hooks.url("/tamper"), &["deployments/status"], json!({}));
    configure(&http, MUTATING, "t", vec![tamper]).await;
    let status = json!({"status": {"observedGeneration": 1}});
    let reported = http.patch(&format!("{deployments}/d/status"), MERGE, &status).await.expect(200);
    assert!(reported["spec"]["paused"].is_null(), "{reported}");
    assert_eq!(
        (&reported["status"]["observedGeneration"], &reported["metadata"]["generation"]),
        (&json!(99), &json!(4))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_moves_nothing_elsewhere() {
    let (_c, http, hooks) = start().await;
    let moves = hook(
        "m",
        &hooks.url("/elsewhere"),
        &["configmaps"],
        json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}),
    );
    configure(&http, MUTATING, "m", vec![moves]).await;
    http.post(MAPS, &map("a")).await.refused(
        400,
        "BadRequest",
        "the namespace of the provided object does not match the namespace sent on the request",
    );
    http.get(&format!("{MAPS}/a")).await.refused(404, "NotFound", "");
    http.delete(&format!("{MUTATING}/m")).await.expect(200);
    configure(&http, MUTATING, "k", vec![hook("k", &hooks.url("/other-kind"), &["configmaps"], json!({}))]).await;
    http.post(MAPS, &map("a")).await.refused(500, "InternalError", "Secret");
    http.get(&format!("{MAPS}/a")).await.refused(404, "NotFound", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_services_slow_webhook_keeps_no_other_service_waiting() {
    let (_c, http, hooks) = start().await;
    let services = "/api/v1/namespaces/default/services";
    let slow =
        json!({"timeoutSeconds": 8, "failurePolicy": "Ignore", "objectSelector": {"matchLabels": {"slow": "yes"}}});
    configure(&http, VALIDATING, "s", vec![hook("s", &hooks.url("/slow"), &["services"], slow)]).await;
    let service = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}, "spec": {"ports": [{"port": 80}]}});
    let waiting = tokio::spawn({
        let (http, body) = (http.clone(), service("slow", json!({"slow": "yes"})));
        async move { http.post(services, &body).await.expect(201) }
    });
    while hooks.asked("/slow").is_empty() {
        tokio::task::yield_now().await;
    }
    let quick = async {
        let first = http.post(services, &service("quick", json!({}))).await.expect(201);
        http.delete(&format!("{services}/quick")).await.expect(200);
        first
    };
    let quick =
        tokio::time::timeout(std::time::Duration::from_secs(4), quick).await.expect("the other is not waited for");
    let slow = waiting.await.unwrap();
    assert_ne!(quick["spec"]["clusterIP"], slow["spec"]["clusterIP"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_asked_once_and_told_of_the_trace() {
    let (_c, http, hooks) = start().await;
    configure(&http, VALIDATING, "x", vec![hook("x", &hooks.url("/broken"), &["configmaps"], json!({}))]).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let headers = [("content-type", "application/json"), ("traceparent", parent.as_str())];
    http.send(http::Method::POST, MAPS, &headers, map("a").to_string()).await.refused(
        500,
        "InternalError",
        "Internal error occurred: failed calling webhook \"x.example.com\": failed to call webhook: an error on the server (\"it hurts\") has prevented the request from succeeding",
    );
    let asked = hooks.asked("/broken");
    assert_eq!(asked.len(), 1, "admission webhooks are not asked again");
    let told = asked[0]["trace"].as_str().unwrap_or_default();
    assert!(told.starts_with(&format!("00-{trace}-")), "{told:?}");
}

/// A cluster whose images are judged by `path` of these hooks.
async fn judged(hooks: &Hooks, path: &str, more: &str) -> (Cluster, Http) {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
    write(
        "kube.yaml",
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c}}}}]\nclusters:\n- name: c\n  cluster: {{server: \"https://{}{path}\", certificate-authority-data: {}}}\n",
            hooks.address, hooks.ca
        ),
    );
    write(
        "admission.yaml",
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n- name: ImagePolicyWebhook\n  configuration:\n    imagePolicy: {{kubeConfigFile: kube.yaml, retryBackoff: 1{more}}}\n"
        ),
    );
    let file = dir.path().join("admission.yaml");
    let c = support::start_tuned(dir, ironkeel_embedded::Options::default(), |c| {
        c.admission.plugins = c.admission.plugins.with_flags(&["ImagePolicyWebhook"], &["ServiceAccount"]).unwrap();
        c.admission.configure(Some(&file)).unwrap();
    })
    .await;
    let http = c.admin();
    (c, http)
}

fn of_image(name: &str, image: &str) -> Value {
    json!({"metadata": {"name": name, "annotations": {"x.image-policy.k8s.io/ticket": "7", "other": "y"}},
        "spec": {"containers": [{"name": "c", "image": image}], "initContainers": [{"name": "i", "image": "init"}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_judges_images_and_is_remembered() {
    let hooks = Hooks::start().await;
    let (_c, http) = judged(&hooks, "/images", "").await;
    http.post(PODS, &of_image("a", "good")).await.expect(201);
    http.post(PODS, &of_image("b", "good")).await.expect(201);
    let asked = hooks.asked("/images");
    assert_eq!(asked.len(), 1, "a yes is remembered");
    assert_eq!(asked[0]["apiVersion"], "imagepolicy.k8s.io/v1alpha1");
    let spec = json!({"containers": [{"image": "good"}, {"image": "init"}], "namespace": "default",
        "annotations": {"x.image-policy.k8s.io/ticket": "7"}});
    assert_eq!(asked[0]["spec"], spec);
    for _ in 0..2 {
        let why = "pods \"c\" is forbidden: image policy webhook backend denied one or more images: too evil";
        http.post(PODS, &of_image("c", "evil")).await.refused(403, "Forbidden", why);
    }
    assert_eq!(hooks.asked("/images").len(), 2, "a no is remembered too");
    let why = "pods \"c\" is forbidden: one or more images rejected by webhook backend";
    http.post(PODS, &of_image("c", "odd")).await.refused(403, "Forbidden", why);
    // Of containers that are added to a running Pod those alone are judged.
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "evil", "targetContainerName": "c"}]}});
    let merge = "application/strategic-merge-patch+json";
    let why = "image policy webhook backend denied one or more images: too evil";
    http.patch(&format!("{PODS}/a/ephemeralcontainers"), merge, &debug).await.refused(403, "Forbidden", why);
    assert_eq!(hooks.asked("/images").last().unwrap()["spec"]["containers"], json!([{"image": "evil"}]));
    // A status has no images to judge.
    let before = hooks.asked("/images").len();
    http.patch(&format!("{PODS}/a/status"), MERGE, &json!({"status": {"phase": "Running"}})).await.expect(200);
    assert_eq!(hooks.asked("/images").len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_backends_silence_means_is_a_setting() {
    let hooks = Hooks::start().await;
    let (_c, http) = judged(&hooks, "/images-broken", "").await;
    http.post(PODS, &of_image("a", "good")).await.refused(
        403,
        "Forbidden",
        "pods \"a\" is forbidden: no business here",
    );
    let (_d, http) = judged(&hooks, "/images-broken", ", defaultAllow: true").await;
    http.post(PODS, &of_image("a", "evil")).await.expect(201);
    let (_e, http) = judged(&hooks, "/images", ", allowTTL: -1, denyTTL: -1").await;
    let before = hooks.asked("/images").len();
    for name in ["a", "b"] {
        http.post(PODS, &of_image(name, "good")).await.expect(201);
    }
    assert_eq!(hooks.asked("/images").len(), before + 2, "nothing is remembered");
}
