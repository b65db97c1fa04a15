//! Where resources stand in the store, and what is served of them.

use std::collections::HashMap;
use std::sync::Arc;

use ironkeel_codec::{DecodeError, Problem};
use ironkeel_kinds::Kind;
use ironkeel_object::{ObjectMeta, Value};
use ironkeel_patch::Structure;
use ironkeel_schema::{Scope, type_by_name};

use crate::cache::Cache;
use crate::convert::Converter;
use crate::entry::Entry;
use crate::error::ApiError;
use crate::media::{self, StorageMedia};

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
    /// The rows of the other versions, which the store may hold too.
    pub(crate) other_versions: Vec<KindRow>,
    /// What built-in kinds are stored as.
    pub(crate) media: StorageMedia,
}

/// A field by whose value objects are kept apart and watchers are woken, so that a change concerns only
/// few of them: each kubelet lists and watches the Pods of its node.
const TARGET_FIELD: &str = "spec.nodeName";

impl Stored {
    /// The place of that field in the entries' extracts, where the resource has it.
    pub(crate) fn target_field(&self) -> Option<usize> {
        self.selectable.iter().position(|f| *f == TARGET_FIELD)
    }
}

/// A served resource: one group, version and plural.
#[derive(Debug)]
pub struct Row {
    /// Tells rows apart, for the life of the process: a row that is made anew has another one. Of a
    /// built-in kind the position in [`crate::Registry::rows`].
    pub id: usize,
    /// Names, type, behaviour.
    pub kind: KindRow,
    /// `v1`, `apps/v1`.
    pub api_version: String,
    /// Where its objects stand; `None` for what is not stored (reviews, bindings).
    pub stored: Option<Arc<Stored>>,
    /// Whether the stored form is of another version.
    pub converts: bool,
    /// What converts a custom resource's versions, where more than `apiVersion` changes.
    pub converter: Option<Arc<dyn Converter>>,
    /// How apply sees a custom resource.
    pub structure: Option<Arc<Structure>>,
}

/// A [`Kind`] that can be printed.
#[derive(Clone)]
pub struct KindRow(pub Kind);

impl std::ops::Deref for KindRow {
    type Target = Kind;
    fn deref(&self) -> &Kind {
        &self.0
    }
}

impl std::fmt::Debug for KindRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.0.resource.group, self.0.resource.version, self.0.resource.plural)
    }
}

/// Brings the metadata of an object, or of one inside it, to what all metadata are; as they were where
/// that cannot be.
fn conform_metadata(object: &mut Value, problems: &mut Vec<Problem>) -> Result<(), DecodeError> {
    let Some(known) = type_by_name("meta/v1.PartialObjectMetadata") else { return Ok(()) };
    let Some(meta) = object.get("metadata").cloned() else { return Ok(()) };
    let mut around = Value::object();
    *around.slot(&["metadata"]) = meta;
    ironkeel_codec::conform(&mut around, known, problems)?;
    if let (Some(m), Some(meta)) = (object.as_object_mut(), around.as_object_mut().and_then(|m| m.remove("metadata"))) {
        m.insert("metadata", meta);
    }
    Ok(())
}

