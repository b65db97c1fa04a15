//! LimitRanger: default requests and limits, and their bounds, from a namespace's LimitRanges.

use std::collections::BTreeMap;

use ironkeel_object::{Map, ObjectMeta, Quantity, Value};
use ironkeel_registry::{ApiError, Attributes, Operation};

use crate::usage::pod_resources;
use crate::{Cluster, creates_pod};

fn items<'a>(range: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    range.items_at(&["spec", "limits"]).iter().filter(move |l| l.str_at(&["type"]) == Some(kind))
}

fn entries<'a>(item: &'a Value, key: &str) -> Vec<(&'a str, Quantity, &'a str)> {
    let members = item.get(key).and_then(Value::as_object);
    members
        .into_iter()
        .flat_map(Map::iter)
        .filter_map(|(k, v)| {
            let text = v.as_str()?;
            Some((k.as_ref(), Quantity::parse(text).ok()?, text))
        })
        .collect()
}

pub(crate) fn mutate(c: &Cluster, a: &Attributes<'_>, pod: &mut Value) {
    if !creates_pod(a) {
        return;
    }
    let mut notes = Vec::new();
    for range in c.list("", "limitranges", a.namespace) {
        for item in items(&range, "Container") {
            for (list, kind) in [("containers", "container"), ("initContainers", "init container")] {
                let containers = pod.get_mut("spec").and_then(|s| s.get_mut(list)).and_then(Value::as_array_mut);
                for container in containers.into_iter().flatten() {
                    for (key, part, what) in [("defaultRequest", "requests", "request"), ("default", "limits", "limit")]
                    {
                        let set = fill(container, item, key, part);
                        if !set.is_empty() {
                            let name = container.str_at(&["name"]).unwrap_or_default();
                            notes.push(format!("{} {what} for {kind} {name}", set.join(", ")));
                        }
                    }
                }
            }
        }
    }
    if !notes.is_empty() {
        let text = format!("LimitRanger plugin set: {}", notes.join("; "));
        pod.meta_mut().object("annotations").insert("kubernetes.io/limit-ranger", text);
    }
}

/// Fills in what a container leaves out; answers the names of what was set.
fn fill(container: &mut Value, item: &Value, key: &str, part: &'static str) -> Vec<String> {
    let mut set = Vec::new();
    for (name, _, text) in entries(item, key) {
        if container.at(&["resources", part, name]).is_some() {
            continue;
        }
        let members = container.slot(&["resources", part]);
        if members.as_object().is_none() {
            *members = Value::object();
        }
        if let Some(m) = members.as_object_mut() {
            m.insert(name.to_owned(), text);
        }
        set.push(name.to_owned());
    }
    set
}

type Amounts = BTreeMap<String, Quantity>;

fn amounts(item: &Value, key: &str) -> Amounts {
    entries(item, key).into_iter().map(|(k, q, _)| (k.to_owned(), q)).collect()
}

pub(crate) fn validate(c: &Cluster, a: &Attributes<'_>, object: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    let writes = matches!(a.operation, Operation::Create | Operation::Update);
    let claims = writes && a.is("", "persistentvolumeclaims");
    let resizes = a.operation == Operation::Update
        && a.row.plural() == "pods"
        && a.row.group().is_empty()
        && a.subresource == "resize";
    if !creates_pod(a) && !claims && !resizes {
        return Ok(());
    }
    // A deleted object may still lose its finalizers, whatever it asks for.
    if old.is_some() && object.deletion_timestamp().is_some() {
        return Ok(());
    }
    let mut problems = Vec::new();
    for range in c.list("", "limitranges", a.namespace) {
        if claims {
            let requests = amounts(&object["spec"]["resources"], "requests");
            for item in items(&range, "PersistentVolumeClaim") {
                bounds(item, "PersistentVolumeClaim", &requests, &requests, &mut problems);
            }
            continue;
        }
        for item in items(&range, "Container") {
            for container in ["initContainers", "containers"].into_iter().flat_map(|l| object.items_at(&["spec", l])) {
                let resources = &container["resources"];
                let (requests, limits) = (amounts(resources, "requests"), amounts(resources, "limits"));
                bounds(item, "Container", &requests, &limits, &mut problems);
            }
        }
        for item in items(&range, "Pod") {
            let (requests, limits) = (pod_resources(object, "requests"), pod_resources(object, "limits"));
            bounds(item, "Pod", &requests, &limits, &mut problems);
        }
    }
    match problems.as_slice() {
        [] => Ok(()),
        [one] => Err(a.forbidden(one)),
        many => Err(a.forbidden(&format!("[{}]", many.join(", ")))),
    }
}

/// Checks one subject against one item of a LimitRange.
fn bounds(item: &Value, kind: &str, requests: &Amounts, limits: &Amounts, problems: &mut Vec<String>) {
    for (name, min, text) in entries(item, "min") {
        match (requests.get(name), limits.get(name)) {
            (None, _) => {
                problems.push(format!("minimum {name} usage per {kind} is {text}.  No request is specified"));
            }
            (Some(request), _) if *request < min => {
                problems.push(format!("minimum {name} usage per {kind} is {text}, but request is {request}"));
            }
            (_, Some(limit)) if *limit < min => {
                problems.push(format!("minimum {name} usage per {kind} is {text}, but limit is {limit}"));
            }
            _ => {}
        }
    }
    for (name, max, text) in entries(item, "max") {
        match (requests.get(name), limits.get(name)) {
            (_, None) if kind != "PersistentVolumeClaim" => {
                problems.push(format!("maximum {name} usage per {kind} is {text}.  No limit is specified"));
            }
            (_, Some(limit)) if *limit > max => {
                let what = if kind == "PersistentVolumeClaim" { "request" } else { "limit" };
                problems.push(format!("maximum {name} usage per {kind} is {text}, but {what} is {limit}"));
            }
            (Some(request), _) if *request > max => {
                problems.push(format!("maximum {name} usage per {kind} is {text}, but request is {request}"));
            }
            _ => {}
        }
    }
    for (name, ratio, text) in entries(item, "maxLimitRequestRatio") {
        if let (Some(request), Some(limit)) = (requests.get(name), limits.get(name)) {
            let found = limit.as_f64() / request.as_f64();
            if found > ratio.as_f64() {
                problems.push(format!(
                    "{name} max limit to request ratio per {kind} is {text}, but provided ratio is {found:.6}"
                ));
            }
        }
    }
}
