//! Paths and their operations: actions, kinds, parameters, media types and answers.

use ironkeel_schema::{Field, Resource, Scope, Shape, Subresource, TypeId, type_id_for_kind};
use serde_json::{Map, Value, json};

use crate::definitions::{Definitions, Dialect};
use crate::parameters::{DELETE, LIST, Parameters, WRITE};
use crate::{Row, names};

/// What built-in resources are written in, and custom ones.
const BODIES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const CUSTOM_BODIES: [&str; 2] = ["application/json", "application/yaml"];
const STREAMS: [&str; 2] = ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
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
    Watch,
    WatchList,
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
            Action::Watch => "watch",
            Action::WatchList => "watchlist",
            Action::Connect(_) => "connect",
        }
    }

    fn method(self) -> &'static str {
        match self {
            Action::List | Action::Get | Action::Watch | Action::WatchList => "get",
            Action::Post => "post",
            Action::Put => "put",
            Action::Patch => "patch",
            Action::Delete | Action::DeleteCollection => "delete",
            Action::Connect(method) => method,
        }
    }
}

/// What the operations of one path share.
#[derive(Clone)]
struct Target<'a> {
    resource: &'a Resource,
    /// For operation ids: `NamespacedPodStatus`.
    id: String,
    /// The last segment of a subresource; empty for the resource itself.
    sub: &'a str,
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    /// Body and answer.
    object: Option<Value>,
    list: Option<Value>,
    /// The options of a connection or of a log: query parameters.
    options: Option<TypeId>,
    custom: bool,
}

/// An operation whose parameters may turn out to be those of all its path's.
struct Made {
    action: Action,
    operation: Map<String, Value>,
    body: Option<Value>,
    parameters: Vec<(String, Value)>,
}

/// Builds the paths of group versions.
pub(crate) struct Operations<'d> {
    dialect: Dialect,
    pub(crate) definitions: &'d mut Definitions,
    parameters: Parameters,
    pub(crate) paths: Map<String, Value>,
}

impl<'d> Operations<'d> {
    pub(crate) fn new(dialect: Dialect, definitions: &'d mut Definitions) -> Self {
        Operations { dialect, definitions, parameters: Parameters::new(dialect), paths: Map::new() }
    }

    /// The paths, and the parameters that they refer to.
    pub(crate) fn into_values(self) -> (Value, Value) {
        (Value::Object(self.paths), self.parameters.into_shared())
    }

    /// Adds every path of a row.
    pub(crate) fn add(&mut self, row: &Row<'_>) {
        let r = row.resource;
        let root =
            if r.group.is_empty() { format!("/api/{}", r.version) } else { format!("/apis/{}/{}", r.group, r.version) };
        let namespaced = r.scope == Scope::Namespaced;
        let below = if namespaced { format!("namespaces/{{namespace}}/{}", r.plural) } else { r.plural.to_owned() };
        let within = format!("{root}/{below}");
        let scope = if namespaced { "Namespaced" } else { "" };
        let list = r.has_verb("list").then(|| self.definitions.list_of_row(row));
        let target = Target {
            resource: r,
            id: format!("{scope}{}", r.kind),
            sub: "",
            group: r.group,
            version: r.version,
            kind: r.kind,
            object: Some(self.definitions.of_row(row)),
            list,
            options: None,
            custom: row.schema.is_some(),
        };
        let collection =
            [("list", Action::List), ("create", Action::Post), ("deletecollection", Action::DeleteCollection)];
        let single =
            [("get", Action::Get), ("update", Action::Put), ("patch", Action::Patch), ("delete", Action::Delete)];
        self.path(&within, &target, &collection, r.verbs);
        self.path(&format!("{within}/{{name}}"), &target, &single, r.verbs);
        let everywhere = Target { id: format!("{}ForAllNamespaces", r.kind), ..target.clone() };
        if namespaced && r.has_verb("list") {
            self.path(&format!("{root}/{}", r.plural), &everywhere, &[("list", Action::List)], r.verbs);
        }
        if !target.custom {
            let lists = Target { id: format!("{}List", target.id), ..target.clone() };
            let watch_lists = [("watch", Action::WatchList)];
            self.path(&format!("{root}/watch/{below}"), &lists, &watch_lists, r.verbs);
            let one = format!("{root}/watch/{below}/{{name}}");
            if r.has_verb("get") {
                self.path(&one, &target, &[("watch", Action::Watch)], r.verbs);
            }
            if namespaced {
                let all = Target { id: format!("{}ListForAllNamespaces", r.kind), ..everywhere };
                self.path(&format!("{root}/watch/{}", r.plural), &all, &watch_lists, r.verbs);
            }
        }
        for sub in r.subresources.iter() {
            self.subresource(&within, scope, row, sub);
        }
    }

