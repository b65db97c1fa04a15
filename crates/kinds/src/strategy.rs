//! The generic strategy: what upstream's registry strategies have in common, driven by the schema,
//! with one kind's [`Rules`] on top.

use std::collections::HashSet;

use ironkeel_object::{Map, ObjectMeta, Value};
use ironkeel_schema::Resource;

use crate::error::Errors;
use crate::rules::{Generation, Rules};
use crate::{ColumnDefinition, DeletePlan, FieldError, Hooks, Scale, TableContext, columns, equality, structural};

/// Hooks of one row.
pub(crate) struct Strategy {
    pub(crate) resource: &'static Resource,
    pub(crate) rules: &'static dyn Rules,
}

/// Puts `from`'s member in the place of `to`'s, be it absent.
pub(crate) fn keep(to: &mut Value, from: &Value, member: &'static str) {
    let Some(map) = to.as_object_mut() else { return };
    match from.get(member) {
        Some(v) => {
            map.insert(member, v.clone());
        }
        None => {
            map.remove(member);
        }
    }
}

/// What a status write may not change of the metadata (upstream's `ResetObjectMetaForStatus`).
pub(crate) fn keep_metadata_for_status(object: &mut Value, old: &Value) {
    const KEPT: &[&str] = &[
        "deletionTimestamp",
        "generation",
        "selfLink",
        "labels",
        "annotations",
        "finalizers",
        "ownerReferences",
        "deletionGracePeriodSeconds",
    ];
    keep_metadata(object, old, KEPT);
}

pub(crate) fn keep_metadata(object: &mut Value, old: &Value, members: &'static [&'static str]) {
    let before = old.meta().cloned().unwrap_or_default();
    let meta = object.meta_mut();
    for m in members {
        match before.get(m) {
            Some(v) => {
                meta.insert(*m, v.clone());
            }
            None => {
                meta.remove(m);
            }
        }
    }
}

/// Resources whose status writes leave the metadata alone; the others' may label and annotate.
const STATUS_KEEPS_METADATA: &[&str] = &[
    "apiservices",
    "devicetaintrules",
    "flowschemas",
    "podcertificaterequests",
    "podgroups",
    "prioritylevelconfigurations",
    "resourceclaims",
    "resourcepoolstatusrequests",
    "servicecidrs",
    "storageversionmigrations",
    "storageversions",
    "validatingadmissionpolicies",
    "volumeattachments",
];

impl Strategy {
    fn has_status(&self) -> bool {
        self.resource.subresource("status").is_some()
    }

    fn own_errors(&self, object: &Value) -> Vec<FieldError> {
        let (mut own, mut schema) = (Errors::default(), Errors::default());
        self.rules.validate(object, &mut own);
        structural::validate(self.resource, object, self.rules.depth(), &mut schema);
        structural::join(own, schema)
    }

    fn set_generation(&self, object: &mut Value, generation: i64) {
        if generation > 0 {
            object.meta_mut().insert("generation", generation);
        } else {
            object.meta_mut().remove("generation");
        }
    }
}

