//! Defaults inside a schema: pruned, and valid where they stand, rules in CEL included.

use ironkeel_expr::{Budget, REQUEST_BUDGET};
use ironkeel_object::{Value, object};

use crate::custom::{Schema, check_default, embedded, pruned_default, rules::Rules};
use crate::error::Errors;
use crate::{FieldError, Path};

/// Checks every default of a root schema; `s` is `raw` as it was read.
pub(super) fn validate(raw: &Value, s: &Schema, pruned: bool, at: &Path, e: &mut Errors) {
    let mut walk = Walk { pruned, budget: Budget::new(REQUEST_BUDGET), over: false, e };
    walk.below(raw, s, &Place { resource: true, inside_meta: false, way: Vec::new() }, at);
}

/// Where a node stands in the object around it.
#[derive(Clone)]
struct Place {
    /// It is the object itself.
    resource: bool,
    /// It is the object's type or metadata, or below.
    inside_meta: bool,
    /// Members from the object down; none is an element.
    way: Vec<Option<String>>,
}

impl Place {
    fn inside(&self, step: Option<&str>, inside_meta: bool) -> Place {
        let mut way = self.way.clone();
        way.push(step.map(str::to_owned));
        Place { resource: false, inside_meta, way }
    }

    /// An object that has a value at this place, and its type.
    fn around(&self, value: &Value) -> Value {
        let mut out = value.clone();
        for step in self.way.iter().rev() {
            out = match step {
                Some(name) => {
                    let mut m = ironkeel_object::Map::new();
                    m.insert(name.clone(), out);
                    Value::Object(m)
                }
                None => vec![out].into(),
            };
        }
        let stamp = object!({ "apiVersion": "validation/v1", "kind": "Validation" });
        if let (Some(m), Some(names)) = (out.as_object_mut(), stamp.as_object()) {
            for (name, v) in
                names.iter().filter(|(name, _)| !matches!(&self.way[..], [Some(own), ..] if own == name.as_ref()))
            {
                m.insert(name.clone(), v.clone());
            }
        }
        out
    }
}

struct Walk<'e> {
    pruned: bool,
    budget: Budget,
    over: bool,
    e: &'e mut Errors,
}

impl Walk<'_> {
    fn below(&mut self, raw: &Value, s: &Schema, place: &Place, at: &Path) {
        let fresh = Place { resource: place.resource, inside_meta: false, way: Vec::new() };
        let place = if s.embedded || place.resource { &fresh } else { place };
        if let Some(default) = &s.default {
            self.default(raw, s, default, place, &at.child("default"));
        }
        if self.over {
            return;
        }
        if let (Some(items), Some(inner)) = (&s.items, raw.get("items")) {
            self.below(inner, items, &place.inside(None, place.inside_meta), &at.child("items"));
        }
        for (name, p) in &s.properties {
            let Some(inner) = raw.at(&["properties", name]).filter(|_| !self.over) else { continue };
            let meta = place.inside_meta
                || ((s.embedded || place.resource) && matches!(name.as_str(), "metadata" | "apiVersion" | "kind"));
            self.below(inner, p, &place.inside(Some(name), meta), &at.child("properties").key(name));
        }
    }

    fn default(&mut self, raw: &Value, s: &Schema, default: &Value, place: &Place, at: &Path) {
        if place.inside_meta {
            let around = place.around(default);
            let mut wrong = Errors::default();
            match mistyped(&around) {
                Some(why) => {
                    wrong.invalid(&Path::new("metadata"), around.get("metadata").cloned().unwrap_or_default(), &why)
                }
                None => embedded::resource(&around, &Path::default(), &mut wrong),
            }
            let wrong: Vec<String> = wrong.into_vec().iter().map(ToString::to_string).collect();
            if let Some(first) = wrong.first() {
                let all = if wrong.len() == 1 { first.clone() } else { format!("[{}]", wrong.join(", ")) };
                self.e.invalid(at, default.clone(), &format!("must result in valid metadata: {all}"));
                return;
            }
        } else {
            if self.pruned && pruned_default(default, s) != *default {
                self.e.invalid(at, default.clone(), "must not have unknown fields");
            }
            if let Some(why) = Some(default).filter(|_| s.embedded).and_then(mistyped) {
                let meta = default.get("metadata").cloned().unwrap_or_default();
                self.e.invalid(&at.child("metadata"), meta, &why);
                return;
            }
            let before = self.e.len();
            if place.resource && !s.embedded {
                embedded::resource(default, at, self.e);
            }
            embedded::validate(default, s, at, self.e);
            if self.e.len() > before {
                return;
            }
        }
        let wrong = check_default(default, s);
        if !wrong.is_empty() {
            self.e.extend(placed(wrong, at));
            return;
        }
        if let Some(rules) = Rules::of(raw, place.resource || s.embedded) {
            let (wrong, over) = rules.check_default(default, &mut self.budget);
            self.e.extend(placed(wrong, at));
            self.over |= over;
        }
    }
}

/// Paths that start at the default, from the root.
fn placed(errors: Vec<FieldError>, at: &Path) -> Vec<FieldError> {
    let place = |mut f: FieldError| {
        let own = f.path.as_str();
        f.path = if own.is_empty() || own == "<nil>" { at.clone() } else { at.child(own) };
        f
    };
    errors.into_iter().map(place).collect()
}

/// What Go's decoder says of metadata whose members have wrong types.
fn mistyped(object: &Value) -> Option<String> {
    const TEXTS: [&str; 7] =
        ["name", "generateName", "namespace", "selfLink", "uid", "resourceVersion", "creationTimestamp"];
    let meta = match object.get("metadata")? {
        Value::Object(m) => m,
        other => {
            return Some(format!("json: cannot unmarshal {} into Go value of type v1.ObjectMeta", other.type_name()));
        }
    };
    let wrong = |field: &str, value: &Value, wanted: &str| {
        format!("json: cannot unmarshal {} into Go struct field ObjectMeta.{field} of type {wanted}", value.type_name())
    };
    for (name, value) in meta.iter().filter(|(_, v)| !v.is_null()) {
        let name = name.as_ref();
        if TEXTS.contains(&name) && value.as_str().is_none() {
            return Some(wrong(name, value, "string"));
        }
        if name == "generation" && value.as_i64().is_none() {
            return Some(wrong(name, value, "int64"));
        }
        let parts: Vec<&Value> = match (name, value) {
            ("labels" | "annotations", Value::Object(m)) => m.values().collect(),
            ("labels" | "annotations", other) => return Some(wrong(name, other, "map[string]string")),
            ("finalizers", Value::Array(list)) => list.iter().collect(),
            ("finalizers", other) => return Some(wrong(name, other, "[]string")),
            _ => Vec::new(),
        };
        if let Some(odd) = parts.into_iter().find(|v| v.as_str().is_none() && !v.is_null()) {
            return Some(wrong(name, odd, "string"));
        }
    }
    None
}

/// Whether a schema holds defaults that pruning would change.
pub(super) fn has_unpruned(s: &Schema) -> bool {
    let own = s.default.as_ref().is_some_and(|d: &Value| pruned_default(d, s) != *d);
    own || s.items.as_deref().is_some_and(has_unpruned) || s.properties.values().any(has_unpruned)
}
