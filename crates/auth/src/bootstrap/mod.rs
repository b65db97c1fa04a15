//! The default roles and bindings that a cluster starts with, and how a start mends them.
//!
//! The rows under `generated` are written by `cargo xtask codegen`. The aggregated roles (admin,
//! edit, view) carry their computed rules from the start; a controller keeps them later.

#[rustfmt::skip]
mod generated;

use ironkeel_object::{Map, ObjectMeta, Value, object};

use crate::authorize::{PolicyRule, covers};

const GROUP: &str = "rbac.authorization.k8s.io";
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// One rule of the table.
pub(crate) struct Rule {
    pub(crate) groups: &'static [&'static str],
    pub(crate) resources: &'static [&'static str],
    pub(crate) names: &'static [&'static str],
    pub(crate) verbs: &'static [&'static str],
    pub(crate) urls: &'static [&'static str],
}

/// One Role (in a namespace) or ClusterRole.
pub(crate) struct Role {
    pub(crate) name: &'static str,
    pub(crate) namespace: &'static str,
    /// Label keys, each with the value `true`.
    pub(crate) labels: &'static [&'static str],
    /// Label keys that select the roles this one is made of.
    pub(crate) aggregates: &'static [&'static str],
    pub(crate) rules: &'static [Rule],
}

/// One RoleBinding (in a namespace) or ClusterRoleBinding.
pub(crate) struct Binding {
    pub(crate) name: &'static str,
    pub(crate) namespace: &'static str,
    pub(crate) role_kind: &'static str,
    pub(crate) role: &'static str,
    /// Kind, namespace and name.
    pub(crate) subjects: &'static [(&'static str, &'static str, &'static str)],
}

/// Roles of what a cluster of ours always runs, and upstream installs as add-ons (the cluster DNS) or behind a gate
/// (the storage version migrator).
static ADD_ON_ROLES: &[Role] = &[
    Role {
        name: "system:coredns",
        namespace: "",
        labels: &[],
        aggregates: &[],
        rules: &[
            Rule {
                groups: &[""],
                resources: &["endpoints", "services", "pods", "namespaces"],
                names: &[],
                verbs: &["list", "watch"],
                urls: &[],
            },
            Rule {
                groups: &["discovery.k8s.io"],
                resources: &["endpointslices"],
                names: &[],
                verbs: &["list", "watch"],
                urls: &[],
            },
        ],
    },
    Role {
        name: "system:controller:storage-version-migrator-controller",
        namespace: "",
        labels: &[],
        aggregates: &[],
        rules: &[
            Rule { groups: &["*"], resources: &["*"], names: &[], verbs: &["create", "list", "patch"], urls: &[] },
            Rule {
                groups: &["apiextensions.k8s.io"],
                resources: &["customresourcedefinitions"],
                names: &[],
                verbs: &["get"],
                urls: &[],
            },
            Rule {
                groups: &["apiextensions.k8s.io"],
                resources: &["customresourcedefinitions/status"],
                names: &[],
                verbs: &["patch"],
                urls: &[],
            },
            Rule {
                groups: &["storagemigration.k8s.io"],
                resources: &["storageversionmigrations/status"],
                names: &[],
                verbs: &["update"],
                urls: &[],
            },
        ],
    },
];

static ADD_ON_BINDINGS: &[Binding] = &[
    Binding {
        name: "system:coredns",
        namespace: "",
        role_kind: "ClusterRole",
        role: "system:coredns",
        subjects: &[("ServiceAccount", "kube-system", "coredns")],
    },
    Binding {
        name: "system:controller:storage-version-migrator-controller",
        namespace: "",
        role_kind: "ClusterRole",
        role: "system:controller:storage-version-migrator-controller",
        subjects: &[("ServiceAccount", "kube-system", "storage-version-migrator-controller")],
    },
];

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn policy_rule(rule: &Rule) -> PolicyRule {
    PolicyRule {
        api_groups: owned(rule.groups),
        resources: owned(rule.resources),
        resource_names: owned(rule.names),
        verbs: owned(rule.verbs),
        non_resource_urls: owned(rule.urls),
    }
}

