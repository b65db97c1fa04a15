//! RBAC, the node authorizer, escalation, impersonation and the bootstrap policy.
#![allow(clippy::unwrap_used)]

mod source;

use std::collections::BTreeSet;
use std::sync::Arc;

use ironkeel_auth::{
    Attributes, Authorizer, Decision, Identity, PolicyRule, UserInfo, bootstrap_policy, impersonate, reconcile,
};
use ironkeel_object::{ObjectMeta, Value, object};
use source::Memory;

const RBAC: &str = "rbac.authorization.k8s.io/v1";

fn cluster() -> (Arc<Memory>, Authorizer) {
    let memory = Arc::new(Memory::default());
    bootstrap_policy().into_iter().for_each(|o| memory.put(o));
    (memory.clone(), Authorizer::new(memory))
}

fn user(name: &str, groups: &[&str]) -> UserInfo {
    UserInfo::new(name, groups.iter().copied())
}

fn account(namespace: &str, name: &str) -> UserInfo {
    UserInfo::for_service_account(namespace, name)
}

/// `verb group resource[/subresource] namespace name`, `-` for nothing; or `verb /path`.
fn attributes<'a>(user: &'a UserInfo, text: &'a str) -> Attributes<'a> {
    let words: Vec<&str> = text.split(' ').map(|w| if w == "-" { "" } else { w }).collect();
    if words[1].starts_with('/') {
        return Attributes::for_path(user, words[0], words[1]);
    }
    let (resource, subresource) = words[2].split_once('/').unwrap_or((words[2], ""));
    Attributes {
        subresource,
        namespace: words[3],
        name: words[4],
        ..Attributes::for_resource(user, words[0], words[1], "v1", resource)
    }
}

fn check(authorizer: &Authorizer, user: &UserInfo, text: &str, allowed: bool) {
    let decision = authorizer.authorize(&attributes(user, text));
    assert_eq!(decision.is_allowed(), allowed, "{} {text}: {decision:?}", user.name);
}

fn role(namespace: &str, name: &str, rules: Vec<Value>) -> Value {
    let kind = if namespace.is_empty() { "ClusterRole" } else { "Role" };
    object!({ "apiVersion": RBAC, "kind": kind, "metadata": { "name": name, "namespace": namespace }, "rules": rules })
}

fn binding(namespace: &str, role_kind: &str, role: &str, subject: Value) -> Value {
    let kind = if namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
    object!({
        "apiVersion": RBAC, "kind": kind, "metadata": { "name": (format!("{role}-binding")), "namespace": namespace },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role }, "subjects": [subject],
    })
}

#[test]
fn the_bootstrap_policy_is_whole() {
    let policy = bootstrap_policy();
    let count = |kind: &str| policy.iter().filter(|o| o.gvk().kind == kind).count();
    assert_eq!((count("ClusterRole"), count("ClusterRoleBinding")), (31 + 39 + 1, 12 + 39 + 1));
    assert_eq!((count("Role"), count("RoleBinding")), (7, 7));
    let names: BTreeSet<_> =
        policy.iter().map(|o| (o.gvk().kind, o.namespace().to_owned(), o.name().to_owned())).collect();
    assert_eq!(names.len(), policy.len());
    for object in &policy {
        assert_eq!(object.label("kubernetes.io/bootstrapping"), Some("rbac-defaults"), "{}", object.name());
        assert_eq!(object.annotation("rbac.authorization.kubernetes.io/autoupdate"), Some("true"));
        if let Some(reference) = object.get("roleRef") {
            let kind = reference.str_at(&["kind"]).unwrap();
            let namespace = if kind == "Role" { object.namespace() } else { "" };
            let target = (kind.to_owned(), namespace.to_owned(), reference.str_at(&["name"]).unwrap().to_owned());
            assert!(names.contains(&target), "{target:?}");
        } else {
            assert!(!object.items_at(&["rules"]).is_empty(), "{} allows nothing", object.name());
        }
    }
}

