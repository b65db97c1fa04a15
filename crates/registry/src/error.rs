//! The one error of the server, worded as upstream's `api/errors` words it.
//!
//! HTTP appears only as [`Reason::code`]; who answers a request turns the error into a
//! `meta/v1.Status` with [`ApiError::to_status`].

use std::collections::HashSet;

use ironkeel_kinds::FieldError;
use ironkeel_object::{Map, SelectorError, Value};
use ironkeel_store::StoreError;

/// `Status.reason`: why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// 400.
    BadRequest,
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 406.
    NotAcceptable,
    /// 409: the name is taken.
    AlreadyExists,
    /// 409: a stale resourceVersion or another conflict.
    Conflict,
    /// 410: the place in history is gone.
    Expired,
    /// 413.
    RequestEntityTooLarge,
    /// 415.
    UnsupportedMediaType,
    /// 422.
    Invalid,
    /// 429.
    TooManyRequests,
    /// 500.
    InternalError,
    /// 501: out of reach here.
    NotImplemented,
    /// 503.
    ServiceUnavailable,
    /// 504.
    Timeout,
    /// 507: the store takes no more data.
    InsufficientStorage,
}

impl Reason {
    /// The HTTP status code.
    pub fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Expired => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::InternalError => 500,
            Self::NotImplemented => 501,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
            Self::InsufficientStorage => 507,
        }
    }

    /// The text of `Status.reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Expired => "Expired",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::Invalid => "Invalid",
            Self::TooManyRequests => "TooManyRequests",
            Self::InternalError => "InternalError",
            Self::NotImplemented => "NotImplemented",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::Timeout => "Timeout",
            Self::InsufficientStorage => "InsufficientStorage",
        }
    }
}

/// `Status.details`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// API group.
    pub group: String,
    /// The resource's plural, or the kind where the error is about a kind.
    pub kind: String,
    /// UID of the object.
    pub uid: String,
    /// What exactly.
    pub causes: Vec<Cause>,
    /// When to try again, in seconds; 0 for not said.
    pub retry_after_seconds: i64,
}

/// One of `Status.details.causes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Machine-readable.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The field; may be empty.
    pub field: String,
}

/// Why the server did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Machine-readable.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// About which object.
    pub details: Option<Box<Details>>,
    /// For a 410 of a paged list: the token that goes on inconsistently.
    pub continue_token: Option<String>,
    /// A code and a reason that an admission webhook chose, shown in the place of `reason`'s own.
    pub chosen: Option<Box<(u16, String)>>,
}

/// `pods` or `deployments.apps`.
pub fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

/// What upstream says of a stale resourceVersion.
pub const OPTIMISTIC_LOCK: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