    fn subresource(&mut self, within: &str, scope: &str, row: &Row<'_>, sub: &Subresource) {
        let r = row.resource;
        let (group, version) = (sub.group.unwrap_or(r.group), sub.version.unwrap_or(r.version));
        let connect = sub.kind.ends_with("Options");
        let log = sub.name == "log";
        let object = match sub.type_id {
            _ if connect || log => None,
            _ if sub.kind == r.kind => Some(self.definitions.of_row(row)),
            Some(id) => Some(self.kind(id, group, version, sub.kind)),
            None => None,
        };
        let options = if log { "PodLogOptions" } else { sub.kind };
        let target = Target {
            resource: r,
            id: format!("{scope}{}{}", r.kind, capitalized(sub.name)),
            sub: sub.name,
            group,
            version,
            kind: sub.kind,
            object,
            list: None,
            options: type_id_for_kind("", "v1", options).filter(|_| connect || log),
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
                ("delete", Action::Connect("head")),
                ("delete", Action::Connect("options")),
            ];
            self.path(&path, &target, &methods, sub.verbs);
            if sub.name == "proxy" {
                let with_path = Target { id: format!("{}WithPath", target.id), ..target };
                self.path(&format!("{path}/{{path}}"), &with_path, &methods, sub.verbs);
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
        let in_path: Vec<&str> = path.split('/').filter_map(|s| s.strip_prefix('{')?.strip_suffix('}')).collect();
        let mut made: Vec<Made> = Vec::new();
        for (_, action) in methods.iter().filter(|(verb, _)| verbs.contains(verb)) {
            made.push(self.operation(target, *action, &in_path));
        }
        let Some((first, others)) = made.split_first() else { return };
        // What every operation takes, the path takes.
        let mut common: Vec<(String, Value)> = first.parameters.clone();
        common.retain(|p| others.iter().all(|m| m.parameters.contains(p)));
        let mut item = Map::new();
        for mut one in made {
            one.parameters.retain(|p| !common.contains(p));
            one.parameters.sort_by(|a, b| a.0.cmp(&b.0));
            let all: Vec<Value> = one.body.into_iter().chain(one.parameters.into_iter().map(|p| p.1)).collect();
            if !all.is_empty() {
                one.operation.insert("parameters".into(), all.into());
            }
            item.insert(one.action.method().into(), one.operation.into());
        }
        common.sort_by(|a, b| a.0.cmp(&b.0));
        let common: Vec<Value> = common.into_iter().map(|p| p.1).collect();
        if !common.is_empty() {
            item.insert("parameters".into(), common.into());
        }
        self.paths.insert(path.to_owned(), item.into());
    }

    /// Path and query parameters by name.
    fn parameters_of(&mut self, target: &Target<'_>, action: Action, in_path: &[&str]) -> Vec<(String, Value)> {
        let mut out = Vec::new();
        for name in in_path {
            out.push(((*name).to_owned(), self.parameters.path(name, target.kind)));
        }
        let mut queries: Vec<(&str, &str)> = match action {
            Action::List | Action::Watch | Action::WatchList => LIST.to_vec(),
            Action::Post | Action::Put => WRITE.to_vec(),
            Action::Patch => [&WRITE[..], &[("force", "boolean")]].concat(),
            Action::Delete => DELETE.to_vec(),
            Action::DeleteCollection => [&DELETE[..], &LIST[1..10]].concat(),
            Action::Get | Action::Connect(_) => Vec::new(),
        };
        if !matches!(action, Action::Connect(_)) {
            queries.push(("pretty", "string"));
        }
        let options = target.options.map(|id| id.get().fields).unwrap_or_default();
        let of_options =
            options.iter().filter(|f| !matches!(f.name, "apiVersion" | "kind") && !matches!(f.shape, Shape::Time));
        queries.extend(of_options.map(|f| (f.name, query_type(f))));
        for (name, kind) in queries {
            out.push((name.to_owned(), self.parameters.query(name, kind)));
        }
        out
    }

    fn operation(&mut self, target: &Target<'_>, action: Action, in_path: &[&str]) -> Made {
        let (group, version) = (target.resource.group, target.resource.version);
        let parameters = self.parameters_of(target, action, in_path);
        let deletes = matches!(action, Action::Delete | Action::DeleteCollection);
        let body = match action {
            Action::Post | Action::Put => target.object.clone(),
            Action::Patch => Some(self.definitions.special(names::PATCH)),
            _ if deletes => Some(self.definitions.shared("DeleteOptions", group, version)),
            _ => None,
        };
        // Of Namespaces upstream's documents do not know it.
        let answers_object =
            action == Action::Delete && target.resource.answers_deleted() && target.resource.plural != "namespaces";
        let answer = match action {
            Action::List => target.list.clone(),
            Action::Watch | Action::WatchList => Some(self.definitions.shared("WatchEvent", group, version)),
            _ if deletes && !answers_object => Some(self.definitions.shared("Status", group, version)),
            Action::Connect(_) => None,
            _ => target.object.clone(),
        };
        let bodies: &[&str] = if target.custom { &CUSTOM_BODIES } else { &BODIES };
        let produces: Vec<&str> = match action {
            Action::List | Action::Watch | Action::WatchList if !target.custom => [bodies, &STREAMS[..]].concat(),
            Action::Connect(_) => vec!["*/*"],
            _ if answer.is_none() => [&["text/plain"], bodies].concat(),
            _ => bodies.to_vec(),
        };
        let patches: Vec<&str> = PATCHES.into_iter().filter(|p| !(target.custom && p.contains("strategic"))).collect();
        let consumes: &[&str] = match action {
            Action::Patch => &patches,
            _ if target.custom => bodies,
            _ => &["*/*"],
        };
        let answer = answer.unwrap_or_else(|| json!({ "type": "string" }));
        let mut out = Map::new();
        let mut v2_body = None;
        match self.dialect {
            Dialect::V3 => {
                if let Some(body) = body {
                    let mut request = Map::from_iter([("content".to_owned(), contents(consumes, &body))]);
                    if !deletes {
                        request.insert("required".into(), true.into());
                    }
                    out.insert("requestBody".into(), request.into());
                }
                let content = contents(&produces, &answer);
                out.insert("responses".into(), responses(target, action, "content", content));
            }
            Dialect::V2 => {
                let shared = deletes || action == Action::Patch;
                v2_body = body.map(|body| self.parameters.body(body, !deletes, shared));
                out.insert("consumes".into(), json!(consumes));
                out.insert("produces".into(), json!(produces));
                out.insert("schemes".into(), json!(["https"]));
                out.insert("responses".into(), responses(target, action, "schema", answer));
            }
        }
        out.insert("description".into(), description(target, action).into());
        out.insert("operationId".into(), operation_id(target, action).into());
        out.insert("tags".into(), json!([tag(group, version)]));
        out.insert("x-kubernetes-action".into(), action.word().into());
        out.insert(
            "x-kubernetes-group-version-kind".into(),
            json!({ "group": target.group, "version": target.version, "kind": target.kind }),
        );
        Made { action, operation: out, body: v2_body, parameters }
    }
}

/// The JSON type of an option in a query.
fn query_type(field: &Field) -> &'static str {
    let of = |shape: &Shape| match shape {
        Shape::Bool => "boolean",
        Shape::Int32 | Shape::Int64 => "integer",
        _ => "string",
    };
    match &field.shape {
        Shape::List(item) => of(item),
        other => of(other),
    }
}

