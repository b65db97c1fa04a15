//! What may change of a Pod: its image, deadline, gates and more tolerations; by `status`,
//! `ephemeralcontainers`, `resize` and `binding` their own parts.

use std::collections::{HashMap, HashSet};

use ironkeel_object::{ObjectMeta, Value};

use super::{pod_resize, pod_status};
use crate::error::Errors;
use crate::repeats::{identity, members};
use crate::{Path, equality, pod_spec, strategy};

const POD_SPEC: &str = "core/v1.PodSpec";

/// Takes over from `old` what this way may not change.
pub(crate) fn prepare(o: &mut Value, old: &Value, subresource: Option<&str>) {
    match subresource {
        Some("status") => {
            strategy::keep(o, old, "spec");
            strategy::keep_metadata(
                o,
                old,
                &["deletionTimestamp", "deletionGracePeriodSeconds", "ownerReferences", "generation"],
            );
            mirror_pod_ip(o);
            if o.str_at(&["status", "qosClass"]).unwrap_or_default().is_empty()
                && let Some(q) = old.at(&["status", "qosClass"]).cloned()
            {
                *o.slot(&["status", "qosClass"]) = q;
            }
            keep_observed_generations(o, old);
            return;
        }
        Some("ephemeralcontainers") => {
            let mine = o.at(&["spec", "ephemeralContainers"]).cloned();
            strategy::keep(o, old, "spec");
            strategy::keep(o, old, "status");
            strategy::keep_metadata_for_status(o, old);
            match mine {
                Some(list) => *o.slot(&["spec", "ephemeralContainers"]) = list,
                None => {
                    if let Some(m) = o.slot(&["spec"]).as_object_mut() {
                        m.remove("ephemeralContainers");
                    }
                }
            }
        }
        Some("resize") => pod_resize::prepare(o, old),
        // The registry sets the node and a condition itself; a bind is no change of the spec.
        Some("binding") => return,
        _ => {
            grace_of_one(o);
            strategy::keep(o, old, "status");
        }
    }
    let changed = !equality::equal_as(POD_SPEC, &o["spec"], &old["spec"]);
    let generation = old.generation() + i64::from(changed);
    if generation > 0 {
        o.meta_mut().insert("generation", generation);
    }
}

/// `podIP` is the first of `podIPs`; clients may write either.
fn mirror_pod_ip(o: &mut Value) {
    let one = o.str_at(&["status", "podIP"]).unwrap_or_default().to_owned();
    let first =
        o.items_at(&["status", "podIPs"]).first().and_then(|i| i.str_at(&["ip"])).unwrap_or_default().to_owned();
    if one.is_empty() && !first.is_empty() {
        *o.slot(&["status", "podIP"]) = first.into();
    } else if !one.is_empty() && one != first {
        let mut ip = Value::object();
        *ip.slot(&["ip"]) = one.into();
        *o.slot(&["status", "podIPs"]) = vec![ip].into();
    }
}

/// A negative grace period counts as one second.
pub(crate) fn grace_of_one(o: &mut Value) {
    if o.i64_at(&["spec", "terminationGracePeriodSeconds"]).is_some_and(|s| s < 0) {
        *o.slot(&["spec", "terminationGracePeriodSeconds"]) = 1_i64.into();
    }
}

fn keep_observed_generations(o: &mut Value, old: &Value) {
    let blank = |v: &Value| v.i64_at(&["observedGeneration"]).unwrap_or(0) == 0;
    if blank(&o["status"])
        && let Some(g) = old.at(&["status", "observedGeneration"]).cloned()
    {
        *o.slot(&["status", "observedGeneration"]) = g;
    }
    let mut before: HashMap<&str, &Value> = HashMap::new();
    for c in old.items_at(&["status", "conditions"]) {
        before.entry(c.str_at(&["type"]).unwrap_or_default()).or_insert(c);
    }
    let now = o.get_mut("status").and_then(|s| s.get_mut("conditions")).and_then(Value::as_array_mut);
    for c in now.into_iter().flatten().filter(|c| blank(c)) {
        let had =
            before.get(c.str_at(&["type"]).unwrap_or_default()).and_then(|b| b.get("observedGeneration")).cloned();
        if let (Some(g), Some(m)) = (had, c.as_object_mut()) {
            m.insert("observedGeneration", g);
        }
    }
}

/// Rules for the change.
pub(crate) fn validate(o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
    match subresource {
        Some("status") => pod_status::validate(o, old, e),
        Some("ephemeralcontainers") => validate_ephemeral(o, old, e),
        Some("resize") => pod_resize::validate(o, old, e),
        Some("binding") => {}
        _ => validate_spec(o, old, e),
    }
}

