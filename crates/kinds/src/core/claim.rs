//! PersistentVolumeClaim.

use ironkeel_object::{ObjectMeta, Quantity, Value};

use crate::error::Errors;
use crate::pod_spec::{present, string};
use crate::structural::Depth;
use crate::{Path, TableContext, equality, names, print, resources, rules, selector, strategy};

pub(crate) struct Rules;

/// Short names of access modes, as `kubectl` prints them.
pub(crate) fn access_modes(modes: &[Value]) -> String {
    let mut out: Vec<&str> = Vec::new();
    for (mode, short) in
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")]
    {
        if modes.iter().any(|m| m.as_str() == Some(mode)) {
            out.push(short);
        }
    }
    out.join(",")
}

/// Rules for the spec, of a claim or of a template.
pub(crate) fn validate_spec(spec: &Value, at: &Path, e: &mut Errors) {
    validate_changed_spec(spec, &Value::Null, at, e);
}

/// Rules for the spec of a claim that was another one before: groups of sources are not looked at where it had some.
fn validate_changed_spec(spec: &Value, old: &Value, at: &Path, e: &mut Errors) {
    let grouped = |f: &str| present(old, f).is_some_and(|s| present(s, "apiGroup").is_some());
    let any_group = ["dataSource", "dataSourceRef"].into_iter().any(grouped);
    if spec.items_at(&["accessModes"]).is_empty() {
        e.required(&at.child("accessModes"), "at least 1 access mode is required");
    }
    selector::label_selector(spec.get("selector"), &at.child("selector"), e);
    validate_modes(spec, at, e);
    let storage = spec.at(&["resources", "requests", "storage"]);
    match resources::quantity(storage) {
        None => e.required(&at.child("resources").key("storage"), ""),
        Some(q) if q.signum() <= 0 => {
            e.invalid(&at.child("resources").key("storage"), print::scalar(storage), "must be greater than zero");
        }
        Some(_) => {}
    }
    for f in ["storageClassName", "volumeAttributesClassName"] {
        if let Some(c) = string(spec, f) {
            e.invalid_each(&at.child(f), c, names::subdomain(c));
        }
    }
    volume_mode(spec, at, e);
    let (old, new) = (present(spec, "dataSource"), present(spec, "dataSourceRef"));
    for (f, source) in [("dataSource", old), ("dataSourceRef", new)] {
        if let Some(s) = source {
            data_source(s, any_group, &at.child(f), e);
        }
    }
    let far = new.is_some_and(|n| string(n, "namespace").is_some());
    match (old, new) {
        (Some(_), Some(_)) if far => {
            // Upstream shows a path there, of which nothing is left.
            e.invalid_as(at, "{}", "may not be specified when dataSourceRef.namespace is specified");
        }
        (Some(o), Some(n)) => {
            let text = |v: &Value, f: &str| v.str_at(&[f]).unwrap_or_default().to_owned();
            if ["apiGroup", "kind", "name"].iter().any(|f| text(o, f) != text(n, f)) {
                e.invalid_as(at, "{}", "must match dataSourceRef");
            }
        }
        _ => {}
    }
}

