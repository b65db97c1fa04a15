//! One request on its way through the dispatcher.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use ironkeel_auth::UserInfo;
use ironkeel_registry::{ApiError, FieldValidation, Row, User, WriteRequest};
use parking_lot::Mutex;

use crate::answer::IncludeObject;
use crate::body::Body;
use crate::negotiate::Output;
use crate::request_info::{Query, RequestInfo};
use crate::server::Server;

/// Longest field manager name, in characters.
const FIELD_MANAGER_LENGTH: usize = 128;

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

    /// `fieldValidation`; a warning is the default.
    pub(crate) fn field_validation(&self) -> Result<FieldValidation, ApiError> {
        match self.query.get("fieldValidation").as_deref() {
            None | Some("" | "Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => Err(self.invalid_option(
                "fieldValidation",
                &format!("Unsupported value: \"{other}\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""),
            )),
        }
    }

    /// 422 about an option of the query.
    pub(crate) fn invalid_option(&self, field: &str, why: &str) -> ApiError {
        let kind = match self.info.verb {
            "create" => "CreateOptions",
            "patch" => "PatchOptions",
            "delete" | "deletecollection" => "DeleteOptions",
            _ => "UpdateOptions",
        };
        let error = ironkeel_kinds::FieldError {
            path: ironkeel_kinds::Path::new(field),
            kind: ironkeel_kinds::FieldErrorKind::Invalid,
            message: why.to_owned(),
        };
        ApiError::invalid("meta.k8s.io", kind, "", &[error])
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
            if named.chars().count() > FIELD_MANAGER_LENGTH {
                return Err(self.invalid_option("fieldManager", "Too long: may not be more than 128 bytes"));
            }
            return Ok(named.into_owned());
        }
        let agent = self.parts.headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let name = agent.split('/').next().unwrap_or_default();
        let name: String = name.chars().filter(|c| !c.is_control()).take(FIELD_MANAGER_LENGTH).collect();
        Ok(if name.is_empty() { "unknown".to_owned() } else { name })
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
            warnings: self.warnings.clone(),
        })
    }
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
