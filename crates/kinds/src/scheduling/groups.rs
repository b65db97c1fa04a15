//! Workload and PodGroup: pods that are scheduled together. Members of features that are off by
//! default (topology constraints, claims of groups, disruption modes, priorities) are forgotten.

use std::collections::HashMap;

use ironkeel_object::{Map, Value};

use crate::error::Errors;
use crate::pod_spec::present;
use crate::structural::Depth;
use crate::{Path, TableContext, equality, names, print, rules, status};

/// Templates of one workload.
const TEMPLATES_MAX: usize = 8;
/// Claims of one group.
const CLAIMS_MAX: usize = 4;
/// What belongs to features that are off.
const DISABLED: &[&str] =
    &["schedulingConstraints", "resourceClaims", "disruptionMode", "priorityClassName", "priority"];

fn text<'a>(v: &'a Value, f: &str) -> &'a str {
    v.str_at(&[f]).unwrap_or_default()
}

fn used(v: Option<&Value>, field: &str) -> bool {
    v.and_then(|v| v.get(field)).is_some_and(|m| !m.is_null() && !m.is_empty())
}

/// Forgets what belongs to features that are off, unless it was there before.
fn drop_disabled(holder: Option<&mut Map>, old: Option<&Value>) {
    if let Some(map) = holder {
        map.retain(|name, _| !DISABLED.contains(&name) || used(old, name));
    }
}

/// A required name of a form.
fn named(v: &Value, field: &str, form: fn(&str) -> Vec<String>, at: &Path, e: &mut Errors) {
    match text(v, field) {
        "" => e.required(&at.child(field), ""),
        n => e.invalid_each(&at.child(field), n, form(n)),
    }
}

fn segment(name: &str) -> Vec<String> {
    names::path_segment(name, false)
}

/// `schedulingPolicy`: one of its members.
fn policy(v: &Value, at: &Path, e: &mut Errors) {
    match (present(v, "basic").is_some(), present(v, "gang")) {
        (false, None) => e.invalid(at, "", "must specify one of: `basic`, `gang`"),
        (true, Some(_)) => e.invalid(at, "{basic, gang}", "must specify exactly one of: `basic`, `gang`"),
        _ => {}
    }
    if let Some(gang) = present(v, "gang") {
        let at = at.child("gang").child("minCount");
        match gang.i64_at(&["minCount"]).unwrap_or(0) {
            0 => e.required(&at, ""),
            n if n < 1 => e.invalid(&at, n, "must be greater than or equal to 1"),
            _ => {}
        }
    }
}

/// `resourceClaims` of a group or a template.
fn claims(list: &[Value], path: &Path, e: &mut Errors) {
    if list.len() > CLAIMS_MAX {
        e.too_many(path, list.len(), CLAIMS_MAX);
        return;
    }
    for (i, c) in list.iter().enumerate() {
        let at = path.index(i);
        if list[..i].iter().any(|x| text(x, "name") == text(c, "name")) {
            e.duplicate(&at, c.clone());
        }
        named(c, "name", names::short_name, &at, e);
        let (claim, template) = ("resourceClaimName", "resourceClaimTemplateName");
        match (present(c, claim), present(c, template)) {
            (None, None) => e.invalid(&at, "", &format!("must specify one of: `{claim}`, `{template}`")),
            (Some(_), Some(_)) => {
                let shown = format!("{{{claim}, {template}}}");
                e.invalid(&at, shown, &format!("must specify exactly one of: `{claim}`, `{template}`"));
            }
            _ => {}
        }
        for f in [claim, template] {
            if let Some(n) = c.str_at(&[f]) {
                e.invalid_each(&at.child(f), n, names::long_name(n));
            }
        }
    }
}

/// Says that a member changed that must not.
fn changed(new: &Value, old: Option<&Value>, owner: &str, field: &str, at: &Path, e: &mut Errors) -> bool {
    let Some(old) = old else { return false };
    let same = match ironkeel_schema::type_by_name(owner) {
        Some(id) => equality::same_member(id, field, new, old),
        None => equality::same(new.get(field), old.get(field)),
    };
    if !same {
        e.invalid(&at.child(field), new.get(field).cloned().unwrap_or_default(), "field is immutable");
    }
    !same
}

/// Workload.
pub(crate) struct Workload;
impl rules::Rules for Workload {
    fn prepare_create(&self, o: &mut Value) {
        for t in templates(o) {
            drop_disabled(t.as_object_mut(), None);
        }
    }
    fn prepare_update(&self, o: &mut Value, old: &Value, _subresource: Option<&str>) {
        let mut before: HashMap<&str, &Value> = HashMap::new();
        for b in old.items_at(&["spec", "podGroupTemplates"]) {
            before.entry(text(b, "name")).or_insert(b);
        }
        for t in templates(o) {
            let was = before.get(text(t, "name")).copied();
            drop_disabled(t.as_object_mut(), was);
        }
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        workload(o, None, e);
    }
    fn validate_update(&self, o: &Value, old: &Value, _subresource: Option<&str>, e: &mut Errors) {
        workload(o, Some(old), e);
    }
    fn revalidates(&self, _subresource: Option<&str>) -> bool {
        false
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn columns(&self) -> &'static str {
        "workload"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        vec![print::age(o, c)]
    }
}

