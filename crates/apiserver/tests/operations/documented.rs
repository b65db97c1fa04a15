//! The metrics that upstream promises: every stable and beta one of the kube-apiserver, with its labels and type, as
//! its documentation lists them.

use std::collections::BTreeMap;

use http::Method;
use ironkeel_apiserver::{Configuration, Feature};
use serde_json::json;

use crate::support::{Answer, start_tuned};

/// Name, type, stability, labels in alphabetical order.
#[rustfmt::skip]
const DOCUMENTED: &[(&str, &str, &str, &[&str])] = &[
    ("apiserver_admission_controller_admission_duration_seconds", "histogram", "STABLE", &["name", "operation", "rejected", "type"]),
    ("apiserver_admission_step_admission_duration_seconds", "histogram", "STABLE", &["operation", "rejected", "type"]),
    ("apiserver_admission_webhook_admission_duration_seconds", "histogram", "STABLE", &["name", "operation", "rejected", "type"]),
    ("apiserver_authentication_config_controller_automatic_reload_last_timestamp_seconds", "gauge", "BETA", &["apiserver_id_hash", "status"]),
    ("apiserver_authentication_config_controller_automatic_reloads_total", "counter", "BETA", &["apiserver_id_hash", "status"]),
    ("apiserver_authorization_config_controller_automatic_reload_last_timestamp_seconds", "gauge", "BETA", &["apiserver_id_hash", "status"]),
    ("apiserver_authorization_config_controller_automatic_reloads_total", "counter", "BETA", &["apiserver_id_hash", "status"]),
    ("apiserver_cel_compilation_duration_seconds", "histogram", "BETA", &[]),
    ("apiserver_cel_evaluation_duration_seconds", "histogram", "BETA", &[]),
    ("apiserver_current_inflight_requests", "gauge", "STABLE", &["request_kind"]),
    ("apiserver_flowcontrol_current_executing_requests", "gauge", "BETA", &["flow_schema", "priority_level"]),
    ("apiserver_flowcontrol_current_executing_seats", "gauge", "BETA", &["flow_schema", "priority_level"]),
    ("apiserver_flowcontrol_current_inqueue_requests", "gauge", "BETA", &["flow_schema", "priority_level"]),
    ("apiserver_flowcontrol_dispatched_requests_total", "counter", "BETA", &["flow_schema", "priority_level"]),
    ("apiserver_flowcontrol_nominal_limit_seats", "gauge", "BETA", &["priority_level"]),
    ("apiserver_flowcontrol_rejected_requests_total", "counter", "BETA", &["flow_schema", "priority_level", "reason"]),
    ("apiserver_flowcontrol_request_wait_duration_seconds", "histogram", "BETA", &["execute", "flow_schema", "priority_level"]),
    ("apiserver_longrunning_requests", "gauge", "STABLE", &["component", "group", "resource", "scope", "subresource", "verb", "version"]),
    ("apiserver_request_duration_seconds", "histogram", "STABLE", &["component", "dry_run", "group", "resource", "scope", "subresource", "verb", "version"]),
    // `system_client` is not documented, but there.
    ("apiserver_request_total", "counter", "STABLE", &["code", "component", "dry_run", "group", "resource", "scope", "subresource", "system_client", "verb", "version"]),
    ("apiserver_requested_deprecated_apis", "gauge", "STABLE", &["group", "removed_release", "resource", "subresource", "version"]),
    ("apiserver_response_sizes", "histogram", "STABLE", &["component", "group", "resource", "scope", "subresource", "verb", "version"]),
    ("apiserver_storage_events_received_total", "counter", "BETA", &["group", "resource"]),
    ("apiserver_storage_objects", "gauge", "STABLE", &["resource"]),
    ("apiserver_storage_size_bytes", "gauge", "STABLE", &["storage_cluster_id"]),
    ("apiserver_validating_admission_policy_check_duration_seconds", "histogram", "BETA", &["enforcement_action", "error_type", "policy", "policy_binding"]),
    ("apiserver_validating_admission_policy_check_total", "counter", "BETA", &["enforcement_action", "error_type", "policy", "policy_binding"]),
    ("apiserver_validation_declarative_validation_mismatch_total", "counter", "BETA", &[]),
    ("apiserver_validation_declarative_validation_panic_total", "counter", "BETA", &[]),
    ("apiserver_watch_list_duration_seconds", "histogram", "BETA", &["group", "resource", "scope", "version"]),
    ("disabled_metrics_total", "counter", "BETA", &[]),
    ("hidden_metrics_total", "counter", "BETA", &[]),
    ("kubernetes_build_info", "gauge", "BETA", &["build_date", "compiler", "git_commit", "git_tree_state", "git_version", "go_version", "major", "minor", "platform"]),
    ("kubernetes_feature_enabled", "gauge", "BETA", &["name", "stage"]),
    ("kubernetes_healthcheck", "gauge", "STABLE", &["name", "type"]),
    ("kubernetes_healthchecks_total", "counter", "STABLE", &["name", "status", "type"]),
    ("registered_metrics_total", "counter", "BETA", &["deprecated_version", "stability_level"]),
];