/// What the answers hold stands under `key`.
fn responses(target: &Target<'_>, action: Action, key: &str, holds: Value) -> Value {
    let of = |text: &str| json!({ "description": text, key: holds });
    let mut out = Map::new();
    out.insert("200".into(), of("OK"));
    let created = matches!(action, Action::Post | Action::Put) || action == Action::Patch && !target.custom;
    if created {
        out.insert("201".into(), of("Created"));
    }
    if matches!(action, Action::Post | Action::Delete) {
        out.insert("202".into(), of("Accepted"));
    }
    out.insert("401".into(), json!({ "description": "Unauthorized" }));
    out.into()
}

/// Media types that all hold the same.
pub(crate) fn contents(media: &[&str], schema: &Value) -> Value {
    Value::Object(media.iter().map(|m| ((*m).to_owned(), json!({ "schema": schema }))).collect())
}

/// `apps_v1`, `core_v1`, `rbacAuthorization_v1`.
pub(crate) fn tag(group: &str, version: &str) -> String {
    format!("{}_{version}", group_words(group))
}

pub(crate) fn group_words(group: &str) -> String {
    let mut words = group.trim_end_matches(".k8s.io").split('.');
    let mut out = words.next().filter(|w| !w.is_empty()).unwrap_or("core").to_owned();
    out.extend(words.map(capitalized));
    out
}

