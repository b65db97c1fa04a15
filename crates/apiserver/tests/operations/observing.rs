//! `/metrics` and the health families.

use http::Method;
use serde_json::json;

use crate::support::{Answer, cluster};

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.bytes.to_vec()).unwrap()
}

/// Names that dashboards and upstream's tests look for.
const EXPECTED: &[&str] = &[
    "aggregator_unavailable_apiservice",
    "apiserver_admission_step_admission_duration_seconds",
    "apiserver_current_inflight_requests",
    "apiserver_longrunning_requests",
    "apiserver_request_body_size_bytes",
    "apiserver_request_duration_seconds",
    "apiserver_request_filter_duration_seconds",
    "apiserver_request_sli_duration_seconds",
    "apiserver_request_total",
    "apiserver_resource_objects",
    "apiserver_resource_size_estimate_bytes",
    "apiserver_response_sizes",
    "apiserver_storage_objects",
    "apiserver_storage_size_bytes",
    "apiserver_tls_handshake_errors_total",
    "apiserver_watch_cache_resource_version",
    "apiserver_watch_events_sizes",
    "apiserver_watch_events_total",
    "authenticated_user_requests",
    "authentication_attempts",
    "authentication_duration_seconds",
    "authorization_attempts_total",
    "authorization_duration_seconds",
    "etcd_request_duration_seconds",
    "etcd_requests_total",
    "field_validation_request_duration_seconds",
    "kubernetes_build_info",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
];

