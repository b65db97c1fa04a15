//! ResourceQuota: what a create would use must fit under `spec.hard`.
//!
//! Usage is counted from the watch cache, which shows every acknowledged write, plus what admitted
//! requests are about to write; `status.used` belongs to the quota controller.

use std::collections::BTreeMap;
use std::sync::Arc;

use ironkeel_object::{Map, ObjectMeta, Quantity, Value};
use ironkeel_registry::{ApiError, Attributes, Operation, qualified};
use parking_lot::Mutex;

use crate::Cluster;
use crate::usage::{Amounts, add, pod_resources};

/// An admitted create that the cache may not show yet.
struct Charge {
    namespace: String,
    /// Names of the quotas whose scopes see the object.
    quotas: Vec<String>,
    usage: Amounts,
}

/// Charges by the object's uid.
type Pending = BTreeMap<String, Charge>;

/// Computing resources of which every container must say how much, where a quota limits them.
const COMPUTE: &[&str] = &["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

#[derive(Default)]
pub(crate) struct ResourceQuota(Mutex<Pending>);

fn one() -> Quantity {
    Quantity::from_value(1)
}

/// What an object counts as, by quota resource name.
fn usage_of(group: &str, plural: &str, object: &Value) -> Amounts {
    let mut out = Amounts::new();
    out.insert(format!("count/{}", qualified(group, plural)), one());
    if group.is_empty() {
        match plural {
            "pods" => {
                out.insert("pods".to_owned(), one());
                let finished = matches!(object.str_at(&["status", "phase"]), Some("Succeeded" | "Failed"));
                if finished {
                    out.remove("pods");
                    return out;
                }
                for part in ["requests", "limits"] {
                    for (name, q) in pod_resources(object, part) {
                        if part == "requests" && matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
                            out.insert(name.clone(), q);
                        }
                        out.insert(format!("{part}.{name}"), q);
                    }
                }
            }
            "persistentvolumeclaims" => {
                out.insert("persistentvolumeclaims".to_owned(), one());
                let size = object.str_at(&["spec", "resources", "requests", "storage"]);
                if let Some(q) = size.and_then(|t| Quantity::parse(t).ok()) {
                    if let Some(class) = object.str_at(&["spec", "storageClassName"]) {
                        let prefix = format!("{class}.storageclass.storage.k8s.io");
                        out.insert(format!("{prefix}/requests.storage"), q);
                        out.insert(format!("{prefix}/persistentvolumeclaims"), one());
                    }
                    out.insert("requests.storage".to_owned(), q);
                }
            }
            "services" => {
                out.insert("services".to_owned(), one());
                match object.str_at(&["spec", "type"]) {
                    Some("NodePort") => _ = out.insert("services.nodeports".to_owned(), ports(object)),
                    Some("LoadBalancer") => {
                        out.insert("services.loadbalancers".to_owned(), one());
                        out.insert("services.nodeports".to_owned(), ports(object));
                    }
                    _ => {}
                }
            }
            "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas" => {
                out.insert(plural.to_owned(), one());
            }
            _ => {}
        }
    }
    out
}

fn ports(service: &Value) -> Quantity {
    Quantity::from_value(service.items_at(&["spec", "ports"]).len() as i64)
}

/// Whether a quota's scopes let it see this Pod; other objects are seen by scopeless quotas alone.
fn in_scope(quota: &Value, plural: &str, object: &Value) -> bool {
    let mut scopes: Vec<&str> = quota.items_at(&["spec", "scopes"]).iter().filter_map(Value::as_str).collect();
    let expressions = quota.items_at(&["spec", "scopeSelector", "matchExpressions"]);
    if scopes.is_empty() && expressions.is_empty() {
        return true;
    }
    if plural != "pods" {
        return false;
    }
    let best_effort = pod_resources(object, "requests").is_empty() && pod_resources(object, "limits").is_empty();
    let terminating = object.i64_at(&["spec", "activeDeadlineSeconds"]).is_some();
    let class = object.str_at(&["spec", "priorityClassName"]).unwrap_or_default();
    let simple = |scope: &str| match scope {
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "PriorityClass" => !class.is_empty(),
        _ => true,
    };
    let selected = expressions.iter().all(|e| {
        let name = e.str_at(&["scopeName"]).unwrap_or_default();
        if name != "PriorityClass" {
            scopes.push(name);
            return true;
        }
        let listed = e.items_at(&["values"]).iter().any(|v| v.as_str() == Some(class));
        match e.str_at(&["operator"]).unwrap_or_default() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => !class.is_empty(),
            "DoesNotExist" => class.is_empty(),
            _ => false,
        }
    });
    selected && scopes.iter().all(|s| simple(s))
}

