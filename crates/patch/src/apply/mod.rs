//! Server-side apply: who owns which field, what an apply changes, and where it conflicts.
//!
//! Field sets are kept in the very form in which they stand in `metadata.managedFields`
//! (FieldsV1: `{"f:spec": {"f:replicas": {}}}`), so tracking a write costs a walk over what
//! changed and no conversion. The rules are those of upstream's `structured-merge-diff` and
//! `managedfields`, by the schema's list types; custom resources by their structural schema, or
//! deduced where they have none (objects by member, lists whole). Sets of other versions of a kind
//! are taken as they are.

mod check;
mod compare;
mod entries;
mod merge;
mod set;
mod structure;
mod view;

use entries::Entries;
pub use entries::{MAX_UPDATE_MANAGERS, managed_fields_problem};
use ironkeel_object::{Map, ObjectMeta as _, Value};
pub use structure::{Others, Structure};
pub use view::Schema;
use view::View;

/// Bytes of the paths that one manager's conflicts are told with; the others of that manager are not named.
pub const MAX_CONFLICT_BYTES: usize = 1 << 20;

/// Who writes, as what, and when.
#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions<'a> {
    /// The field manager.
    pub manager: &'a str,
    /// The `apiVersion` that the request speaks.
    pub api_version: &'a str,
    /// `status`, `scale`, …; empty for the object itself.
    pub subresource: &'a str,
    /// The time of the write, RFC 3339.
    pub now: &'a str,
    /// How the object is put together.
    pub schema: Schema<'a>,
    /// Paths that a write through this way cannot change; nobody comes to own them by it.
    pub reset: &'a [&'a [&'a str]],
}

/// A field that another manager owns and that an apply would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The other manager.
    pub manager: String,
    /// The subresource it wrote through; empty for the object itself.
    pub subresource: String,
    /// The version it spoke.
    pub api_version: String,
    /// Whether it applied the field; otherwise it updated it.
    pub applied: bool,
    /// `.spec.replicas`.
    pub field: String,
}

/// The cause's message: `conflict with "kubectl" using apps/v1`.
impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "conflict with {:?}", self.manager)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        if self.applied {
            return Ok(());
        }
        write!(f, " using {}", self.api_version)
    }
}

/// Why an apply was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Others own what it would change; 409.
    #[error("Apply failed with {} conflict{}: {}", .0.len(), if .0.len() == 1 { "" } else { "s" }, conflict_text(.0))]
    Conflicts(Vec<Conflict>),
    /// The configuration is no object; 400.
    #[error("apply configuration must be an object")]
    NotAnObject,
    /// The configuration names managed fields; 400.
    #[error("metadata.managedFields must be nil")]
    ManagedFields,
    /// The configuration is of another kind or version than the request; 400.
    #[error("invalid object type: {0}")]
    Kind(String),
    /// The configuration does not fit the type; 500.
    #[error("failed to create typed patch object ({object}): {problems}")]
    Untyped {
        /// `namespace/name; group/version, Kind=Kind`.
        object: String,
        /// What is wrong, and where.
        problems: String,
    },
}

/// One conflict in one line, several grouped by manager.
fn conflict_text(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("{one}: {}", one.field);
    }
    let mut out = String::new();
    let mut last = None;
    let mut sorted: Vec<(String, &Conflict)> = conflicts.iter().map(|c| (c.to_string(), c)).collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    for (with, conflict) in sorted {
        if last.as_ref() != Some(&with) {
            out.push_str(if out.is_empty() { "conflicts" } else { "\nconflicts" });
            out.push_str(with.strip_prefix("conflict").unwrap_or(&with));
            out.push(':');
            last = Some(with);
        }
        out.push_str("\n- ");
        out.push_str(&conflict.field);
    }
    out
}

/// The annotation in which client-side apply keeps its configuration.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Merges a configuration into an object that keeps no owners: what a mutating admission policy
/// does. Nothing of an atomic list, map or object may be set; the error holds their paths.
pub fn merge_configuration(target: &mut Value, config: &Value, schema: Schema<'_>) -> Result<(), Vec<String>> {
    let mut atomics = Vec::new();
    find_atomics(config, View::root(schema), &mut String::new(), &mut atomics);
    if !atomics.is_empty() {
        return Err(atomics);
    }
    merge::merge(target, config, View::root(schema));
    Ok(())
}

/// Paths of what `view` sees whole.
fn find_atomics(value: &Value, view: View<'_>, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    match value {
        Value::Object(members) if view.is_object(value) => {
            for (name, member) in members.iter() {
                path.push('.');
                path.push_str(name);
                find_atomics(member, view.member(name).view, path, found);
                path.truncate(length);
            }
        }
        Value::Array(elements) if view.is_list(value) => {
            for (i, element) in elements.iter().enumerate() {
                path.push_str(&format!("[{i}]"));
                if !matches!(element, Value::Object(_)) || view.element().is_object(element) {
                    find_atomics(element, view.element(), path, found);
                }
                path.truncate(length);
            }
        }
        Value::Object(_) | Value::Array(_) => found.push(path.clone()),
        _ => {}
    }
}

