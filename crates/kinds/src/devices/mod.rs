//! `resource.k8s.io`: device classes, claims, slices. Stored as v1; v1beta2 has the same content,
//! v1beta1 has a request's fields and a device's attributes one level elsewhere.

mod claims;

use ironkeel_object::{Map, ObjectMeta, Value};
use ironkeel_schema::Resource;

use crate::error::Errors;
use crate::rules::Generation;
use crate::structural::Depth;
use crate::{Path, TableContext, pod_template, print, rules};

/// Which of the kinds.
#[derive(Clone, Copy)]
pub(crate) enum Devices {
    Class,
    Claim,
    ClaimTemplate,
    Slice,
    TaintRule,
}

/// Members of a v1beta1 request that stand under `exactly` in v1.
const EXACT: &[&str] =
    &["deviceClassName", "selectors", "allocationMode", "count", "adminAccess", "tolerations", "capacity"];

fn list<'a>(o: &'a mut Value, path: &[&str]) -> impl Iterator<Item = &'a mut Map> {
    let (last, front) = path.split_last().map_or(("", &[][..]), |(l, f)| (*l, f));
    let holder = front.iter().try_fold(o, |v, k| v.get_mut(k));
    let items = holder.and_then(|v| v.get_mut(last)).and_then(Value::as_array_mut);
    items.into_iter().flatten().filter_map(Value::as_object_mut)
}

/// One device, unless the request says how many.
fn counted(x: &mut Map) {
    if x.str("allocationMode").unwrap_or_default().is_empty() {
        x.insert("allocationMode", "ExactCount");
    }
    let count = x.get("count").and_then(Value::as_i64).unwrap_or(0);
    if x.str("allocationMode") == Some("ExactCount") && count == 0 {
        x.insert("count", 1_i64);
    }
}

impl Devices {
    /// Every taint says since when it is there: on an update that leaves that out, as long as the
    /// taint in its place was.
    fn date_taints(&self, o: &mut Value, old: Option<&Value>, now: &str) {
        fn date(taint: &mut Value, before: Option<&Value>, now: &str) {
            if taint.get("timeAdded").is_some_and(|t| !t.is_null()) || taint.as_object().is_none() {
                return;
            }
            let since = before.and_then(|b| b.str_at(&["timeAdded"])).unwrap_or(now);
            if !since.is_empty() {
                *taint.slot(&["timeAdded"]) = since.into();
            }
        }
        match self {
            Devices::TaintRule => {
                let Some(taint) = o.get_mut("spec").and_then(|s| s.get_mut("taint")) else { return };
                date(taint, old.and_then(|b| b.at(&["spec", "taint"])), now);
            }
            Devices::Slice => {
                for device in list(o, &["spec", "devices"]) {
                    let name = device.str("name").unwrap_or_default().to_owned();
                    let before = old.and_then(|b| {
                        b.items_at(&["spec", "devices"]).iter().find(|d| d.str_at(&["name"]) == Some(name.as_str()))
                    });
                    let taints = device.get_mut("taints").and_then(Value::as_array_mut);
                    for taint in taints.into_iter().flatten() {
                        let same =
                            |t: &&Value| t.get("key") == taint.get("key") && t.get("effect") == taint.get("effect");
                        let found = before.and_then(|d| d.items_at(&["taints"]).iter().find(same)).cloned();
                        date(taint, found.as_ref(), now);
                    }
                }
            }
            _ => {}
        }
    }
}