fn validate_spec(o: &Value, old: &Value, e: &mut Errors) {
    let path = Path::new("spec");
    for list in ["containers", "initContainers"] {
        let (n, b) = (o.items_at(&["spec", list]), old.items_at(&["spec", list]));
        if n.len() != b.len() {
            e.forbidden(&path.child(list), "pod updates may not add or remove containers");
            return;
        }
        for (i, c) in n.iter().enumerate() {
            if c.str_at(&["image"]).unwrap_or_default().is_empty() {
                e.required(&path.child(list).index(i).child("image"), "");
            }
        }
    }
    let deadline = |v: &Value| v.i64_at(&["spec", "activeDeadlineSeconds"]);
    let at = path.child("activeDeadlineSeconds");
    match (deadline(o), deadline(old)) {
        (Some(n), before) => {
            if !(0..=i64::from(i32::MAX)).contains(&n) {
                e.invalid(&at, n, "must be between 0 and 2147483647, inclusive");
            } else if before.is_some_and(|b| b < n) {
                e.invalid(&at, n, "must be less than or equal to previous value");
            }
        }
        (None, Some(_)) => e.invalid(&at, Value::Null, "must not update from a positive integer to nil value"),
        (None, None) => {}
    }
    validate_tolerations(o, old, &path.child("tolerations"), e);
    validate_gates(o, old, &path, e);
    let mut munged = o.get("spec").cloned().unwrap_or_default();
    let before = old.get("spec").cloned().unwrap_or_default();
    restore(&mut munged, &before, o, old);
    if !equality::equal_as(POD_SPEC, &munged, &before) {
        e.forbidden(
            &path,
            &format!(
                "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n{}",
                difference(&munged, &before)
            ),
        );
    }
}

/// Puts the old values back where a change is allowed, so that what differs after it is forbidden.
fn restore(spec: &mut Value, before: &Value, o: &Value, old: &Value) {
    for list in ["containers", "initContainers"] {
        let had = before.items_at(&[list]);
        let now = spec.get_mut(list).and_then(Value::as_array_mut);
        for (i, c) in now.into_iter().flatten().enumerate() {
            strategy::keep(c, &had[i], "image");
        }
    }
    for member in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        strategy::keep(spec, before, member);
    }
    let grace = |v: &Value| v.i64_at(&["spec", "terminationGracePeriodSeconds"]);
    if grace(old).is_some_and(|g| g < 0) && grace(o) == Some(1) {
        strategy::keep(spec, before, "terminationGracePeriodSeconds");
    }
    if gated(old) {
        strategy::keep(spec, before, "nodeSelector");
        restore_affinity(spec, before);
    }
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// Of a gated pod's affinity, that to nodes may change.
fn restore_affinity(spec: &mut Value, before: &Value) {
    let nodes = |s: &Value| s.at(&["affinity", "nodeAffinity"]).filter(|a| !a.is_null()).cloned();
    let (now, was) = (nodes(spec), nodes(before));
    if equality::equal_as("core/v1.NodeAffinity", &now.clone().unwrap_or_default(), &was.clone().unwrap_or_default())
        && now.is_some() == was.is_some()
    {
        return;
    }
    let had = pod_spec::present(before, "affinity").is_some();
    let pods = ["podAffinity", "podAntiAffinity"];
    let none_of_pods = pods.iter().all(|f| spec.at(&["affinity", f]).is_none_or(Value::is_null));
    if !had && none_of_pods {
        strategy::keep(spec, before, "affinity");
    } else if let Some(affinity) = spec.slot(&["affinity"]).as_object_mut() {
        match was {
            Some(a) => _ = affinity.insert("nodeAffinity", a),
            None => _ = affinity.remove("nodeAffinity"),
        }
    } else {
        let mut affinity = Value::object();
        *affinity.slot(&["nodeAffinity"]) = was.unwrap_or_default();
        *spec.slot(&["affinity"]) = affinity;
    }
}

