//! Node.

use ironkeel_object::Value;

use crate::error::Errors;
use crate::repeats::{identity, repeated_by, repeated_whole};
use crate::structural::Depth;
use crate::{Path, TableContext, equality, names, pod_spec, print, resources, rules, strategy};

pub(crate) struct Rules;

impl rules::Rules for Rules {
    fn default(&self, o: &mut Value) {
        let capacity = o.at(&["status", "capacity"]).cloned();
        if let Some(c) = capacity.filter(|_| o.at(&["status", "allocatable"]).is_none_or(Value::is_null)) {
            *o.slot(&["status", "allocatable"]) = c;
        }
    }
    fn owns_update(&self, subresource: Option<&str>) -> bool {
        subresource == Some("status")
    }
    fn prepare_create(&self, o: &mut Value) {
        one_of_pod_cidrs(o);
    }
    fn prepare_update(&self, o: &mut Value, old: &Value, subresource: Option<&str>) {
        if subresource == Some("status") {
            // The kubelet writes labels and annotations with its status.
            strategy::keep(o, old, "spec");
            // What its configuration of long ago came to: dropped, too.
            let had = old.at(&["status", "config"]).is_some_and(|c| !c.is_null());
            if let Some(status) = o.get_mut("status").and_then(Value::as_object_mut).filter(|_| !had) {
                status.remove("config");
            }
        } else {
            one_of_pod_cidrs(o);
        }
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("metadata").child("taints");
        let taints = o.items_at(&["spec", "taints"]);
        let twice = repeated_by(taints, |t| (identity(&t["key"]), identity(&t["effect"])));
        for (i, t) in taints.iter().enumerate() {
            let at = at.index(i);
            let key = t.str_at(&["key"]).unwrap_or_default();
            e.invalid_each(&at.child("key"), key, names::qualified(key));
            let value = t.str_at(&["value"]).unwrap_or_default();
            let messages = names::label_value(value);
            if !messages.is_empty() {
                e.invalid(&at.child("value"), value, &messages.join(";"));
            }
            pod_spec::taint_effect(t, false, &at, e);
            if twice[i] {
                let text = |f: &str| crate::error::shown(&t.str_at(&[f]).unwrap_or_default().into());
                let shown = format!(
                    "{{\"Key\":{},\"Value\":{},\"Effect\":{},\"TimeAdded\":null}}",
                    text("key"),
                    text("value"),
                    text("effect")
                );
                e.duplicate_as(&at, &shown, "taints must be unique by key and effect pair");
            }
        }
        let cidrs = o.items_at(&["spec", "podCIDRs"]);
        let at = Path::new("spec").child("podCIDRs");
        for (i, c) in cidrs.iter().enumerate() {
            let c = c.as_str().unwrap_or_default();
            e.invalid_each(&at.index(i), c, names::cidr(c));
        }
        declared_features(o, e);
        let wrong = |c: &&Value| !names::cidr(c.as_str().unwrap_or_default()).is_empty();
        if cidrs.len() > 1
            && let Some(i) = cidrs.iter().position(|c| wrong(&c))
        {
            let c = cidrs[i].as_str().unwrap_or_default();
            let why = format!("invalid CIDR[{i}]: <nil> (invalid CIDR address: {c})");
            e.internal(&at, &format!("invalid PodCIDRs. failed to check with dual stack with error:{why}"));
        }
        let families = cidrs.iter().filter_map(Value::as_str).filter(|c| c.contains(':')).count();
        if cidrs.len() > 2 || families > 1 || cidrs.len() > families + 1 {
            e.invalid(&at, cidrs.to_vec(), "may specify no more than one CIDR for each IP family");
        }
        for (name, q) in o.at(&["status", "capacity"]).and_then(Value::as_object).into_iter().flat_map(|m| m.iter()) {
            let at = Path::new("status").child("capacity").key(name);
            resources::validate_quantity(name, Some(q), &at, e);
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource == Some("status") {
            validate_status(o, e);
            return;
        }
        let at = Path::new("spec");
        if !old.items_at(&["spec", "podCIDRs"]).is_empty()
            && !equality::same(o.at(&["spec", "podCIDRs"]), old.at(&["spec", "podCIDRs"]))
        {
            e.forbidden(&at.child("podCIDRs"), "node updates may not change podCIDR except from \"\" to valid");
        }
        let text = |v: &Value, f: &str| v.str_at(&["spec", f]).unwrap_or_default().to_owned();
        if text(o, "externalID") != text(old, "externalID") {
            e.forbidden(&at.child("externalID"), "may not be updated");
        }
        let provider = |v: &Value| v.str_at(&["spec", "providerID"]).unwrap_or_default().to_owned();
        if !provider(old).is_empty() && provider(o) != provider(old) {
            e.forbidden(&at.child("providerID"), "node updates may not change providerID except from \"\" to valid");
        }
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn columns(&self) -> &'static str {
        "node"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let ready = o.items_at(&["status", "conditions"]).iter().find(|c| c.str_at(&["type"]) == Some("Ready"));
        let mut status = match ready.and_then(|c| c.str_at(&["status"])) {
            Some("True") => "Ready".to_owned(),
            Some(_) => "NotReady".to_owned(),
            None => "Unknown".to_owned(),
        };
        if o.at(&["spec", "unschedulable"]).and_then(Value::as_bool) == Some(true) {
            status.push_str(",SchedulingDisabled");
        }
        let mut roles: Vec<String> = Vec::new();
        for (k, v) in o.at(&["metadata", "labels"]).and_then(Value::as_object).into_iter().flat_map(|m| m.iter()) {
            match k.strip_prefix("node-role.kubernetes.io/") {
                Some(role) if !role.is_empty() => roles.push(role.to_owned()),
                _ if k == "kubernetes.io/role" => roles.extend(v.as_str().filter(|s| !s.is_empty()).map(str::to_owned)),
                _ => {}
            }
        }
        roles.sort();
        roles.dedup();
        let address = |kind: &str| {
            let all = o.items_at(&["status", "addresses"]);
            let found = all.iter().find(|a| a.str_at(&["type"]) == Some(kind)).and_then(|a| a.str_at(&["address"]));
            print::non_empty(found.unwrap_or_default().to_owned(), "<none>")
        };
        let info = |f: &str| print::text(o, &["status", "nodeInfo", f], "<unknown>");
        vec![
            status.into(),
            print::non_empty(roles.join(","), "<none>"),
            print::age(o, c),
            print::text(o, &["status", "nodeInfo", "kubeletVersion"], ""),
            address("InternalIP"),
            address("ExternalIP"),
            info("osImage"),
            info("kernelVersion"),
            info("containerRuntimeVersion"),
        ]
    }
    fn field(&self, o: &Value, path: &str) -> Option<String> {
        let on = o.at(&["spec", "unschedulable"]).and_then(Value::as_bool).unwrap_or(false);
        (path == "spec.unschedulable").then(|| on.to_string())
    }
}

fn validate_status(o: &Value, e: &mut Errors) {
    let at = Path::new("status");
    for f in ["capacity", "allocatable"] {
        let list = o.at(&["status", f]).and_then(Value::as_object);
        for (name, q) in list.into_iter().flat_map(|m| m.iter()) {
            resources::validate_quantity(name, Some(q), &at.child(f).child(name), e);
        }
    }
    declared_features(o, e);
    let all = o.items_at(&["status", "addresses"]);
    let twice = repeated_whole(all);
    for (i, a) in all.iter().enumerate().filter(|(i, _)| twice[*i]) {
        e.duplicate(&at.child("addresses").index(i), a.clone());
    }
}

const FEATURE_MAX_CHARACTERS: usize = 253;

/// Names of features that the node has: words in camel case between slashes, sorted.
fn declared_features(o: &Value, e: &mut Errors) {
    let path = Path::new("status").child("declaredFeatures");
    let list = o.items_at(&["status", "declaredFeatures"]);
    let name = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    for (i, f) in list.iter().map(name).enumerate() {
        let word = |w: &str| w.bytes().all(|b| b.is_ascii_alphanumeric()) && !w.is_empty();
        if f.len() > FEATURE_MAX_CHARACTERS {
            let text = format!(
                "invalid feature name {}: {}",
                crate::error::shown(&f.as_str().into()),
                names::max_characters(FEATURE_MAX_CHARACTERS)
            );
            e.invalid(&path.index(i), f.as_str(), &text);
        } else if !f.split('/').all(word) || !f.starts_with(|c: char| c.is_ascii_uppercase()) {
            let text = format!(
                "invalid feature name {}: must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes",
                crate::error::shown(&f.as_str().into())
            );
            e.invalid(&path.index(i), f.as_str(), &text);
        }
        let Some(next) = list.get(i + 1).map(name) else { continue };
        if f == next {
            e.duplicate(&path.index(i + 1), next);
        } else if f > next {
            e.invalid(&path.index(i + 1), next, "list must be sorted alphabetically");
        }
    }
}

/// `podCIDR` is the first of `podCIDRs`.
fn one_of_pod_cidrs(o: &mut Value) {
    let single = o.str_at(&["spec", "podCIDR"]).unwrap_or_default().to_owned();
    let first = o.items_at(&["spec", "podCIDRs"]).first().and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some(spec) = o.get_mut("spec").and_then(Value::as_object_mut) {
        // The kubelet's configuration of long ago: dropped.
        spec.remove("configSource");
    }
    if !single.is_empty() && first != single {
        *o.slot(&["spec", "podCIDRs"]) = vec![single].into();
    } else if single.is_empty() && !first.is_empty() {
        *o.slot(&["spec", "podCIDR"]) = first.into();
    }
}
