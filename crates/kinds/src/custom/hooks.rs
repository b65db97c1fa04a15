//! The behaviour of a custom resource: upstream's custom resource strategy, driven by its definition.

use std::collections::HashSet;
use std::sync::Arc;

use ironkeel_object::{Number, ObjectMeta, Value};

use super::correlation::Correlated;
use super::schema::Schema;
use super::{ScalePath, Version, embedded, values};
use crate::error::Errors;
use crate::strategy::{keep, keep_metadata_for_status};
use crate::{ColumnDefinition, FieldError, FieldErrorKind, Hooks, Path, Scale, TableContext, names, print};

/// See the module.
pub(super) struct Custom(pub(super) Arc<Version>);

impl Custom {
    fn check(&self, object: &Value, old: Option<&Value>, subresource: Option<&str>) -> Vec<FieldError> {
        let v = &self.0;
        let status = subresource == Some("status");
        let pair = old.map(|old| Correlated::new(object, old, &v.schema));
        let mut errors = match (status, v.schema.properties.get("status")) {
            (false, _) => values::validate(object, pair.as_ref(), &v.schema),
            (true, Some(schema)) => self.check_status(object, pair, schema),
            (true, None) => Vec::new(),
        };
        let mut e = Errors::default();
        let root = Path::default();
        self.check_scale(object, status, &mut e);
        if !status {
            embedded::validate(object, &v.schema, &root, &mut e);
        }
        let mut repeated = Errors::default();
        values::duplicates(object, &v.schema, &root, &mut repeated);
        if repeated.len() > 0 {
            // An object that had any may keep and change them.
            let mut before = Errors::default();
            old.into_iter().for_each(|old| values::duplicates(old, &v.schema, &root, &mut before));
            if before.len() == 0 {
                e.extend(repeated.into_vec());
            }
        }
        errors.extend(e.into_vec());
        if let Some(rules) = &v.rules {
            // Rules read values that have the right shape.
            let malformed = errors.iter().any(|f| {
                matches!(
                    f.kind,
                    FieldErrorKind::NotSupported
                        | FieldErrorKind::Required
                        | FieldErrorKind::TypeInvalid
                        | FieldErrorKind::TooLong
                        | FieldErrorKind::TooMany
                )
            });
            if malformed {
                errors.push(super::rules::skipped());
            } else {
                errors.extend(rules.check(object, old, &v.schema));
            }
        }
        if !status {
            errors.extend(finalizer_warnings(object, old));
        }
        errors
    }

    /// Through `status` only the status is held to its schema.
    fn check_status(&self, object: &Value, pair: Option<Correlated<'_>>, schema: &Schema) -> Vec<FieldError> {
        let Some(value) = object.get("status") else { return Vec::new() };
        let pair = pair.and_then(|p| p.member("status"));
        let mut errors = values::validate(value, pair.as_ref(), schema);
        for f in &mut errors {
            let root = matches!(f.path.as_str(), "" | "<nil>");
            f.path = if root { Path::new("status") } else { Path::new("status").child(f.path.as_str()) };
        }
        errors
    }

    fn check_scale(&self, object: &Value, status: bool, e: &mut Errors) {
        let Some(scale) = &self.0.scale else { return };
        let limit = i64::from(i32::MAX);
        let replicas = Some(&scale.replicas).filter(|_| !status);
        for path in replicas.into_iter().chain([&scale.status_replicas]) {
            let at = Path::new(&path.text);
            match path.find(object, "int64", int64) {
                Err(why) => e.invalid(&at, 0, &why),
                Ok(Some(n)) if n < 0 => e.invalid(&at, n, "should be a non-negative integer"),
                Ok(Some(n)) if n > limit => {
                    e.invalid(&at, n, &format!("should be less than or equal to {limit}"));
                }
                Ok(_) => {}
            }
        }
        if let Some(path) = &scale.selector
            && let Err(why) = path.find(object, "string", Value::as_str)
        {
            e.invalid(&Path::new(&path.text), "", &why);
        }
    }
}

fn int64(value: &Value) -> Option<i64> {
    match value {
        Value::Number(Number::Int(i)) => Some(*i),
        _ => None,
    }
}

/// Finalizers that came with this write and could be another writer's too.
fn finalizer_warnings(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    const STANDARD: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];
    let before: HashSet<&str> = old.map(ObjectMeta::finalizers).unwrap_or_default().into_iter().collect();
    let mut new: Vec<&str> = object.finalizers().into_iter().filter(|f| !before.contains(f)).collect();
    new.sort_unstable();
    new.dedup();
    let mut e = Errors::default();
    let at = Path::new("metadata").child("finalizers");
    for name in new.into_iter().filter(|f| !f.contains('/') && !STANDARD.contains(f)) {
        let how = if name.contains('.') { " including a path (/)" } else { "" };
        let message = format!(
            "{name:?}: prefer a domain-qualified finalizer name{how} to avoid accidental conflicts with other finalizer writers"
        );
        e.tolerated(&at, message);
    }
    e.into_vec()
}

fn set_generation(object: &mut Value, generation: i64) {
    object.meta_mut().insert("generation", generation);
}

