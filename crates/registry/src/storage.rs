//! Where resources stand in the store, and what is served of them.

use std::sync::Arc;

use ironkeel_kinds::Kind;
use ironkeel_object::{ObjectMeta, Value};
use ironkeel_schema::Scope;

use crate::cache::Cache;

/// Field selectors that some kind has besides name and namespace (upstream's field label
/// conversion functions); each kind's hooks say which of them it knows.
const FIELD_PATHS: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingComponent",
    "reportingController",
    "source",
    "type",
    "spec.unschedulable",
    "status.successful",
    "status.replicas",
    "spec.signerName",
    "spec.clusterIP",
    "spec.type",
    "spec.driver",
    "spec.parentRef",
    "spec.podName",
];

/// A resource as it stands in the store: one, whatever versions serve it.
#[derive(Debug)]
pub struct Stored {
    /// API group of the stored form.
    pub group: &'static str,
    /// Plural.
    pub plural: &'static str,
    /// `/registry/pods/`.
    pub prefix: String,
    /// Scope.
    pub scope: Scope,
    /// `apiVersion` of the stored form.
    pub api_version: String,
    /// Fields that selectors may name, in the order of the entries' extracts.
    pub selectable: Vec<&'static str>,
    /// The watch cache.
    pub cache: Arc<Cache>,
    /// The row of the stored version.
    pub(crate) kind: KindRow,
}

/// A served resource: one group, version and plural.
#[derive(Debug)]
pub struct Row {
    /// Position in [`crate::Registry::rows`].
    pub id: usize,
    /// Names, type, behaviour.
    pub kind: KindRow,
    /// `v1`, `apps/v1`.
    pub api_version: String,
    /// Where its objects stand; `None` for what is not stored (reviews, bindings).
    pub stored: Option<Arc<Stored>>,
    /// Whether the stored form is of another version.
    pub converts: bool,
}

/// A [`Kind`] that can be printed.
#[derive(Clone, Copy)]
pub struct KindRow(pub &'static Kind);

impl std::ops::Deref for KindRow {
    type Target = Kind;
    fn deref(&self) -> &Kind {
        self.0
    }
}

impl std::fmt::Debug for KindRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.0.resource.group, self.0.resource.version, self.0.resource.plural)
    }
}

impl Row {
    /// API group.
    pub fn group(&self) -> &'static str {
        self.kind.resource.group
    }

    /// Plural.
    pub fn plural(&self) -> &'static str {
        self.kind.resource.plural
    }

    /// Kind.
    pub fn kind_name(&self) -> &'static str {
        self.kind.resource.kind
    }

    /// Whether objects live in namespaces.
    pub fn namespaced(&self) -> bool {
        self.kind.resource.scope == Scope::Namespaced
    }

    /// From the stored form to this row's version.
    pub fn from_stored(&self, object: &mut Value) {
        if self.converts {
            self.kind.hooks.from_stored(object);
            object.set_gvk(&self.api_version, self.kind_name());
        }
    }

    /// From this row's version to the stored form.
    pub(crate) fn to_stored(&self, object: &mut Value, stored: &Stored) {
        if self.converts {
            self.kind.hooks.to_stored(object);
        }
        object.set_gvk(&stored.api_version, stored.kind.resource.kind);
    }
}

/// `namespace/name` or `name`.
pub fn object_key(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { [namespace, name].join("/") }
}

/// Upstream's key prefix of a resource.
fn prefix_of(group: &str, plural: &str) -> String {
    let place = match (group, plural) {
        ("", "nodes") => "minions",
        ("", "services") => "services/specs",
        ("", "endpoints") => "services/endpoints",
        ("", "replicationcontrollers") => "controllers",
        ("networking.k8s.io", "ingresses") => "ingress",
        ("apiextensions.k8s.io" | "apiregistration.k8s.io", _) => return format!("/registry/{group}/{plural}/"),
        (_, plural) => plural,
    };
    format!("/registry/{place}/")
}

/// The order in which versions are preferred as the stored one: stable first.
fn rank(version: &str) -> (u8, u32) {
    let digits = |s: &str| s.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
    match version.split_once("beta").map(|p| (1, p)).or_else(|| version.split_once("alpha").map(|p| (2, p))) {
        None => (0, u32::MAX - digits(version)),
        Some((stage, (_, n))) => (stage, u32::MAX - digits(n)),
    }
}

/// Builds the rows from the kinds, and what they share.
pub(crate) fn rows(kinds: &'static [Kind]) -> (Vec<Arc<Row>>, Vec<Arc<Stored>>) {
    let mut stored: Vec<Arc<Stored>> = Vec::new();
    let mut rows = Vec::new();
    for kind in kinds {
        let r = kind.resource;
        let is_stored = r.has_verb("get") && (r.has_verb("create") || r.has_verb("watch"));
        let home = is_stored.then(|| {
            let same: Vec<&'static Kind> =
                kinds.iter().filter(|k| k.resource.plural == r.plural && k.resource.group == r.group).collect();
            // Events of events.k8s.io are those of the core group in another form.
            let declared = kind.hooks.storage_version().or((r.plural == "events").then_some(("", "v1")));
            let declared = declared.and_then(|(g, v)| {
                kinds.iter().find(|k| k.resource.plural == r.plural && k.resource.group == g && k.resource.version == v)
            });
            let best = declared.or_else(|| same.into_iter().min_by_key(|k| rank(k.resource.version)));
            let home = KindRow(best.unwrap_or(kind));
            let s = home.resource;
            match stored.iter().find(|x| x.group == s.group && x.plural == s.plural) {
                Some(found) => found.clone(),
                None => {
                    let nothing = Value::object();
                    let new = Arc::new(Stored {
                        group: s.group,
                        plural: s.plural,
                        prefix: prefix_of(s.group, s.plural),
                        scope: s.scope,
                        api_version: s.api_version(),
                        selectable: FIELD_PATHS
                            .iter()
                            .copied()
                            .filter(|p| home.hooks.field(&nothing, p).is_some())
                            .collect(),
                        cache: Arc::default(),
                        kind: home,
                    });
                    stored.push(new.clone());
                    new
                }
            }
        });
        rows.push(Arc::new(Row {
            id: rows.len(),
            kind: KindRow(kind),
            api_version: r.api_version(),
            converts: home.as_ref().is_some_and(|h| h.api_version != r.api_version()),
            stored: home,
        }));
    }
    (rows, stored)
}