impl ApiError {
    /// An error with a message alone.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        ApiError { reason, message: message.into(), details: None, continue_token: None, chosen: None }
    }

    fn about(reason: Reason, group: &str, resource: &str, name: &str, message: String) -> Self {
        let details =
            Details { name: name.to_owned(), group: group.to_owned(), kind: resource.to_owned(), ..Details::default() };
        ApiError { reason, message, details: Some(Box::new(details)), continue_token: None, chosen: None }
    }

    /// `pods "x" not found`.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", qualified(group, resource));
        Self::about(Reason::NotFound, group, resource, name, message)
    }

    /// No such path or resource.
    pub fn no_such_resource() -> Self {
        ApiError {
            details: Some(Box::default()),
            ..Self::new(Reason::NotFound, "the server could not find the requested resource")
        }
    }

    /// `pods "x" already exists`.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", qualified(group, resource));
        Self::about(Reason::AlreadyExists, group, resource, name, message)
    }

    /// `Operation cannot be fulfilled on pods "x": …`.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(group, resource));
        Self::about(Reason::Conflict, group, resource, name, message)
    }

    /// `pods "x" is forbidden: …`.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let what = qualified(group, resource);
        let message = if name.is_empty() {
            format!("{what} is forbidden: {why}")
        } else {
            format!("{what} \"{name}\" is forbidden: {why}")
        };
        Self::about(Reason::Forbidden, group, resource, name, message)
    }

    /// `Pod "x" is invalid: spec.…`, with one cause a field error.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        // What is told twice stands in the message once, and among the causes as often as it was found.
        let mut seen = HashSet::new();
        let texts: Vec<String> = errors.iter().map(ToString::to_string).filter(|t| seen.insert(t.clone())).collect();
        let what = qualified(group, kind);
        let message = match texts.as_slice() {
            [] => format!("{what} \"{name}\" is invalid"),
            [one] => format!("{what} \"{name}\" is invalid: {one}"),
            many => format!("{what} \"{name}\" is invalid: [{}]", many.join(", ")),
        };
        let causes = errors
            .iter()
            .map(|e| Cause {
                reason: e.kind.reason().to_owned(),
                message: e.message.clone(),
                field: e.path.to_string(),
            })
            .collect();
        let mut error = Self::about(Reason::Invalid, group, kind, name, message);
        if let Some(details) = &mut error.details {
            details.causes = causes;
        }
        error
    }

    /// 400 with a message.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// 405: `create is not supported on resources of kind "pods"`.
    pub fn method_not_supported(group: &str, resource: &str, action: &str) -> Self {
        let message = format!("{action} is not supported on resources of kind \"{}\"", qualified(group, resource));
        Self::about(Reason::MethodNotAllowed, group, resource, "", message)
    }

    /// 410: `too old resource version: 3 (17)`.
    pub fn too_old(requested: u64, oldest: u64) -> Self {
        Self::new(Reason::Expired, format!("too old resource version: {requested} ({oldest})"))
    }

    /// 504: the revision has not happened yet.
    pub fn too_large_revision(requested: u64, current: u64) -> Self {
        let details = Details {
            causes: vec![Cause {
                reason: "ResourceVersionTooLarge".into(),
                message: "Too large resource version".into(),
                field: String::new(),
            }],
            retry_after_seconds: 1,
            ..Details::default()
        };
        ApiError {
            details: Some(Box::new(details)),
            ..Self::new(
                Reason::Timeout,
                format!("Timeout: Too large resource version: {requested}, current: {current}"),
            )
        }
    }

    /// 429 with the seconds after which to try again.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i64) -> Self {
        ApiError {
            details: Some(Box::new(Details { retry_after_seconds, ..Details::default() })),
            ..Self::new(Reason::TooManyRequests, message)
        }
    }

    /// 500: `Internal error occurred: …`.
    pub fn internal(why: impl std::fmt::Display) -> Self {
        let why = why.to_string();
        let details = Details {
            causes: vec![Cause { reason: String::new(), message: why.clone(), field: String::new() }],
            ..Details::default()
        };
        ApiError {
            details: Some(Box::new(details)),
            ..Self::new(Reason::InternalError, format!("Internal error occurred: {why}"))
        }
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        self.chosen.as_ref().map_or(self.reason.code(), |c| c.0)
    }

    /// The `meta/v1.Status` that the client reads.
    pub fn to_status(&self) -> Value {
        let mut status = Map::new();
        status.insert("apiVersion", "v1");
        status.insert("kind", "Status");
        let mut metadata = Map::new();
        if let Some(token) = &self.continue_token {
            metadata.insert("continue", token.as_str());
        }
        status.insert("metadata", metadata);
        status.insert("status", "Failure");
        status.insert("message", self.message.as_str());
        match &self.chosen {
            None => _ = status.insert("reason", self.reason.as_str()),
            Some(chosen) if chosen.1.is_empty() => {}
            Some(chosen) => _ = status.insert("reason", chosen.1.as_str()),
        }
        status.insert("code", i64::from(self.code()));
        if let Some(d) = &self.details {
            status.insert("details", d.to_value());
        }
        Value::Object(status)
    }
}

impl Details {
    /// The JSON form, empty members left out.
    pub fn to_value(&self) -> Value {
        let mut out = Map::new();
        for (key, text) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)] {
            if !text.is_empty() {
                out.insert(key, text.as_str());
            }
        }
        if !self.causes.is_empty() {
            let causes: Vec<Value> = self
                .causes
                .iter()
                .map(|c| {
                    let mut m = Map::new();
                    for (key, text) in [("reason", &c.reason), ("message", &c.message), ("field", &c.field)] {
                        if !text.is_empty() {
                            m.insert(key, text.as_str());
                        }
                    }
                    Value::Object(m)
                })
                .collect();
            out.insert("causes", causes);
        }
        if self.retry_after_seconds > 0 {
            out.insert("retryAfterSeconds", self.retry_after_seconds);
        }
        Value::Object(out)
    }
}

impl From<SelectorError> for ApiError {
    fn from(e: SelectorError) -> Self {
        ApiError::bad_request(e.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(e: StoreError) -> Self {
        match e {
            StoreError::Compacted { requested, compacted } => ApiError::too_old(requested, compacted),
            StoreError::FutureRevision { requested, current } => ApiError::too_large_revision(requested, current),
            StoreError::NoSpace(why) => {
                ApiError::new(Reason::InsufficientStorage, format!("the store takes no more data: {why}"))
            }
            StoreError::TooLarge { .. } => ApiError::new(Reason::RequestEntityTooLarge, e.to_string()),
            StoreError::Unavailable(_) | StoreError::Closed(_) | StoreError::Io { .. } => {
                ApiError::new(Reason::ServiceUnavailable, e.to_string())
            }
            StoreError::NoLease(_) | StoreError::Corrupt { .. } | StoreError::SlowWatcher { .. } => {
                ApiError::internal(e)
            }
        }
    }
}
