//! `metadata.managedFields`: one entry a manager, operation, version and subresource.

use std::collections::{HashMap, hash_map};

use ironkeel_object::{Map, ObjectMeta as _, Value};

use super::set::{common_paths, difference, readable, union};
use super::{ApplyOptions, Conflict, MAX_CONFLICT_BYTES};

/// Managers by update that are kept apart; older ones are put together.
pub const MAX_UPDATE_MANAGERS: usize = 10;
/// The manager under which older updates are put together.
const ANCIENT: &str = "ancient-changes";

/// What tells entries apart: operation, manager and subresource; of updates version and time, too.
type Name = (String, String, String, Option<(String, Option<String>)>);

#[derive(Clone, PartialEq)]
struct Entry {
    manager: String,
    operation: String,
    api_version: String,
    subresource: String,
    time: Option<String>,
    fields: Map,
}

impl Entry {
    fn is(&self, operation: &str, options: &ApplyOptions<'_>) -> bool {
        // Versions count for updates; an apply of another version continues the same entry.
        self.operation == operation
            && self.manager == options.manager
            && self.subresource == options.subresource
            && (operation == "Apply" || self.api_version == options.api_version)
    }

    /// `None` where the entry is none that this server writes.
    fn read(value: &Value) -> Option<Entry> {
        let text = |key| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let operation = text("operation");
        if !matches!(operation.as_str(), "Apply" | "Update")
            || text("apiVersion").is_empty()
            || text("fieldsType") != "FieldsV1"
            || !value.get("fieldsV1").is_none_or(|set| set.is_null() || readable(set))
        {
            return None;
        }
        Some(Entry {
            manager: text("manager"),
            operation,
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: value.get("time").and_then(Value::as_str).map(str::to_owned),
            fields: value.get("fieldsV1").and_then(Value::as_object).cloned().unwrap_or_default(),
        })
    }

    fn name(&self) -> Name {
        let written = (self.operation != "Apply").then(|| (self.api_version.clone(), self.time.clone()));
        (self.operation.clone(), self.manager.clone(), self.subresource.clone(), written)
    }

    fn into_value(self) -> Value {
        let mut map = Map::with_capacity(7);
        map.insert("apiVersion", self.api_version);
        map.insert("fieldsType", "FieldsV1");
        map.insert("fieldsV1", self.fields);
        map.insert("manager", self.manager);
        map.insert("operation", self.operation);
        if !self.subresource.is_empty() {
            map.insert("subresource", self.subresource);
        }
        if let Some(time) = self.time {
            map.insert("time", time);
        }
        Value::Object(map)
    }
}

/// All entries of an object.
#[derive(Clone, Default)]
pub(super) struct Entries(Vec<Entry>);

