//! `storagemigration.k8s.io` and `internal.apiserver.k8s.io`: what is stored in which version.

use std::collections::{HashMap, HashSet};

use ironkeel_object::{ObjectMeta, Value};

use crate::core::endpoints::limited;
use crate::error::Errors;
use crate::repeats::repeated_text;
use crate::structural::Depth;
use crate::{Path, TableContext, equality, names, print, rules, status};

/// StorageVersionMigration.
pub(crate) struct Migration;
impl rules::Rules for Migration {
    fn unconditional_update(&self) -> bool {
        false
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("spec").child("resource");
        match o.str_at(&["spec", "resource", "resource"]).unwrap_or_default() {
            "" => e.required(&at.child("resource"), "resource is required to be set"),
            r => joined(&at.child("resource"), r, names::label_1035(r), e),
        }
        let group = o.str_at(&["spec", "resource", "group"]).unwrap_or_default();
        if !group.is_empty() {
            joined(&at.child("group"), group, names::subdomain(group), e);
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource.is_some() {
            progress(o, old, e);
        } else if !equality::equal_as("storagemigration/v1beta1.StorageVersionMigrationSpec", &o["spec"], &old["spec"])
        {
            let spec = o.get("spec").cloned().unwrap_or_else(Value::object);
            e.invalid(&Path::new("spec"), spec, "field is immutable");
        }
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn columns(&self) -> &'static str {
        "storageVersionMigration"
    }
    fn cells(&self, o: &Value, _c: &TableContext) -> Vec<Value> {
        let text = |f: &str| o.str_at(&["spec", "resource", f]).unwrap_or_default();
        let resource = if text("group").is_empty() {
            text("resource").to_owned()
        } else {
            format!("{}.{}", text("resource"), text("group"))
        };
        let met = o.items_at(&["status", "conditions"]).iter().filter(|c| c.str_at(&["status"]) == Some("True"));
        let known = ["Running", "Failed", "Succeeded"];
        let state = met.filter_map(|c| c.str_at(&["type"])).rfind(|t| known.contains(t));
        vec![o.name().into(), resource.into(), state.unwrap_or("Unknown").into()]
    }
}

/// All messages about a value in one.
fn joined(at: &Path, value: &str, messages: Vec<String>, e: &mut Errors) {
    if !messages.is_empty() {
        e.invalid(at, value, &messages.join(","));
    }
}

/// What the migrator reports: how far it has come never goes back.
fn progress(o: &Value, old: &Value, e: &mut Errors) {
    let at = Path::new("status");
    let revision = |o: &Value| o.str_at(&["status", "resourceVersion"]).unwrap_or_default().to_owned();
    let number = |r: &str| !r.starts_with('0') && !r.is_empty() && r.bytes().all(|b| b.is_ascii_digit());
    let (new, was) = (revision(o), revision(old));
    let path = at.child("resourceVersion");
    if !new.is_empty() && !number(&new) {
        e.invalid(&path, new.as_str(), &format!("resource version is not well formed: {new}"));
    }
    let (list, conditions) = (o.items_at(&["status", "conditions"]), at.child("conditions"));
    status::conditions(list, &conditions, e);
    if !was.is_empty() && was != new {
        e.invalid(&path, new, "field is immutable");
    }
    let is = |o: &Value, kind: &str| {
        let found = o.items_at(&["status", "conditions"]).iter().find(|c| c.str_at(&["type"]) == Some(kind)).cloned();
        found.is_some_and(|c| c.str_at(&["status"]) == Some("True"))
    };
    if is(o, "Succeeded") && is(o, "Failed") {
        let text = "Both success and failed conditions cannot be true at the same time";
        e.invalid(&conditions, list.to_vec(), text);
    }
    for (kind, shown) in [("Succeeded", "Success"), ("Failed", "Failed")] {
        if is(old, kind) && !is(o, kind) {
            let text = format!("{shown} condition cannot be set to false once it is true");
            e.invalid(&conditions, list.to_vec(), &text);
        }
    }
}

/// `group/version`, as servers report it.
fn api_version(text: &str) -> Vec<String> {
    let mut e = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let version = match parts[..] {
        [version] => version,
        [group, version] => {
            if group.is_empty() {
                e.push("group part: must be non-empty".to_owned());
            } else {
                e.extend(names::subdomain(group).into_iter().map(|m| format!("group part: {m}")));
            }
            version
        }
        _ => {
            return vec![
                "an apiVersion is a version with an optional group before it (e.g. 'v1', 'example.com/v1')".into(),
            ];
        }
    };
    if version.is_empty() {
        e.push("version part: must be non-empty".into());
    } else {
        e.extend(names::label_1035(version).into_iter().map(|m| format!("version part: {m}")));
    }
    e
}

/// What servers report of the versions that they store.
fn reports(o: &Value, e: &mut Errors) {
    let at = Path::new("status");
    let list = o.items_at(&["status", "storageVersions"]);
    let text = |v: &Value, f: &str| v.str_at(&[f]).unwrap_or_default().to_owned();
    let path = at.child("storageVersions");
    let twice = repeated_text(list, "apiServerID");
    for (i, v) in list.iter().enumerate() {
        let (at, id, encoding) = (path.index(i), text(v, "apiServerID"), text(v, "encodingVersion"));
        if twice[i] {
            e.duplicate(&at.child("apiServerID"), id.as_str());
        }
        e.invalid_each(&at.child("apiServerID"), &id, names::subdomain(&id));
        joined(&at.child("encodingVersion"), &encoding, api_version(&encoding), e);
        let decodable = v.items_at(&["decodableVersions"]);
        for (j, d) in decodable.iter().filter_map(Value::as_str).enumerate() {
            joined(&at.child("decodableVersions").index(j), d, api_version(d), e);
        }
        let known: HashSet<&str> = decodable.iter().filter_map(Value::as_str).collect();
        if !known.contains(encoding.as_str()) {
            let detail = format!("decodableVersions must include encodingVersion {encoding}");
            let shown = if decodable.is_empty() { Value::Null } else { decodable.to_vec().into() };
            e.invalid(&at.child("decodableVersions"), shown, &detail);
        }
        for (j, s) in v.items_at(&["servedVersions"]).iter().enumerate() {
            let (at, name) = (at.child("servedVersions").index(j), s.as_str().unwrap_or_default());
            joined(&at, name, api_version(name), e);
            if !known.contains(name) {
                let all: Vec<&str> = decodable.iter().filter_map(Value::as_str).collect();
                let detail = format!(
                    "individual served version : {name} must be included in decodableVersions : [{}]",
                    all.join(" ")
                );
                e.invalid(&at, name, &detail);
            }
        }
    }
    let agreed = list.split_first().and_then(|(first, rest)| {
        let version = text(first, "encodingVersion");
        rest.iter().all(|v| text(v, "encodingVersion") == version).then_some(version)
    });
    let path = at.child("commonEncodingVersion");
    match (agreed, o.str_at(&["status", "commonEncodingVersion"])) {
        (None, Some(c)) => {
            let detail = "should be nil if servers do not agree on the same encoding version, or if there is no server reporting the supported versions yet";
            e.invalid(&path, c, detail);
        }
        (Some(a), None) => e.invalid(&path, Value::Null, &format!("the common encoding version is {a}")),
        (Some(a), Some(c)) if a != c => {
            e.invalid(&path, c, &format!("the actual common encoding version is {a}"));
        }
        _ => {}
    }
    let list = o.items_at(&["status", "conditions"]);
    let mut places: HashMap<String, usize> = HashMap::new();
    for (i, c) in list.iter().enumerate() {
        let (at, kind) = (at.index(i), text(c, "type"));
        if let Some(first) = places.insert(kind.clone(), i) {
            let detail = format!("the type of the condition is not unique, it also appears in conditions[{first}]");
            e.invalid(&at.child("type"), kind.as_str(), &detail);
        }
        e.invalid_each(&at.child("type"), &kind, names::qualified(&kind));
        e.invalid_each(&at.child("status"), &text(c, "status"), names::qualified(&text(c, "status")));
        for f in ["reason", "message"].into_iter().filter(|f| text(c, f).is_empty()) {
            e.required(&at.child(f), "");
        }
    }
}

/// StorageVersion.
pub(crate) struct Version;
impl rules::Rules for Version {
    fn validate_update(&self, o: &Value, _old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource.is_some() {
            reports(o, e);
        }
    }
    fn name_rule(&self) -> names::NameRule {
        names::NameRule::Any
    }
    fn extra_name_rule(&self, name: &str, _prefix: bool) -> Vec<String> {
        let Some((group, resource)) = name.rsplit_once('.') else {
            return vec!["name must be in the form of <group>.<resource>".into()];
        };
        let checked =
            [("group", names::NameRule::Subdomain.check(group, false)), ("resource", names::label_1035(resource))];
        checked
            .into_iter()
            .flat_map(|(what, all)| all.into_iter().map(move |m| format!("the {what} segment {m}")))
            .collect()
    }
    fn columns(&self) -> &'static str {
        "storageVersion"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let text = |v: &Value, f: &str| v.str_at(&[f]).unwrap_or_default().to_owned();
        let all: Vec<String> = o
            .items_at(&["status", "storageVersions"])
            .iter()
            .map(|v| format!("{}={}", text(v, "apiServerID"), text(v, "encodingVersion")))
            .collect();
        let versions = if all.is_empty() { "<unset>".to_owned() } else { limited(&all, 0) };
        vec![print::text(o, &["status", "commonEncodingVersion"], "<unset>"), versions.into(), print::age(o, c)]
    }
}