impl rules::Rules for Devices {
    fn generation(&self) -> Generation {
        match self {
            Devices::Class | Devices::Slice | Devices::TaintRule => Generation::Of(&["spec"]),
            _ => Generation::None,
        }
    }
    fn default(&self, o: &mut Value) {
        let path: &[&str] = match self {
            Devices::Claim => &["spec", "devices", "requests"],
            Devices::ClaimTemplate => &["spec", "spec", "devices", "requests"],
            _ => return,
        };
        let old_form = o.str_at(&["apiVersion"]) == Some("resource.k8s.io/v1beta1");
        for r in list(o, path) {
            for s in r.get_mut("firstAvailable").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(s) = s.as_object_mut() {
                    counted(s);
                }
            }
            let exact = if old_form { Some(r) } else { r.get_mut("exactly").and_then(Value::as_object_mut) };
            let Some(x) = exact.filter(|x| !old_form || x.str("deviceClassName").is_some_and(|c| !c.is_empty())) else {
                continue;
            };
            counted(x);
        }
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let moved;
        // Upstream's paths are the newest version's.
        let o = if o.str_at(&["apiVersion"]) == Some("resource.k8s.io/v1beta1") {
            let mut newest = o.clone();
            self.move_members(&mut newest, true);
            moved = newest;
            &moved
        } else {
            o
        };
        let spec = Path::new("spec");
        match self {
            Devices::Class => claims::class(o, e),
            Devices::Claim => claims::validate(&o["spec"]["devices"], &spec.child("devices"), e),
            Devices::ClaimTemplate => {
                pod_template::claim_metadata(&o["spec"], &spec.child("metadata"), e);
                claims::validate(&o["spec"]["spec"]["devices"], &spec.child("spec").child("devices"), e);
            }
            Devices::Slice => claims::slice(o, e),
            Devices::TaintRule => claims::taint_rule(o, e),
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource.is_none() && matches!(self, Devices::Claim | Devices::ClaimTemplate) {
            e.immutable(&Path::new("spec"), o.get("spec"), old.get("spec"));
        }
    }
    fn prepare_create(&self, o: &mut Value) {
        let now = o.meta_str("creationTimestamp").to_owned();
        self.date_taints(o, None, &now);
    }
    fn prepare_update(&self, o: &mut Value, old: &Value, subresource: Option<&str>) {
        if subresource.is_none() {
            let made = old.meta_str("creationTimestamp").to_owned();
            self.date_taints(o, Some(old), &made);
        }
    }
    fn depth(&self) -> Depth {
        if matches!(self, Devices::Slice) { Depth::Enums } else { Depth::Nothing }
    }
    fn storage_version(&self) -> Option<(&'static str, &'static str)> {
        Some(("resource.k8s.io", if matches!(self, Devices::TaintRule) { "v1beta2" } else { "v1" }))
    }
    fn to_stored(&self, r: &Resource, o: &mut Value) {
        if r.version == "v1beta1" {
            self.move_members(o, true);
        }
    }
    fn from_stored(&self, r: &Resource, o: &mut Value) {
        if r.version == "v1beta1" {
            self.move_members(o, false);
        }
    }
    fn columns(&self) -> &'static str {
        match self {
            Devices::Class => "deviceClass",
            Devices::Claim => "resourceClaim",
            Devices::ClaimTemplate => "resourceClaimTemplate",
            Devices::Slice => "nodeResourceSlice",
            Devices::TaintRule => "deviceTaint",
        }
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        match self {
            Devices::Class | Devices::ClaimTemplate => vec![print::age(o, c)],
            Devices::Claim => vec![claim_state(o).into(), print::age(o, c)],
            Devices::Slice => vec![
                print::text(o, &["spec", "nodeName"], "<none>"),
                print::text(o, &["spec", "driver"], ""),
                print::text(o, &["spec", "pool", "name"], ""),
                print::age(o, c),
            ],
            Devices::TaintRule => {
                let taint = |f: &str| print::text(o, &["spec", "taint", f], "");
                let added = print::since(o.str_at(&["spec", "taint", "timeAdded"]), c);
                vec![taint("key"), taint("value"), taint("effect"), added.into(), print::age(o, c)]
            }
        }
    }
    fn field(&self, o: &Value, path: &str) -> Option<String> {
        let known = matches!(self, Devices::Slice) && matches!(path, "spec.nodeName" | "spec.driver");
        known.then(|| o.str_at(&["spec", path.trim_start_matches("spec.")]).unwrap_or_default().to_owned())
    }
}

impl Devices {
    fn move_members(self, o: &mut Value, to_v1: bool) {
        match self {
            Devices::Claim => requests(o, &["spec", "devices", "requests"], to_v1),
            Devices::ClaimTemplate => requests(o, &["spec", "spec", "devices", "requests"], to_v1),
            Devices::Slice => {
                for d in list(o, &["spec", "devices"]) {
                    if to_v1 {
                        if let Some(Value::Object(basic)) = d.remove("basic") {
                            for (k, v) in basic {
                                d.insert(k, v);
                            }
                        }
                    } else {
                        let name = d.remove("name");
                        let basic = std::mem::take(d);
                        if let Some(n) = name {
                            d.insert("name", n);
                        }
                        d.insert("basic", basic);
                    }
                }
            }
            _ => {}
        }
    }
}

fn requests(o: &mut Value, path: &[&str], to_v1: bool) {
    for r in list(o, path) {
        if to_v1 {
            let mut exact = Map::new();
            for m in EXACT {
                if let Some(v) = r.remove(m) {
                    exact.insert(*m, v);
                }
            }
            if !exact.is_empty() {
                r.insert("exactly", exact);
            }
        } else if let Some(Value::Object(exact)) = r.remove("exactly") {
            for (k, v) in exact {
                r.insert(k, v);
            }
        }
    }
}

fn claim_state(o: &Value) -> String {
    use ironkeel_object::ObjectMeta;
    let mut parts = Vec::new();
    if o.deletion_timestamp().is_some() {
        parts.push("deleted");
    }
    if o.at(&["status", "allocation"]).is_none_or(Value::is_null) {
        if parts.is_empty() {
            parts.push("pending");
        }
    } else {
        parts.push("allocated");
        if !o.items_at(&["status", "reservedFor"]).is_empty() {
            parts.push("reserved");
        }
    }
    parts.join(",")
}