/// A role's own rules and those of the roles that it aggregates, each once.
fn rules_of(role: &Role) -> Vec<PolicyRule> {
    let mut rules: Vec<PolicyRule> = role.rules.iter().map(policy_rule).collect();
    for label in role.aggregates {
        for part in generated::ROLES.iter().filter(|r| r.labels.contains(label)) {
            for rule in rules_of(part) {
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
    }
    rules
}

/// What `system:node` allows; the node authorizer's rules where no relation is asked.
pub(crate) fn node_rules() -> Vec<PolicyRule> {
    let role = generated::ROLES.iter().find(|r| r.name == "system:node");
    role.map(rules_of).unwrap_or_default()
}

fn metadata(name: &str, namespace: &str, labels: &[&'static str]) -> Map {
    let mut all = Map::new();
    all.insert("kubernetes.io/bootstrapping", "rbac-defaults");
    for label in labels {
        all.insert(*label, "true");
    }
    let mut meta = Map::new();
    meta.insert("name", name);
    if !namespace.is_empty() {
        meta.insert("namespace", namespace);
    }
    meta.insert("labels", all);
    meta.insert("annotations", object!({ "rbac.authorization.kubernetes.io/autoupdate": "true" }));
    meta
}

fn object_of(kind: &'static str, cluster_kind: &'static str, meta: Map) -> Map {
    let kind = if meta.contains_key("namespace") { kind } else { cluster_kind };
    let mut out = Map::new();
    out.insert("apiVersion", "rbac.authorization.k8s.io/v1");
    out.insert("kind", kind);
    out.insert("metadata", meta);
    out
}

fn role_object(role: &Role) -> Value {
    let mut out = object_of("Role", "ClusterRole", metadata(role.name, role.namespace, role.labels));
    let rules: Vec<Value> = rules_of(role).iter().map(PolicyRule::to_value).collect();
    out.insert("rules", if rules.is_empty() { Value::Null } else { Value::Array(rules) });
    if !role.aggregates.is_empty() {
        let selector = |label: &&'static str| {
            let mut labels = Map::new();
            labels.insert(*label, "true");
            object!({ "matchLabels": labels })
        };
        let selectors: Vec<Value> = role.aggregates.iter().map(selector).collect();
        out.insert("aggregationRule", object!({ "clusterRoleSelectors": selectors }));
    }
    Value::Object(out)
}

fn binding_object(binding: &Binding) -> Value {
    let mut out = object_of("RoleBinding", "ClusterRoleBinding", metadata(binding.name, binding.namespace, &[]));
    out.insert("roleRef", object!({ "apiGroup": GROUP, "kind": (binding.role_kind), "name": (binding.role) }));
    let subjects: Vec<Value> = binding
        .subjects
        .iter()
        .map(|(kind, namespace, name)| match *kind {
            "ServiceAccount" => object!({ "kind": "ServiceAccount", "name": (*name), "namespace": (*namespace) }),
            kind => object!({ "apiGroup": GROUP, "kind": kind, "name": (*name) }),
        })
        .collect();
    if !subjects.is_empty() {
        out.insert("subjects", subjects);
    }
    Value::Object(out)
}

/// Every default ClusterRole, ClusterRoleBinding, Role and RoleBinding, and those of the cluster DNS
/// (ServiceAccount `kube-system/coredns`), roles before bindings. The
/// namespaces `kube-system` and `kube-public` must be there first.
pub fn bootstrap_policy() -> Vec<Value> {
    let roles = generated::ROLES.iter().chain(ADD_ON_ROLES).map(role_object);
    roles.chain(generated::BINDINGS.iter().chain(ADD_ON_BINDINGS).map(binding_object)).collect()
}

/// What to write so that `existing` has all that `wanted` has; `None` where nothing is missing, or
/// where the object is not ours to mend (annotation `autoupdate` is `false`; a binding to another
/// role, whose `roleRef` cannot change). What an administrator added stays.
pub fn reconcile(existing: &Value, wanted: &Value) -> Option<Value> {
    if existing.annotation(AUTO_UPDATE) == Some("false") || existing.get("roleRef") != wanted.get("roleRef") {
        return None;
    }
    let mut out = existing.clone();
    for part in ["labels", "annotations"] {
        let wanted = wanted.at(&["metadata", part]).and_then(Value::as_object);
        for (key, value) in wanted.into_iter().flat_map(Map::iter) {
            out.meta_mut().object(part).entry(key.clone(), || value.clone());
        }
    }
    let aggregated = wanted.get("aggregationRule").is_some();
    if aggregated {
        append(&mut out, wanted, &["aggregationRule", "clusterRoleSelectors"]);
        if existing.items_at(&["rules"]).is_empty() {
            *out.slot(&["rules"]) = wanted["rules"].clone();
        }
    } else {
        let missing = covers(&PolicyRule::of_role(existing), &PolicyRule::of_role(wanted));
        if !missing.is_empty() {
            let rules: Vec<Value> = missing.iter().map(PolicyRule::to_value).collect();
            extend(out.slot(&["rules"]), rules);
        }
    }
    append(&mut out, wanted, &["subjects"]);
    (out != *existing).then_some(out)
}

/// Adds the elements of `wanted` at `path` that are not there yet.
fn append(out: &mut Value, wanted: &Value, path: &[&'static str]) {
    let there = out.items_at(path);
    let missing: Vec<Value> = wanted.items_at(path).iter().filter(|v| !there.contains(v)).cloned().collect();
    if !missing.is_empty() {
        extend(out.slot(path), missing);
    }
}

fn extend(slot: &mut Value, more: Vec<Value>) {
    match slot.as_array_mut() {
        Some(list) => list.extend(more),
        None => *slot = Value::Array(more),
    }
}
