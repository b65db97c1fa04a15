//! One row a served resource.

use std::sync::LazyLock;

use ironkeel_schema::{Resource, resources};

use crate::Kind;
use crate::rules::Rules;
use crate::strategy::Strategy;

/// A kind without rules of its own.
struct Plain;
impl Rules for Plain {}

static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    let row = |resource: &'static Resource| {
        // Made once, for the life of the process.
        let hooks = Box::leak(Box::new(Strategy { resource, rules: rules(resource) }));
        Kind { resource, hooks }
    };
    resources().iter().map(row).collect()
});

/// Every row, in the order of [`ironkeel_schema::resources`].
pub fn kinds() -> &'static [Kind] {
    &KINDS
}

/// The row of a resource.
pub fn kind(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| {
        let r = k.resource;
        r.plural == plural && r.group == group && r.version == version
    })
}

/// The row that serves a group, version and kind.
pub fn kind_for_gvk(group: &str, version: &str, kind: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| {
        let r = k.resource;
        r.kind == kind && r.group == group && r.version == version
    })
}

fn rules(r: &Resource) -> &'static dyn Rules {
    use crate::{apps, core};
    match (r.group, r.plural) {
        ("", "persistentvolumeclaims") => &core::claim::Rules,
        ("", "namespaces") => &core::namespace::Rules,
        ("", "pods") => &core::pod::Rules,
        ("", "services") => &core::service::Rules,
        ("apps", "deployments") => &apps::deployment::Rules,
        ("apps", "replicasets") => &apps::replica_set::Rules,
        _ => &Plain,
    }
}