/// Whether anything but these root members differs.
fn differs(new: &Value, old: &Value, but: &[&str]) -> bool {
    let members = |v: &Value| -> Vec<(String, Value)> {
        let map = v.as_object().into_iter().flat_map(|m| m.iter());
        map.filter(|(k, _)| !but.contains(&k.as_ref())).map(|(k, v)| (k.to_string(), v.clone())).collect()
    };
    members(new) != members(old)
}

impl Hooks for Custom {
    fn default(&self, object: &mut Value) {
        self.0.shape(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        if self.0.status
            && let Some(m) = object.as_object_mut()
        {
            m.remove("status");
        }
        set_generation(object, 1);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, subresource: Option<&str>) {
        if subresource == Some("status") {
            let status = object.get("status").cloned();
            let meta = object["metadata"].clone();
            *object = old.clone();
            match (status, object.as_object_mut()) {
                (Some(s), Some(m)) => _ = m.insert("status", s),
                (None, Some(m)) => _ = m.remove("status"),
                _ => {}
            }
            if let Some(m) = object.as_object_mut() {
                m.insert("metadata", meta);
            }
            keep_metadata_for_status(object, old);
            return;
        }
        if self.0.status {
            keep(object, old, "status");
        }
        let but: &[&str] = if self.0.status { &["metadata", "status"] } else { &["metadata"] };
        let raised = i64::from(differs(object, old, but));
        set_generation(object, old.generation() + raised);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        self.check(object, None, None)
    }

    fn validate_update(&self, object: &Value, old: &Value, subresource: Option<&str>) -> Vec<FieldError> {
        self.check(object, Some(old), subresource)
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::NameRule::Subdomain.check(name, prefix)
    }

    fn columns(&self) -> &[ColumnDefinition] {
        &self.0.definitions
    }

    fn cells(&self, object: &Value, context: &TableContext) -> Vec<Value> {
        let cell = |(definition, path): &(ColumnDefinition, Option<super::JsonPath>)| {
            let found = path.as_ref().and_then(|p| p.first(object));
            cell(&definition.kind, found, context)
        };
        self.0.columns.iter().map(cell).collect()
    }

    fn field(&self, object: &Value, path: &str) -> Option<String> {
        if !self.0.selectable.contains(&path) {
            // Another version's field: the stored form may have it all the same.
            let found = path.split('.').try_fold(object, |v, name| v.get(name));
            return found.map(print_scalar);
        }
        Some(path.split('.').try_fold(object, |v, name| v.get(name)).map(print_scalar).unwrap_or_default())
    }

    fn selectable(&self) -> Option<Vec<&'static str>> {
        Some(self.0.selectable.clone())
    }

    fn scale(&self, object: &Value) -> Option<Scale> {
        let paths = self.0.scale.as_ref()?;
        let number = |path: &ScalePath| path.find(object, "int64", int64).ok().flatten();
        let selector = paths.selector.as_ref().and_then(|p| p.find(object, "string", Value::as_str).ok().flatten());
        Some(Scale {
            replicas: number(&paths.replicas).unwrap_or(0),
            status_replicas: number(&paths.status_replicas).unwrap_or(0),
            selector: selector.unwrap_or_default().to_owned(),
        })
    }

    fn replicas_missing(&self, object: &Value) -> Option<&str> {
        let path = &self.0.scale.as_ref()?.replicas;
        matches!(path.find(object, "int64", int64), Ok(None)).then_some(path.text.as_str())
    }

    fn set_replicas(&self, object: &mut Value, replicas: i64) {
        let Some(paths) = &self.0.scale else { return };
        let mut here = object;
        for name in &paths.replicas.members {
            if !matches!(here, Value::Object(_)) {
                *here = Value::object();
            }
            let Value::Object(m) = here else { return };
            here = m.entry(name.clone(), || Value::Null);
        }
        *here = replicas.into();
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn from_stored(&self, object: &mut Value) {
        let own = self.0.api_version.as_str();
        let stored = object.str_at(&["apiVersion"]).unwrap_or_default();
        if stored != own {
            if self.0.converted_elsewhere {
                return;
            }
            *object.slot(&["apiVersion"]) = own.into();
        }
        self.0.shape(object);
    }
}

fn print_scalar(value: &Value) -> String {
    print::scalar(Some(value))
}

/// A cell of a column of this type.
fn cell(kind: &str, value: Option<&Value>, context: &TableContext) -> Value {
    let Some(value) = value else { return Value::Null };
    match (kind, value) {
        ("string", Value::Null) => "<no value>".into(),
        ("integer", Value::Number(Number::Int(i))) => (*i).into(),
        ("integer", Value::Number(Number::Float(f))) => (*f as i64).into(),
        ("number", Value::Number(Number::Int(i))) => (*i as f64).into(),
        ("number", Value::Number(n)) => Value::Number(*n),
        ("boolean", Value::Bool(b)) => (*b).into(),
        ("string", v) => print_scalar(v).into(),
        ("date", Value::String(text)) => match print::unix(text) {
            Some(_) => print::since(Some(text), context).into(),
            None => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}