/// Documented, but about what this server does not have: queues of its own (the controllers' process shows theirs).
const ELSEWHERE: &[&str] = &[
    "running_managed_controllers",
    "workqueue_adds_total",
    "workqueue_depth",
    "workqueue_longest_running_processor_seconds",
    "workqueue_queue_duration_seconds",
    "workqueue_retries_total",
    "workqueue_unfinished_work_seconds",
    "workqueue_work_duration_seconds",
];

/// What a page shows of one family.
#[derive(Debug, Default)]
struct Shown {
    kind: String,
    help: String,
    /// Of the first sample.
    labels: Vec<String>,
}

fn label_names(sample: &str) -> Vec<String> {
    let Some((_, rest)) = sample.split_once('{') else { return Vec::new() };
    let (mut names, mut rest) = (Vec::new(), rest);
    while let Some((name, after)) = rest.split_once("=\"") {
        if name != "le" {
            names.push(name.trim_start_matches(',').to_owned());
        }
        let end = after.match_indices('"').find(|(i, _)| !after[..*i].ends_with('\\')).unwrap().0;
        rest = after[end + 1..].trim_start_matches(',');
        if rest.starts_with('}') {
            break;
        }
    }
    names.retain(|n| n != "le");
    names.sort();
    names
}

fn shown(answer: &Answer) -> BTreeMap<String, Shown> {
    let page = String::from_utf8(answer.bytes.to_vec()).unwrap();
    let (mut out, mut last) = (BTreeMap::<String, Shown>::new(), String::new());
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            last = name.to_owned();
            out.entry(last.clone()).or_default().help = help.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            out.get_mut(&last).unwrap().kind = rest.split_once(' ').unwrap().1.to_owned();
        } else {
            let family = out.get_mut(&last).unwrap();
            if family.labels.is_empty() {
                family.labels = label_names(line);
            }
        }
    }
    out
}

