//! The objects that every server begins with: two levels and two schemas that must be as they are,
//! and suggestions that operators may change (KEP-1040, "Default Behavior").

use ironkeel_object::{Map, ObjectMeta, Value};

/// Annotation that says whether the server keeps a bootstrap object's spec up to date.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

const API_VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";
const ALL_USERS: &[&str] = &["system:unauthenticated", "system:authenticated"];

fn object(kind: &str, name: &str, spec: Map) -> Value {
    let mut annotations = Map::new();
    annotations.insert(AUTO_UPDATE, "true");
    let mut metadata = Map::new();
    metadata.insert("name", name);
    metadata.insert("annotations", annotations);
    let mut out = Map::new();
    out.insert("apiVersion", API_VERSION);
    out.insert("kind", kind);
    out.insert("metadata", metadata);
    out.insert("spec", spec);
    Value::Object(out)
}

fn map<const N: usize>(members: [(&'static str, Value); N]) -> Value {
    Value::Object(members.into_iter().collect())
}

/// `queuing`: queues, hand size, queue length; `None` refuses at the limit.
fn limited(name: &str, shares: i64, lendable: i64, queuing: Option<(i64, i64, i64)>) -> Value {
    let response = match queuing {
        None => map([("type", "Reject".into())]),
        Some((queues, hand, length)) => map([
            ("type", "Queue".into()),
            (
                "queuing",
                map([("queues", queues.into()), ("handSize", hand.into()), ("queueLengthLimit", length.into())]),
            ),
        ]),
    };
    let mut spec = Map::new();
    spec.insert("type", "Limited");
    spec.insert(
        "limited",
        map([
            ("nominalConcurrencyShares", shares.into()),
            ("lendablePercent", lendable.into()),
            ("limitResponse", response),
        ]),
    );
    object("PriorityLevelConfiguration", name, spec)
}

struct Resources(&'static [&'static str], &'static [&'static str], &'static [&'static str], bool);

const EVERYTHING: Resources = Resources(&["*"], &["*"], &["*"], true);

enum Who {
    Groups(&'static [&'static str]),
    Users(&'static [&'static str]),
    KubeSystemAccounts,
    /// The components that elect leaders: two users, and kube-system's service accounts.
    Electors,
}

fn strings(list: &[&str]) -> Value {
    list.to_vec().into()
}

fn subjects(who: &Who) -> Value {
    let named = |kind: &'static str, key: &'static str, names: &[&str]| -> Vec<Value> {
        names.iter().map(|n| map([("kind", kind.into()), (key, map([("name", (*n).into())]))])).collect()
    };
    let accounts = || {
        let account = map([("name", "*".into()), ("namespace", "kube-system".into())]);
        vec![map([("kind", "ServiceAccount".into()), ("serviceAccount", account)])]
    };
    match who {
        Who::Groups(names) => named("Group", "group", names).into(),
        Who::Users(names) => named("User", "user", names).into(),
        Who::KubeSystemAccounts => accounts().into(),
        Who::Electors => {
            let mut all = named("User", "user", &["system:kube-controller-manager", "system:kube-scheduler"]);
            all.extend(accounts());
            all.into()
        }
    }
}

fn schema(
    name: &str,
    level: &str,
    precedence: i64,
    by: &str,
    who: &Who,
    resources: &[Resources],
    paths: Option<(&[&str], &[&str])>,
) -> Value {
    let resource = |r: &Resources| {
        let mut out = Map::new();
        out.insert("verbs", strings(r.0));
        out.insert("apiGroups", strings(r.1));
        out.insert("resources", strings(r.2));
        out.insert("namespaces", strings(&["*"]));
        if r.3 {
            out.insert("clusterScope", true);
        }
        Value::Object(out)
    };
    let mut rule = Map::new();
    rule.insert("subjects", subjects(who));
    if !resources.is_empty() {
        rule.insert("resourceRules", resources.iter().map(resource).collect::<Vec<Value>>());
    }
    if let Some((verbs, urls)) = paths {
        rule.insert("nonResourceRules", vec![map([("verbs", strings(verbs)), ("nonResourceURLs", strings(urls))])]);
    }
    let mut spec = Map::new();
    spec.insert("priorityLevelConfiguration", map([("name", level.into())]));
    spec.insert("matchingPrecedence", precedence);
    if !by.is_empty() {
        spec.insert("distinguisherMethod", map([("type", by.into())]));
    }
    spec.insert("rules", vec![Value::Object(rule)]);
    object("FlowSchema", name, spec)
}

const ANY_PATH: Option<(&[&str], &[&str])> = Some((&["*"], &["*"]));

