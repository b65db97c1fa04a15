//! The `resize` way of a Pod: cpu and memory of its containers, and of itself, while it runs (KEP-1287, KEP-5419).
//! Nothing else may change by it, no amount may be taken away, and the class of the Pod stays.

use ironkeel_object::Value;

use crate::error::Errors;
use crate::{Path, equality, resources, strategy};

const CONTAINER: &str = "core/v1.Container";
const REQUIREMENTS: &str = "core/v1.ResourceRequirements";
const LISTS: [&str; 2] = ["containers", "initContainers"];
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Takes over from `old` all but resources.
pub(super) fn prepare(o: &mut Value, old: &Value) {
    let asked = o.get("spec").cloned().unwrap_or_default();
    strategy::keep(o, old, "spec");
    strategy::keep(o, old, "status");
    strategy::keep_metadata_for_status(o, old);
    let spec = o.slot(&["spec"]);
    for list in LISTS {
        let new = asked.items_at(&[list]);
        let kept = spec.items_at(&[list]);
        if new.len() != kept.len() || new.iter().zip(kept).any(|(new, old)| new["name"] != old["name"]) {
            // The rules say what is wrong with it.
            strategy::keep(spec, &asked, list);
            continue;
        }
        for (c, new) in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().zip(new) {
            for member in ["resources", "resizePolicy"] {
                strategy::keep(c, new, member);
            }
        }
    }
    strategy::keep(spec, &asked, "resources");
}

/// Rules for the change.
pub(super) fn validate(o: &Value, old: &Value, e: &mut Errors) {
    let path = Path::new("spec");
    if old.at(&["metadata", "annotations", MIRROR]).is_some() {
        return e.forbidden(&Path::new(""), "static pods cannot be resized");
    }
    if old.str_at(&["spec", "os", "name"]) == Some("windows") {
        return e.forbidden(&Path::new(""), "windows pods cannot be resized");
    }
    let class = old.str_at(&["status", "qosClass"]).filter(|c| !c.is_empty());
    let class = class.unwrap_or_else(|| resources::qos_class(old));
    if class != resources::qos_class(o) {
        e.invalid(&path, class, "Pod QOS Class may not change as a result of resizing");
    }
    let running = |c: &&Value| c.at(&["state", "running"]).is_some_and(|s| !s.is_null());
    let known = old.items_at(&["status", "containerStatuses"]).iter().find(running);
    if known.is_some_and(|c| c.get("resources").is_none_or(Value::is_null)) {
        e.forbidden(&path, "Pod running on node without support for resize");
    }
    validate_whole(o, old, &path, e);
    if !old.items_at(&["status", "nodeAllocatableResourceClaimStatuses"]).is_empty() {
        e.forbidden(&path, "pods with node allocatable resource claims cannot be resized");
    }
    if !same_containers(o, old, &path, e) {
        return;
    }
    for list in LISTS {
        for (i, (new, before)) in o.items_at(&["spec", list]).iter().zip(old.items_at(&["spec", list])).enumerate() {
            let at = path.child(list).index(i);
            validate_removal(&new["resources"], &before["resources"], &at.child("resources"), "resource", e);
            let mut munged = new.clone();
            *munged.slot(&["resources"]) = with_old_amounts(&new["resources"], &before["resources"]);
            let sound = equality::equal_as(CONTAINER, &munged, before);
            if list == "containers" {
                if !sound {
                    e.forbidden(&path, "only cpu and memory resources are mutable");
                }
                continue;
            }
            if !sound {
                e.forbidden(&at, "only cpu and memory resources for init or sidecar containers are mutable");
            }
            let sidecar = new.str_at(&["restartPolicy"]) == Some("Always");
            if !sidecar && !equality::equal_as(CONTAINER, new, before) {
                let restarts = |p: &&Value| p.str_at(&["restartPolicy"]) == Some("RestartContainer");
                for _ in munged.items_at(&["resizePolicy"]).iter().filter(restarts) {
                    let text = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
                    e.forbidden(&at, text);
                }
            }
        }
    }
}

/// Whether the containers are those that were there.
fn same_containers(o: &Value, old: &Value, path: &Path, e: &mut Errors) -> bool {
    let before = e.len();
    for list in LISTS {
        let (new, had) = (o.items_at(&["spec", list]), old.items_at(&["spec", list]));
        if new.len() != had.len() {
            e.forbidden(&path.child(list), &format!("{list} may not be added or removed on resize"));
            continue;
        }
        for (i, _) in new.iter().zip(had).enumerate().filter(|(_, (new, old))| new["name"] != old["name"]) {
            let at = path.child(list).index(i).child("name");
            e.forbidden(&at, &format!("{list} may not be renamed or reordered on resize"));
        }
    }
    e.len() == before
}

/// The Pod's own resources.
fn validate_whole(o: &Value, old: &Value, path: &Path, e: &mut Errors) {
    let own = |pod: &Value| pod.at(&["spec", "resources"]).filter(|r| !r.is_null()).cloned();
    let at = path.child("resources");
    match (own(o), own(old)) {
        (None, None) => {}
        (None, Some(_)) => e.forbidden(&at, "pod-level resources cannot be removed"),
        (Some(new), before) => {
            let before = before.unwrap_or_default();
            validate_removal(&new, &before, &at, "pod-level resource", e);
            if !equality::equal_as(REQUIREMENTS, &with_old_amounts(&new, &before), &before) {
                e.forbidden(path, "only cpu and memory resources are mutable at pod-level");
            }
        }
    }
}

fn validate_removal(new: &Value, old: &Value, at: &Path, what: &str, e: &mut Errors) {
    for part in ["requests", "limits"] {
        let had = old.get(part).and_then(Value::as_object);
        if had.into_iter().flat_map(|m| m.keys()).any(|name| new.at(&[part, name.as_ref()]).is_none()) {
            e.forbidden(&at.child(part), &format!("{what} {part} cannot be removed"));
        }
    }
}

/// Requests and limits with the old amounts of what may change, and no claims, which may not be there.
fn with_old_amounts(new: &Value, old: &Value) -> Value {
    let mut out = Value::object();
    for part in ["limits", "requests"] {
        let mut list = new.get(part).filter(|l| l.as_object().is_some()).cloned().unwrap_or_else(Value::object);
        for name in ["cpu", "memory"] {
            strategy::keep(&mut list, &old[part], name);
        }
        *out.slot(&[part]) = list;
    }
    out
}
