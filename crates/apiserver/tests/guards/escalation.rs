//! Roles and bindings: nobody grants what they do not hold, unless an authorizer (a webhook, too) lets them
//! `escalate` or `bind`; and what reviews tell of rules and selectors.

use std::sync::Arc;

use ironkeel_apiserver::DelegatesConfig;
use ironkeel_embedded::Options;
use serde_json::{Value, json};

use crate::access::RBAC;
use crate::acting::allow;
use crate::delegates::webhook;
use crate::support::{cluster, start_tuned};
use crate::wire::answering;

const AUTHORIZATION: &str = "/apis/authorization.k8s.io/v1";

fn role(name: &str, resource: &str) -> Value {
    json!({ "metadata": { "name": name }, "rules": [{ "apiGroups": [""], "resources": [resource], "verbs": ["get", "list"] }] })
}

fn binding(name: &str, role: &str) -> Value {
    json!({ "metadata": { "name": name }, "subjects": [{ "kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "joe" }],
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role } })
}

#[tokio::test]
async fn nobody_hands_out_what_they_do_not_hold() {
    let c = cluster().await;
    let admin = c.admin();
    let (roles, bindings) = (format!("{RBAC}/clusterroles"), format!("{RBAC}/clusterrolebindings"));
    let rbac = "rbac.authorization.k8s.io";
    let writes = ["create", "update", "patch"].map(|verb| format!("{verb} {rbac} *"));
    let mut rules: Vec<&str> = writes.iter().map(String::as_str).collect();
    rules.extend(["get - pods", "list - pods"]);
    allow(&admin, "ann", &rules).await;
    let ann = c.as_user("ann", &["devs"]);
    ann.post(&roles, &role("pods", "pods")).await.expect(201);
    ann.post(&bindings, &binding("pods", "pods")).await.expect(201);
    let why = "clusterroles.rbac.authorization.k8s.io \"nodes\" is forbidden: user \"ann\" (groups=[\"devs\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\" \"list\"]}";
    ann.post(&roles, &role("nodes", "nodes")).await.refused(403, "Forbidden", why);
    admin.post(&roles, &role("nodes", "nodes")).await.expect(201);
    ann.post(&bindings, &binding("nodes", "nodes")).await.refused(403, "Forbidden", "is attempting to grant");
    let why = "clusterrolebindings.rbac.authorization.k8s.io \"nowhere\" not found";
    ann.post(&bindings, &binding("lost", "nowhere")).await.refused(404, "NotFound", why);
    // Who may not write the rules writes nothing else either, but for what the garbage collector needs.
    let merge = "application/merge-patch+json";
    let labels = json!({ "metadata": { "labels": { "a": "b" } } });
    ann.patch(&format!("{roles}/nodes"), merge, &labels).await.refused(403, "Forbidden", "is attempting to grant");
    let finalizers = json!({ "metadata": { "finalizers": ["example.com/hold"] } });
    ann.patch(&format!("{roles}/nodes"), merge, &finalizers).await.expect(200);
    ann.patch(&format!("{roles}/nodes"), merge, &json!({ "metadata": { "finalizers": null } })).await.expect(200);
    let mut gathering = role("gathering", "pods");
    gathering["aggregationRule"] = json!({ "clusterRoleSelectors": [{ "matchLabels": { "a": "b" } }] });
    let why = "must have cluster-admin privileges to use the aggregationRule";
    ann.post(&roles, &gathering).await.refused(403, "Forbidden", why);
    // Of one name alone, and on creation the request has none.
    allow(
        &admin,
        "bea",
        &[
            &writes[0],
            &writes[1],
            &format!("escalate {rbac} clusterroles fresh"),
            &format!("bind {rbac} clusterroles nodes"),
        ],
    )
    .await;
    let bea = c.as_user("bea", &[]);
    bea.post(&roles, &role("fresh", "nodes")).await.refused(403, "Forbidden", "is attempting to grant");
    admin.post(&roles, &role("fresh", "pods")).await.expect(201);
    bea.put(&format!("{roles}/fresh"), &role("fresh", "nodes")).await.expect(200);
    bea.post(&bindings, &binding("nodes", "nodes")).await.expect(201);
    bea.post(&bindings, &binding("more", "pods")).await.refused(403, "Forbidden", "is attempting to grant");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_may_let_somebody_escalate_and_cannot_tell_all_rules() {
    let url = answering(|_, review| {
        let attributes = &review["spec"]["resourceAttributes"];
        let verb = attributes["verb"].as_str().unwrap_or_default();
        let lets = matches!(verb, "create" | "bind") || verb == "escalate" && attributes["version"] == "*";
        json!({ "status": { "allowed": lets && review["spec"]["user"] == "ann" } })
    })
    .await;
    let delegates = DelegatesConfig { access: Some(webhook(format!("http://{url}/"))), ..DelegatesConfig::default() };
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let c = start_tuned(dir, Options::default(), |config| config.delegates = Arc::new(delegates)).await;
    let ann = c.as_user("ann", &[]);
    ann.post(&format!("{RBAC}/clusterroles"), &role("nodes", "nodes")).await.expect(201);
    ann.post(&format!("{RBAC}/clusterrolebindings"), &binding("nodes", "nodes")).await.expect(201);
    let body = json!({ "spec": { "namespace": "default" } });
    let told = ann.post(&format!("{AUTHORIZATION}/selfsubjectrulesreviews"), &body).await.expect(201);
    assert_eq!(told["status"]["incomplete"], true);
    let why = "webhook authorizer does not support user rule resolution";
    assert_eq!(told["status"]["evaluationError"], why);
}

#[tokio::test]
async fn reviews_tell_rules_and_look_at_selectors() {
    let c = cluster().await;
    let admin = c.admin();
    let rules = format!("{AUTHORIZATION}/selfsubjectrulesreviews");
    let body = json!({ "spec": { "namespace": "default" } });
    let told = admin.post(&rules, &body).await.expect(201);
    // Of the authorizers' rules: what masters may by being such is nobody's rule.
    assert_eq!((&told["metadata"], &told["spec"]), (&json!({}), &json!({})));
    let all = told["status"]["resourceRules"].as_array().unwrap();
    assert!(all.contains(&json!({ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] })), "{told}");
    let own =
        json!({ "verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"] });
    assert_eq!(all.iter().filter(|r| **r == own).count(), 1, "{told}");
    assert_eq!(told["status"]["incomplete"], false);
    let role = json!({ "metadata": { "name": "both" }, "rules": [
        { "verbs": ["get"], "nonResourceURLs": ["/x"] }, { "verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["p"] }] });
    admin.post(&format!("{RBAC}/clusterroles"), &role).await.expect(201);
    admin.post(&format!("{RBAC}/clusterrolebindings"), &binding("both", "both")).await.expect(201);
    let lost = binding("lost", "gone");
    admin.post(&format!("{RBAC}/clusterrolebindings"), &lost).await.expect(201);
    let joe = c.as_user("joe", &[]);
    let told = joe.post(&rules, &body).await.expect(201);
    let pod = json!({ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["p"] });
    assert!(told["status"]["resourceRules"].as_array().unwrap().contains(&pod), "{told}");
    let path = json!({ "verbs": ["get"], "nonResourceURLs": ["/x"] });
    assert!(told["status"]["nonResourceRules"].as_array().unwrap().contains(&path), "{told}");
    let missing = r#"clusterrole.rbac.authorization.k8s.io "gone" not found"#;
    assert_eq!(told["status"]["evaluationError"], missing);
    joe.get("/api/v1/nodes").await.refused(403, "Forbidden", &format!("at the cluster scope: RBAC: {missing}"));
    let node = c.as_user("system:node:n1", &["system:nodes"]).post(&rules, &body).await.expect(201);
    assert_eq!(node["status"]["evaluationError"], "node authorizer does not support user rule resolution");

    let ask = async |selector: Value, more: &str| {
        let mut attributes = json!({ "verb": "list", "resource": "pods" });
        attributes["fieldSelector"] = selector;
        let metadata: Value = serde_json::from_str(more).unwrap();
        let body = json!({ "metadata": metadata, "spec": { "user": "system:node:n1", "groups": ["system:nodes"],
            "resourceAttributes": attributes } });
        admin.post(&format!("{AUTHORIZATION}/subjectaccessreviews"), &body).await
    };
    let requirement =
        |operator: &str, values: &[&str]| json!({ "key": "spec.nodeName", "operator": operator, "values": values });
    let status = async |selector: Value| ask(selector, "{}").await.expect(201)["status"].clone();
    assert_eq!(status(json!({ "requirements": [requirement("In", &["n1"])] })).await["allowed"], true);
    assert_eq!(status(json!({ "rawSelector": "spec.nodeName=n1" })).await["allowed"], true);
    assert_eq!(status(json!({ "requirements": [requirement("NotIn", &["n1"])] })).await["allowed"], false);
    assert_eq!(status(json!({ "requirements": [requirement("In", &["n2"])] })).await["allowed"], false);
    let partly = status(json!({ "requirements": [requirement("In", &["n1"]), requirement("Near", &["x"])] })).await;
    let why = "spec.resourceAttributes.fieldSelector partially ignored due to parse error";
    assert_eq!((&partly["allowed"], &partly["evaluationError"]), (&json!(true), &json!(why)));
    let why = "spec.resourceAttributes.fieldSelector ignored due to parse error";
    let none = status(json!({ "requirements": [requirement("In", &["n1", "n2"])] })).await;
    assert_eq!((&none["allowed"], &none["evaluationError"]), (&json!(false), &json!(why)));
    let both = json!({ "rawSelector": "a=b", "requirements": [requirement("In", &[])] });
    let refused = ask(both, r#"{"name":"x"}"#).await;
    let said = refused.json()["message"].as_str().unwrap().to_owned();
    for part in [
        "metadata: Invalid value: ",
        "spec.resourceAttributes.fieldSelector.rawSelector: Invalid value: \"a=b\": may not specified at the same time as requirements",
        "spec.resourceAttributes.fieldSelector.requirements[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let empty = ask(json!({}), "{}").await;
    empty.refused(
        422,
        "Invalid",
        "when spec.resourceAttributes.fieldSelector is specified, requirements or rawSelector is required",
    );
}