/// What requests must always be able to fall back on; the server undoes every change of these.
pub fn mandatory() -> Vec<Value> {
    let mut exempt = Map::new();
    exempt.insert("type", "Exempt");
    exempt.insert("exempt", map([("nominalConcurrencyShares", 0i64.into()), ("lendablePercent", 0i64.into())]));
    vec![
        limited("catch-all", 5, 0, None),
        object("PriorityLevelConfiguration", "exempt", exempt),
        schema("exempt", "exempt", 1, "", &Who::Groups(&["system:masters"]), &[EVERYTHING], ANY_PATH),
        schema("catch-all", "catch-all", 10_000, "ByUser", &Who::Groups(ALL_USERS), &[EVERYTHING], ANY_PATH),
    ]
}

/// What the server suggests; operators may change these.
pub fn suggested() -> Vec<Value> {
    const NODES: &Who = &Who::Groups(&["system:nodes"]);
    const LEASES: &[&str] = &["leases"];
    const COORDINATION: &[&str] = &["coordination.k8s.io"];
    vec![
        limited("system", 30, 33, Some((64, 6, 50))),
        limited("node-high", 40, 25, Some((64, 6, 50))),
        limited("leader-election", 10, 0, Some((16, 4, 50))),
        limited("workload-high", 40, 50, Some((128, 6, 50))),
        limited("workload-low", 100, 90, Some((128, 6, 50))),
        limited("global-default", 20, 50, Some((128, 6, 50))),
        schema("system-nodes", "system", 500, "ByUser", NODES, &[EVERYTHING], ANY_PATH),
        schema(
            "system-node-high",
            "node-high",
            400,
            "ByUser",
            NODES,
            &[
                Resources(&["*"], &[""], &["nodes", "nodes/status"], true),
                Resources(&["*"], COORDINATION, LEASES, false),
            ],
            None,
        ),
        schema(
            "probes",
            "exempt",
            2,
            "",
            &Who::Groups(ALL_USERS),
            &[],
            Some((&["get"], &["/healthz", "/readyz", "/livez"])),
        ),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            "ByUser",
            &Who::Electors,
            &[Resources(&["get", "create", "update"], COORDINATION, LEASES, false)],
            None,
        ),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            "ByNamespace",
            &Who::Users(&["system:kube-controller-manager"]),
            &[EVERYTHING],
            ANY_PATH,
        ),
        schema(
            "kube-scheduler",
            "workload-high",
            800,
            "ByNamespace",
            &Who::Users(&["system:kube-scheduler"]),
            &[EVERYTHING],
            ANY_PATH,
        ),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            "ByNamespace",
            &Who::KubeSystemAccounts,
            &[EVERYTHING],
            ANY_PATH,
        ),
        schema(
            "service-accounts",
            "workload-low",
            9_000,
            "ByUser",
            &Who::Groups(&["system:serviceaccounts"]),
            &[EVERYTHING],
            ANY_PATH,
        ),
        schema("global-default", "global-default", 9_900, "ByUser", &Who::Groups(ALL_USERS), &[EVERYTHING], ANY_PATH),
    ]
}

fn auto_update(object: &Value) -> Option<bool> {
    match object.annotation(AUTO_UPDATE)? {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// What `existing` must become; `None` where it may stay. A suggested object whose spec an operator
/// has changed is left alone, and its annotation says so.
pub fn reconcile(existing: &Value, wanted: &Value, is_mandatory: bool) -> Option<Value> {
    let keep_up = is_mandatory || auto_update(existing).unwrap_or_else(|| existing.generation() == 1);
    let mut out = existing.clone();
    if keep_up && !same_spec(&existing["spec"], &wanted["spec"]) {
        *out.slot(&["spec"]) = wanted["spec"].clone();
    }
    if auto_update(existing) != Some(keep_up) {
        let text = if keep_up { "true" } else { "false" };
        out.meta_mut().object("annotations").insert(AUTO_UPDATE, text);
    }
    (out != *existing).then_some(out)
}

/// Whether an object stands there that earlier versions suggested and this one does not.
pub fn is_leftover(existing: &Value) -> bool {
    let name = existing.name();
    let kind = existing["kind"].as_str().unwrap_or_default();
    let known = |o: &Value| o.name() == name && o["kind"].as_str() == Some(kind);
    auto_update(existing) == Some(true) && !mandatory().iter().any(known) && !suggested().iter().any(known)
}

/// Equal but for what defaults add: a member that one side leaves empty.
fn same_spec(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let absent = Value::Null;
            x.keys().chain(y.keys()).all(|k| same_spec(x.get(k).unwrap_or(&absent), y.get(k).unwrap_or(&absent)))
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| same_spec(a, b)),
        (a, b) => a == b || (a.is_empty() && b.is_empty()),
    }
}
