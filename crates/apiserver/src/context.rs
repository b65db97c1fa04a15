//! One request on its way through the dispatcher.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use ironkeel_auth::UserInfo;
use ironkeel_kinds::{FieldError, FieldErrorKind, Path};
use ironkeel_object::{Map, Value, is_print, quoted};
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
    /// Why no form of an answer would do, to be said when the path is known.
    pub(crate) unacceptable: Option<ApiError>,
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
            Some(other) => {
                let error = unsupported("fieldValidation", &quoted(other), &FIELD_VALIDATIONS);
                Err(ApiError::invalid("meta.k8s.io", self.options_kind(), "", &[error]))
            }
        }
    }

    fn options_kind(&self) -> &'static str {
        match self.info.verb {
            "create" => "CreateOptions",
            "patch" => "PatchOptions",
            "delete" | "deletecollection" => "DeleteOptions",
            "list" | "watch" => "ListOptions",
            _ => "UpdateOptions",
        }
    }

    /// 422 about all that is wrong with the options of a write, after what is wrong already.
    pub(crate) fn check_options(&self, mut errors: Vec<FieldError>) -> Result<(), ApiError> {
        errors.extend(self.field_manager_error());
        errors.extend(dry_run_error(&self.query.all("dryRun")));
        if let Some(other) = self.query.get("fieldValidation")
            && !FIELD_VALIDATIONS.contains(&other.as_ref())
        {
            errors.push(unsupported("fieldValidation", &quoted(&other), &FIELD_VALIDATIONS));
        }
        if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("meta.k8s.io", self.options_kind(), "", &errors)) }
    }

    /// 422 about a delete's options: what is wrong already, and a `dryRun` that is not understood.
    pub(crate) fn check_delete(&self, dry_run: &[String], mut errors: Vec<FieldError>) -> Result<(), ApiError> {
        errors.extend(dry_run_error(dry_run));
        if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", &errors)) }
    }

    fn field_manager_error(&self) -> Option<FieldError> {
        let named = self.query.get("fieldManager").filter(|m| !m.is_empty())?;
        if named.len() > FIELD_MANAGER_BYTES {
            let why = format!("Too long: may not be more than {FIELD_MANAGER_BYTES} bytes");
            return Some(FieldError { path: Path::new("fieldManager"), kind: FieldErrorKind::TooLong, message: why });
        }
        let (at, c) = named.char_indices().find(|(_, c)| !is_print(*c))?;
        let message =
            format!("Invalid value: {}: invalid character U+{:04X} (at position {at})", quoted(&named), u32::from(c));
        Some(FieldError { path: Path::new("fieldManager"), kind: FieldErrorKind::Invalid, message })
    }

    /// `dryRun`; only `All` is understood.
    pub(crate) fn dry_run(&self) -> Result<bool, ApiError> {
        match dry_run_error(&self.query.all("dryRun")) {
            Some(error) => Err(ApiError::invalid("meta.k8s.io", self.options_kind(), "", &[error])),
            None => Ok(self.query.all("dryRun").iter().any(|v| v == "All")),
        }
    }

    /// `fieldManager`, or what comes before the `/` of the User-Agent. Deletes have none.
    pub(crate) fn field_manager(&self) -> Result<String, ApiError> {
        let deletes = matches!(self.info.verb, "delete" | "deletecollection");
        if let Some(named) = self.query.get("fieldManager").filter(|m| !m.is_empty() && !deletes) {
            return match self.field_manager_error() {
                Some(error) => Err(ApiError::invalid("meta.k8s.io", self.options_kind(), "", &[error])),
                None => Ok(named.into_owned()),
            };
        }
        let agent = self.parts.headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let name = agent.split('/').next().unwrap_or_default();
        let mut out = String::new();
        for c in name.chars().filter(|c| is_print(*c)) {
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
        self.request(row, self.dry_run()?)
    }

    /// The registry's view of a request that says elsewhere whether anything is to be stored.
    pub(crate) fn request(&self, row: &Arc<Row>, dry_run: bool) -> Result<WriteRequest, ApiError> {
        Ok(WriteRequest {
            row: row.clone(),
            namespace: self.info.namespace.clone(),
            name: self.info.name.clone(),
            subresource: self.info.subresource.clone(),
            user: Arc::new(registry_user(&self.user)),
            verb: self.info.verb,
            dry_run,
            field_manager: self.field_manager()?,
            admission: self.server.admission.clone(),
            options: Arc::new(self.shown_options()),
            warnings: self.warnings.clone(),
            annotations: self.annotations.clone(),
        })
    }
}

/// What `fieldValidation` may be.
const FIELD_VALIDATIONS: [&str; 4] = ["", "Ignore", "Strict", "Warn"];

/// A `dryRun` that is not understood.
fn dry_run_error(values: &[impl AsRef<str>]) -> Option<FieldError> {
    let shown = || format!("[{}]", values.iter().map(|v| quoted(v.as_ref())).collect::<Vec<_>>().join(","));
    values.iter().any(|v| v.as_ref() != "All").then(|| unsupported("dryRun", &shown(), &["All"]))
}

/// An option's value (as it is shown) that is none of these.
fn unsupported(field: &str, shown: &str, supported: &[&str]) -> FieldError {
    let supported: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
    let message = format!("Unsupported value: {shown}: supported values: {}", supported.join(", "));
    FieldError { path: Path::new(field), kind: FieldErrorKind::NotSupported, message }
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
