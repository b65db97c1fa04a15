//! Paths and their operations, as kubectl looks at them: actions, kinds, query parameters and the
//! media types of patches.

use ironkeel_schema::{Resource, Scope, Subresource, TypeId};
use serde_json::{Map, Value, json};

use crate::definitions::{Definitions, Dialect};
use crate::{Row, names};

const BODIES: [&str; 4] =
    ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor"];
const STREAMS: [&str; 2] = ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
const PATCHES: [&str; 5] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+cbor",
];

/// Query parameters by kind of operation: name and type.
const LIST: [(&str, &str); 10] = [
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const WRITE: [(&str, &str); 3] = [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const DELETE: [(&str, &str); 5] = [
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    List,
    Get,
    Post,
    Put,
    Patch,
    Delete,
    DeleteCollection,
    Connect(&'static str),
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Action::List => "list",
            Action::Get => "get",
            Action::Post => "post",
            Action::Put => "put",
            Action::Patch => "patch",
            Action::Delete => "delete",
            Action::DeleteCollection => "deletecollection",
            Action::Connect(_) => "connect",
        }
    }

    fn method(self) -> &'static str {
        match self {
            Action::List | Action::Get => "get",
            Action::Post => "post",
            Action::Put => "put",
            Action::Patch => "patch",
            Action::Delete | Action::DeleteCollection => "delete",
            Action::Connect(method) => method,
        }
    }
}

/// What the operations of one path share.
struct Target<'a> {
    resource: &'a Resource,
    /// For operation ids: `NamespacedPodStatus`.
    id: String,
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    /// Body and answer.
    object: Option<Value>,
    list: Option<Value>,
    custom: bool,
}

/// Builds the paths of group versions.
pub(crate) struct Operations<'d> {
    dialect: Dialect,
    definitions: &'d mut Definitions,
    paths: Map<String, Value>,
}

impl<'d> Operations<'d> {
    pub(crate) fn new(dialect: Dialect, definitions: &'d mut Definitions) -> Self {
        Operations { dialect, definitions, paths: Map::new() }
    }

    pub(crate) fn into_value(self) -> Value {
        Value::Object(self.paths)
    }

    /// Adds every path of a row.
    pub(crate) fn add(&mut self, row: &Row<'_>) {
        let r = row.resource;
        let root =
            if r.group.is_empty() { format!("/api/{}", r.version) } else { format!("/apis/{}/{}", r.group, r.version) };
        let namespaced = r.scope == Scope::Namespaced;
        let within = if namespaced {
            format!("{root}/namespaces/{{namespace}}/{}", r.plural)
        } else {
            format!("{root}/{}", r.plural)
        };
        let scope = if namespaced { "Namespaced" } else { "" };
        let list = r.has_verb("list").then(|| self.definitions.list_of_row(row));
        let target = Target {
            resource: r,
            id: format!("{scope}{}", r.kind),
            group: r.group,
            version: r.version,
            kind: r.kind,
            object: Some(self.definitions.of_row(row)),
            list,
            custom: row.schema.is_some(),
        };
        let collection =
            [("list", Action::List), ("create", Action::Post), ("deletecollection", Action::DeleteCollection)];
        let single =
            [("get", Action::Get), ("update", Action::Put), ("patch", Action::Patch), ("delete", Action::Delete)];
        self.path(&within, &target, &collection, r.verbs);
        self.path(&format!("{within}/{{name}}"), &target, &single, r.verbs);
        if namespaced && r.has_verb("list") {
            let everywhere = Target { id: format!("{}ForAllNamespaces", r.kind), ..target };
            self.path(&format!("{root}/{}", r.plural), &everywhere, &[("list", Action::List)], r.verbs);
        }
        for sub in r.subresources.iter() {
            self.subresource(&within, scope, row, sub);
        }
    }

