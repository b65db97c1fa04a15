//! One request on its way through the dispatcher.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use ironkeel_auth::UserInfo;
use ironkeel_object::{Map, Value};
use ironkeel_registry::{ApiError, FieldValidation, Row, User, WriteRequest};
use parking_lot::Mutex;

use crate::answer::IncludeObject;
use crate::body::Body;
use crate::negotiate::{Output, Shape};
use crate::request_info::{Query, RequestInfo};
use crate::server::Server;

/// Longest field manager name, in bytes.
const FIELD_MANAGER_BYTES: usize = 128;

/// See the module. Owned, since writes run on tasks of their own.
pub(crate) struct Context {
    pub(crate) server: Arc<Server>,
    pub(crate) user: Arc<UserInfo>,
    pub(crate) info: Arc<RequestInfo>,
    pub(crate) query: Query,
    pub(crate) parts: Parts,
    pub(crate) body: Bytes,
    /// The body of a request that is passed on, unread; taken once.
    pub(crate) upload: Mutex<Option<Body>>,
    pub(crate) output: Output,
    pub(crate) warnings: Arc<Mutex<Vec<String>>>,
    /// What admission adds to the audit event.
    pub(crate) annotations: Arc<Mutex<Vec<(String, String)>>>,
}

impl Context {
    /// `includeObject` of a table request.
    pub(crate) fn include_object(&self) -> IncludeObject {
        match self.query.get("includeObject").as_deref() {
            Some("None") => IncludeObject::None,
            Some("Object") => IncludeObject::Object,
            _ => IncludeObject::Metadata,
        }
    }

    /// 400 where a table was asked for with another `includeObject` than there is.
    pub(crate) fn check_table_options(&self) -> Result<(), ApiError> {
        if !matches!(self.output.shape, Shape::Table(_)) {
            return Ok(());
        }
        match self.query.get("includeObject").as_deref() {
            None | Some("" | "None" | "Metadata" | "Object") => Ok(()),
            Some(other) => Err(ApiError::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', \
                 'Object', 'None', or empty"
            ))),
        }
    }

    /// `fieldValidation`; a warning is the default.
    pub(crate) fn field_validation(&self) -> Result<FieldValidation, ApiError> {
        match self.query.get("fieldValidation").as_deref() {
            None | Some("" | "Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => Err(self.unsupported_option("fieldValidation", other, &["", "Ignore", "Strict", "Warn"])),
        }
    }

    /// 422 about an option of the query.
    pub(crate) fn invalid_option(&self, field: &str, why: &str) -> ApiError {
        self.option_error(field, ironkeel_kinds::FieldErrorKind::Invalid, why.to_owned())
    }

    /// 422: the option must be there.
    pub(crate) fn required_option(&self, field: &str, why: &str) -> ApiError {
        self.option_error(field, ironkeel_kinds::FieldErrorKind::Required, format!("Required value: {why}"))
    }

    /// 422: the option must not be there.
    pub(crate) fn forbidden_option(&self, field: &str, why: &str) -> ApiError {
        self.option_error(field, ironkeel_kinds::FieldErrorKind::Forbidden, format!("Forbidden: {why}"))
    }

    /// 422: the option has another value than the supported ones.
    pub(crate) fn unsupported_option(&self, field: &str, value: &str, supported: &[&str]) -> ApiError {
        let quoted: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let why = format!("Unsupported value: {value:?}: supported values: {}", quoted.join(", "));
        self.option_error(field, ironkeel_kinds::FieldErrorKind::NotSupported, why)
    }

    fn option_error(&self, field: &str, kind: ironkeel_kinds::FieldErrorKind, message: String) -> ApiError {
        let options = match self.info.verb {
            "create" => "CreateOptions",
            "patch" => "PatchOptions",
            "delete" | "deletecollection" => "DeleteOptions",
            "list" | "watch" => "ListOptions",
            _ => "UpdateOptions",
        };
        let error = ironkeel_kinds::FieldError { path: ironkeel_kinds::Path::new(field), kind, message };
        ApiError::invalid("meta.k8s.io", options, "", &[error])
    }

    /// `dryRun`; only `All` is understood.
    pub(crate) fn dry_run(&self) -> Result<bool, ApiError> {
        let values = self.query.all("dryRun");
        match values.iter().find(|v| *v != "All") {
            Some(other) => {
                Err(self
                    .invalid_option("dryRun", &format!("Unsupported value: \"{other}\": supported values: \"All\"")))
            }
            None => Ok(!values.is_empty()),
        }
    }

    /// `fieldManager`, or what comes before the `/` of the User-Agent.
    pub(crate) fn field_manager(&self) -> Result<String, ApiError> {
        if let Some(named) = self.query.get("fieldManager").filter(|m| !m.is_empty()) {
            if named.len() > FIELD_MANAGER_BYTES {
                let why = format!("Too long: may not be more than {FIELD_MANAGER_BYTES} bytes");
                return Err(self.option_error("fieldManager", ironkeel_kinds::FieldErrorKind::TooLong, why));
            }
            if let Some((at, c)) = named.char_indices().find(|(_, c)| !is_printable(*c)) {
                let why =
                    format!("Invalid value: {named:?}: invalid character U+{:04X} (at position {at})", u32::from(c));
                return Err(self.invalid_option("fieldManager", &why));
            }
            return Ok(named.into_owned());
        }
        let agent = self.parts.headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let name = agent.split('/').next().unwrap_or_default();
        let mut out = String::new();
        for c in name.chars().filter(|c| is_printable(*c)) {
            if out.len() + c.len_utf8() > FIELD_MANAGER_BYTES {
                break;
            }
            out.push(c);
        }
        Ok(if out.is_empty() { "unknown".to_owned() } else { out })
    }

    /// `CreateOptions` and `UpdateOptions` as admission shows them.
    fn shown_options(&self) -> Value {
        let mut out = Map::new();
        for key in ["fieldManager", "fieldValidation"] {
            if let Some(text) = self.query.get(key).filter(|t| !t.is_empty()) {
                out.insert(key, text.into_owned());
            }
        }
        if self.query.get("dryRun").is_some() {
            out.insert("dryRun", vec!["All"]);
        }
        Value::Object(out)
    }

    /// The registry's view of this request.
    pub(crate) fn write_request(&self, row: &Arc<Row>) -> Result<WriteRequest, ApiError> {
        Ok(WriteRequest {
            row: row.clone(),
            namespace: self.info.namespace.clone(),
            name: self.info.name.clone(),
            subresource: self.info.subresource.clone(),
            user: Arc::new(registry_user(&self.user)),
            dry_run: self.dry_run()?,
            field_manager: self.field_manager()?,
            admission: self.server.admission.clone(),
            options: Arc::new(self.shown_options()),
            warnings: self.warnings.clone(),
            annotations: self.annotations.clone(),
        })
    }
}

/// Go's `unicode.IsPrint`, as far as control and space characters go.
fn is_printable(c: char) -> bool {
    c == ' ' || !(c.is_control() || c.is_whitespace())
}

/// The user as the registry and admission know it.
pub(crate) fn registry_user(user: &UserInfo) -> User {
    User {
        name: user.name.clone(),
        uid: user.uid.clone(),
        groups: user.groups.clone(),
        extra: user.extra.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
    }
}