/// Metadata of custom resources are read on their own: the path to what is wrong begins with them.
fn of_metadata(e: &DecodeError) -> String {
    e.to_string()
        .replace("Go struct field PartialObjectMetadata.metadata of", "Go value of")
        .replace("Go struct field ObjectMeta.metadata.", "Go struct field ObjectMeta.")
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

    /// Checks a decoded object against what the row says of it: the table's type, or a custom resource's
    /// schema. Answers what strict decoding finds.
    pub fn conform(&self, object: &mut Value) -> Result<Vec<String>, ApiError> {
        let r = &self.kind.resource;
        let refuse = |e: &dyn std::fmt::Display| {
            let kind = r.kind;
            ApiError::bad_request(format!("{kind} in version \"{}\" cannot be handled as a {kind}: {e}", r.version))
        };
        let mut problems = Vec::new();
        let Some(custom) = &self.kind.custom else {
            ironkeel_codec::conform(object, r.type_id, &mut problems).map_err(|e| refuse(&e))?;
            return Ok(problems.iter().map(ToString::to_string).collect());
        };
        conform_metadata(object, &mut problems).map_err(|e| refuse(&of_metadata(&e)))?;
        let mut inner = Vec::new();
        custom.embedded(object, &mut |object, path| {
            let mut found = Vec::new();
            conform_metadata(object, &mut found).map_err(|e| {
                let (at, meta) = (path.child("metadata"), object.get("metadata").map(media::canonical));
                let shown = meta.as_deref().map_or_else(String::new, |m| String::from_utf8_lossy(m).into_owned());
                refuse(&format!("{at}: Invalid value: {shown}: {e}"))
            })?;
            inner.extend(found.iter().map(|p| format!("unknown field \"{}\"", path.child(&p.path))));
            Ok::<(), ApiError>(())
        })?;
        let mut found: Vec<String> = custom.shape(object).iter().map(|p| format!("unknown field \"{p}\"")).collect();
        found.extend(problems.iter().map(ToString::to_string));
        found.extend(inner);
        found.sort();
        Ok(found)
    }

    /// Fields that selectors may name, in the order of the entries' extracts; empty for one that
    /// another version alone has.
    pub fn selectable(&self) -> Vec<&'static str> {
        let Some(home) = &self.stored else { return Vec::new() };
        match self.kind.hooks.selectable() {
            Some(own) => home.selectable.iter().map(|p| if own.contains(p) { *p } else { "" }).collect(),
            None => home.selectable.clone(),
        }
    }

    /// Whether an entry's bytes are of another version than this row's.
    pub fn converts_entry(&self, entry: &Entry) -> bool {
        match entry.api_version() {
            Some(version) => version != self.api_version,
            None => self.converts,
        }
    }

    /// From the stored form to this row's version.
    pub fn from_stored(&self, object: &mut Value) {
        self.kind.hooks.from_stored(object);
        object.set_gvk(&self.api_version, self.kind_name());
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
pub fn prefix_of(group: &str, plural: &str) -> String {
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

/// Versions that upstream 1.36 stores although a later one is served, so that the release before it reads
/// them too (its storage factory's overrides).
fn held_back(group: &str, plural: &str) -> Option<&'static str> {
    match (group, plural) {
        ("admissionregistration.k8s.io", "mutatingadmissionpolicies" | "mutatingadmissionpolicybindings") => {
            Some("v1beta1")
        }
        ("resource.k8s.io", "devicetaintrules") => Some("v1alpha3"),
        _ => None,
    }
}

/// Groups that upstream stores as JSON whatever it is told.
fn json_always(group: &str) -> bool {
    matches!(group, "apiextensions.k8s.io" | "apiregistration.k8s.io")
}

/// Builds the rows from the kinds, and what they share.
pub(crate) fn rows(kinds: &[Kind], media: StorageMedia) -> (Vec<Arc<Row>>, Vec<Arc<Stored>>) {
    // Where objects stand does not depend on which versions are served, and all are read.
    let all = ironkeel_kinds::kinds();
    let mut stored: Vec<Arc<Stored>> = Vec::new();
    let mut rows = Vec::new();
    for kind in kinds {
        let r = &kind.resource;
        let is_stored = r.has_verb("get") && (r.has_verb("create") || r.has_verb("watch"));
        let home = is_stored.then(|| {
            let same: Vec<&Kind> =
                all.iter().filter(|k| k.resource.plural == r.plural && k.resource.group == r.group).collect();
            // Events of events.k8s.io are those of the core group in another form.
            let held_back = held_back(r.group, r.plural).map(|version| (r.group, version));
            let declared = held_back.or(kind.hooks.storage_version()).or((r.plural == "events").then_some(("", "v1")));
            let declared = declared.and_then(|(g, v)| {
                all.iter().find(|k| k.resource.plural == r.plural && k.resource.group == g && k.resource.version == v)
            });
            let best = declared.or_else(|| same.into_iter().min_by_key(|k| rank(k.resource.version)));
            let home = KindRow(best.unwrap_or(kind).clone());
            let s = home.resource.clone();
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
                        other_versions: all
                            .iter()
                            .filter(|k| k.resource.plural == s.plural && k.resource.kind == s.kind)
                            .filter(|k| k.resource.group == s.group || s.plural == "events")
                            .filter(|k| k.resource.api_version() != s.api_version())
                            .map(|k| KindRow(k.clone()))
                            .collect(),
                        kind: home,
                        media: if json_always(s.group) { StorageMedia::Json } else { media },
                    });
                    stored.push(new.clone());
                    new
                }
            }
        });
        rows.push(Arc::new(Row {
            id: rows.len(),
            kind: KindRow(kind.clone()),
            api_version: r.api_version(),
            converts: home.as_ref().is_some_and(|h| h.api_version != r.api_version()),
            stored: home,
            converter: None,
            structure: None,
        }));
    }
    (rows, stored)
}

