//! `resource.k8s.io`: device classes, claims, slices. Stored as v1; v1beta2 has the same content,
//! v1beta1 has a request's fields and a device's attributes one level elsewhere.

mod claims;
mod names;
mod policy;
mod selectors;
mod slices;
mod status;
mod taints;

use std::borrow::Cow;
use std::collections::HashMap;

use ironkeel_object::{Map, ObjectMeta, Value};
use ironkeel_schema::Resource;

use crate::error::Errors;
use crate::names::NameRule;
use crate::rules::Generation;
use crate::structural::Depth;
use crate::{Path, TableContext, equality, pod_template, print, rules};

/// Which of the kinds.
#[derive(Clone, Copy)]
pub(crate) enum Devices {
    Class,
    Claim,
    ClaimTemplate,
    Slice,
    TaintRule,
    PoolRequest,
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
                let mut earlier: HashMap<&str, &Value> = HashMap::new();
                for d in old.map(|b| b.items_at(&["spec", "devices"])).unwrap_or_default() {
                    earlier.entry(d.str_at(&["name"]).unwrap_or_default()).or_insert(d);
                }
                for device in list(o, &["spec", "devices"]) {
                    let before = earlier.get(device.str("name").unwrap_or_default());
                    let mut known: HashMap<(String, String), &Value> = HashMap::new();
                    let pair = |t: &Value| {
                        let text = |f: &str| t.str_at(&[f]).unwrap_or_default().to_owned();
                        (text("key"), text("effect"))
                    };
                    for t in before.map(|d| d.items_at(&["taints"])).unwrap_or_default() {
                        known.entry(pair(t)).or_insert(t);
                    }
                    let taints = device.get_mut("taints").and_then(Value::as_array_mut);
                    for taint in taints.into_iter().flatten() {
                        let found = known.get(&pair(taint)).copied();
                        date(taint, found, now);
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
        self.check(o, None, e);
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        match (self, subresource) {
            (Devices::Claim | Devices::ClaimTemplate | Devices::PoolRequest, None) => {
                if matches!(self, Devices::ClaimTemplate) {
                    self.check(o, Some(old), e);
                }
                let kind = match self {
                    Devices::Claim => "resource/v1.ResourceClaimSpec",
                    Devices::ClaimTemplate => "resource/v1.ResourceClaimTemplateSpec",
                    _ => "resource/v1alpha3.ResourcePoolStatusRequestSpec",
                };
                let (o, old) = (self.newest(o), self.newest(old));
                if !equality::equal_as(kind, &o["spec"], &old["spec"]) {
                    let spec = o.get("spec").cloned().unwrap_or_else(Value::object);
                    e.invalid(&Path::new("spec"), spec, "field is immutable");
                }
            }
            (_, None) => self.check(o, Some(old), e),
            (Devices::Claim, _) => status::claim(&self.newest(o), &self.newest(old), e),
            (Devices::TaintRule, _) => status::taint_rule(o, e),
            (Devices::PoolRequest, _) => status::pool_answer(o, old, e),
            _ => {}
        }
    }
    fn revalidates(&self, _subresource: Option<&str>) -> bool {
        false
    }
    fn prepare_create(&self, o: &mut Value) {
        let now = o.meta_str("creationTimestamp").to_owned();
        self.date_taints(o, None, &now);
        self.drop_disabled(o, None);
    }
    fn prepare_update(&self, o: &mut Value, old: &Value, subresource: Option<&str>) {
        if subresource.is_none() {
            let made = old.meta_str("creationTimestamp").to_owned();
            self.date_taints(o, Some(old), &made);
            let changed = !equality::same(o.get("spec"), old.get("spec"));
            self.drop_disabled(o, Some(old));
            // What is forgotten counts as a change all the same.
            if changed && matches!(self, Devices::Slice) {
                o.meta_mut().insert("generation", old.generation() + 1);
            }
        }
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn name_rule(&self) -> NameRule {
        if matches!(self, Devices::Class) { NameRule::Declared } else { NameRule::Subdomain }
    }
    fn storage_version(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Devices::TaintRule => Some(("resource.k8s.io", "v1beta2")),
            Devices::PoolRequest => None,
            _ => Some(("resource.k8s.io", "v1")),
        }
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
            Devices::PoolRequest => "resourcePoolStatusRequest",
        }
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        match self {
            Devices::PoolRequest => status::pool_cells(o, c),
            Devices::Class | Devices::ClaimTemplate => vec![print::age(o, c)],
            Devices::Claim => vec![claim_state(o).into(), print::age(o, c)],
            Devices::Slice => vec![
                print::text(o, &["spec", "nodeName"], ""),
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

/// Members of a device and of its attributes that belong to features which are off by default: only
/// kept where they were already.
const DISABLED: &[&str] = &["bools", "ints", "strings", "versions"];

impl Devices {
    /// The object in the newest version's form, which paths of errors speak of.
    fn newest<'a>(self, o: &'a Value) -> Cow<'a, Value> {
        if o.str_at(&["apiVersion"]) != Some("resource.k8s.io/v1beta1") {
            return Cow::Borrowed(o);
        }
        let mut newest = o.clone();
        self.move_members(&mut newest, true);
        Cow::Owned(newest)
    }

    fn check(self, o: &Value, old: Option<&Value>, e: &mut Errors) {
        let (o, old) = (&*self.newest(o), old.map(|old| self.newest(old)));
        let spec = Path::new("spec");
        match self {
            Devices::Class => claims::class(o, old.as_deref(), e),
            Devices::Claim => claims::validate(&o["spec"]["devices"], &spec.child("devices"), e),
            Devices::ClaimTemplate => {
                pod_template::claim_metadata(&o["spec"], &spec.child("metadata"), e);
                claims::validate(&o["spec"]["spec"]["devices"], &spec.child("spec").child("devices"), e);
            }
            Devices::Slice => slices::validate(o, old.as_deref(), e),
            Devices::TaintRule => taints::validate(o, old.as_deref(), e),
            Devices::PoolRequest => status::pool_request(o, e),
        }
    }

    /// Forgets members of features that are off, unless a device had them before.
    fn drop_disabled(self, o: &mut Value, old: Option<&Value>) {
        if !matches!(self, Devices::Slice) || old.is_some_and(uses_disabled) {
            return;
        }
        for device in list(o, &["spec", "devices"]) {
            device.remove("nodeAllocatableResourceMappings");
            drop_lists(device);
            if let Some(basic) = device.get_mut("basic").and_then(Value::as_object_mut) {
                basic.remove("nodeAllocatableResourceMappings");
                drop_lists(basic);
            }
        }
    }

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
            // Texts and the number are there even where a request says nothing of its own.
            let says = |(m, v): (&str, &Value)| match m {
                "deviceClassName" | "allocationMode" => !v.is_empty(),
                "count" => v.as_i64() != Some(0),
                _ => !v.is_null(),
            };
            if exact.iter().any(|(m, v)| says((m.as_ref(), v))) {
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

fn drop_lists(device: &mut Map) {
    let attributes = device.get_mut("attributes").and_then(Value::as_object_mut);
    for (_, attribute) in attributes.into_iter().flat_map(|m| m.iter_mut()) {
        if let Some(a) = attribute.as_object_mut() {
            a.retain(|name, _| !DISABLED.contains(&name));
        }
    }
}

fn uses_disabled(o: &Value) -> bool {
    o.items_at(&["spec", "devices"]).iter().any(|d| {
        let own = d.get("basic").unwrap_or(d);
        let attributes = own.get("attributes").and_then(Value::as_object);
        own.get("nodeAllocatableResourceMappings").is_some()
            || attributes.is_some_and(|all| all.values().any(|a| DISABLED.iter().any(|f| a.get(f).is_some())))
    })
}
