//! PersistentVolumeClaim.

use ironkeel_object::Value;

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
    selector::label_selector(spec.get("selector"), &at.child("selector"), e);
    validate_modes(spec, at, e);
    match resources::quantity(spec.at(&["resources", "requests", "storage"])) {
        None => e.required(&at.child("resources").key("storage"), ""),
        Some(q) if q.signum() <= 0 => {
            let at = at.child("resources").child("requests").key("storage");
            let shown = print::scalar(spec.at(&["resources", "requests", "storage"]));
            e.invalid(&at, shown, "must be greater than zero");
        }
        Some(_) => {}
    }
    for f in ["storageClassName", "volumeAttributesClassName"] {
        if let Some(c) = string(spec, f) {
            e.invalid_each(&at.child(f), c, names::subdomain(c));
        }
    }
    for f in ["dataSource", "dataSourceRef"] {
        let Some(d) = present(spec, f) else { continue };
        for part in ["name", "kind"] {
            if string(d, part).is_none() {
                e.required(&at.child(f).child(part), "");
            }
        }
        if string(d, "apiGroup").is_none() && d.str_at(&["kind"]) != Some("PersistentVolumeClaim") {
            let text = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            e.invalid(&at.child(f), d.str_at(&["kind"]).unwrap_or_default(), text);
        }
    }
}

/// Access modes of a claim or a volume.
pub(crate) fn validate_modes(spec: &Value, at: &Path, e: &mut Errors) {
    let modes = spec.items_at(&["accessModes"]);
    let path = at.child("accessModes");
    if modes.is_empty() {
        e.required(&path, "at least 1 access mode is required");
    }
    const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for m in modes.iter().filter_map(Value::as_str).filter(|m| !MODES.contains(m)) {
        e.not_supported(&path, m, MODES);
    }
    if modes.len() > 1 && modes.iter().any(|m| m.as_str() == Some("ReadWriteOncePod")) {
        e.forbidden(&path, "may not use ReadWriteOncePod with other access modes");
    }
}

impl rules::Rules for Rules {
    fn default(&self, o: &mut Value) {
        if let Some(spec) = strategy::spec(o) {
            if spec.get("volumeMode").is_none_or(Value::is_null) {
                spec.insert("volumeMode", "Filesystem");
            }
            // The two ways to name a source follow each other, except across namespaces.
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
    }
    fn prepare_create(&self, o: &mut Value) {
        *o.slot(&["status", "phase"]) = "Pending".into();
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        validate_spec(o.get("spec").unwrap_or(&Value::Null), &Path::new("spec"), e);
    }
    fn revalidates(&self, _subresource: Option<&str>) -> bool {
        false
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource == Some("status") {
            return;
        }
        self.validate(o, e);
        let path = Path::new("spec");
        let mut new = o.get("spec").cloned().unwrap_or_default();
        let before = old.get("spec").cloned().unwrap_or_default();
        let bound = old.str_at(&["status", "phase"]) == Some("Bound");
        if string(&before, "volumeName").is_none() {
            strategy::keep(&mut new, &before, "volumeName");
        }
        if bound && let (Some(r), Some(b)) = (new.get_mut("resources"), before.get("resources")) {
            strategy::keep(r, b, "requests");
        }
        strategy::keep(&mut new, &before, "volumeAttributesClassName");
        if present(&before, "storageClassName").is_none() {
            strategy::keep(&mut new, &before, "storageClassName");
        }
        if !equality::equal(&new, &before) {
            let text = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
            e.forbidden(&path, text);
        }
        let size = |v: &Value| resources::quantity(v.at(&["spec", "resources", "requests", "storage"]));
        let granted = resources::quantity(old.at(&["status", "capacity", "storage"]));
        if let (Some(n), Some(b)) = (size(o), size(old))
            && n < b
            && granted.is_none_or(|g| n <= g)
        {
            let at = path.child("resources").child("requests").child("storage");
            e.forbidden(&at, "field can not be less than status.capacity");
        }
    }
    fn depth(&self) -> Depth {
        Depth::Enums
    }
    fn columns(&self) -> &'static str {
        "persistentVolumeClaim"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        use ironkeel_object::ObjectMeta;
        let phase = if o.deletion_timestamp().is_some() {
            "Terminating".into()
        } else {
            print::text(o, &["status", "phase"], "")
        };
        let bound = o.str_at(&["spec", "volumeName"]).is_some_and(|v| !v.is_empty());
        let (capacity, modes) = if bound {
            let modes = access_modes(o.items_at(&["status", "accessModes"]));
            (print::scalar(o.at(&["status", "capacity", "storage"])), modes)
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