/// A custom resource as it comes to be served: its versions, and which of them is stored.
#[derive(Clone)]
pub struct CustomRows {
    /// Every version of the definition, served or not.
    pub kinds: Vec<Kind>,
    /// The version that is stored.
    pub storage_version: String,
    /// Versions that are served.
    pub served: Vec<String>,
    /// What converts between them; none where `apiVersion` alone differs.
    pub converter: Option<Arc<dyn Converter>>,
}

impl CustomRows {
    /// The rows, with ids from `first_id` on; `None` where the stored version is not among them.
    pub(crate) fn build(&self, first_id: usize) -> Option<(Vec<Arc<Row>>, Arc<Stored>)> {
        let home = self.kinds.iter().find(|k| k.resource.version == self.storage_version)?;
        let s = &home.resource;
        let mut selectable: Vec<&'static str> = Vec::new();
        for path in self.kinds.iter().flat_map(|k| k.hooks.selectable().unwrap_or_default()) {
            if !selectable.contains(&path) {
                selectable.push(path);
            }
        }
        let stored = Arc::new(Stored {
            group: s.group,
            plural: s.plural,
            prefix: format!("/registry/{}/{}/", s.group, s.plural),
            scope: s.scope,
            api_version: s.api_version(),
            selectable,
            cache: Arc::default(),
            kind: KindRow(home.clone()),
            other_versions: Vec::new(),
            media: StorageMedia::Json,
        });
        let served = self.kinds.iter().filter(|k| self.served.iter().any(|v| v == k.resource.version));
        let rows = served
            .enumerate()
            .map(|(i, kind)| {
                Arc::new(Row {
                    id: first_id + i,
                    kind: KindRow(kind.clone()),
                    api_version: kind.resource.api_version(),
                    converts: kind.resource.version != s.version,
                    stored: Some(stored.clone()),
                    converter: self.converter.clone(),
                    structure: kind.custom.as_ref().map(|v| Arc::new(Structure::of_resource(&v.openapi))),
                })
            })
            .collect();
        Some((rows, stored))
    }
}

/// What is served at one moment.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) rows: Arc<[Arc<Row>]>,
    pub(crate) stored: Arc<[Arc<Stored>]>,
    by_path: HashMap<&'static str, HashMap<&'static str, HashMap<&'static str, Arc<Row>>>>,
}

impl Table {
    pub(crate) fn new(rows: Vec<Arc<Row>>, stored: Vec<Arc<Stored>>) -> Self {
        let mut by_path: HashMap<_, HashMap<_, HashMap<_, _>>> = HashMap::new();
        for row in &rows {
            let r = &row.kind.resource;
            by_path.entry(r.group).or_default().entry(r.version).or_default().insert(r.plural, row.clone());
        }
        Table { rows: rows.into(), stored: stored.into(), by_path }
    }

    pub(crate) fn row(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Row>> {
        self.by_path.get(group)?.get(version)?.get(plural)
    }

    pub(crate) fn has_group(&self, group: &str) -> bool {
        self.by_path.contains_key(group)
    }

    /// The table without a custom resource, and with these in its place.
    pub(crate) fn with(&self, group: &str, plural: &str, rows: &[Arc<Row>], stored: Option<Arc<Stored>>) -> Self {
        let other = |g: &str, p: &str| g != group || p != plural;
        let mut all: Vec<Arc<Row>> = self.rows.iter().filter(|r| other(r.group(), r.plural())).cloned().collect();
        all.extend(rows.iter().cloned());
        let mut homes: Vec<Arc<Stored>> = self.stored.iter().filter(|s| other(s.group, s.plural)).cloned().collect();
        homes.extend(stored);
        Table::new(all, homes)
    }
}
