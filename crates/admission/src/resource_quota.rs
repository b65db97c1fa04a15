//! ResourceQuota: what a create would use must fit under `spec.hard`.
//!
//! Usage is counted from the watch cache, which shows every acknowledged write, plus what admitted
//! requests are about to write, creates and updates alike; `status.used` belongs to the quota controller.

use std::collections::BTreeMap;
use std::sync::Arc;

use ironkeel_object::{Map, ObjectMeta, Quantity, Value};
use ironkeel_registry::{ApiError, Attributes, Operation, qualified};
use parking_lot::Mutex;

use crate::Cluster;
use crate::usage::{Amounts, add, pod_resources, raise};

/// An admitted write that the cache may not show yet.
struct Charge {
    /// Tells requests apart while they run.
    request: usize,
    namespace: String,
    /// The state that an update starts from, by its resourceVersion; none of a create.
    base: Option<String>,
    /// Names of the quotas whose scopes see the object, and what of each it uses more than before.
    quotas: Vec<(String, Amounts)>,
}

/// Charges by the object's uid: several updates of one object may run, of which one will be stored.
type Pending = BTreeMap<String, Vec<Charge>>;

fn request_of(a: &Attributes<'_>) -> usize {
    std::ptr::from_ref(a.annotations).addr()
}

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
                for (name, q) in pod_resources(object, "requests") {
                    let native = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
                    if native || name.starts_with("hugepages-") {
                        out.insert(name.clone(), q);
                    }
                    // Other resources of Kubernetes' own are not counted; extended ones are, by requests alone.
                    if native || name.contains('/') || name.starts_with("hugepages-") {
                        out.insert(format!("requests.{name}"), q);
                    }
                }
                for (name, q) in pod_resources(object, "limits") {
                    if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
                        out.insert(format!("limits.{name}"), q);
                    }
                }
            }
            "persistentvolumeclaims" => {
                out.insert("persistentvolumeclaims".to_owned(), one());
                let amount = |path: &[&str]| object.str_at(path).and_then(|t| Quantity::parse(t).ok());
                let wanted = amount(&["spec", "resources", "requests", "storage"]);
                // What a growing volume was given already counts, even when less is asked for again.
                let given = amount(&["status", "allocatedResources", "storage"]);
                let size = wanted.map(|w| given.filter(|g| *g > w).unwrap_or(w));
                let class = object
                    .annotation("volume.beta.kubernetes.io/storage-class")
                    .or_else(|| object.str_at(&["spec", "storageClassName"]))
                    .filter(|c| !c.is_empty())
                    .map(|c| format!("{c}.storageclass.storage.k8s.io"));
                if let Some(class) = &class {
                    out.insert(format!("{class}/persistentvolumeclaims"), one());
                }
                if let Some(q) = size {
                    out.insert("requests.storage".to_owned(), q);
                    if let Some(class) = &class {
                        out.insert(format!("{class}/requests.storage"), q);
                    }
                }
            }
            "services" => {
                out.insert("services".to_owned(), one());
                match object.str_at(&["spec", "type"]) {
                    Some("NodePort") => _ = out.insert("services.nodeports".to_owned(), ports(object)),
                    Some("LoadBalancer") => {
                        out.insert("services.loadbalancers".to_owned(), one());
                        let allocates = object.at(&["spec", "allocateLoadBalancerNodePorts"]).and_then(Value::as_bool);
                        let counted = if allocates == Some(false) { chosen_ports(object) } else { ports(object) };
                        out.insert("services.nodeports".to_owned(), counted);
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

/// Ports with a node port of their own.
fn chosen_ports(service: &Value) -> Quantity {
    let chosen = |p: &&Value| p.i64_at(&["nodePort"]).unwrap_or(0) != 0;
    Quantity::from_value(service.items_at(&["spec", "ports"]).iter().filter(chosen).count() as i64)
}

/// Whether one selector of a scope means this value; an empty value is none.
fn selects(e: &Value, values: &[&str]) -> bool {
    let values: Vec<&str> = values.iter().copied().filter(|v| !v.is_empty()).collect();
    let listed = e.items_at(&["values"]).iter().any(|v| v.as_str().is_some_and(|v| values.contains(&v)));
    match e.str_at(&["operator"]).unwrap_or_default() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => !values.is_empty(),
        "DoesNotExist" => values.is_empty(),
        _ => false,
    }
}

/// Whether no container asks for processors or memory.
fn best_effort(pod: &Value) -> bool {
    let asks = |part: &str| {
        let amounts = pod_resources(pod, part);
        ["cpu", "memory"].iter().any(|r| amounts.get(*r).is_some_and(|q| *q > Quantity::from_value(0)))
    };
    !asks("requests") && !asks("limits")
}

/// Whether a Pod's affinity looks into other namespaces.
fn crosses_namespaces(pod: &Value) -> bool {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let crosses = |term: &Value| {
        !term.items_at(&["namespaces"]).is_empty() || term.get("namespaceSelector").is_some_and(|s| !s.is_null())
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let affinity = &pod["spec"]["affinity"][*kind];
        affinity.items_at(&[REQUIRED]).iter().any(crosses)
            || affinity.items_at(&[PREFERRED]).iter().any(|p| crosses(&p["podAffinityTerm"]))
    })
}

/// Whether a quota's scopes let it see this Pod or claim; other objects are seen by scopeless quotas
/// alone.
fn in_scope(quota: &Value, plural: &str, object: &Value) -> bool {
    let scopes: Vec<&str> = quota.items_at(&["spec", "scopes"]).iter().filter_map(Value::as_str).collect();
    let expressions = quota.items_at(&["spec", "scopeSelector", "matchExpressions"]);
    if scopes.is_empty() && expressions.is_empty() {
        return true;
    }
    let nothing = Value::Null;
    if plural == "persistentvolumeclaims" {
        let classes = [
            object.str_at(&["spec", "volumeAttributesClassName"]).unwrap_or_default(),
            object.str_at(&["status", "currentVolumeAttributesClassName"]).unwrap_or_default(),
            object.str_at(&["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"]).unwrap_or_default(),
        ];
        return scopes.iter().all(|s| *s == "VolumeAttributesClass" && classes.iter().any(|c| !c.is_empty()))
            && expressions
                .iter()
                .all(|e| e.str_at(&["scopeName"]) == Some("VolumeAttributesClass") && selects(e, &classes));
    }
    if plural != "pods" {
        return false;
    }
    let terminating = object.i64_at(&["spec", "activeDeadlineSeconds"]).is_some_and(|s| s >= 0);
    let class = object.str_at(&["spec", "priorityClassName"]).unwrap_or_default();
    let sees = |scope: &str, e: &Value| match scope {
        "BestEffort" => best_effort(object),
        "NotBestEffort" => !best_effort(object),
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "PriorityClass" if e.is_null() => !class.is_empty(),
        "PriorityClass" => selects(e, &[class]),
        "CrossNamespacePodAffinity" => crosses_namespaces(object),
        _ => false,
    };
    scopes.iter().all(|s| sees(s, &nothing))
        && expressions.iter().all(|e| sees(e.str_at(&["scopeName"]).unwrap_or_default(), e))
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
            Operation::Update if a.row.group().is_empty() && a.row.plural() == "pods" => {
                let deadline = |o: &Value| o.i64_at(&["spec", "activeDeadlineSeconds"]).is_some_and(|s| s >= 0);
                a.subresource == "resize"
                    || (a.subresource.is_empty() && old.is_some_and(|o| deadline(o) != deadline(object)))
            }
            Operation::Update => a.is("", "persistentvolumeclaims") || a.is("", "services"),
            _ => false,
        };
        // Events are many, and come and go on their own.
        if !counts || !a.row.namespaced() || a.row.plural() == "events" {
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
        let nothing = Amounts::new();
        for quota in quotas.iter().filter(|q| in_scope(q, plural, object)) {
            // Of what comes into the quota's scope by this update, all is new.
            let known = old.is_some_and(|o| in_scope(quota, plural, o));
            let before = if known { &before } else { &nothing };
            if check(c, a, quota, object, &wanted, before, &mut pending)? {
                charged.push((quota.name().to_owned(), more(&wanted, before)));
            }
        }
        if !a.dry_run && !charged.is_empty() {
            let base = old.map(|o| o.resource_version().to_owned());
            let charge = Charge { request: request_of(a), namespace: a.namespace.to_owned(), base, quotas: charged };
            let charges = pending.entry(object.uid().to_owned()).or_default();
            charges.retain(|c| c.request != charge.request);
            charges.push(charge);
        }
        Ok(())
    }

    /// Someone changes or deletes an object: the cache shows it, so its create is counted there from now on.
    pub(crate) fn seen(&self, uid: &str) {
        keep(&mut self.0.lock(), uid, |c| c.base.is_some());
    }

    pub(crate) fn rolled_back(&self, a: &Attributes<'_>, object: &Value) {
        let request = request_of(a);
        keep(&mut self.0.lock(), object.uid(), |c| c.request != request);
    }
}