impl ResourceQuota {
    pub(crate) fn validate(
        &self,
        c: &Cluster,
        a: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let counts = match a.operation {
            Operation::Create => a.subresource.is_empty(),
            Operation::Update => a.is("", "persistentvolumeclaims") || a.is("", "services"),
            _ => false,
        };
        if !counts || !a.row.namespaced() {
            return Ok(());
        }
        let quotas = c.list("", "resourcequotas", a.namespace);
        if quotas.is_empty() {
            return Ok(());
        }
        let (group, plural) = (a.row.group(), a.row.plural());
        let wanted = usage_of(group, plural, object);
        let before = old.map(|o| usage_of(group, plural, o)).unwrap_or_default();
        let mut pending = self.0.lock();
        let mut charged = Vec::new();
        for quota in quotas.iter().filter(|q| in_scope(q, plural, object)) {
            if check(c, a, quota, object, &wanted, &before, &mut pending)? {
                charged.push(quota.name().to_owned());
            }
        }
        if a.operation == Operation::Create && !a.dry_run && !charged.is_empty() {
            let charge = Charge { namespace: a.namespace.to_owned(), quotas: charged, usage: wanted };
            pending.insert(object.uid().to_owned(), charge);
        }
        Ok(())
    }

    /// Someone changes or deletes an object: the cache shows it, so it is counted there from now on.
    pub(crate) fn seen(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    pub(crate) fn rolled_back(&self, _: &Attributes<'_>, object: &Value) {
        self.0.lock().remove(object.uid());
    }
}

/// `cpu for: a,b; memory for: b`, where containers leave out what the quota limits.
fn unspecified(pod: &Value, hard: &[(&str, Quantity)]) -> Option<String> {
    let pod_level = |part: &str, name: &str| pod.at(&["spec", "resources", part, name]).is_some();
    let mut missing = Vec::new();
    for (resource, _) in hard.iter().filter(|(k, _)| COMPUTE.contains(k)) {
        let (part, name) = resource.split_once('.').unwrap_or(("requests", resource));
        if pod_level(part, name) {
            continue;
        }
        let mut names: Vec<&str> = ["initContainers", "containers"]
            .into_iter()
            .flat_map(|l| pod.items_at(&["spec", l]))
            .filter(|c| c.at(&["resources", part, name]).is_none())
            .map(|c| c.str_at(&["name"]).unwrap_or_default())
            .collect();
        names.sort_unstable();
        if !names.is_empty() {
            missing.push(format!("{resource} for: {}", names.join(",")));
        }
    }
    (!missing.is_empty()).then(|| missing.join("; "))
}

/// Whether the quota limits anything that the object uses; an error where that would be too much.
fn check(
    c: &Cluster,
    a: &Attributes<'_>,
    quota: &Value,
    object: &Value,
    wanted: &Amounts,
    before: &Amounts,
    pending: &mut Pending,
) -> Result<bool, ApiError> {
    let hard: Vec<(&str, Quantity)> = quota
        .at(&["spec", "hard"])
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Map::iter)
        .filter_map(|(k, v)| Some((k.as_ref(), Quantity::parse(v.as_str()?).ok()?)))
        .collect();
    if a.is("", "pods")
        && let Some(missing) = unspecified(object, &hard)
    {
        return Err(a.forbidden(&format!("failed quota: {}: must specify {missing}", quota.name())));
    }
    let touched: Vec<&(&str, Quantity)> =
        hard.iter().filter(|(k, _)| wanted.get(*k).is_some_and(|q| before.get(*k).is_none_or(|b| q > b))).collect();
    if touched.is_empty() {
        return Ok(false);
    }
    let used = used(c, a, quota, pending);
    let (mut asked, mut have, mut limits) = (Vec::new(), Vec::new(), Vec::new());
    for (name, limit) in touched {
        let zero = Quantity::from_value(0);
        let more = wanted.get(*name).copied().unwrap_or(zero) - before.get(*name).copied().unwrap_or(zero);
        let now = used.get(*name).copied().unwrap_or(zero);
        if now + more > *limit {
            asked.push(format!("{name}={more}"));
            have.push(format!("{name}={now}"));
            limits.push(format!("{name}={limit}"));
        }
    }
    if asked.is_empty() {
        return Ok(true);
    }
    Err(a.forbidden(&format!(
        "exceeded quota: {}, requested: {}, used: {}, limited: {}",
        quota.name(),
        asked.join(","),
        have.join(","),
        limits.join(",")
    )))
}

/// What the namespace's objects of this resource use, pending creates included.
fn used(c: &Cluster, a: &Attributes<'_>, quota: &Value, pending: &mut Pending) -> Amounts {
    let (group, plural) = (a.row.group(), a.row.plural());
    let mut total = Amounts::new();
    let objects: Vec<Arc<Value>> = c.list(group, plural, a.namespace);
    for object in &objects {
        pending.remove(object.uid());
        if in_scope(quota, plural, object) {
            add(&mut total, &usage_of(group, plural, object));
        }
    }
    for charge in pending.values() {
        if charge.namespace == a.namespace && charge.quotas.iter().any(|q| q == quota.name()) {
            add(&mut total, &charge.usage);
        }
    }
    total
}
