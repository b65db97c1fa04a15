//! Which FlowSchema a request belongs to: the first by precedence, then by name, whose rules match.

use std::sync::Arc;

use http::HeaderValue;
use ironkeel_auth::UserInfo;
use ironkeel_object::{ObjectMeta, Value};

use crate::level::Level;
use crate::metrics::Flow;

/// A request as FlowSchemas see it.
#[derive(Clone, Copy, Debug)]
pub struct Digest<'a> {
    /// Who.
    pub user: &'a UserInfo,
    /// `get`, `list`, …; of a path the method in lower case.
    pub verb: &'a str,
    /// Whether this is about a resource.
    pub is_resource: bool,
    /// API group; empty for core.
    pub group: &'a str,
    /// Plural.
    pub resource: &'a str,
    /// Subresource; empty for the object itself.
    pub subresource: &'a str,
    /// Namespace; empty cluster-wide.
    pub namespace: &'a str,
    /// Name; empty for collections.
    pub name: &'a str,
    /// The path.
    pub path: &'a str,
}

/// What tells flows of one schema apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distinguisher {
    None,
    User,
    Namespace,
}

#[derive(Debug)]
enum Subject {
    User(Box<str>),
    Group(Box<str>),
    /// Namespace and name; `*` for every name.
    Account(Box<str>, Box<str>),
}

/// `*`, or a list.
#[derive(Debug)]
enum Names {
    All,
    Of(Box<[Box<str>]>),
}

#[derive(Debug)]
struct ResourceRule {
    verbs: Names,
    groups: Names,
    resources: Names,
    namespaces: Names,
    cluster: bool,
}

/// Verbs, and the paths that they may be used on.
type PathRule = (Names, Box<[Box<str>]>);

#[derive(Debug)]
struct Rule {
    subjects: Box<[Subject]>,
    resources: Box<[ResourceRule]>,
    paths: Box<[PathRule]>,
}

/// A FlowSchema, compiled, with the level that it leads to.
#[derive(Debug)]
pub(crate) struct Schema {
    pub(crate) name: Box<str>,
    pub(crate) uid: HeaderValue,
    pub(crate) precedence: i64,
    pub(crate) distinguisher: Distinguisher,
    pub(crate) level: Arc<Level>,
    pub(crate) level_uid: HeaderValue,
    pub(crate) flow: Arc<Flow>,
    rules: Box<[Rule]>,
}

impl Names {
    fn read(v: &Value, key: &str) -> Self {
        let list: Vec<&str> = v.items_at(&[key]).iter().filter_map(Value::as_str).collect();
        if list == ["*"] { Names::All } else { Names::Of(list.into_iter().map(Box::from).collect()) }
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Names::All => true,
            Names::Of(list) => list.iter().any(|n| **n == *name),
        }
    }

    /// Whether `resource` or `resource/subresource` is among them.
    fn has_resource(&self, resource: &str, subresource: &str) -> bool {
        match self {
            Names::All => true,
            Names::Of(list) if subresource.is_empty() => list.iter().any(|n| **n == *resource),
            Names::Of(list) => list.iter().any(|n| {
                n.strip_prefix(resource).and_then(|rest| rest.strip_prefix('/')).is_some_and(|rest| rest == subresource)
            }),
        }
    }
}

impl Subject {
    fn read(v: &Value) -> Option<Self> {
        let name = |of: &str| v.str_at(&[of, "name"]).map(Box::from);
        match v["kind"].as_str()? {
            "User" => name("user").map(Subject::User),
            "Group" => name("group").map(Subject::Group),
            "ServiceAccount" => {
                let namespace = v.str_at(&["serviceAccount", "namespace"])?;
                name("serviceAccount").map(|name| Subject::Account(namespace.into(), name))
            }
            _ => None,
        }
    }

    fn is(&self, d: &Digest<'_>) -> bool {
        match self {
            Subject::User(name) => **name == *"*" || **name == *d.user.name,
            Subject::Group(name) => **name == *"*" || d.user.in_group(name),
            Subject::Account(namespace, name) => {
                let rest =
                    d.user.name.strip_prefix("system:serviceaccount:").and_then(|r| r.strip_prefix(&**namespace));
                let account = rest.and_then(|r| r.strip_prefix(':'));
                account.is_some_and(|account| **name == *"*" || **name == *account)
            }
        }
    }
}

impl Rule {
    fn read(v: &Value) -> Self {
        let strings = |v: &Value, key: &str| -> Box<[Box<str>]> {
            v.items_at(&[key]).iter().filter_map(Value::as_str).map(Box::from).collect()
        };
        let resource = |v: &Value| ResourceRule {
            verbs: Names::read(v, "verbs"),
            groups: Names::read(v, "apiGroups"),
            resources: Names::read(v, "resources"),
            namespaces: Names::read(v, "namespaces"),
            cluster: v["clusterScope"].as_bool().unwrap_or(false),
        };
        Rule {
            subjects: v.items_at(&["subjects"]).iter().filter_map(Subject::read).collect(),
            resources: v.items_at(&["resourceRules"]).iter().map(resource).collect(),
            paths: v
                .items_at(&["nonResourceRules"])
                .iter()
                .map(|r| (Names::read(r, "verbs"), strings(r, "nonResourceURLs")))
                .collect(),
        }
    }

    fn matches(&self, d: &Digest<'_>) -> bool {
        if !self.subjects.iter().any(|s| s.is(d)) {
            return false;
        }
        if !d.is_resource {
            return self.paths.iter().any(|(verbs, urls)| verbs.has(d.verb) && urls.iter().any(|u| path_is(u, d.path)));
        }
        self.resources.iter().any(|r| {
            let placed = if d.namespace.is_empty() { r.cluster } else { r.namespaces.has(d.namespace) };
            placed
                && r.verbs.has(d.verb)
                && r.groups.has(d.group)
                && r.resources.has_resource(d.resource, d.subresource)
        })
    }
}

/// `*`, the path itself, or a path below it.
fn path_is(rule: &str, path: &str) -> bool {
    if rule == "*" || rule == path {
        return true;
    }
    let prefix = rule.strip_suffix('*').unwrap_or(rule).trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
}

/// UIDs stand in response headers; made once.
fn header(uid: &str) -> HeaderValue {
    HeaderValue::from_str(uid).unwrap_or(HeaderValue::from_static(""))
}

impl Schema {
    pub(crate) fn new(object: &Value, level: Arc<Level>, level_uid: &str, flow: Arc<Flow>) -> Self {
        Schema {
            name: object.name().into(),
            uid: header(object.uid()),
            precedence: object.i64_at(&["spec", "matchingPrecedence"]).unwrap_or(1_000),
            distinguisher: match object.str_at(&["spec", "distinguisherMethod", "type"]) {
                Some("ByUser") => Distinguisher::User,
                Some("ByNamespace") => Distinguisher::Namespace,
                _ => Distinguisher::None,
            },
            level,
            level_uid: header(level_uid),
            flow,
            rules: object.items_at(&["spec", "rules"]).iter().map(Rule::read).collect(),
        }
    }

    pub(crate) fn matches(&self, d: &Digest<'_>) -> bool {
        self.rules.iter().any(|r| r.matches(d))
    }

    /// What tells this request's flow from others of the schema.
    pub(crate) fn distinguish<'a>(&self, d: &Digest<'a>) -> &'a str {
        match self.distinguisher {
            Distinguisher::None => "",
            Distinguisher::User => &d.user.name,
            Distinguisher::Namespace => d.namespace,
        }
    }
}