/// What a gated pod asks of its node: more may be asked, nothing less.
fn validate_node_affinity(o: &Value, old: &Value, path: &Path, e: &mut Errors) {
    let terms = |v: &Value| v.items_at(&["spec", "affinity", "nodeAffinity", REQUIRED, "nodeSelectorTerms"]).to_vec();
    let (now, was) = (terms(o), terms(old));
    if was.is_empty() {
        return;
    }
    let at = path.child("affinity").child("nodeAffinity").child(REQUIRED).child("nodeSelectorTerms");
    if now.len() != was.len() {
        e.invalid(&at, now, "no additions/deletions to non-empty NodeSelectorTerms list are allowed");
        return;
    }
    for (i, (n, b)) in now.iter().zip(&was).enumerate() {
        let list = |t: &Value, f: &str| t.items_at(&[f]).to_vec();
        let lists = ["matchExpressions", "matchFields"].map(|f| (list(n, f), list(b, f)));
        let selected_nothing = lists.iter().all(|(_, b)| b.is_empty()) && lists.iter().any(|(n, _)| !n.is_empty());
        let lost = |(n, b): &(Vec<Value>, Vec<Value>)| {
            n.len() < b.len() || n.iter().zip(b).any(|(x, y)| !equality::equal(x, y))
        };
        if selected_nothing || lists.iter().any(lost) {
            e.invalid(&at.index(i), n.clone(), "only additions are allowed (no mutations or deletions)");
        }
    }
}

fn gated(v: &Value) -> bool {
    !v.items_at(&["spec", "schedulingGates"]).is_empty()
}

/// The members that differ, old and new, one a line.
fn difference(new: &Value, old: &Value) -> String {
    let mut keys: Vec<&str> = new.as_object().into_iter().flat_map(|m| m.keys()).map(AsRef::as_ref).collect();
    keys.extend(old.as_object().into_iter().flat_map(|m| m.keys()).map(AsRef::as_ref));
    keys.sort_unstable();
    keys.dedup();
    let changed = keys.into_iter().filter(|k| !equality::same(new.get(k), old.get(k)));
    changed
        .map(|k| format!("- {k}: {}\n+ {k}: {}", crate::error::shown(&old[k]), crate::error::shown(&new[k])))
        .collect::<Vec<_>>()
        .join("\n")
}

fn validate_tolerations(o: &Value, old: &Value, at: &Path, e: &mut Errors) {
    let strip = |t: &Value| {
        let mut t = t.clone();
        if let Some(m) = t.as_object_mut() {
            m.remove("tolerationSeconds");
            m.retain(|_, v| !v.is_empty());
        }
        t
    };
    let now: HashSet<String> = o.items_at(&["spec", "tolerations"]).iter().map(|t| identity(&strip(t))).collect();
    for t in old.items_at(&["spec", "tolerations"]) {
        if !now.contains(&identity(&strip(t))) {
            e.forbidden(at, "existing toleration can not be modified except its tolerationSeconds");
            return;
        }
    }
}

fn validate_gates(o: &Value, old: &Value, path: &Path, e: &mut Errors) {
    let before = members(old.items_at(&["spec", "schedulingGates"]));
    for (i, g) in o.items_at(&["spec", "schedulingGates"]).iter().enumerate() {
        if !before.contains(&identity(g)) {
            let name = g.str_at(&["name"]).unwrap_or_default();
            let at = path.child("schedulingGates").index(i).child("name");
            let text = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            e.forbidden(&at, &text);
        }
    }
    if gated(old) {
        let had = old.at(&["spec", "nodeSelector"]).and_then(Value::as_object);
        let now = o.at(&["spec", "nodeSelector"]);
        let kept = had.into_iter().flat_map(|m| m.iter()).all(|(k, v)| now.and_then(|n| n.get(k)) == Some(v));
        if !kept {
            let at = path.child("nodeSelector");
            e.invalid(&at, now.cloned().unwrap_or_default(), "only additions are allowed (no mutations or deletions)");
        }
        validate_node_affinity(o, old, path, e);
    }
}

fn validate_ephemeral(o: &Value, old: &Value, e: &mut Errors) {
    let at = Path::new("spec").child("ephemeralContainers");
    let mut now: HashMap<&str, &Value> = HashMap::new();
    for c in o.items_at(&["spec", "ephemeralContainers"]) {
        now.entry(c.str_at(&["name"]).unwrap_or_default()).or_insert(c);
    }
    let around = pod_spec::Surroundings::trusted(&o["spec"], pod_spec::Place::Pod);
    pod_spec::containers::ephemeral(&around, &Path::new("spec"), e);
    for b in old.items_at(&["spec", "ephemeralContainers"]) {
        let name = b.str_at(&["name"]).unwrap_or_default();
        match now.get(name) {
            None => e.forbidden(
                &at,
                &format!("existing ephemeral containers {} may not be removed\n", crate::error::shown(&name.into())),
            ),
            Some(n) if !equality::equal(n, b) => {
                e.forbidden(
                    &at,
                    &format!(
                        "existing ephemeral containers {} may not be changed\n",
                        crate::error::shown(&name.into())
                    ),
                );
            }
            Some(_) => {}
        }
    }
}
