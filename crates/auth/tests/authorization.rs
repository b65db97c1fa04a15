//! RBAC, the node authorizer, escalation, impersonation and the bootstrap policy.
#![allow(clippy::unwrap_used)]

mod source;

use std::collections::BTreeSet;
use std::sync::Arc;

use ironkeel_auth::impersonate::{Check, Mode, Step};
use ironkeel_auth::{
    Attributes, AuthorizationMode, Authorizer, Decision, Identity, PolicyRule, UserInfo, bootstrap_policy, impersonate,
    reconcile,
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
    // Upstream's without gates, the cluster DNS's and the storage version migrator's.
    assert_eq!((count("ClusterRole"), count("ClusterRoleBinding")), (31 + 39 + 2, 12 + 39 + 2));
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
    let known = |user: &UserInfo, namespace: &str| authorizer.rules_by(AuthorizationMode::Rbac, user, namespace);
    let shop = known(&web, "shop");
    assert!(!shop.incomplete && shop.error.is_none() && shop.rules.iter().any(|r| r.resources == ["pods"]));
    assert!(!known(&web, "bank").rules.iter().any(|r| r.resources == ["pods"]));
    let both = object!({ "kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:authenticated" });
    let mut twice = binding("shop", "Role", "reader", both);
    let again = object!({ "kind": "ServiceAccount", "name": "web" });
    twice.get_mut("subjects").and_then(Value::as_array_mut).unwrap().push(again);
    *twice.slot(&["metadata", "name"]) = "twice".into();
    let before = shop.rules.len();
    memory.put(twice);
    assert_eq!(known(&web, "shop").rules.len(), before + 1, "a binding gives its rules once");
    memory.remove("rolebindings", "shop", "twice");
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
    // What CSI reads on a node may stand in any namespace; what its controllers read is not for nodes.
    memory.put(object!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": "pv-csi" }, "spec": {
        "claimRef": { "namespace": "shop", "name": "mine-claim" },
        "csi": { "nodeStageSecretRef": { "namespace": "storage", "name": "stage" },
            "controllerPublishSecretRef": { "namespace": "storage", "name": "publish" } } } }));
    check(&authorizer, &kubelet, "get - secrets storage stage", true);
    check(&authorizer, &kubelet, "get - secrets storage publish", false);
    // A claim may name any volume: the volume says whose it is.
    memory.put(object!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": "pv-bank" }, "spec": {
        "claimRef": { "namespace": "bank", "name": "safe" }, "rbd": { "secretRef": { "namespace": "shop", "name": "key" } } } }));
    memory.put(object!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": { "namespace": "shop", "name": "mine-claim" }, "spec": { "volumeName": "pv-bank" } }));
    check(&authorizer, &kubelet, "get - secrets shop key", false);
    // A mirror pod is the node's own work.
    let mut mirror = pod("mirror", "node-a", "mirror-env");
    mirror.meta_mut().object("annotations").insert("kubernetes.io/config.mirror", "x");
    memory.put(mirror);
    check(&authorizer, &kubelet, "get - pods shop mirror", true);
    check(&authorizer, &kubelet, "get - secrets shop mirror-env", false);
    check(&authorizer, &kubelet, "create - serviceaccounts/token shop mirror-account", false);
    for (name, node) in [("slice-a", "node-a"), ("slice-b", "node-b")] {
        memory
            .put(object!({ "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": { "name": name },
            "spec": { "nodeName": node } }));
    }
    check(&authorizer, &kubelet, "get resource.k8s.io resourceslices - slice-a", true);
    check(&authorizer, &kubelet, "get resource.k8s.io resourceslices - slice-b", false);
    check(&authorizer, &kubelet, "delete resource.k8s.io resourceslices - slice-b", false);
    check(&authorizer, &kubelet, "create resource.k8s.io resourceslices - -", true);
    check(&authorizer, &kubelet, "get - pods shop gone", false);
    check(&authorizer, &kubelet, "get - persistentvolumeclaims/status shop mine-claim", false);
    let refused = authorizer.authorize(&attributes(&kubelet, "get - secrets shop other-env"));
    assert_eq!(refused.reason(), "no relationship found between node 'node-a' and this object");
    let list = Attributes { field_selector: "spec.nodeName=node-a", ..attributes(&kubelet, "list - pods - -") };
    assert!(authorizer.authorize(&Attributes { field_selector: "spec.nodeName==node-a", ..list }).is_allowed());
    assert!(!authorizer.authorize(&Attributes { field_selector: "spec.nodeName!=node-a", ..list }).is_allowed());
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
    authorizer.check_role(&ann, &role("shop", "r", vec![rule("pods")]), None).unwrap();
    let error = authorizer.check_role(&ann, &role("shop", "r", vec![rule("nodes")]), None).unwrap_err().to_string();
    let said = "user \"ann\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\" \"list\"]}";
    assert_eq!(error, said);
    assert!(authorizer.check_role(&ann, &role("bank", "r", vec![rule("pods")]), None).is_err());
    authorizer.check_binding(&ann, &binding("shop", "ClusterRole", "view", subject.clone())).unwrap();
    assert!(authorizer.check_binding(&ann, &binding("shop", "ClusterRole", "cluster-admin", subject.clone())).is_err());
    let missing = authorizer.check_binding(&ann, &binding("shop", "Role", "nowhere", subject.clone())).unwrap_err();
    assert_eq!(missing.to_string(), r#"rolebindings.rbac.authorization.k8s.io "nowhere" not found"#);
    // An aggregation rule gathers whatever there is, and what it has gathered may be loosened.
    let mut gathering = role("", "g", vec![]);
    *gathering.slot(&["aggregationRule", "clusterRoleSelectors"]) = Value::Array(vec![object!({})]);
    let refused = authorizer.check_role(&ann, &gathering, None).unwrap_err().to_string();
    assert_eq!(refused, "must have cluster-admin privileges to use the aggregationRule");
    assert!(authorizer.check_role(&ann, &role("", "g", vec![]), Some(&gathering)).is_err());
    // A binding to what is not there is told of.
    let mut lost = binding("", "ClusterRole", "gone", subject.clone());
    *lost.slot(&["metadata", "name"]) = "lost".into();
    memory.put(lost);
    let told = authorizer.authorize(&attributes(&ann, "list - nodes - -"));
    let why = r#"RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found"#;
    assert_eq!(told, Decision::NoOpinion(why.into()));
    let known = authorizer.rules_by(AuthorizationMode::Rbac, &ann, "shop");
    assert_eq!(known.error.as_deref(), Some(r#"clusterrole.rbac.authorization.k8s.io "gone" not found"#));
    let error = authorizer.check_role(&ann, &role("shop", "r", vec![rule("nodes")]), None).unwrap_err().to_string();
    let tail = r#"; resolution errors: [roles.rbac.authorization.k8s.io "gone" not found]"#;
    assert_eq!(error, format!("{said}{tail}"));
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

fn headers(pairs: &[(&str, &str)]) -> http::HeaderMap {
    let mut map = http::HeaderMap::new();
    for (k, v) in pairs {
        map.append(http::HeaderName::try_from(*k).unwrap(), v.parse().unwrap());
    }
    map
}

fn asked(step: &Step) -> String {
    let one = |c: &Check| {
        let parts = [c.verb.as_str(), c.group, c.resource, &c.subresource, &c.namespace, &c.name];
        parts.iter().filter(|p| !p.is_empty()).copied().collect::<Vec<_>>().join(" ")
    };
    match step {
        Step::Request => "the request".to_owned(),
        Step::Check(check) => one(check),
        Step::Either(all, each) => format!("{} or {}", one(all), each.len()),
        Step::Refuse(_, why) => why.clone(),
    }
}

#[test]
fn impersonation_asks_for_each_part_and_completes_the_groups() {
    assert_eq!(impersonate::wanted(&headers(&[("accept", "x")])).unwrap(), None);
    let nobody = impersonate::wanted(&headers(&[("impersonate-group", "g"), ("impersonate-extra-a", "b")]));
    let said = r#"requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"g"}, Extra:map[string][]string{"a":[]string{"b"}}} without impersonating a user name"#;
    assert_eq!(nobody.unwrap_err().to_string(), said);
    assert!(impersonate::wanted(&headers(&[("impersonate-uid", "g")])).is_err());
    let wanted = impersonate::wanted(&headers(&[
        ("impersonate-user", "jane"),
        ("impersonate-group", "dev"),
        ("impersonate-group", "ops"),
        ("impersonate-uid", "7"),
        ("impersonate-extra-example.com%2fscope", "all"),
    ]))
    .unwrap()
    .unwrap();
    assert_eq!(wanted.extra["example.com/scope"], ["all"]);
    let plans = impersonate::plans(&wanted, &user("eve", &[]), true);
    let steps = |i: usize| plans[i].steps.iter().map(asked).collect::<Vec<_>>();
    assert_eq!(plans.iter().map(|p| p.mode).collect::<Vec<_>>(), [Mode::UserInfo, Mode::Legacy]);
    assert_eq!(
        steps(0),
        [
            "the request",
            "impersonate:user-info authentication.k8s.io users jane",
            "impersonate:user-info authentication.k8s.io uids 7",
            "impersonate:user-info authentication.k8s.io groups dev",
            "impersonate:user-info authentication.k8s.io groups ops",
            "impersonate:user-info authentication.k8s.io userextras example.com/scope all",
        ]
    );
    assert_eq!(
        steps(1),
        [
            "impersonate users jane",
            "impersonate authentication.k8s.io uids 7",
            "impersonate groups dev",
            "impersonate groups ops",
            "impersonate authentication.k8s.io userextras example.com/scope all",
        ]
    );
    assert!(plans.iter().all(|p| p.user.groups == ["dev", "ops", "system:authenticated"]));
    assert_eq!(impersonate::plans(&wanted, &user("eve", &[]), false).len(), 1, "the old way alone");
    assert_eq!(Mode::UserInfo.verb_on("list"), "impersonate-on:user-info:list");
    assert_eq!(
        (Mode::UserInfo.constraint().as_deref(), Mode::Legacy.constraint()),
        (Some("impersonate:user-info"), None)
    );
}

#[test]
fn accounts_and_nodes_are_impersonated_by_name_alone() {
    let eve = user("eve", &[]);
    let plans = |name: &str, groups: &[&str], requestor: &UserInfo| {
        let groups = groups.iter().map(|g| (*g).to_owned()).collect();
        impersonate::plans(&UserInfo { name: name.to_owned(), groups, ..UserInfo::default() }, requestor, true)
    };
    let found = plans("system:serviceaccount:shop:web", &[], &eve);
    let accounts = ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"];
    assert_eq!(found.iter().map(|p| p.mode).collect::<Vec<_>>(), [Mode::ServiceAccount, Mode::Legacy]);
    assert!(found.iter().all(|p| p.user.groups == accounts));
    assert_eq!(asked(&found[0].steps[1]), "impersonate:serviceaccount authentication.k8s.io serviceaccounts shop web");
    assert_eq!(asked(&found[1].steps[0]), "impersonate serviceaccounts shop web");
    // With groups of one's choice the old way is left; and no account has such a name.
    let found = plans("system:serviceaccount:shop:web", &["g"], &eve);
    assert_eq!((found.len(), found[0].mode), (1, Mode::Legacy));
    let found = plans("system:serviceaccount:shop:web:x", &[], &eve);
    assert_eq!(asked(&found[1].steps[0]), "impersonate users system:serviceaccount:shop:web:x");

    let found = plans("system:node:n1", &[], &eve);
    assert_eq!(found.iter().map(|p| p.mode).collect::<Vec<_>>(), [Mode::ArbitraryNode, Mode::Legacy]);
    assert_eq!(asked(&found[0].steps[1]), "impersonate:arbitrary-node authentication.k8s.io nodes n1");
    assert_eq!(found[0].user.groups, ["system:nodes", "system:authenticated"]);
    assert_eq!(found[1].user.groups, ["system:authenticated"]);
    let mut agent = account("shop", "agent");
    agent.extra.insert("authentication.kubernetes.io/node-name".to_owned(), vec!["n1".to_owned()]);
    let found = plans("system:node:n1", &[], &agent);
    assert_eq!(found[0].mode, Mode::AssociatedNode);
    assert_eq!(asked(&found[0].steps[1]), "impersonate:associated-node authentication.k8s.io nodes *");
    let shown = Mode::AssociatedNode.requestor(&agent).into_owned();
    let keys = "authentication.kubernetes.io/associated-node-keys";
    assert_eq!(
        shown.extra.into_iter().collect::<Vec<_>>(),
        [(keys.to_owned(), vec!["authentication.kubernetes.io/node-name".to_owned()])]
    );
    assert_eq!(plans("system:node:n2", &[], &agent)[0].mode, Mode::ArbitraryNode);

    for (groups, why) in [(&["system:masters"], "system:masters group"), (&[""], "empty string group")] {
        let found = plans("jane", groups, &eve);
        let refused = |p: &impersonate::Plan| p.steps.iter().any(|s| asked(s).contains(why));
        assert!(refused(&found[0]) && !refused(&found[1]), "{why}");
    }
    let found = plans("jane", &["a", "b", "c", "d"], &eve);
    assert_eq!(asked(&found[0].steps[2]), "impersonate:user-info authentication.k8s.io groups * or 4");
    assert_eq!(found[1].steps.len(), 5);
    for (key, why) in [
        ("plain", r#"extra.key: Invalid value: "plain": must be a domain-prefixed path (such as "acme.io/foo")"#),
        ("Acme/foo", r#"extra.key: Invalid value: "Acme": a lowercase RFC 1123 subdomain"#),
        ("acme.io/Foo", r#"impersonating a non-lowercase key in extra is not allowed: "acme.io/Foo""#),
    ] {
        let extra = [(key.to_owned(), vec!["v".to_owned()])].into();
        let wanted = UserInfo { name: "jane".to_owned(), extra, ..UserInfo::default() };
        let found = impersonate::plans(&wanted, &eve, true);
        assert!(found[0].steps.iter().any(|s| asked(s).contains(why)), "{key}: {found:?}");
    }
}