/// Keeps these charges of an object.
fn keep(pending: &mut Pending, uid: &str, which: impl Fn(&Charge) -> bool) {
    if let Some(charges) = pending.get_mut(uid) {
        charges.retain(which);
        if charges.is_empty() {
            pending.remove(uid);
        }
    }
}

/// What is used more than before.
fn more(wanted: &Amounts, before: &Amounts) -> Amounts {
    let grown = wanted.iter().filter(|(name, q)| before.get(*name).is_none_or(|b| *q > b));
    grown.map(|(name, q)| (name.clone(), before.get(name).map_or(*q, |b| *q - *b))).collect()
}

/// `cpu for: a,b; memory for: b`, where containers leave out what the quota limits.
fn unspecified(pod: &Value, hard: &[(&str, Quantity)]) -> Option<String> {
    // A Pod with resources of its own need not say more.
    let own = |part: &str| pod.at(&["spec", "resources", part]).is_some_and(|r| !r.is_empty());
    if own("requests") || own("limits") {
        return None;
    }
    let mut missing = Vec::new();
    for (resource, _) in hard.iter().filter(|(k, _)| COMPUTE.contains(k)) {
        let (part, name) = resource.split_once('.').unwrap_or(("requests", resource));
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
    let used = used(c, a, quota, object.uid(), pending);
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

/// The namespace's objects of the request's resource, custom ones too.
fn stored(c: &Cluster, a: &Attributes<'_>) -> Vec<Arc<Value>> {
    match &a.row.stored {
        Some(home)
            if a.row.kind.custom.is_some()
                || ironkeel_schema::resource(a.row.group(), "v1", a.row.plural()).is_none() =>
        {
            let entries = home.cache.snapshot(a.namespace, "", |_| true).entries;
            entries.iter().filter_map(|e| e.tree().ok()).collect()
        }
        _ => c.list(a.row.group(), a.row.plural(), a.namespace),
    }
}

/// What the namespace's objects of this resource use, pending writes included; those of `own` object
/// apart, since of its writes one alone is stored.
fn used(c: &Cluster, a: &Attributes<'_>, quota: &Value, own: &str, pending: &mut Pending) -> Amounts {
    let (group, plural) = (a.row.group(), a.row.plural());
    let mut total = Amounts::new();
    let objects = stored(c, a);
    for object in &objects {
        // The cache shows what these were about.
        keep(pending, object.uid(), |c| c.base.as_deref() == Some(object.resource_version()));
        if in_scope(quota, plural, object) {
            add(&mut total, &usage_of(group, plural, object));
        }
    }
    for charges in pending.iter().filter(|(uid, _)| *uid != own).map(|(_, charges)| charges) {
        let mut most = Amounts::new();
        let here = charges.iter().filter(|c| c.namespace == a.namespace);
        for (_, usage) in here.flat_map(|c| &c.quotas).filter(|(name, _)| name == quota.name()) {
            raise(&mut most, usage);
        }
        add(&mut total, &most);
    }
    total
}