    fn subresource(&mut self, within: &str, scope: &str, row: &Row<'_>, sub: &Subresource) {
        let r = row.resource;
        let (group, version) = (sub.group.unwrap_or(r.group), sub.version.unwrap_or(r.version));
        let connect = sub.kind.ends_with("Options");
        let object = match sub.type_id {
            _ if connect || sub.name == "log" => None,
            _ if sub.kind == r.kind => Some(self.definitions.of_row(row)),
            Some(id) => Some(self.kind(id, group, version, sub.kind)),
            None => None,
        };
        let mut capital = sub.name.to_owned();
        capital[..1].make_ascii_uppercase();
        let target = Target {
            resource: r,
            id: format!("{scope}{}{capital}", r.kind),
            group,
            version,
            kind: sub.kind,
            object,
            list: None,
            custom: row.schema.is_some(),
        };
        let path = format!("{within}/{{name}}/{}", sub.name);
        if connect {
            let methods = [
                ("get", Action::Connect("get")),
                ("create", Action::Connect("post")),
                ("update", Action::Connect("put")),
                ("patch", Action::Connect("patch")),
                ("delete", Action::Connect("delete")),
            ];
            self.path(&path, &target, &methods, sub.verbs);
            if sub.name == "proxy" {
                self.path(
                    &format!("{path}/{{path}}"),
                    &Target { id: format!("{}WithPath", target.id), ..target },
                    &methods,
                    sub.verbs,
                );
            }
        } else {
            let methods = [
                ("get", Action::Get),
                ("create", Action::Post),
                ("update", Action::Put),
                ("patch", Action::Patch),
                ("delete", Action::Delete),
            ];
            self.path(&path, &target, &methods, sub.verbs);
        }
    }

    fn kind(&mut self, id: TypeId, group: &str, version: &str, kind: &str) -> Value {
        let reference = self.definitions.of_type(id);
        self.definitions.mark(&names::definition_name(id.get().name), group, version, kind);
        reference
    }

    fn path(&mut self, path: &str, target: &Target<'_>, methods: &[(&str, Action)], verbs: &[&str]) {
        let mut item = Map::new();
        for (verb, action) in methods {
            if verbs.contains(verb) {
                item.insert(action.method().into(), self.operation(target, *action));
            }
        }
        if item.is_empty() {
            return;
        }
        let in_path = path.split('/').filter_map(|s| s.strip_prefix('{')?.strip_suffix('}'));
        let mut parameters: Vec<Value> = in_path.map(|name| self.parameter(name, "string", "path")).collect();
        parameters.push(self.parameter("pretty", "string", "query"));
        item.insert("parameters".into(), parameters.into());
        self.paths.insert(path.to_owned(), item.into());
    }

    fn parameter(&self, name: &str, kind: &str, place: &str) -> Value {
        let mut out = Map::new();
        out.insert("name".into(), name.into());
        out.insert("in".into(), place.into());
        if place == "path" {
            out.insert("required".into(), true.into());
        }
        let schema = json!({ "type": kind, "uniqueItems": true });
        match self.dialect {
            Dialect::V3 => {
                out.insert("schema".into(), schema);
            }
            Dialect::V2 => {
                out.insert("type".into(), kind.into());
                out.insert("uniqueItems".into(), true.into());
            }
        }
        out.into()
    }