fn data_source(s: &Value, any_group: bool, at: &Path, e: &mut Errors) {
    for part in ["name", "kind"] {
        if string(s, part).is_none() {
            e.required(&at.child(part), "");
        }
    }
    let kind = s.str_at(&["kind"]).unwrap_or_default();
    match string(s, "apiGroup") {
        None if kind != "PersistentVolumeClaim" => {
            e.invalid(at, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
        }
        None => {}
        Some(_) if any_group => {}
        Some(g) => e.invalid_each(&at.child("apiGroup"), g, names::subdomain(g)),
    }
    if let Some(n) = string(s, "namespace") {
        e.invalid_each(&at.child("namespace"), n, names::label(n));
    }
}

/// `volumeMode` of a claim or a volume.
pub(crate) fn volume_mode(spec: &Value, at: &Path, e: &mut Errors) {
    if let Some(m) = spec.str_at(&["volumeMode"]).filter(|m| !matches!(*m, "Block" | "Filesystem")) {
        e.not_supported(&at.child("volumeMode"), m, &["Block", "Filesystem"]);
    }
}

/// Access modes of a claim or a volume.
pub(crate) fn validate_modes(spec: &Value, at: &Path, e: &mut Errors) {
    let modes = spec.items_at(&["accessModes"]);
    let path = at.child("accessModes");
    const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for m in modes.iter().filter_map(Value::as_str).filter(|m| !MODES.contains(m)) {
        e.not_supported(&path, m, MODES);
    }
    let single = |m: &&Value| m.as_str() == Some("ReadWriteOncePod");
    let known = |m: &&Value| m.as_str().is_some_and(|m| MODES.contains(&m));
    if modes.iter().any(|m| single(&m)) && modes.iter().any(|m| known(&m) && !single(&m)) {
        e.forbidden(&path, "may not use ReadWriteOncePod with other access modes");
    }
}

const RESIZE_STATUSES: &[&str] = &[
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

fn validate_status(o: &Value, e: &mut Errors) {
    let at = Path::new("status");
    let statuses = o.at(&["status", "allocatedResourceStatuses"]).and_then(Value::as_object);
    for (name, status) in statuses.into_iter().flat_map(|m| m.iter()) {
        let at = at.child("allocatedResourceStatuses");
        resized_resource(name, &at, e);
        if !status.as_str().is_some_and(|s| RESIZE_STATUSES.contains(&s)) {
            // Upstream shows the resource there.
            e.not_supported(&at, name.as_ref(), RESIZE_STATUSES);
        }
    }
    for f in ["capacity", "allocatedResources"] {
        let list = o.at(&["status", f]).and_then(Value::as_object);
        for (name, q) in list.into_iter().flat_map(|m| m.iter()) {
            let at = at.child(f);
            if f == "allocatedResources" && !resized_resource(name, &at, e) {
                continue;
            }
            if let Some(q) = resources::quantity(Some(q)).filter(|q| q.signum() < 0) {
                e.invalid(&at.key(name), q.value(), "must be a valid resource quantity");
            }
        }
    }
}

/// A resource that a claim may be resized in. Answers whether it is one.
fn resized_resource(name: &str, at: &Path, e: &mut Errors) -> bool {
    let wrong = names::qualified(name);
    let known = !resources::is_native(name) || name == "storage";
    if wrong.is_empty() && !known {
        e.not_supported(at, name, &["storage"]);
    }
    let fine = wrong.is_empty() && known;
    e.invalid_each(at, name, wrong);
    fine
}

/// The two ways to name a source follow each other, except across namespaces; what the elder cannot
/// name is dropped from it.
fn sources(spec: &mut ironkeel_object::Map, had: bool) {
    let names = |v: &Value, f: &str| v.str_at(&[f]).unwrap_or_default().to_owned();
    let known = |v: &Value| {
        matches!(
            (names(v, "apiGroup").as_str(), names(v, "kind").as_str()),
            ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
        )
    };
    // Who names the newer member, or had a source before, gets told of what is wrong with it.
    let kept = had || spec.get("dataSourceRef").is_some_and(|d| !d.is_null());
    if !kept && spec.get("dataSource").is_some_and(|d| !d.is_null() && !known(d)) {
        spec.remove("dataSource");
    }
    let (old, new) = (spec.get("dataSource").cloned(), spec.get("dataSourceRef").cloned());
    match (old.filter(|v| !v.is_null()), new.filter(|v| !v.is_null())) {
        (Some(d), None) => {
            spec.insert("dataSourceRef", d);
        }
        (None, Some(d)) if string(&d, "namespace").is_none() => {
            spec.insert("dataSource", d);
        }
        _ => {}
    }
}

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// The class of long ago, an annotation: it stays as it is, unless the field takes its place with the same value.
fn class_annotation(o: &Value, old: &Value, new: &mut Value, e: &mut Errors) {
    let (now, was) = (o.annotation(CLASS_ANNOTATION), old.annotation(CLASS_ANNOTATION));
    let class = |v: &Value| present(&v["spec"], "storageClassName").and_then(Value::as_str).map(str::to_owned);
    let moves = was.is_some() && class(old).is_none() && class(o).as_deref() == was && (now.is_none() || now == was);
    if moves {
        if let Some(spec) = new.as_object_mut() {
            spec.remove("storageClassName");
        }
    } else if now.unwrap_or_default() != was.unwrap_or_default() {
        let at = Path::new("metadata").child("annotations").child(CLASS_ANNOTATION);
        e.invalid(&at, now.unwrap_or_default(), "field is immutable");
    }
}

impl rules::Rules for Rules {
    fn default(&self, o: &mut Value) {
        if let Some(spec) = strategy::spec(o)
            && spec.get("volumeMode").is_none_or(Value::is_null)
        {
            spec.insert("volumeMode", "Filesystem");
        }
        strategy::default_phase(o, "Pending");
    }
    fn prepare_create(&self, o: &mut Value) {
        *o.slot(&["status", "phase"]) = "Pending".into();
        if let Some(spec) = strategy::spec(o) {
            sources(spec, false);
        }
    }
    fn prepare_update(&self, o: &mut Value, old: &Value, subresource: Option<&str>) {
        let had = ["dataSource", "dataSourceRef"].iter().any(|f| present(&old["spec"], f).is_some());
        if let (None, Some(spec)) = (subresource, strategy::spec(o)) {
            sources(spec, had);
        }
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        validate_spec(o.get("spec").unwrap_or(&Value::Null), &Path::new("spec"), e);
    }
    fn revalidates(&self, _subresource: Option<&str>) -> bool {
        false
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource == Some("status") {
            validate_status(o, e);
            return;
        }
        let path = Path::new("spec");
        validate_changed_spec(&o["spec"], &old["spec"], &path, e);
        let mut new = o.get("spec").cloned().unwrap_or_default();
        let before = old.get("spec").cloned().unwrap_or_default();
        class_annotation(o, old, &mut new, e);
        let bound = old.str_at(&["status", "phase"]) == Some("Bound");
        if string(&before, "volumeName").is_none() {
            strategy::keep(&mut new, &before, "volumeName");
        }
        if let (true, Some(Value::Object(m))) = (bound, new.get_mut("resources").and_then(|r| r.get_mut("requests"))) {
            match before.at(&["resources", "requests", "storage"]) {
                Some(size) => _ = m.insert("storage", size.clone()),
                None => _ = m.remove("storage"),
            }
        }
        if bound {
            strategy::keep(&mut new, &before, "volumeAttributesClassName");
        }
        if present(&before, "storageClassName").is_none() && old.annotation(CLASS_ANNOTATION).is_none() {
            strategy::keep(&mut new, &before, "storageClassName");
        }
        if !equality::equal_as("core/v1.PersistentVolumeClaimSpec", &new, &before) {
            let text = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
            e.forbidden(&path, text);
        }
        e.immutable(&Path::new("volumeMode"), o.at(&["spec", "volumeMode"]), old.at(&["spec", "volumeMode"]));
        // A class that was applied goes to another, but not away.
        let applied = old.at(&["status", "currentVolumeAttributesClassName"]).is_some_and(|c| !c.is_null());
        let attributes = |v: &Value| v.str_at(&["spec", "volumeAttributesClassName"]).map(str::to_owned);
        if applied && attributes(o) != attributes(old) {
            let at = path.child("volumeAttributesClassName");
            const SET: &str = "is forbidden when status.currentVolumeAttributesClassName is not nil";
            match attributes(o).as_deref() {
                None => e.forbidden(&at, &format!("update to nil {SET}")),
                Some("") => e.forbidden(&at, &format!("update to empty string {SET}")),
                Some(_) => {}
            }
        }
        let size = |v: Option<&Value>| resources::quantity(v).unwrap_or(Quantity::ZERO);
        let wanted = |v: &Value| size(v.at(&["spec", "resources", "requests", "storage"]));
        let granted = size(old.at(&["status", "capacity", "storage"]));
        if wanted(o) < wanted(old) && wanted(o) <= granted {
            let at = path.child("resources").child("requests").child("storage");
            e.forbidden(&at, "field can not be less than status.capacity");
        }
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn columns(&self) -> &'static str {
        "persistentVolumeClaim"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let phase = if o.deletion_timestamp().is_some() {
            "Terminating".into()
        } else {
            print::text(o, &["status", "phase"], "")
        };
        let bound = o.str_at(&["spec", "volumeName"]).is_some_and(|v| !v.is_empty());
        let (capacity, modes) = if bound {
            let modes = access_modes(o.items_at(&["status", "accessModes"]));
            let capacity = print::scalar(o.at(&["status", "capacity", "storage"]));
            (if capacity.is_empty() { "0".to_owned() } else { capacity }, modes)
        } else {
            (String::new(), String::new())
        };
        vec![
            phase,
            print::text(o, &["spec", "volumeName"], ""),
            capacity.into(),
            modes.into(),
            print::text(o, &["spec", "storageClassName"], ""),
            print::text(o, &["spec", "volumeAttributesClassName"], "<unset>"),
            print::age(o, c),
            print::text(o, &["spec", "volumeMode"], "<unset>"),
        ]
    }
}
