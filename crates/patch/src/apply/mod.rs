//! Server-side apply: who owns which field, what an apply changes, and where it conflicts.
//!
//! Field sets are kept in the very form in which they stand in `metadata.managedFields`
//! (FieldsV1: `{"f:spec": {"f:replicas": {}}}`), so tracking a write costs a walk over what
//! changed and no conversion. The rules are those of upstream's `structured-merge-diff` and
//! `managedfields`, by the schema's list types; custom resources are deduced (objects by member,
//! lists whole). Sets of other versions of a kind are taken as they are.

mod compare;
mod entries;
mod merge;
mod set;
mod view;

use ironkeel_object::{Map, ObjectMeta as _, Value};
use ironkeel_schema::TypeId;

use entries::Entries;
pub use entries::MAX_UPDATE_MANAGERS;
use view::View;

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
    /// The type; none for custom resources.
    pub type_id: Option<TypeId>,
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
    /// When it last wrote, where it wrote by an update.
    pub time: Option<String>,
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
        write!(f, " using {}", self.api_version)?;
        match &self.time {
            Some(time) => write!(f, " at {time}"),
            None => Ok(()),
        }
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
}

/// One conflict in one line, several grouped by manager.
fn conflict_text(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("{one}: {}", one.field);
    }
    let mut out = String::new();
    let mut last = None;
    for conflict in conflicts {
        let with = conflict.to_string();
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
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Applies `config` on `live` (for a new object: an empty one without a uid). The answer is the
/// whole object with its `managedFields`; equal to `live` where nothing changes.
pub fn apply(live: &Value, config: &Value, force: bool, options: &ApplyOptions<'_>) -> Result<Value, ApplyError> {
    let Value::Object(_) = config else { return Err(ApplyError::NotAnObject) };
    if config.at(&["metadata", "managedFields"]).is_some_and(|v| !v.is_null()) {
        return Err(ApplyError::ManagedFields);
    }
    let root = View::root(options.type_id);
    let mut entries = Entries::of(live);
    if entries.is_empty() && !live.uid().is_empty() {
        // The object was written before anybody tracked it.
        let (changed, _) = compare::objects(None, live, root);
        entries.push("before-first-apply", "Update", options, changed);
    }
    let untouched = entries.clone();
    let mut set = compare::set_of(config, root);
    drop_reset_fields(&mut set, options);
    let last = entries.replace_applied(options, set.clone());

    let mut merged = live.clone();
    merge::merge(&mut merged, config, root);
    if let Some(last) = last {
        let others = entries.union_of_others(options);
        merge::prune(&mut merged, &last, &set, &others, root);
    }
    let (changed, removed) = compare::objects(Some(live), &merged, root);
    let conflicts = entries.conflicts(options, &changed);
    let adopted = options.manager == "kubectl" && live.annotation(LAST_APPLIED).is_some();
    let in_the_way = |c: &Conflict| !(adopted && c.manager == "kubectl-client-side-apply");
    if !force && conflicts.iter().any(in_the_way) {
        return Err(ApplyError::Conflicts(conflicts.into_iter().filter(in_the_way).collect()));
    }
    entries.take_from_others(options, &changed, &removed);
    let unchanged = changed.is_empty() && removed.is_empty() && entries.same_sets(&untouched);
    if unchanged {
        return Ok(live.clone());
    }
    entries.touch(options, "Apply");
    entries.write(&mut merged);
    Ok(merged)
}

/// Keeps `metadata.managedFields` of `new` for a write that is no apply: a create (`old` is none),
/// an update or another patch. What the write changed belongs to `manager` alone afterwards.
///
/// A client's own `managedFields` are taken over as upstream does: absent or empty ones never lose
/// what is known, except that `[]` or `[{}]` reset them.
pub fn track_update(old: Option<&Value>, new: &mut Value, options: &ApplyOptions<'_>) {
    let sent = new.meta().and_then(|m| m.get("managedFields")).filter(|v| !v.is_null());
    let reset = options.subresource.is_empty() && sent.is_some_and(entries::is_reset);
    let mut entries = match (reset, sent, old) {
        (true, _, _) => Entries::default(),
        (_, Some(_), _) if options.subresource.is_empty() => Entries::of(new),
        (_, _, Some(old)) => Entries::of(old),
        (_, _, None) => Entries::default(),
    };
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
    let (changed, removed) = compare::objects(old, new, View::root(options.type_id));
    if !changed.is_empty() || !removed.is_empty() {
        entries.update(options, changed, &removed);
    }
    entries.write(new);
}

/// Fields that a write through this way cannot change are not owned by who applies them.
fn drop_reset_fields(set: &mut Map, options: &ApplyOptions<'_>) {
    let has_status = || {
        ironkeel_schema::resources()
            .iter()
            .any(|r| Some(r.type_id) == options.type_id && r.subresource("status").is_some())
    };
    match options.subresource {
        "" if has_status() => _ = set.remove("f:status"),
        "status" => _ = set.remove("f:spec"),
        _ => {}
    }
}