#[test]
fn default_roles_allow_what_their_names_say() {
    let (_, authorizer) = cluster();
    let admin = user("kubernetes-admin", &["system:masters"]);
    check(&authorizer, &admin, "delete - nodes - node-a", true);
    check(&authorizer, &admin, "get /metrics", true);
    let scheduler = user("system:kube-scheduler", &[]);
    check(&authorizer, &scheduler, "create - pods/binding default a", true);
    check(&authorizer, &scheduler, "list - nodes - -", true);
    check(&authorizer, &scheduler, "create - pods default -", false);
    let manager = user("system:kube-controller-manager", &[]);
    check(&authorizer, &manager, "create - serviceaccounts/token kube-system deployment-controller", true);
    let deployments = account("kube-system", "deployment-controller");
    check(&authorizer, &deployments, "create apps replicasets default -", true);
    check(&authorizer, &deployments, "create - secrets default -", false);
    let proxy = user("system:kube-proxy", &[]);
    check(&authorizer, &proxy, "watch discovery.k8s.io endpointslices - -", true);
    let dns = Identity::Dns.user("node-a");
    check(&authorizer, &dns, "watch discovery.k8s.io endpointslices - -", true);
    check(&authorizer, &dns, "list - secrets - -", false);
    let anyone = user("bob", &[]);
    for (text, allowed) in [
        ("get /version", true),
        ("get /healthz", true),
        ("get /readyz", true),
        ("get /api", true),
        ("get /apis/apps/v1", true),
        ("get /openapi/v3", true),
        ("get /metrics", false),
        ("create authorization.k8s.io selfsubjectaccessreviews - -", true),
        ("list - pods default -", false),
    ] {
        check(&authorizer, &anyone, text, allowed);
    }
    check(&authorizer, &UserInfo::anonymous(), "get /livez", true);
    check(&authorizer, &UserInfo::anonymous(), "get /api", false);
}