#[test]
fn every_promised_metric_is_declared_with_upstreams_type_and_labels() {
    let all: BTreeMap<&str, _> = ironkeel_apiserver::metric_families().map(|f| (f.name, f)).collect();
    assert_eq!(all.len(), ironkeel_apiserver::metric_families().count(), "a name stands twice");
    for (name, kind, stability, labels) in DOCUMENTED {
        let family = all.get(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(family.kind.as_str(), *kind, "{name}");
        assert_eq!(family.stability.mark().trim(), format!("[{stability}]"), "{name}");
        let mut own: Vec<&str> = family.labels.to_vec();
        own.sort_unstable();
        assert_eq!(own, *labels, "{name}");
    }
    let promised = |s: &str| matches!(s, "[STABLE] " | "[BETA] ");
    for family in all.values().filter(|f| promised(f.stability.mark())) {
        assert!(DOCUMENTED.iter().any(|d| d.0 == family.name), "{} is not promised upstream", family.name);
    }
    assert!(ELSEWHERE.iter().all(|name| !all.contains_key(name)));
}

#[tokio::test]
async fn what_is_promised_is_shown_once_it_has_happened() {
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let features = vec![Feature { name: "ComponentFlagz", stage: "BETA", enabled: true }];
    let c = start_tuned(dir, ironkeel_embedded::Options::default(), |c| c.features = features).await;
    let admin = c.admin();
    let group = "/apis/admissionregistration.k8s.io/v1";
    let rules = json!({ "resourceRules": [{ "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"] }] });
    let policy = json!({ "metadata": { "name": "p" }, "spec": { "matchConstraints": rules,
        "validations": [{ "expression": "object.metadata.name != 'odd'" }] } });
    admin.post(&format!("{group}/validatingadmissionpolicies"), &policy).await.expect(201);
    let binding =
        json!({ "metadata": { "name": "b" }, "spec": { "policyName": "p", "validationActions": ["Deny", "Audit"] } });
    admin.post(&format!("{group}/validatingadmissionpolicybindings"), &binding).await.expect(201);
    let hook = json!({ "metadata": { "name": "w" }, "webhooks": [{ "name": "w.example.com", "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore", "timeoutSeconds": 1,
        "clientConfig": { "url": "https://127.0.0.1:1/w" }, "rules": [{ "operations": ["CREATE"], "apiGroups": [""],
        "apiVersions": ["v1"], "resources": ["configmaps"] }] }] });
    admin.post(&format!("{group}/validatingwebhookconfigurations"), &hook).await.expect(201);
    let maps = "/api/v1/namespaces/default/configmaps";
    for name in ["even", "odd"] {
        let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } });
        admin.post(maps, &object).await.expect(if name == "odd" { 422 } else { 201 });
    }
    admin.get(maps).await.expect(200);
    admin.get("/api/v1/namespaces/default/endpoints").await.expect(200);
    admin.get("/livez").await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = admin.watch(&format!("{maps}?{query}")).await;
    while watch.event().await.0 != "BOOKMARK" {}
    for which in [Configuration::Authentication, Configuration::Authorization] {
        c.api.configured(which, "old");
        c.api.reconfigured(which, None);
        c.api.reconfigured(which, Some("new"));
    }

    let mut page = shown(&admin.get("/metrics").await);
    assert!(!page.contains_key("kubernetes_healthcheck"), "health checks have a page of their own");
    page.extend(shown(&admin.send(Method::GET, "/metrics/slis", &[], "").await));
    // Nothing was refused for want of seats.
    let unseen = ["apiserver_flowcontrol_rejected_requests_total"];
    for (name, kind, stability, labels) in DOCUMENTED.iter().filter(|d| !unseen.contains(&d.0)) {
        let family = page.get(*name).unwrap_or_else(|| panic!("{name} is not shown"));
        assert_eq!((family.kind.as_str(), family.labels.join(",")), (*kind, labels.join(",")), "{name}");
        assert!(family.help.starts_with(&format!("[{stability}] ")), "{name}: {}", family.help);
    }
    for (name, family) in &page {
        let declared =
            ironkeel_apiserver::metric_families().find(|f| f.name == name).unwrap_or_else(|| panic!("{name}"));
        let mut labels: Vec<&str> = declared.labels.to_vec();
        labels.sort_unstable();
        let (shown, told) = (family.labels.join(","), labels.join(","));
        assert_eq!((family.kind.as_str(), shown), (declared.kind.as_str(), told), "{name}");
    }

    let text = String::from_utf8(admin.get("/metrics").await.bytes.to_vec()).unwrap();
    let line = |wanted: &str| assert!(text.lines().any(|l| l == wanted), "{wanted} is not in\n{text}");
    line(
        "apiserver_validating_admission_policy_check_total{policy=\"p\",policy_binding=\"b\",error_type=\"invalid_error\",enforcement_action=\"deny\"} 1",
    );
    line(
        "apiserver_validating_admission_policy_check_total{policy=\"p\",policy_binding=\"b\",error_type=\"invalid_error\",enforcement_action=\"audit\"} 1",
    );
    line(
        "apiserver_validating_admission_policy_check_total{policy=\"p\",policy_binding=\"b\",error_type=\"no_error\",enforcement_action=\"allow\"} 1",
    );
    line(
        "apiserver_admission_controller_admission_duration_seconds_count{name=\"ValidatingAdmissionPolicy\",type=\"validate\",operation=\"CREATE\",rejected=\"true\"} 1",
    );
    line("apiserver_admission_webhook_fail_open_count{name=\"w.example.com\",type=\"validating\"} 1");
    line(
        "apiserver_requested_deprecated_apis{group=\"\",version=\"v1\",resource=\"endpoints\",subresource=\"\",removed_release=\"\"} 1",
    );
    line(
        "apiserver_watch_list_duration_seconds_count{group=\"\",version=\"v1\",resource=\"configmaps\",scope=\"namespace\"} 1",
    );
    line("apiserver_cache_list_total{group=\"\",resource=\"configmaps\",index=\"\"} 1");
    line("apiserver_watch_cache_initializations_total{group=\"\",resource=\"configmaps\"} 1");
    line(
        "apiserver_authentication_config_controller_automatic_reloads_total{status=\"failure\",apiserver_id_hash=\"\"} 1",
    );
    let new = "11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437";
    line(&format!(
        "apiserver_authorization_config_controller_last_config_info{{apiserver_id_hash=\"\",hash=\"sha256:{new}\"}} 1"
    ));
    line("kubernetes_feature_enabled{name=\"ComponentFlagz\",stage=\"BETA\"} 1");
    assert!(text.contains("\napiserver_storage_size_bytes{storage_cluster_id=\"etcd-0\"} "), "{text}");
}
