//! IPAddress and ServiceCIDR.

use ironkeel_object::Value;

use crate::error::{Errors, shown};
use crate::{Path, TableContext, names, print, rules};

/// IPAddress: its name is the address.
pub(crate) struct Address;
impl rules::Rules for Address {
    fn extra_name_rule(&self, name: &str, _prefix: bool) -> Vec<String> {
        names::canonical_ip(name)
    }
    fn name_rule(&self) -> names::NameRule {
        names::NameRule::Any
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("spec").child("parentRef");
        let Some(parent) = o.at(&["spec", "parentRef"]).filter(|p| !p.is_null()) else {
            return e.required(&at, "");
        };
        let text = |f: &str| parent.str_at(&[f]).unwrap_or_default();
        if !text("group").is_empty() {
            e.invalid_each(&at.child("group"), text("group"), names::subdomain(text("group")));
        }
        for (field, needed) in [("resource", true), ("name", true), ("namespace", false)] {
            match text(field) {
                "" if needed => e.required(&at.child(field), ""),
                "" => {}
                value => e.invalid_each(&at.child(field), value, names::path_segment(value, false)),
            }
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, _subresource: Option<&str>, e: &mut Errors) {
        e.immutable(
            &Path::new("spec").child("parentRef"),
            o.at(&["spec", "parentRef"]),
            old.at(&["spec", "parentRef"]),
        );
    }
    fn storage_version(&self) -> Option<(&'static str, &'static str)> {
        Some(("networking.k8s.io", "v1"))
    }
    fn columns(&self) -> &'static str {
        "ipAddress"
    }
    fn cells(&self, o: &Value, _c: &TableContext) -> Vec<Value> {
        let parts =
            ["resource", "group", "namespace", "name"].map(|f| o.str_at(&["spec", "parentRef", f]).unwrap_or_default());
        let [resource, group, namespace, name] = parts;
        let resource = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
        let namespace = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        vec![format!("{resource}/{namespace}{name}").into()]
    }
    fn field(&self, o: &Value, path: &str) -> Option<String> {
        let f = path.strip_prefix("spec.parentRef.")?;
        ["resource", "name", "namespace", "group"]
            .contains(&f)
            .then(|| o.str_at(&["spec", "parentRef", f]).unwrap_or_default().to_owned())
    }
}

/// ServiceCIDR.
pub(crate) struct Range;
fn ranges(all: &[Value], at: &Path, e: &mut Errors) {
    if all.is_empty() {
        return e.required(at, "at least one CIDR required");
    }
    if all.len() > 2 {
        return e.invalid_as(
            at,
            &format!("{{\"CIDRs\":{}}}", shown(&all.to_vec().into())),
            "may only hold up to 2 values",
        );
    }
    for (i, c) in all.iter().enumerate() {
        let c = c.as_str().unwrap_or_default();
        e.invalid_each(&at.index(i), c, names::canonical_cidr(c));
    }
    let six = |c: &Value| c.as_str().is_some_and(|c| c.contains(':'));
    if let [a, b] = all
        && six(a) == six(b)
        && all.iter().all(|c| names::canonical_cidr(c.as_str().unwrap_or_default()).is_empty())
    {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        e.invalid(at, all.to_vec(), detail);
    }
}

impl rules::Rules for Range {
    fn validate(&self, o: &Value, e: &mut Errors) {
        ranges(o.items_at(&["spec", "cidrs"]), &Path::new("spec").child("cidrs"), e);
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource.is_some() {
            return;
        }
        let at = Path::new("spec").child("cidrs");
        let (now, before) = (o.items_at(&["spec", "cidrs"]), old.items_at(&["spec", "cidrs"]));
        // A second family may be added.
        let added = before.len() == 1 && now.len() == 2;
        if now.len() != before.len() && !added {
            return e.invalid(&at, now.to_vec(), "field is immutable");
        }
        for (i, (n, _)) in now.iter().zip(before).enumerate().filter(|(_, (n, b))| n != b) {
            e.invalid(&at.index(i), n.clone(), "field is immutable");
        }
        if added {
            ranges(now, &at, e);
        }
    }
    fn revalidates(&self, _subresource: Option<&str>) -> bool {
        false
    }
    fn storage_version(&self) -> Option<(&'static str, &'static str)> {
        Some(("networking.k8s.io", "v1"))
    }
    fn columns(&self) -> &'static str {
        "serviceCIDR"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let all: Vec<&str> = o.items_at(&["spec", "cidrs"]).iter().filter_map(Value::as_str).collect();
        vec![all.join(",").into(), print::age(o, c)]
    }
}