    fn operation(&mut self, target: &Target<'_>, action: Action) -> Value {
        let (group, version) = (target.resource.group, target.resource.version);
        let queries: Vec<(&str, &str)> = match action {
            Action::List => LIST.to_vec(),
            Action::Post | Action::Put => WRITE.to_vec(),
            Action::Patch => [&WRITE[..], &[("force", "boolean")]].concat(),
            Action::Delete => DELETE.to_vec(),
            Action::DeleteCollection => [&DELETE[..], &LIST[1..9]].concat(),
            Action::Get | Action::Connect(_) => Vec::new(),
        };
        let mut parameters: Vec<Value> =
            queries.iter().map(|(name, kind)| self.parameter(name, kind, "query")).collect();
        let body = match action {
            Action::Post | Action::Put => target.object.clone(),
            Action::Patch => Some(self.definitions.special(names::PATCH)),
            Action::Delete | Action::DeleteCollection => Some(self.definitions.shared("DeleteOptions", group, version)),
            _ => None,
        };
        let answer = match action {
            Action::List => target.list.clone(),
            Action::Delete | Action::DeleteCollection => Some(self.definitions.shared("Status", group, version)),
            Action::Connect(_) => None,
            _ => target.object.clone(),
        };
        let patches: Vec<&str> = PATCHES.into_iter().filter(|p| !(target.custom && p.contains("strategic"))).collect();
        let consumes: &[&str] = if action == Action::Patch { &patches } else { &BODIES };
        let produces: Vec<&str> = match action {
            Action::List => [&BODIES[..], &STREAMS[..]].concat(),
            Action::Connect(_) => vec!["*/*"],
            _ if answer.is_none() => vec!["text/plain"],
            _ => BODIES.to_vec(),
        };
        let mut out = Map::new();
        match self.dialect {
            Dialect::V3 => {
                if let Some(body) = body {
                    let required = !matches!(action, Action::Delete | Action::DeleteCollection);
                    out.insert(
                        "requestBody".into(),
                        json!({ "content": contents(consumes, &body), "required": required }),
                    );
                }
                let answer = answer.unwrap_or_else(|| json!({ "type": "string" }));
                out.insert("responses".into(), v3_responses(action, contents(&produces, &answer)));
            }
            Dialect::V2 => {
                if let Some(body) = body {
                    let required = !matches!(action, Action::Delete | Action::DeleteCollection);
                    parameters.insert(0, json!({ "name": "body", "in": "body", "required": required, "schema": body }));
                }
                let consumes = if action == Action::Patch { json!(consumes) } else { json!(["*/*"]) };
                out.insert("consumes".into(), consumes);
                out.insert("produces".into(), json!(produces));
                out.insert("schemes".into(), json!(["https"]));
                let answer = answer.unwrap_or_else(|| json!({ "type": "string" }));
                out.insert("responses".into(), json!({ "200": { "description": "OK", "schema": answer }, "401": { "description": "Unauthorized" } }));
            }
        }
        if !parameters.is_empty() {
            out.insert("parameters".into(), parameters.into());
        }
        out.insert("operationId".into(), operation_id(target, action).into());
        out.insert("tags".into(), json!([tag(group, version)]));
        out.insert("x-kubernetes-action".into(), action.word().into());
        out.insert(
            "x-kubernetes-group-version-kind".into(),
            json!({ "group": target.group, "version": target.version, "kind": target.kind }),
        );
        out.into()
    }
}

fn v3_responses(action: Action, content: Value) -> Value {
    let mut out = Map::new();
    out.insert("200".into(), json!({ "description": "OK", "content": content }));
    if matches!(action, Action::Post | Action::Put | Action::Patch) {
        out.insert("201".into(), json!({ "description": "Created", "content": content }));
    }
    if matches!(action, Action::Post | Action::Delete) {
        out.insert("202".into(), json!({ "description": "Accepted", "content": content }));
    }
    out.insert("401".into(), json!({ "description": "Unauthorized" }));
    out.into()
}

fn contents(media: &[&str], schema: &Value) -> Value {
    Value::Object(media.iter().map(|m| ((*m).to_owned(), json!({ "schema": schema }))).collect())
}

/// `apps_v1`, `core_v1`, `rbacAuthorization_v1`.
fn tag(group: &str, version: &str) -> String {
    format!("{}_{version}", group_words(group))
}

fn group_words(group: &str) -> String {
    let mut words = group.trim_end_matches(".k8s.io").split('.');
    let mut out = words.next().filter(|w| !w.is_empty()).unwrap_or("core").to_owned();
    out.extend(words.map(capitalized));
    out
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

/// `createAppsV1NamespacedDeployment`.
fn operation_id(target: &Target<'_>, action: Action) -> String {
    let verb = match action {
        Action::List => "list",
        Action::Get => "read",
        Action::Post => "create",
        Action::Put => "replace",
        Action::Patch => "patch",
        Action::Delete => "delete",
        Action::DeleteCollection => "deleteCollection",
        Action::Connect("get") => "connectGet",
        Action::Connect("post") => "connectPost",
        Action::Connect("put") => "connectPut",
        Action::Connect("patch") => "connectPatch",
        Action::Connect(_) => "connectDelete",
    };
    let r = target.resource;
    format!("{verb}{}{}{}", capitalized(&group_words(r.group)), capitalized(r.version), target.id)
}
