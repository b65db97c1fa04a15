//! What becomes of an object's dependents when it is deleted: the garbage collector's finalizers, as the
//! options, the object and the kind's default say (upstream's `deletionFinalizersForGarbageCollection`).
//!
//! The collector itself is a component.

use ironkeel_object::{ObjectMeta, Value};

use crate::request::{DeleteOptions, Propagation, WriteRequest};
use crate::storage::Row;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What a kind does with dependents where nobody says anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Default {
    /// They are deleted.
    Delete,
    /// They stay.
    Orphan,
    /// It has none, and is never held for them.
    Unsupported,
}

fn default_of(row: &Row) -> Default {
    match (row.group(), row.plural(), row.kind.resource.version) {
        (_, "events", _) if matches!(row.group(), "" | "events.k8s.io") => Default::Unsupported,
        // As it was before there were policies.
        ("", "replicationcontrollers", "v1") | ("batch", "jobs", "v1") => Default::Orphan,
        _ => Default::Delete,
    }
}

/// Warns whoever deletes Jobs without a word about their Pods.
pub(crate) fn warn(request: &WriteRequest, options: &DeleteOptions) {
    let silent = options.propagation.is_none() && options.orphan_dependents.is_none();
    if silent && request.row.group() == "batch" && default_of(&request.row) == Default::Orphan {
        request.warnings.lock().push(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them \
             or set propagationPolicy=Orphan to suppress this warning"
                .to_owned(),
        );
    }
}

/// Puts the collector's finalizers in or out.
pub(crate) fn set_finalizers(row: &Row, object: &mut Value, options: &DeleteOptions) {
    let default = default_of(row);
    let present = object.finalizers().into_iter().find(|f| *f == ORPHAN || *f == FOREGROUND);
    let wanted = match (default, options.orphan_dependents, options.propagation, present) {
        (Default::Unsupported, ..) => None,
        (_, Some(orphan), ..) => orphan.then_some(ORPHAN),
        (_, None, Some(Propagation::Orphan), _) => Some(ORPHAN),
        (_, None, Some(Propagation::Foreground), _) => Some(FOREGROUND),
        (_, None, Some(Propagation::Background), _) => None,
        (_, None, None, Some(ORPHAN)) => Some(ORPHAN),
        (_, None, None, Some(_)) => Some(FOREGROUND),
        (default, None, None, None) => (default == Default::Orphan).then_some(ORPHAN),
    };
    replace(object, wanted.into_iter());
}

/// The same of a Namespace, whose rules differ: `orphanDependents: false` means to wait for them.
pub(crate) fn set_namespace_finalizers(object: &mut Value, options: &DeleteOptions) {
    let has = |finalizer: &str| object.finalizers().contains(&finalizer);
    let (orphan, foreground) = match (options.orphan_dependents, options.propagation) {
        (Some(orphan), _) => (orphan, !orphan),
        (None, Some(policy)) => (policy == Propagation::Orphan, policy == Propagation::Foreground),
        (None, None) => (has(ORPHAN), has(FOREGROUND)),
    };
    let wanted = [(ORPHAN, orphan), (FOREGROUND, foreground)];
    replace(object, wanted.into_iter().filter(|(_, wanted)| *wanted).map(|(finalizer, _)| finalizer));
}

/// Others' finalizers and these; where those are the present ones, nothing changes, not even their order.
fn replace(object: &mut Value, wanted: impl Iterator<Item = &'static str>) {
    let before = object.finalizers();
    let others = before.iter().copied().filter(|f| *f != ORPHAN && *f != FOREGROUND);
    let after: Vec<String> = others.map(str::to_owned).chain(wanted.map(str::to_owned)).collect();
    let same =
        before.iter().all(|f| after.iter().any(|a| a == f)) && after.iter().all(|a| before.contains(&a.as_str()));
    if same {
        return;
    }
    if after.is_empty() {
        object.meta_mut().remove("finalizers");
    } else {
        object.meta_mut().insert("finalizers", after);
    }
}