fn templates(o: &mut Value) -> impl Iterator<Item = &mut Value> {
    let list = o.get_mut("spec").and_then(|s| s.get_mut("podGroupTemplates")).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

fn workload(o: &Value, old: Option<&Value>, e: &mut Errors) {
    const OWNER: &str = "scheduling/v1alpha2.WorkloadSpec";
    let (at, spec, before) = (Path::new("spec"), &o["spec"], old.map(|o| &o["spec"]));
    changed(spec, before, OWNER, "controllerRef", &at, e);
    if let Some(r) = present(spec, "controllerRef").filter(|_| old.is_none()) {
        let at = at.child("controllerRef");
        if !text(r, "apiGroup").is_empty() {
            e.invalid_each(&at.child("apiGroup"), text(r, "apiGroup"), names::long_name(text(r, "apiGroup")));
        }
        named(r, "kind", segment, &at, e);
        named(r, "name", segment, &at, e);
    }
    changed(spec, before, OWNER, "podGroupTemplates", &at, e);
    let (list, path) = (spec.items_at(&["podGroupTemplates"]), at.child("podGroupTemplates"));
    if list.is_empty() {
        e.required(&path, "");
    }
    if list.len() > TEMPLATES_MAX {
        e.too_many(&path, list.len(), TEMPLATES_MAX);
        return;
    }
    for (i, t) in list.iter().enumerate().filter(|_| old.is_none()) {
        let at = path.index(i);
        if list[..i].iter().any(|x| text(x, "name") == text(t, "name")) {
            let mut key = Map::new();
            key.insert("name", text(t, "name"));
            e.duplicate(&at, key);
        }
        named(t, "name", names::short_name, &at, e);
        policy(&t["schedulingPolicy"], &at.child("schedulingPolicy"), e);
        claims(t.items_at(&["resourceClaims"]), &at.child("resourceClaims"), e);
    }
}

/// PodGroup.
pub(crate) struct PodGroup;
impl rules::Rules for PodGroup {
    fn prepare_create(&self, o: &mut Value) {
        drop_disabled(o.get_mut("spec").and_then(Value::as_object_mut), None);
    }
    fn prepare_update(&self, o: &mut Value, old: &Value, subresource: Option<&str>) {
        if subresource.is_none() {
            drop_disabled(o.get_mut("spec").and_then(Value::as_object_mut), old.get("spec"));
        } else if !used(old.get("status"), "resourceClaimStatuses")
            && let Some(status) = o.get_mut("status").and_then(Value::as_object_mut)
        {
            status.remove("resourceClaimStatuses");
        }
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let (at, spec) = (Path::new("spec"), &o["spec"]);
        if let Some(r) = present(spec, "podGroupTemplateRef") {
            let at = at.child("podGroupTemplateRef");
            match present(r, "workload") {
                None => e.invalid(&at, "", "must specify one of: `workload`"),
                Some(w) => {
                    let at = at.child("workload");
                    named(w, "workloadName", names::long_name, &at, e);
                    named(w, "podGroupTemplateName", names::short_name, &at, e);
                }
            }
        }
        policy(&spec["schedulingPolicy"], &at.child("schedulingPolicy"), e);
        claims(spec.items_at(&["resourceClaims"]), &at.child("resourceClaims"), e);
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource.is_some() {
            let list = o.items_at(&["status", "conditions"]);
            status::conditions(list, &Path::new("status").child("conditions"), e);
            return;
        }
        const OWNER: &str = "scheduling/v1alpha2.PodGroupSpec";
        let (at, spec, before) = (Path::new("spec"), &o["spec"], Some(&old["spec"]));
        for f in ["podGroupTemplateRef", "schedulingPolicy", "resourceClaims"] {
            changed(spec, before, OWNER, f, &at, e);
        }
        for f in ["schedulingConstraints", "disruptionMode", "priorityClassName", "priority"] {
            if present(spec, f).is_some() && !equality::same(spec.get(f), old["spec"].get(f)) {
                e.forbidden(&at.child(f), "");
            }
        }
    }
    fn revalidates(&self, _subresource: Option<&str>) -> bool {
        false
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn columns(&self) -> &'static str {
        "podGroup"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        cells(o, c)
    }
}

fn cells(o: &Value, c: &TableContext) -> Vec<Value> {
    let gang = present(&o["spec"]["schedulingPolicy"], "gang").is_some();
    let condition =
        |kind: &str| o.items_at(&["status", "conditions"]).iter().rfind(|c| text(c, "type") == kind).cloned();
    let state = match (condition("DisruptionTarget"), condition("PodGroupScheduled")) {
        (Some(d), _) => text(&d, "reason").to_owned(),
        (None, Some(s)) if text(&s, "status") == "True" => "Scheduled".to_owned(),
        (None, Some(_)) => "Unschedulable".to_owned(),
        (None, None) => "Pending".to_owned(),
    };
    let workload = match present(&o["spec"], "podGroupTemplateRef") {
        Some(r) => r.str_at(&["workload", "workloadName"]).unwrap_or_default(),
        None => "<none>",
    };
    vec![if gang { "Gang" } else { "Basic" }.into(), workload.into(), state.into(), print::age(o, c)]
}
