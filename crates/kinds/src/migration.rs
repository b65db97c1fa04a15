//! `storagemigration.k8s.io` and `internal.apiserver.k8s.io`: what is stored in which version.

use ironkeel_object::Value;

use crate::core::endpoints::limited;
use crate::error::Errors;
use crate::rules::Generation;
use crate::structural::Depth;
use crate::{Path, TableContext, names, print, rules};

/// StorageVersionMigration.
pub(crate) struct Migration;
impl rules::Rules for Migration {
    fn generation(&self) -> Generation {
        Generation::Of(&["spec"])
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("spec").child("resource");
        match o.str_at(&["spec", "resource", "resource"]).unwrap_or_default() {
            "" => e.required(&at.child("resource"), "resource is required"),
            r => e.invalid_each(&at.child("resource"), r, names::label(r)),
        }
        let group = o.str_at(&["spec", "resource", "group"]).unwrap_or_default();
        if !group.is_empty() {
            e.invalid_each(&at.child("group"), group, names::subdomain(group));
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource.is_none() {
            let at = Path::new("spec").child("resource");
            e.immutable(&at, o.at(&["spec", "resource"]), old.at(&["spec", "resource"]));
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
        vec![resource.into(), state.unwrap_or("Unknown").into()]
    }
}

/// StorageVersion.
pub(crate) struct Version;
impl rules::Rules for Version {
    fn name_rule(&self) -> names::NameRule {
        names::NameRule::PathSegment
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
        let versions = if all.is_empty() { String::new() } else { limited(&all, 0) };
        vec![print::text(o, &["status", "commonEncodingVersion"], "<unset>"), versions.into(), print::age(o, c)]
    }
}