/// Applies `config` on `live` (for a new object: an empty one without a uid). The answer is the
/// whole object with its `managedFields`; equal to `live` where nothing changes.
///
/// `last_applied` is what client-side apply noted on the live object: fields that still stand as
/// it says are taken over by `kubectl` without a conflict.
pub fn apply(
    live: &Value,
    config: &Value,
    force: bool,
    last_applied: Option<&Value>,
    options: &ApplyOptions<'_>,
) -> Result<Value, ApplyError> {
    check_config(live, config, options)?;
    let root = View::root(options.schema);
    let mut entries = Entries::of(live);
    if entries.is_empty() && !live.uid().is_empty() {
        // The object was written before anybody tracked it.
        let (changed, _) = compare::objects(None, live, root);
        entries.push("before-first-apply", "Update", options, changed);
    }
    let untouched = entries.clone();
    let mut set = compare::set_of(config, root);
    options.reset(&mut set);
    let last = entries.replace_applied(options, set.clone());

    let mut merged = live.clone();
    merge::merge(&mut merged, config, root);
    if let Some(last) = last {
        let others = entries.union_of_others(options);
        merge::prune(&mut merged, &last, &set, &others, root);
    }
    let (mut changed, mut removed) = compare::objects(Some(live), &merged, root);
    options.reset(&mut changed);
    options.reset(&mut removed);
    let conflicts = entries.conflicts(options, &changed);
    if !force && !conflicts.is_empty() {
        let adopted = last_applied.filter(|_| options.manager == "kubectl");
        let conflicts = match adopted {
            Some(before) => entries.conflicts(options, &without_adopted(&changed, before, live, options)),
            None => conflicts,
        };
        if !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
    }
    entries.take_from_others(options, &changed, &removed);
    let unchanged = changed.is_empty() && removed.is_empty() && entries.same_sets(&untouched);
    if unchanged {
        // What nobody owns is of interest only where there is no object yet.
        return Ok(if live.uid().is_empty() { merged } else { live.clone() });
    }
    // Who comes to own what stands there already has written nothing yet.
    if !changed.is_empty() || !removed.is_empty() {
        entries.touch(options, "Apply");
    }
    entries.write(&mut merged);
    Ok(merged)
}

fn check_config(live: &Value, config: &Value, options: &ApplyOptions<'_>) -> Result<(), ApplyError> {
    let Value::Object(_) = config else { return Err(ApplyError::NotAnObject) };
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
    let kind = live.get("kind").and_then(Value::as_str).unwrap_or_default();
    if text("apiVersion") != options.api_version || text("kind") != kind {
        let version = text("apiVersion");
        let slash = if version.contains('/') { "" } else { "/" };
        return Err(ApplyError::Kind(format!("{slash}{version}, Kind={}", text("kind"))));
    }
    let problems = check::problems(config, View::root(options.schema));
    if problems.is_empty() {
        let named = config.at(&["metadata", "managedFields"]).is_some_and(|v| !v.is_null());
        return if named { Err(ApplyError::ManagedFields) } else { Ok(()) };
    }
    let version = if options.api_version.contains('/') { "" } else { "/" };
    let object =
        format!("{}/{}; {version}{}, Kind={}", config.namespace(), config.name(), options.api_version, text("kind"));
    let problems = match problems.as_slice() {
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    Err(ApplyError::Untyped { object, problems })
}

/// Changed fields that are not such as client-side apply set and nobody changed since.
fn without_adopted(changed: &Map, last_applied: &Value, live: &Value, options: &ApplyOptions<'_>) -> Map {
    let mut changed = changed.clone();
    let version = last_applied.get("apiVersion").and_then(Value::as_str);
    if version != Some(options.api_version) {
        return changed;
    }
    let root = View::root(options.schema);
    let mut owned = compare::set_of(last_applied, root);
    let (differing, missing) = compare::objects(Some(last_applied), live, root);
    set::difference(&mut owned, &differing);
    set::difference(&mut owned, &missing);
    set::difference(&mut changed, &owned);
    changed
}

/// Keeps `metadata.managedFields` of `new` for a write that is no apply: a create (`old` is none),
/// an update or another patch. What the write changed belongs to `manager` alone afterwards.
///
/// A client's own `managedFields` are taken over as upstream does: absent, empty or malformed ones
/// never lose what is known, except that `[]` or `[{}]` reset them.
pub fn track_update(old: Option<&Value>, new: &mut Value, options: &ApplyOptions<'_>) {
    let sent = new.meta().and_then(|m| m.get("managedFields")).filter(|v| !v.is_null());
    let reset = options.subresource.is_empty() && sent.is_some_and(entries::is_reset);
    let mut entries =
        if options.subresource.is_empty() { Entries::sent(new).unwrap_or_default() } else { Entries::default() };
    if entries.is_empty()
        && !reset
        && let Some(old) = old
    {
        entries = Entries::of(old);
    }
    if entries.is_empty() && old.is_some() {
        // Somebody reset it, or it was never tracked: it stays so until somebody applies.
        entries.write(new);
        return;
    }
    let (mut changed, mut removed) = compare::objects(old, new, View::root(options.schema));
    options.reset(&mut changed);
    options.reset(&mut removed);
    if !changed.is_empty() || !removed.is_empty() {
        entries.update(options, changed, &removed);
    }
    entries.write(new);
}

impl ApplyOptions<'_> {
    /// Fields that a write through this way cannot change are not owned by who writes them.
    fn reset(&self, fields: &mut Map) {
        for path in self.reset {
            set::remove_path(fields, path);
        }
    }
}