#[test]
fn aggregated_roles_work_before_any_controller_ran() {
    let (memory, authorizer) = cluster();
    for name in ["admin", "edit", "view"] {
        let subject = object!({ "kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name });
        memory.put(binding("shop", "ClusterRole", name, subject));
    }
    for (text, allowed) in [
        ("list - pods shop -", [true, true, true]),
        ("list - pods bank -", [false, false, false]),
        ("create apps deployments shop -", [true, true, false]),
        ("get - secrets shop s", [true, true, false]),
        ("create rbac.authorization.k8s.io rolebindings shop -", [true, false, false]),
        ("delete - nodes - a", [false, false, false]),
    ] {
        for (name, allowed) in ["admin", "edit", "view"].into_iter().zip(allowed) {
            check(&authorizer, &user(name, &[]), text, allowed);
        }
    }
}

#[test]
fn rules_match_verbs_groups_resources_names_and_paths() {
    let all = || -> Vec<Value> {
        vec![
            object!({ "apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"] }),
            object!({ "apiGroups": ["*"], "resources": ["*/scale"], "verbs": ["update"] }),
            object!({ "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["one"], "verbs": ["*"] }),
            object!({ "apiGroups": ["batch"], "resources": ["*"], "verbs": ["watch"] }),
            object!({ "nonResourceURLs": ["/logs/*", "/exact"], "verbs": ["get"] }),
        ]
    };
    let rules: Vec<PolicyRule> = all().iter().map(PolicyRule::from_value).collect();
    assert_eq!(rules.iter().map(PolicyRule::to_value).collect::<Vec<_>>(), all());
    let bob = user("bob", &[]);
    for (text, allowed) in [
        ("get - pods a b", true),
        ("get - pods/log a b", true),
        ("get - pods/exec a b", false),
        ("delete - pods a b", false),
        ("get apps pods a b", false),
        ("update apps deployments/scale a b", true),
        ("update apps deployments a b", false),
        ("delete - configmaps a one", true),
        ("delete - configmaps a two", false),
        ("list - configmaps a -", false),
        ("list - configmaps a one", true),
        ("watch batch jobs a -", true),
        ("watch batch jobs/status a b", true),
        ("get /logs/kubelet", true),
        ("get /logs/", true),
        ("get /logs", false),
        ("get /exact", true),
        ("get /exactly", false),
        ("put /exact", false),
    ] {
        let attributes = attributes(&bob, text);
        assert_eq!(rules.iter().any(|r| r.allows(&attributes)), allowed, "{text}");
    }
}

#[test]
fn a_change_of_roles_is_seen_by_the_next_check() {
    let (memory, authorizer) = cluster();
    let web = account("shop", "web");
    check(&authorizer, &web, "get - pods shop a", false);
    memory.put(role("shop", "reader", vec![object!({ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] })]));
    memory.put(binding(
        "shop",
        "Role",
        "reader",
        object!({ "kind": "ServiceAccount", "name": "web", "namespace": "shop" }),
    ));
    let decision = authorizer.authorize(&attributes(&web, "get - pods shop a"));
    let reason = r#"RBAC: allowed by RoleBinding "reader-binding/shop" of Role "reader" to ServiceAccount "web/shop""#;
    assert_eq!(decision, Decision::Allow(reason.into()));
    check(&authorizer, &web, "get - pods bank a", false);
    check(&authorizer, &account("bank", "web"), "get - pods shop a", false);
    let (rules, incomplete) = authorizer.rules_for(&web, "shop");
    assert!(!incomplete && rules.iter().any(|r| r.resources == ["pods"]));
    assert!(!authorizer.rules_for(&web, "bank").0.iter().any(|r| r.resources == ["pods"]));
    memory.remove("rolebindings", "shop", "reader-binding");
    check(&authorizer, &web, "get - pods shop a", false);
}

#[test]
fn refusals_are_worded_as_upstream_words_them() {
    let bob = user("bob", &[]);
    for (text, expected) in [
        (
            "list - pods default -",
            r#"User "bob" cannot list resource "pods" in API group "" in the namespace "default""#,
        ),
        (
            "get apps deployments/scale shop a",
            r#"User "bob" cannot get resource "deployments/scale" in API group "apps" in the namespace "shop""#,
        ),
        ("list - nodes - -", r#"User "bob" cannot list resource "nodes" in API group "" at the cluster scope"#),
        ("get /metrics", r#"User "bob" cannot get path "/metrics""#),
    ] {
        assert_eq!(attributes(&bob, text).refusal(""), expected);
    }
    let with_reason = attributes(&bob, "get /metrics").refusal("no");
    assert!(with_reason.ends_with(": no"));
}

#[test]
fn a_kubelet_reaches_what_its_pods_use_and_no_more() {
    let (memory, authorizer) = cluster();
    let pod = |name: &str, node: &str, secret: &str| {
        object!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": "shop", "name": name },
            "spec": {
                "nodeName": node, "serviceAccountName": (format!("{name}-account")),
                "imagePullSecrets": [{ "name": (format!("{name}-pull")) }],
                "containers": [{ "name": "c", "env": [{ "name": "A", "valueFrom": { "secretKeyRef": { "name": secret, "key": "k" } } }] }],
                "volumes": [
                    { "name": "v", "configMap": { "name": (format!("{name}-config")) } },
                    { "name": "w", "projected": { "sources": [{ "secret": { "name": (format!("{name}-projected")) } }] } },
                    { "name": "d", "persistentVolumeClaim": { "claimName": (format!("{name}-claim")) } },
                    { "name": "e", "ephemeral": { "volumeClaimTemplate": {} } },
                ],
            },
        })
    };
    memory.put(pod("mine", "node-a", "mine-env"));
    memory.put(pod("other", "node-b", "other-env"));
    for (name, claim) in [("pv-mine", "mine-claim"), ("pv-other", "other-claim")] {
        memory.put(object!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name },
            "spec": { "claimRef": { "namespace": "shop", "name": claim } } }));
    }
    let kubelet = user("system:node:node-a", &["system:nodes"]);
    for (text, allowed) in [
        ("get - secrets shop mine-env", true),
        ("get - secrets shop mine-pull", true),
        ("watch - secrets shop mine-projected", true),
        ("get - secrets shop other-env", false),
        ("get - secrets bank mine-env", false),
        ("list - secrets shop -", false),
        ("update - secrets shop mine-env", false),
        ("get - configmaps shop mine-config", true),
        ("get - configmaps shop other-config", false),
        ("get - persistentvolumeclaims shop mine-claim", true),
        ("get - persistentvolumeclaims shop mine-e", true),
        ("get - persistentvolumeclaims shop other-claim", false),
        ("get - persistentvolumes - pv-mine", true),
        ("get - persistentvolumes - pv-other", false),
        ("create - serviceaccounts/token shop mine-account", true),
        ("create - serviceaccounts/token shop other-account", false),
        ("get - nodes - node-a", true),
        ("patch - nodes/status - node-a", true),
        ("get - nodes - node-b", false),
        ("create - nodes - -", true),
        ("update coordination.k8s.io leases kube-node-lease node-a", true),
        ("update coordination.k8s.io leases kube-node-lease node-b", false),
        ("create coordination.k8s.io leases kube-system -", false),
        ("get storage.k8s.io csinodes - node-a", true),
        ("get storage.k8s.io csinodes - node-b", false),
        ("get - pods shop mine", true),
        ("get - pods shop other", false),
        ("list - pods - -", false),
        ("create - events shop -", true),
        ("list - services - -", true),
        ("create apps deployments shop -", false),
    ] {
        check(&authorizer, &kubelet, text, allowed);
    }
    let list = Attributes { field_selector: "spec.nodeName=node-a", ..attributes(&kubelet, "list - pods - -") };
    assert!(authorizer.authorize(&list).is_allowed());
    let foreign = Attributes { field_selector: "spec.nodeName=node-b", ..list };
    assert!(!authorizer.authorize(&foreign).is_allowed());
    check(&authorizer, &user("system:node:node-a", &[]), "get - nodes - node-a", false);
}