pub(crate) fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

/// `a Pod`, `an Ingress`; plurals stand alone.
fn with_article(kind: &str) -> String {
    let plural = kind.ends_with('s') && !kind.ends_with("ss");
    let vowel = kind.starts_with(['A', 'E', 'I', 'O', 'U']);
    match (plural, vowel) {
        (true, _) => kind.to_owned(),
        (false, true) => format!("an {kind}"),
        (false, false) => format!("a {kind}"),
    }
}

/// What the operation does, in a sentence.
fn description(target: &Target<'_>, action: Action) -> String {
    const DEPRECATED: &str = "deprecated: use the 'watch' parameter with a list operation instead";
    let kind = target.resource.kind;
    let sub = if target.sub.is_empty() { String::new() } else { format!("{} of ", target.sub) };
    match action {
        Action::List if target.resource.has_verb("watch") => format!("list or watch objects of kind {kind}"),
        Action::List => format!("list objects of kind {kind}"),
        Action::Watch => format!(
            "watch changes to an object of kind {kind}. {DEPRECATED}, filtered to a single item with the \
             'fieldSelector' parameter."
        ),
        Action::WatchList => format!("watch individual changes to a list of {kind}. {DEPRECATED}."),
        Action::Get => format!("read {sub}the specified {kind}"),
        Action::Put => format!("replace {sub}the specified {kind}"),
        Action::Patch => format!("partially update {sub}the specified {kind}"),
        Action::Post => format!("create {sub}{}", with_article(kind)),
        Action::Delete => format!("delete {sub}{}", with_article(kind)),
        Action::DeleteCollection => format!("delete collection of {kind}"),
        Action::Connect(method) => {
            format!("connect {} requests to {} of {kind}", method.to_ascii_uppercase(), target.sub)
        }
    }
}

/// `createAppsV1NamespacedDeployment`.
fn operation_id(target: &Target<'_>, action: Action) -> String {
    let (verb, word) = match action {
        Action::List => ("list", String::new()),
        Action::Get => ("read", String::new()),
        Action::Post => ("create", String::new()),
        Action::Put => ("replace", String::new()),
        Action::Patch => ("patch", String::new()),
        Action::Delete => ("delete", String::new()),
        Action::DeleteCollection => ("delete", "Collection".to_owned()),
        Action::Watch | Action::WatchList => ("watch", String::new()),
        Action::Connect(method) => ("connect", capitalized(method)),
    };
    let r = target.resource;
    format!("{verb}{}{}{word}{}", capitalized(&group_words(r.group)), capitalized(r.version), target.id)
}