/// Whether what a client sent asks to forget all managers: an empty list, or one empty entry.
pub(super) fn is_reset(sent: &Value) -> bool {
    match sent.as_array() {
        Some([]) => true,
        Some([one]) => one.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// What is wrong with the `managedFields` of an object, in upstream's words; nothing where they can be read.
pub fn managed_fields_problem(object: &Value) -> Option<String> {
    let list = object.meta().and_then(|m| m.get("managedFields")).and_then(Value::as_array).unwrap_or_default();
    list.iter().enumerate().find_map(|(i, entry)| {
        let text = |key| entry.get(key).and_then(Value::as_str).unwrap_or_default();
        match (text("operation"), text("apiVersion"), text("fieldsType")) {
            ("Apply" | "Update", version, "FieldsV1") if !version.is_empty() => None,
            ("Apply" | "Update", "", _) => Some("apiVersion must not be empty".to_owned()),
            ("Apply" | "Update", _, "") => Some(format!("missing fieldsType in managed fields entry {i}")),
            ("Apply" | "Update", _, other) => Some(format!("invalid fieldsType {other:?} in managed fields entry {i}")),
            _ => Some("operation must be `Apply` or `Update`".to_owned()),
        }
    })
}

impl Entries {
    /// The entries of a stored object.
    pub(super) fn of(object: &Value) -> Entries {
        Entries::sent(object).unwrap_or_default()
    }

    /// The entries that a client sent; `None` where one of them is malformed.
    pub(super) fn sent(object: &Value) -> Option<Entries> {
        let list = object.meta().and_then(|m| m.get("managedFields")).and_then(Value::as_array);
        let mut all: Vec<Entry> = Vec::new();
        let mut places: HashMap<Name, usize> = HashMap::new();
        for entry in list.into_iter().flatten() {
            let entry = Entry::read(entry)?;
            // Of two entries of the same name the last one counts.
            match places.entry(entry.name()) {
                hash_map::Entry::Occupied(place) => all[*place.get()] = entry,
                hash_map::Entry::Vacant(place) => {
                    place.insert(all.len());
                    all.push(entry);
                }
            }
        }
        Some(Entries(all))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, manager: &str, operation: &str, options: &ApplyOptions<'_>, fields: Map) {
        self.0.push(Entry {
            manager: manager.to_owned(),
            operation: operation.to_owned(),
            api_version: options.api_version.to_owned(),
            subresource: if manager == options.manager { options.subresource.to_owned() } else { String::new() },
            time: Some(options.now.to_owned()),
            fields,
        });
    }

    /// Sets what the manager applies now; answers what it applied before.
    pub(super) fn replace_applied(&mut self, options: &ApplyOptions<'_>, fields: Map) -> Option<Map> {
        match self.0.iter_mut().find(|e| e.is("Apply", options)) {
            Some(entry) => {
                entry.api_version = options.api_version.to_owned();
                Some(std::mem::replace(&mut entry.fields, fields))
            }
            None => {
                self.push(options.manager, "Apply", options, fields);
                if let Some(entry) = self.0.last_mut() {
                    entry.time = None;
                }
                None
            }
        }
    }

    fn others<'a>(&'a self, options: &'a ApplyOptions<'_>) -> impl Iterator<Item = &'a Entry> {
        self.0.iter().filter(move |e| !e.is("Apply", options))
    }

    pub(super) fn union_of_others(&self, options: &ApplyOptions<'_>) -> Map {
        let mut all = Map::new();
        self.others(options).for_each(|e| union(&mut all, &e.fields));
        all
    }

    /// Which of the changed fields others own.
    pub(super) fn conflicts(&self, options: &ApplyOptions<'_>, changed: &Map) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for entry in self.others(options) {
            let paths = common_paths(changed, &entry.fields, MAX_CONFLICT_BYTES);
            conflicts.extend(paths.into_iter().map(|field| Conflict {
                manager: entry.manager.clone(),
                subresource: entry.subresource.clone(),
                api_version: entry.api_version.clone(),
                applied: entry.operation == "Apply",
                field,
            }));
        }
        conflicts
    }

    pub(super) fn take_from_others(&mut self, options: &ApplyOptions<'_>, changed: &Map, removed: &Map) {
        for entry in self.0.iter_mut().filter(|e| !e.is("Apply", options)) {
            difference(&mut entry.fields, changed);
            difference(&mut entry.fields, removed);
        }
        self.0.retain(|e| !e.fields.is_empty());
    }

    /// A write that is no apply: everybody loses what it changed or removed, the manager owns it.
    pub(super) fn update(&mut self, options: &ApplyOptions<'_>, changed: Map, removed: &Map) {
        for entry in &mut self.0 {
            if entry.is("Update", options) {
                difference(&mut entry.fields, removed);
            } else {
                difference(&mut entry.fields, &changed);
                difference(&mut entry.fields, removed);
            }
        }
        if !changed.is_empty() {
            match self.0.iter_mut().find(|e| e.is("Update", options)) {
                Some(entry) => {
                    union(&mut entry.fields, &changed);
                    entry.time = Some(options.now.to_owned());
                }
                None => self.push(options.manager, "Update", options, changed),
            }
        }
        self.0.retain(|e| !e.fields.is_empty());
        self.cap_updates();
    }

    pub(super) fn touch(&mut self, options: &ApplyOptions<'_>, operation: &str) {
        for entry in self.0.iter_mut().filter(|e| e.is(operation, options)) {
            entry.time = Some(options.now.to_owned());
        }
    }

    /// Whether both have the same owners of the same fields, times aside.
    pub(super) fn same_sets(&self, other: &Entries) -> bool {
        let same = |a: &Entry, b: &Entry| {
            a.manager == b.manager
                && a.operation == b.operation
                && a.api_version == b.api_version
                && a.subresource == b.subresource
                && a.fields == b.fields
        };
        // What happens to entries in between leaves them in their order.
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(a, b)| same(a, b))
    }

    /// Puts the oldest updates of a version together until few enough are left.
    fn cap_updates(&mut self) {
        let mut count = self.0.iter().filter(|e| e.operation == "Update").count();
        if count <= MAX_UPDATE_MANAGERS {
            return;
        }
        self.0.sort_by(|a, b| (&a.operation, &a.time, &a.manager).cmp(&(&b.operation, &b.time, &b.manager)));
        let mut left: Vec<Entry> = Vec::with_capacity(self.0.len());
        let mut first_of: HashMap<String, usize> = HashMap::new();
        for entry in std::mem::take(&mut self.0) {
            let first = first_of.get(&entry.api_version).filter(|_| entry.operation == "Update").copied();
            match first {
                Some(first) if count > MAX_UPDATE_MANAGERS => {
                    let bucket = &mut left[first];
                    bucket.manager = ANCIENT.to_owned();
                    bucket.subresource = String::new();
                    bucket.time = entry.time;
                    union(&mut bucket.fields, &entry.fields);
                    count -= 1;
                }
                _ => {
                    if entry.operation == "Update" {
                        first_of.entry(entry.api_version.clone()).or_insert(left.len());
                    }
                    left.push(entry);
                }
            }
        }
        self.0 = left;
    }

    /// Writes the entries in upstream's order: applies first, then by time, manager and version.
    pub(super) fn write(mut self, object: &mut Value) {
        self.0.sort_by(|a, b| {
            let key = |e: &Entry| (e.operation.clone(), e.time.clone(), e.manager.clone(), e.api_version.clone());
            key(a).cmp(&key(b)).then_with(|| a.subresource.cmp(&b.subresource))
        });
        let metadata = object.meta_mut();
        if self.0.is_empty() {
            metadata.remove("managedFields");
        } else {
            let list = self.0.into_iter().map(Entry::into_value).collect();
            metadata.insert("managedFields", Value::Array(list));
        }
    }
}
