//! Admission policies through the API: deny, warn, note, mutate; and what is refused of them.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use serde_json::{Value, json};
use support::{Http, cluster};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MERGE: &str = "application/merge-patch+json";

fn constraints(resources: &[&str], groups: &[&str]) -> Value {
    json!({"resourceRules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": groups, "apiVersions": ["*"], "resources": resources}]})
}

async fn policy(http: &Http, kind: &str, name: &str, spec: Value, binding: Value) {
    let (policies, bindings) = (format!("{GROUP}/{kind}policies"), format!("{GROUP}/{kind}policybindings"));
    http.post(&policies, &json!({"metadata": {"name": name}, "spec": spec})).await.expect(201);
    let mut of = binding;
    of["policyName"] = name.into();
    http.post(&bindings, &json!({"metadata": {"name": format!("{name}-b")}, "spec": of})).await.expect(201);
}

fn map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

fn deployment(name: &str, replicas: i64) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validation_denies_warns_or_passes() {
    let c = cluster().await;
    let http = c.admin();
    let spec = json!({
        "matchConstraints": constraints(&["deployments"], &["apps"]),
        "variables": [{"name": "wanted", "expression": "object.spec.replicas"}],
        "validations": [
            {"expression": "variables.wanted > 1", "messageExpression": "'wants only ' + string(variables.wanted)"},
            {"expression": "namespaceObject.metadata.name == 'default'", "message": "only in default", "reason": "Forbidden"},
        ],
    });
    policy(&http, "validatingadmission", "replicas", spec, json!({"validationActions": ["Deny"]})).await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let a = http.post(path, &deployment("one", 1)).await;
    let body = a.json();
    assert_eq!(
        body["message"],
        "deployments.apps \"one\" is forbidden: ValidatingAdmissionPolicy 'replicas' with binding 'replicas-b' denied request: wants only 1"
    );
    assert_eq!((&body["reason"], &body["code"]), (&json!("Invalid"), &json!(422)));
    http.post(path, &deployment("two", 2)).await.expect(201);
    http.post("/api/v1/namespaces", &json!({"metadata": {"name": "other"}})).await.expect(201);
    http.post("/apis/apps/v1/namespaces/other/deployments", &deployment("two", 2)).await.refused(
        403,
        "Forbidden",
        "denied request: only in default",
    );
    let bindings = format!("{GROUP}/validatingadmissionpolicybindings/replicas-b");
    http.patch(&bindings, MERGE, &json!({"spec": {"validationActions": ["Warn", "Audit"]}})).await.expect(200);
    let a = http.post(path, &deployment("one", 1)).await;
    let warning = a.headers["warning"].to_str().unwrap().to_owned();
    assert_eq!(
        warning,
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'replicas' with binding 'replicas-b': wants only 1\""
    );
    a.expect(201);
    http.delete(&bindings).await.expect(200);
    http.post(path, &deployment("none", 0)).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_found_by_name_and_by_selector() {
    let c = cluster().await;
    let http = c.admin();
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": constraints(&["secrets"], &[""]),
        "matchConditions": [{"name": "not-free", "expression": "!object.metadata.name.startsWith('free')"}],
        "validations": [{"expression": "size(object.metadata.name) <= int(params.data.max)", "message": "too long"}],
    });
    let binding =
        json!({"validationActions": ["Deny"], "paramRef": {"name": "limit", "parameterNotFoundAction": "Deny"}});
    policy(&http, "validatingadmission", "names", spec, binding).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = |name: &str| json!({"metadata": {"name": name}});
    http.post(secrets, &secret("abc")).await.refused(
        422,
        "Invalid",
        "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction",
    );
    http.post(MAPS, &map("limit", json!({"max": "3"}))).await.expect(201);
    http.post(secrets, &secret("abc")).await.expect(201);
    http.post(secrets, &secret("abcd")).await.refused(422, "Invalid", "denied request: too long");
    http.post(secrets, &secret("free-for-all")).await.expect(201);
    let select = json!({"spec": {"paramRef": {"name": null, "selector": {"matchLabels": {"limits": "names"}}}}});
    let bindings = format!("{GROUP}/validatingadmissionpolicybindings/names-b");
    http.patch(&bindings, MERGE, &select).await.expect(200);
    http.patch(
        &format!("{MAPS}/limit"),
        MERGE,
        &json!({"data": {"max": "4"}, "metadata": {"labels": {"limits": "names"}}}),
    )
    .await
    .expect(200);
    http.post(secrets, &secret("abcd")).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_that_fails_is_judged_by_the_failure_policy() {
    let c = cluster().await;
    let http = c.admin();
    let spec = json!({
        "matchConstraints": constraints(&["configmaps"], &[""]),
        "validations": [{"expression": "object.data.absent == 'x'"}],
    });
    policy(&http, "validatingadmission", "p", spec, json!({"validationActions": ["Deny"]})).await;
    http.post(MAPS, &map("a", json!({"k": "v"}))).await.refused(
        422,
        "Invalid",
        "denied request: expression 'object.data.absent == 'x'' resulted in error: no such key: absent",
    );
    let path = format!("{GROUP}/validatingadmissionpolicies/p");
    http.patch(&path, MERGE, &json!({"spec": {"failurePolicy": "Ignore"}})).await.expect(200);
    http.post(MAPS, &map("a", json!({"k": "v"}))).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn mutating_policies_apply_and_patch() {
    let c = cluster().await;
    let http = c.admin();
    let spec = json!({
        "matchConstraints": constraints(&["deployments"], &["apps"]),
        "reinvocationPolicy": "Never",
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                "Object{metadata: Object.metadata{annotations: {'touched': 'by-' + request.userInfo.username}}, spec: Object.spec{replicas: 5}}"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'add', path: '/metadata/labels', value: {'replicas': string(object.spec.replicas)}}]"}},
        ],
    });
    policy(&http, "mutatingadmission", "m", spec, json!({})).await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let made = http.post(path, &deployment("d", 1)).await.expect(201);
    assert_eq!(made["spec"]["replicas"], 5);
    assert_eq!(made["metadata"]["annotations"]["touched"], "by-admin");
    assert_eq!(made["metadata"]["labels"], json!({"replicas": "5"}));
    assert_eq!(made["spec"]["template"]["spec"]["containers"][0]["image"], "i", "the rest stays");
    let atomic = json!({"spec": {"mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
        "Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'c': 'd'}}}}"}}]}});
    http.patch(&format!("{GROUP}/mutatingadmissionpolicies/m"), MERGE, &atomic).await.expect(200);
    let a = http.post(path, &deployment("e", 1)).await;
    a.refused(
        403,
        "Invalid",
        "policy 'm' with binding 'm-b' denied request: error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.selector",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_compile_is_refused() {
    let c = cluster().await;
    let http = c.admin();
    let make = |spec: Value| {
        let http = http.clone();
        let body = json!({"metadata": {"name": "x"}, "spec": spec});
        async move { http.post(&format!("{GROUP}/validatingadmissionpolicies"), &body).await }
    };
    let with = |expression: &str| json!({"matchConstraints": constraints(&["*"], &["*"]), "validations": [{"expression": expression}]});
    make(with("object.x +")).await.refused(
        422,
        "Invalid",
        "spec.validations[0].expression: Invalid value: \"object.x +\": compilation failed: ERROR: <input>:1:11:",
    );
    make(with("1 + 1")).await.refused(422, "Invalid", "must evaluate to bool but got int");
    make(with("request.absent == 1")).await.refused(422, "Invalid", "undefined field 'absent'");
    make(json!({"validations": []})).await.refused(
        422,
        "Invalid",
        "validations or auditAnnotations must contain at least one item",
    );
    let hook = json!({"metadata": {"name": "h"}, "webhooks": [{
        "name": "h.example.com", "clientConfig": {"url": "https://x/y"}, "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "matchConditions": [{"name": "bad", "expression": "..."}],
    }]});
    http.post(&format!("{GROUP}/validatingwebhookconfigurations"), &hook).await.refused(
        422,
        "Invalid",
        "compilation failed",
    );
    let both = json!({"metadata": {"name": "b"}, "spec": {"policyName": "x", "validationActions": ["Deny", "Warn"]}});
    http.post(&format!("{GROUP}/validatingadmissionpolicybindings"), &both).await.refused(
        422,
        "Invalid",
        "must not contain both Deny and Warn",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn types_are_checked_into_the_status() {
    let c = cluster().await;
    let http = c.admin();
    let mut watch = http.watch(&format!("{GROUP}/validatingadmissionpolicies?watch=true")).await;
    let rules = json!({"resourceRules": [{"operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]});
    let spec = json!({"matchConstraints": rules, "validations": [
        {"expression": "object.spec.replicas > '1'", "messageExpression": "'wants ' + object.spec.replicas"},
        {"expression": "object.spec.replicas > 1"},
    ]});
    http.post(&format!("{GROUP}/validatingadmissionpolicies"), &json!({"metadata": {"name": "t"}, "spec": spec}))
        .await
        .expect(201);
    let status = loop {
        let (_, policy) = watch.event().await;
        if policy["status"]["observedGeneration"] == 1 {
            break policy["status"].clone();
        }
    };
    let warnings = status["typeChecking"]["expressionWarnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 2, "{status}");
    assert_eq!(warnings[0]["fieldRef"], "spec.validations[0].expression");
    let text = warnings[0]["warning"].as_str().unwrap();
    assert!(text.starts_with("apps/v1, Kind=Deployment: "), "{text}");
    assert!(text.contains("found no matching overload for '_>_' applied to '(int, string)'"), "{text}");
    assert_eq!(warnings[1]["fieldRef"], "spec.validations[0].messageExpression");
    let text = warnings[1]["warning"].as_str().unwrap();
    assert!(text.contains("found no matching overload for '_+_' applied to '(string, int)'"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_asks_for_it_sees_what_later_ones_changed() {
    let c = cluster().await;
    let http = c.admin();
    let spec = |condition: &str, add: &str, again: &str| {
        json!({"matchConstraints": constraints(&["configmaps"], &[""]), "reinvocationPolicy": again,
            "matchConditions": [{"name": "when", "expression": condition}],
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                format!("Object{{metadata: Object.metadata{{labels: {{'{add}': 'yes'}}}}}}")}}]})
    };
    let late = "has(object.metadata.labels) && 'late' in object.metadata.labels";
    policy(&http, "mutatingadmission", "a-again", spec(late, "again", "IfNeeded"), json!({})).await;
    policy(&http, "mutatingadmission", "a-once", spec(late, "once", "Never"), json!({})).await;
    policy(&http, "mutatingadmission", "b-late", spec("true", "late", "Never"), json!({})).await;
    let made = http.post(MAPS, &map("m", json!({}))).await.expect(201);
    assert_eq!(made["metadata"]["labels"], json!({"late": "yes", "again": "yes"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_see_scales_and_what_the_caller_may_do() {
    let c = cluster().await;
    let http = c.admin();
    let spec = json!({"matchConstraints": constraints(&["deployments/scale"], &["apps"]), "validations": [
        {"expression": "object.spec.replicas <= 3 || authorizer.group('apps').resource('deployments').check('overscale').allowed()",
            "messageExpression": "'no more than 3, was ' + string(oldObject.spec.replicas)"}]});
    policy(&http, "validatingadmission", "scales", spec, json!({"validationActions": ["Deny"]})).await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    http.post(path, &deployment("d", 2)).await.expect(201);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let rules = json!([{"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["patch"]}]);
    http.post(&format!("{rbac}/clusterroles"), &json!({"metadata": {"name": "s"}, "rules": rules})).await.expect(201);
    let to = json!({"metadata": {"name": "s"}, "subjects": [{"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "ClusterRole", "name": "s", "apiGroup": "rbac.authorization.k8s.io"}});
    http.post(&format!("{rbac}/clusterrolebindings"), &to).await.expect(201);
    let scale = |n: i64| json!({"spec": {"replicas": n}});
    let eve = c.as_user("eve", &[]);
    eve.patch(&format!("{path}/d/scale"), MERGE, &scale(4)).await.refused(422, "Invalid", "no more than 3, was 2");
    eve.patch(&format!("{path}/d/scale"), MERGE, &scale(3)).await.expect(200);
    http.patch(&format!("{path}/d/scale"), MERGE, &scale(4)).await.expect(200);
}
