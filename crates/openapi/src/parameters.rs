//! What may stand in a path or a query, told once: name, type, and what it is for.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::definitions::Dialect;

/// A parameter by its name, and its JSON type.
pub(crate) type Query = (&'static str, &'static str);

/// Of lists and watches.
pub(crate) const LIST: [Query; 11] = [
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("shardSelector", "string"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
/// Of creates and replacements.
pub(crate) const WRITE: [Query; 3] = [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
/// Of deletes.
pub(crate) const DELETE: [Query; 5] = [
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

/// Those that upstream writes out wherever they stand; the rest is referred to.
const WRITTEN_OUT: &[&str] = &["dryRun", "fieldValidation", "name"];

/// Letters of the digest that tell shared parameters of one name apart, in bytes before base64.
const TAG_BYTES: usize = 6;

fn words(name: &str) -> Option<&'static str> {
    Some(match name {
        "allowWatchBookmarks" => {
            "Lets the server send events of type BOOKMARK in a watch: they carry nothing but a resourceVersion up to \
             which everything has been sent. How often they come is the server's choice."
        }
        "continue" => {
            "Where the next page of a list begins: the value that the page before had in its metadata, with otherwise \
             the same query. A token that has become too old is answered with 410 Gone and one to go on with at the \
             present state. Not for watches."
        }
        "fieldSelector" => "Selects objects by their fields; everything without it.",
        "labelSelector" => "Selects objects by their labels; everything without it.",
        "limit" => {
            "The largest number of objects in one answer. Where more are left, the list's metadata say where to \
             continue; all pages together show one state. Not for watches."
        }
        "resourceVersion" => {
            "The state from which to answer: unset for the newest, 0 for any, else a resourceVersion that the server \
             has given out. resourceVersionMatch says how exactly it is meant."
        }
        "resourceVersionMatch" => {
            "How resourceVersion applies to a list: Exact or NotOlderThan. Only together with it."
        }
        "sendInitialEvents" => {
            "Begins a watch with what is there already, as ADDED events, followed by a bookmark annotated with \
             k8s.io/initial-events-end. resourceVersionMatch has to be NotOlderThan then."
        }
        "shardSelector" => "Selects a part of the objects by a hash of their fields, where the server offers that.",
        "timeoutSeconds" => "Ends the call after so many seconds, whatever it is doing.",
        "watch" => "Streams changes (added, modified, deleted) from resourceVersion on instead of a list.",
        "dryRun" => "Does everything but keep the change. The only value is All: every stage is gone through.",
        "fieldManager" => {
            "The name under which the fields that this request sets are owned; at most 128 printable characters. An \
             apply has to name one."
        }
        "fieldValidation" => {
            "What becomes of unknown and duplicate fields in the body: Ignore drops them, Warn (the default) drops \
             them and tells each in a warning, Strict refuses the request."
        }
        "force" => "Takes over fields that others own. For apply alone.",
        "gracePeriodSeconds" => {
            "Seconds that the object has left to end by itself; 0 for none, and without it what the kind or the \
             object says."
        }
        "ignoreStoreReadErrorWithClusterBreakingPotential" => {
            "Removes an object that cannot be read from the store any more, without regard to finalizers and \
             preconditions. What depends on its orderly end may break."
        }
        "orphanDependents" => "Deprecated: use propagationPolicy. Whether dependents stay behind.",
        "propagationPolicy" => {
            "What becomes of dependents: Orphan leaves them, Background lets the garbage collector take them later, \
             Foreground takes them first."
        }
        "namespace" => "object name and auth scope, such as for teams and projects",
        "path" => "The rest of the path that is asked of the target.",
        "pretty" => "'true' indents the answer; the default for browsers and curl.",
        _ => return None,
    })
}

/// Makes parameters; in OpenAPI v2 keeps those that several operations refer to.
pub(crate) struct Parameters {
    dialect: Dialect,
    shared: BTreeMap<String, Value>,
}

impl Parameters {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Parameters { dialect, shared: BTreeMap::new() }
    }

    /// The shared ones by name.
    pub(crate) fn into_shared(self) -> Value {
        Value::Object(self.shared.into_iter().collect())
    }

    fn put(&mut self, name: &str, parameter: Value) -> Value {
        if self.dialect == Dialect::V3 || WRITTEN_OUT.contains(&name) {
            return parameter;
        }
        let digest = Sha256::digest(parameter.to_string());
        let key = format!("{name}-{}", URL_SAFE_NO_PAD.encode(&digest[..TAG_BYTES]));
        let reference = json!({ "$ref": format!("#/parameters/{key}") });
        self.shared.insert(key, parameter);
        reference
    }

    fn make(&mut self, name: &str, kind: &str, place: &str, text: Option<&str>) -> Value {
        let mut out = Map::new();
        out.insert("name".into(), name.into());
        out.insert("in".into(), place.into());
        if let Some(text) = text {
            out.insert("description".into(), text.into());
        }
        if place == "path" {
            out.insert("required".into(), true.into());
        }
        match self.dialect {
            Dialect::V3 => {
                out.insert("schema".into(), json!({ "type": kind, "uniqueItems": true }));
            }
            Dialect::V2 => {
                out.insert("type".into(), kind.into());
                out.insert("uniqueItems".into(), true.into());
            }
        }
        self.put(name, out.into())
    }

    /// One in the query.
    pub(crate) fn query(&mut self, name: &str, kind: &str) -> Value {
        self.make(name, kind, "query", words(name))
    }

    /// One in the path, of an operation on `kind`.
    pub(crate) fn path(&mut self, name: &str, kind: &str) -> Value {
        let own = format!("name of the {kind}");
        self.make(name, "string", "path", if name == "name" { Some(&own) } else { words(name) })
    }

    /// A body of OpenAPI v2; bodies that many operations have are shared.
    pub(crate) fn body(&mut self, schema: Value, required: bool, shared: bool) -> Value {
        let mut out = Map::new();
        out.insert("name".into(), "body".into());
        out.insert("in".into(), "body".into());
        if required {
            out.insert("required".into(), true.into());
        }
        out.insert("schema".into(), schema);
        if shared { self.put("body", out.into()) } else { out.into() }
    }
}