#[tokio::test]
async fn metrics_have_upstreams_names_and_labels() {
    let c = cluster().await;
    let admin = c.admin();
    let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "one" } });
    let path = "/api/v1/namespaces/default/configmaps";
    admin.post(path, &object).await.expect(201);
    admin.get(&format!("{path}/one")).await.expect(200);
    admin.get(path).await.expect(200);
    admin.post(&format!("{path}?dryRun=All"), &object).await;
    admin.get("/api/v1/namespaces/default/nosuch").await;
    admin.get("/livez").await;
    let service = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": { "name": "v1.example.com" },
        "spec": { "group": "example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
                  "insecureSkipTLSVerify": true, "service": { "name": "x", "namespace": "default" } },
    });
    admin.post("/apis/apiregistration.k8s.io/v1/apiservices", &service).await.expect(201);
    let mut watch = admin.watch(&format!("{path}?watch=1")).await;
    watch.event().await;
    let answer = admin.get("/metrics").await;
    assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let page = text(&answer);
    let typed: Vec<&str> =
        page.lines().filter_map(|l| l.strip_prefix("# TYPE ")).filter_map(|l| l.split(' ').next()).collect();
    let shared = ironkeel_fairness::METRIC_FAMILIES.iter().map(|f| &f.name);
    for name in EXPECTED.iter().chain(shared) {
        let optional = ["apiserver_flowcontrol_rejected_requests_total"];
        assert!(typed.contains(name) || optional.contains(name), "{name} is missing");
    }
    let mut once = typed.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), typed.len(), "a family stands there twice");
    for line in page.lines().filter(|l| !l.starts_with('#')) {
        let (_, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    let line = |wanted: &str| assert!(page.lines().any(|l| l == wanted), "{wanted} is not in\n{page}");
    let cm = "group=\"\",version=\"v1\",resource=\"configmaps\",subresource=\"\"";
    line(&format!(
        "apiserver_request_total{{verb=\"POST\",dry_run=\"\",{cm},scope=\"resource\",component=\"apiserver\",code=\"201\",system_client=\"\"}} 1"
    ));
    line(&format!(
        "apiserver_request_total{{verb=\"LIST\",dry_run=\"\",{cm},scope=\"namespace\",component=\"apiserver\",code=\"200\",system_client=\"\"}} 1"
    ));
    line(&format!(
        "apiserver_longrunning_requests{{verb=\"WATCH\",{cm},scope=\"namespace\",component=\"apiserver\"}} 1"
    ));
    line("apiserver_watch_events_total{group=\"\",version=\"v1\",resource=\"configmaps\"} 1");
    // The server writes a ConfigMap of its own meanwhile, about tokens in Secrets.
    let stored = ["2", "3"].into_iter().find(|n| {
        page.lines().any(|l| l.strip_prefix("apiserver_storage_objects{resource=\"configmaps\"} ") == Some(*n))
    });
    line(&format!("apiserver_resource_objects{{group=\"\",resource=\"configmaps\"}} {}", stored.unwrap_or("2 or 3")));
    line("apiserver_flowcontrol_nominal_limit_seats{priority_level=\"workload-low\"} 245");
    assert!(!page.contains("nosuch"), "what is not served has no series of its own");
    drop(watch);
    let open =
        admin.send(Method::GET, "/metrics", &[("accept", "application/openmetrics-text; version=1.0.0")], "").await;
    assert!(open.headers["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    assert!(text(&open).ends_with("# EOF\n"));
}

#[tokio::test]
async fn health_is_told_check_by_check() {
    let c = cluster().await;
    let admin = c.admin();
    c.ready().await;
    for family in ["healthz", "livez", "readyz"] {
        let plain = admin.get(&format!("/{family}")).await;
        assert_eq!((plain.status.as_u16(), text(&plain).as_str()), (200, "ok"));
        assert_eq!(plain.headers["x-content-type-options"], "nosniff");
        let verbose = text(&admin.get(&format!("/{family}?verbose")).await);
        assert!(verbose.starts_with("[+]ping ok\n[+]log ok\n[+]etcd ok\n"), "{verbose}");
        assert!(verbose.contains("[+]poststarthook/rbac/bootstrap-roles ok\n"), "{verbose}");
        assert!(verbose.ends_with(&format!("{family} check passed\n")), "{verbose}");
        assert_eq!(verbose.contains("shutdown"), family == "readyz");
        assert_eq!(text(&admin.get(&format!("/{family}/etcd")).await), "ok");
        assert_eq!(admin.get(&format!("/{family}/nothing")).await.status, 404);
    }
    let excluded = text(&admin.get("/readyz?verbose&exclude=etcd&exclude=nothing").await);
    assert!(excluded.contains("[+]etcd excluded: ok\n"), "{excluded}");
    assert!(
        excluded.contains("warn: some health checks cannot be excluded: no matches for \"nothing\"\n"),
        "{excluded}"
    );
    c.api.stop().await;
    let down = admin.get("/readyz").await;
    assert_eq!(down.status, 500);
    assert!(text(&down).ends_with("[-]shutdown failed: reason withheld\nreadyz check failed\n"), "{}", text(&down));
    assert_eq!(admin.get("/livez").await.status, 200);
}

#[tokio::test]
async fn components_tell_how_they_are() {
    let c = cluster().await;
    let admin = c.admin();
    let path = "/api/v1/componentstatuses";
    let hosted = c.api.hosts("scheduler");
    let list = admin.get(path).await.expect(200);
    let names: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["controller-manager", "scheduler", "etcd-0"]);
    let healthy = json!([{ "type": "Healthy", "status": "True", "message": "ok" }]);
    for name in ["scheduler", "etcd-0"] {
        let one = admin.get(&format!("{path}/{name}")).await.expect(200);
        assert_eq!((&one["kind"], &one["conditions"]), (&json!("ComponentStatus"), &healthy), "{one}");
    }
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = admin.send(Method::GET, &format!("{path}/scheduler"), &accept, "").await.expect(200);
    assert_eq!(table["rows"][0]["cells"], json!(["scheduler", "Healthy", "ok", ""]));
    let selected = admin.get(&format!("{path}?fieldSelector=metadata.name%3Detcd-0")).await.expect(200);
    assert_eq!(selected["items"].as_array().unwrap().len(), 1);
    admin.get(&format!("{path}/x")).await.refused(404, "NotFound", "componentstatus \"x\" not found");

    // Who runs elsewhere is known by its lease.
    drop(hosted);
    let now = c.api.registry().clock().now();
    let lease = json!({ "metadata": { "name": "kube-scheduler" },
        "spec": { "holderIdentity": "one", "leaseDurationSeconds": 15, "renewTime": format!("{now:.6}") } });
    admin.post("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases", &lease).await.expect(201);
    assert_eq!(admin.get(&format!("{path}/scheduler")).await.expect(200)["conditions"], healthy);
}

#[tokio::test]
async fn answers_begin_with_their_kind() {
    let c = cluster().await;
    let admin = c.admin();
    let maps = "/api/v1/namespaces/default/configmaps";
    let object =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "one" }, "data": { "a": "b" } });
    let made = admin.post(maps, &object).await;
    assert!(text(&made).starts_with(r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"#), "{}", text(&made));
    let accept = [("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")];
    for (path, accept, kind) in [
        (format!("{maps}/one"), &[][..], "ConfigMap"),
        (maps.to_owned(), &[], "ConfigMapList"),
        (format!("{maps}/two"), &[], "Status"),
        (format!("{maps}/one"), &accept, "PartialObjectMetadata"),
    ] {
        let answer = admin.send(Method::GET, &path, accept, "").await;
        assert!(text(&answer).starts_with(&format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"")), "{}", text(&answer));
    }
    let list = text(&admin.get(maps).await);
    // What a list of a built-in kind holds has neither, as upstream's.
    assert!(list.contains(r#""items":[{"metadata":{"#), "{list}");
}