impl Hooks for Strategy {
    fn default(&self, object: &mut Value) {
        structural::defaults(self.resource.type_id, object);
        self.rules.default(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        if self.has_status()
            && let Some(map) = object.as_object_mut()
        {
            map.remove("status");
        }
        match self.rules.generation() {
            // Who has no use for it keeps what the client wrote.
            Generation::None => {}
            Generation::Changes(_) => self.set_generation(object, 0),
            Generation::Of(_) | Generation::Constant => self.set_generation(object, 1),
        }
        self.rules.prepare_create(object);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, subresource: Option<&str>) {
        if self.rules.owns_update(subresource) {
            self.rules.prepare_update(object, old, subresource);
            return;
        }
        match subresource {
            Some("status") => {
                let fields: Vec<&'static str> = self.resource.type_id.get().fields.iter().map(|f| f.name).collect();
                for f in fields.into_iter().filter(|f| !matches!(*f, "status" | "metadata" | "apiVersion" | "kind")) {
                    keep(object, old, f);
                }
                if STATUS_KEEPS_METADATA.contains(&self.resource.plural) {
                    keep_metadata_for_status(object, old);
                }
            }
            _ => {
                if self.has_status() {
                    keep(object, old, "status");
                }
            }
        }
        self.set_generation(object, old.generation());
        self.rules.prepare_update(object, old, subresource);
        if let (Generation::Of(members) | Generation::Changes(members), true) =
            (self.rules.generation(), subresource != Some("status"))
            && members.iter().any(|m| !equality::same_member(self.resource.type_id, m, object, old))
        {
            self.set_generation(object, old.generation() + 1);
        }
    }

    fn stamp(&self, object: &mut Value, old: Option<&Value>, subresource: Option<&str>, now: &str) {
        self.rules.stamp(object, old, subresource, now);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut all = self.own_errors(object);
        let mut new = Errors::default();
        self.rules.validate_create(object, &mut new);
        all.extend(new.into_vec());
        all
    }

    fn validate_update(&self, object: &Value, old: &Value, subresource: Option<&str>) -> Vec<FieldError> {
        let mut change = Errors::default();
        self.rules.validate_update(object, old, subresource, &mut change);
        let own = if self.rules.revalidates(subresource) { self.own_errors(object) } else { Vec::new() };
        let parts = match self.rules.tells_changes_first() {
            true => [change.into_vec(), own],
            false => [own, change.into_vec()],
        };
        let told = |e: &FieldError| (e.path.as_str().to_owned(), e.kind, e.message.clone());
        let mut seen = HashSet::new();
        parts.into_iter().flatten().filter(|e| seen.insert(told(e))).collect()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, subresource: Option<&str>) -> Vec<String> {
        crate::warnings::of(self.resource, object, old, subresource)
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        let mut e = self.rules.name_rule().check(name, prefix);
        e.extend(self.rules.extra_name_rule(name, prefix));
        e
    }

    fn columns(&self) -> &[ColumnDefinition] {
        columns::of(self.rules.columns())
    }

    fn cells(&self, object: &Value, context: &TableContext) -> Vec<Value> {
        let all = columns::of(self.rules.columns());
        let named = all.first().is_some_and(|c| c.format == "name");
        let mut cells = Vec::with_capacity(all.len());
        if named {
            cells.push(self.rules.shown_name(object).unwrap_or_else(|| object.name().to_owned()).into());
        }
        if self.rules.columns().is_empty() {
            cells.push(object.meta_str("creationTimestamp").into());
        } else {
            cells.extend(self.rules.cells(object, context));
        }
        cells.resize(all.len(), Value::Null);
        cells
    }

    fn field(&self, object: &Value, path: &str) -> Option<String> {
        self.rules.field(object, path)
    }

    fn scale(&self, object: &Value) -> Option<Scale> {
        self.rules.scale(object)
    }

    fn set_replicas(&self, object: &mut Value, replicas: i64) {
        if self.resource.subresource("scale").is_some() {
            *object.slot(&["spec", "replicas"]) = replicas.into();
        }
    }

    fn prepare_delete(&self, object: &mut Value, now: &str) {
        self.rules.prepare_delete(object, now);
    }

    fn plan_delete(&self, object: &Value, grace_seconds: Option<i64>) -> DeletePlan {
        self.rules.plan_delete(object, grace_seconds)
    }

    fn create_on_update(&self) -> bool {
        self.rules.create_on_update()
    }

    fn unconditional_update(&self) -> bool {
        self.rules.unconditional_update()
    }

    fn storage_version(&self) -> Option<(&'static str, &'static str)> {
        self.rules.storage_version()
    }

    fn to_stored(&self, object: &mut Value) {
        self.rules.to_stored(self.resource, object);
    }

    fn from_stored(&self, object: &mut Value) {
        self.rules.from_stored(self.resource, object);
    }
}

/// A phase, where the object has none.
pub(crate) fn default_phase(object: &mut Value, phase: &'static str) {
    if object.str_at(&["status", "phase"]).unwrap_or_default().is_empty() {
        *object.slot(&["status", "phase"]) = phase.into();
    }
}

/// The object's `spec`, for defaults; an absent one is made, as upstream's is a value, not a pointer.
pub(crate) fn spec(object: &mut Value) -> Option<&mut Map> {
    member(object.as_object_mut()?, "spec")
}

/// A member that is always there upstream: made where it is absent, `None` where it is no object.
pub(crate) fn member<'a>(map: &'a mut Map, key: &'static str) -> Option<&'a mut Map> {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key, Value::object());
    }
    map.get_mut(key).and_then(Value::as_object_mut)
}