#[test]
fn nobody_hands_out_what_they_do_not_hold() {
    let (memory, authorizer) = cluster();
    let subject = object!({ "kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "ann" });
    memory.put(binding("shop", "ClusterRole", "admin", subject.clone()));
    let ann = user("ann", &[]);
    let rule = |resource: &str| object!({ "apiGroups": [""], "resources": [resource], "verbs": ["get", "list"] });
    authorizer.check_role(&ann, &role("shop", "r", vec![rule("pods")])).unwrap();
    let error = authorizer.check_role(&ann, &role("shop", "r", vec![rule("nodes")])).unwrap_err().to_string();
    assert!(error.starts_with(r#"user "ann" (groups=["system:authenticated"]) is attempting to grant"#), "{error}");
    assert!(error.contains(r#"{APIGroups:[""], Resources:["nodes"], Verbs:["get"]}"#), "{error}");
    assert!(authorizer.check_role(&ann, &role("bank", "r", vec![rule("pods")])).is_err());
    authorizer.check_binding(&ann, &binding("shop", "ClusterRole", "view", subject.clone())).unwrap();
    assert!(authorizer.check_binding(&ann, &binding("shop", "ClusterRole", "cluster-admin", subject.clone())).is_err());
    let missing = authorizer.check_binding(&ann, &binding("shop", "Role", "nowhere", subject.clone())).unwrap_err();
    assert_eq!(missing.to_string(), r#"Role "nowhere" not found"#);
    let admin = user("kubernetes-admin", &["system:masters"]);
    authorizer.check_binding(&admin, &binding("", "ClusterRole", "cluster-admin", subject)).unwrap();
}

#[test]
fn rules_cover_others_only_when_they_are_as_wide() {
    let rule = |groups: &str, resources: &str, names: &str, verbs: &str| {
        let list = |s: &str| s.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        PolicyRule {
            api_groups: if groups == "core" { vec![String::new()] } else { list(groups) },
            resources: list(resources),
            resource_names: list(names),
            verbs: list(verbs),
            non_resource_urls: Vec::new(),
        }
    };
    for (owner, wanted, covered) in [
        (rule("core", "pods", "", "get,list"), rule("core", "pods", "", "get"), true),
        (rule("core", "pods", "", "get"), rule("core", "pods", "", "*"), false),
        (rule("*", "*", "", "*"), rule("apps", "deployments/scale", "a", "update"), true),
        (rule("core", "pods", "a", "get"), rule("core", "pods", "", "get"), false),
        (rule("core", "pods", "", "get"), rule("core", "pods", "a,b", "get"), true),
        (rule("core", "pods", "a", "get"), rule("core", "pods", "a,b", "get"), false),
        (rule("apps", "*/scale", "", "get"), rule("apps", "deployments/scale", "", "get"), true),
        (rule("apps", "deployments", "", "get"), rule("apps", "deployments/scale", "", "get"), false),
        (rule("core", "pods", "", "get"), rule("core", "*", "", "get"), false),
    ] {
        let missing = ironkeel_auth::authorize::covers(std::slice::from_ref(&owner), std::slice::from_ref(&wanted));
        assert_eq!(missing.is_empty(), covered, "{owner:?} {wanted:?}");
    }
    let split = [rule("core", "pods", "", "get"), rule("core", "services", "", "get")];
    assert!(ironkeel_auth::authorize::covers(&split, &[rule("core", "pods,services", "", "get")]).is_empty());
}

#[test]
fn a_start_mends_default_roles_and_leaves_additions_alone() {
    let policy = bootstrap_policy();
    assert!(policy.iter().all(|o| reconcile(o, o).is_none()));
    let wanted = policy.iter().find(|o| o.name() == "system:kube-scheduler" && o.gvk().kind == "ClusterRole").unwrap();
    let mut existing = wanted.clone();
    let rules = existing.get_mut("rules").and_then(Value::as_array_mut).unwrap();
    rules.remove(0);
    let own = object!({ "apiGroups": ["example.com"], "resources": ["things"], "verbs": ["get"] });
    rules.push(own.clone());
    let mended = reconcile(&existing, wanted).unwrap();
    assert!(mended.items_at(&["rules"]).contains(&own));
    assert!(reconcile(&mended, wanted).is_none());
    existing.meta_mut().object("annotations").insert("rbac.authorization.kubernetes.io/autoupdate", "false");
    assert!(reconcile(&existing, wanted).is_none());
    let wanted =
        policy.iter().find(|o| o.name() == "system:discovery" && o.gvk().kind == "ClusterRoleBinding").unwrap();
    let mut emptied = wanted.clone();
    *emptied.slot(&["subjects"]) = Value::Array(vec![]);
    assert_eq!(reconcile(&emptied, wanted).as_ref(), Some(wanted));
}

#[test]
fn impersonation_asks_for_each_part_and_completes_the_groups() {
    let headers = |pairs: &[(&str, &str)]| {
        let mut map = http::HeaderMap::new();
        for (k, v) in pairs {
            map.append(http::HeaderName::try_from(*k).unwrap(), v.parse().unwrap());
        }
        map
    };
    assert_eq!(impersonate::parse(&headers(&[("accept", "x")])).unwrap(), None);
    assert!(impersonate::parse(&headers(&[("impersonate-group", "g")])).is_err());
    assert!(impersonate::parse(&headers(&[("impersonate-extra-a", "g")])).is_err());
    let found = impersonate::parse(&headers(&[
        ("impersonate-user", "jane"),
        ("impersonate-group", "dev"),
        ("impersonate-group", "ops"),
        ("impersonate-uid", "7"),
        ("impersonate-extra-example.com%2fscope", "all"),
    ]))
    .unwrap()
    .unwrap();
    assert_eq!(found.user.groups, ["dev", "ops", "system:authenticated"]);
    assert_eq!(found.user.extra["example.com/scope"], ["all"]);
    let asked: Vec<_> =
        found.checks.iter().map(|c| (c.group, c.resource, c.subresource.as_str(), c.name.as_str())).collect();
    let authentication = "authentication.k8s.io";
    assert_eq!(
        asked,
        [
            ("", "users", "", "jane"),
            ("", "groups", "", "dev"),
            ("", "groups", "", "ops"),
            (authentication, "userextras", "example.com/scope", "all"),
            (authentication, "uids", "", "7"),
        ]
    );
    let account =
        impersonate::parse(&headers(&[("impersonate-user", "system:serviceaccount:shop:web")])).unwrap().unwrap();
    assert_eq!((account.checks[0].resource, account.checks[0].namespace.as_str()), ("serviceaccounts", "shop"));
    assert_eq!(account.user.groups, ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"]);
}
