//! One record of the log: audit.k8s.io/v1 Event.

use std::collections::BTreeMap;

use ironkeel_object::{Map, Value};
use jiff::Timestamp;

/// How much of a request is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    None,
    /// Who did what to which object, and the answer's code.
    Metadata,
    /// The request's object too.
    Request,
    /// The answer's object too.
    RequestResponse,
}

impl Level {
    /// As in policies and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Level::None, Level::Metadata, Level::Request, Level::RequestResponse].into_iter().find(|l| l.as_str() == text)
    }
}

/// When a record is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Before anything is done.
    RequestReceived,
    /// The head of a long-running answer has been sent.
    ResponseStarted,
    /// The answer has been sent.
    ResponseComplete,
    /// The server broke down over it.
    Panic,
}

impl Stage {
    /// As in policies and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic]
            .into_iter()
            .find(|s| s.as_str() == text)
    }

    pub(crate) fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A user in an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// Unique id; may be empty.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Extra values.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What the request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectReference {
    /// Plural.
    pub resource: String,
    /// Namespace; empty cluster-wide.
    pub namespace: String,
    /// Name; empty for collections.
    pub name: String,
    /// UID, where the object is known.
    pub uid: String,
    /// API group; empty for core.
    pub api_group: String,
    /// API version.
    pub api_version: String,
    /// Resource version, where the request names one.
    pub resource_version: String,
    /// Subresource; empty for the object itself.
    pub subresource: String,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Event {
    /// How much is recorded.
    pub level: Level,
    /// The same in all records of one request.
    pub audit_id: String,
    /// When it was made.
    pub stage: Stage,
    /// The path with its query.
    pub request_uri: String,
    /// `get`, `list`, …
    pub verb: String,
    /// Who.
    pub user: User,
    /// As whom.
    pub impersonated: Option<User>,
    /// The verb that allowed it, where the impersonation was a constrained one.
    pub impersonation_constraint: String,
    /// From where, the client first.
    pub source_ips: Vec<String>,
    /// The client's program.
    pub user_agent: String,
    /// To what; `None` for paths that are no resources.
    pub object: Option<ObjectReference>,
    /// The answer: a Status, or just its code.
    pub response_status: Option<Value>,
    /// The request's body.
    pub request_object: Option<Value>,
    /// The answer's body.
    pub response_object: Option<Value>,
    /// When the request came.
    pub received: Timestamp,
    /// When the stage was reached.
    pub at: Timestamp,
    /// What the way through the server has added.
    pub annotations: BTreeMap<String, String>,
}

fn micro(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

fn list(texts: &[String]) -> Value {
    texts.iter().map(|t| Value::from(t.as_str())).collect::<Vec<_>>().into()
}

impl User {
    fn to_value(&self) -> Value {
        let mut out = Map::new();
        for (key, text) in [("username", &self.name), ("uid", &self.uid)] {
            if !text.is_empty() {
                out.insert(key, text.as_str());
            }
        }
        if !self.groups.is_empty() {
            out.insert("groups", list(&self.groups));
        }
        if !self.extra.is_empty() {
            out.insert("extra", self.extra.iter().map(|(k, v)| (k.clone(), list(v))).collect::<Map>());
        }
        Value::Object(out)
    }
}

impl ObjectReference {
    fn to_value(&self) -> Value {
        let members = [
            ("resource", &self.resource),
            ("namespace", &self.namespace),
            ("name", &self.name),
            ("uid", &self.uid),
            ("apiGroup", &self.api_group),
            ("apiVersion", &self.api_version),
            ("resourceVersion", &self.resource_version),
            ("subresource", &self.subresource),
        ];
        let mut out = Map::new();
        for (key, text) in members {
            if !text.is_empty() {
                out.insert(key, text.as_str());
            }
        }
        Value::Object(out)
    }
}

impl Event {
    /// The JSON form.
    pub fn to_value(&self) -> Value {
        let mut out = Map::new();
        out.insert("kind", "Event");
        out.insert("apiVersion", "audit.k8s.io/v1");
        out.insert("level", self.level.as_str());
        out.insert("auditID", self.audit_id.as_str());
        out.insert("stage", self.stage.as_str());
        out.insert("requestURI", self.request_uri.as_str());
        out.insert("verb", self.verb.as_str());
        out.insert("user", self.user.to_value());
        if let Some(user) = &self.impersonated {
            out.insert("impersonatedUser", user.to_value());
        }
        if !self.impersonation_constraint.is_empty() {
            let mut metadata = Map::new();
            metadata.insert("impersonationConstraint", self.impersonation_constraint.as_str());
            out.insert("authenticationMetadata", metadata);
        }
        if !self.source_ips.is_empty() {
            out.insert("sourceIPs", list(&self.source_ips));
        }
        if !self.user_agent.is_empty() {
            out.insert("userAgent", self.user_agent.as_str());
        }
        if let Some(object) = &self.object {
            out.insert("objectRef", object.to_value());
        }
        for (key, value) in [
            ("responseStatus", &self.response_status),
            ("requestObject", &self.request_object),
            ("responseObject", &self.response_object),
        ] {
            if let Some(value) = value {
                out.insert(key, value.clone());
            }
        }
        out.insert("requestReceivedTimestamp", micro(self.received));
        out.insert("stageTimestamp", micro(self.at));
        if !self.annotations.is_empty() {
            out.insert("annotations", self.annotations.iter().map(|(k, v)| (k.clone(), v.as_str())).collect::<Map>());
        }
        Value::Object(out)
    }

    /// One line of the log, with its line feed.
    pub fn to_line(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        ironkeel_codec::encode_json(&self.to_value(), &mut out);
        out.push(b'\n');
        out
    }
}
