//! What the write path asks before it stores: the contract of admission plugins.

use async_trait::async_trait;
use ironkeel_object::Value;
use parking_lot::Mutex;

use crate::error::ApiError;
use crate::storage::Row;

/// Who writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// Unique id; may be empty.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Extra values.
    pub extra: Vec<(String, Vec<String>)>,
}

impl User {
    /// Node name, where this is a kubelet.
    pub fn node(&self) -> Option<&str> {
        let node = self.name.strip_prefix("system:node:")?;
        (!node.is_empty() && self.groups.iter().any(|g| g == "system:nodes")).then_some(node)
    }
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// POST.
    Create,
    /// PUT or PATCH.
    Update,
    /// DELETE.
    Delete,
    /// exec, attach, port-forward, proxy.
    Connect,
}

impl Operation {
    /// As in AdmissionReview.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// One request as admission plugins see it.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// What is being done.
    pub operation: Operation,
    /// To which resource.
    pub row: &'a Row,
    /// Through which subresource; empty for the object itself.
    pub subresource: &'a str,
    /// Namespace; empty for cluster-wide objects.
    pub namespace: &'a str,
    /// The name that the client gave; empty where `generateName` is to choose one.
    pub name: &'a str,
    /// What refusals call the object: its name, as far as it has one, or `generateName`.
    pub shown_name: &'a str,
    /// By whom.
    pub user: &'a User,
    /// The verb of the request: an update may be asked for as a `patch`.
    pub verb: &'static str,
    /// Nothing will be stored.
    pub dry_run: bool,
    /// `CreateOptions`, `UpdateOptions` or `DeleteOptions` as the client gave them, without
    /// `apiVersion` and `kind`; null for a connect.
    pub options: &'a Value,
    /// Warnings for the client.
    pub warnings: &'a Mutex<Vec<String>>,
    /// Annotations for the audit log; of equal keys the first one stays.
    pub annotations: &'a Mutex<Vec<(String, String)>>,
}

impl Attributes<'_> {
    /// Whether this is about the object `plural` of `group` itself, not a subresource.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.subresource.is_empty() && self.row.plural() == plural && self.row.group() == group
    }

    /// Annotates the audit event, unless the key is there already.
    pub fn annotate(&self, key: &str, value: &str) {
        let mut all = self.annotations.lock();
        if !all.iter().any(|(k, _)| k == key) {
            all.push((key.to_owned(), value.to_owned()));
        }
    }

    /// Warns the client, once of one thing.
    pub fn warn(&self, text: &str) {
        let mut all = self.warnings.lock();
        if !all.iter().any(|w| w == text) {
            all.push(text.to_owned());
        }
    }

    /// 403 about this object.
    pub fn forbidden(&self, why: &str) -> ApiError {
        ApiError::forbidden(self.row.group(), self.row.plural(), self.shown_name, why)
    }
}

/// The chain of admission plugins.
#[async_trait]
pub trait Admission: Send + Sync + std::fmt::Debug + 'static {
    /// May change the object.
    async fn mutate(&self, a: &Attributes<'_>, object: &mut Value, old: Option<&Value>) -> Result<(), ApiError>;
    /// May refuse. `object` is `None` for deletes; of a connect it is the options object.
    async fn validate(&self, a: &Attributes<'_>, object: Option<&Value>, old: Option<&Value>) -> Result<(), ApiError>;
    /// Takes back what [`Admission::validate`] has reserved (quota): the write did not happen, or the
    /// caches show it. Of an update it may come more than once, and before `validate` was asked.
    fn rolled_back(&self, _a: &Attributes<'_>, _object: &Value) {}
}

/// Admits everything: for tests of the registry alone.
#[derive(Debug)]
pub struct AdmitAll;

#[async_trait]
impl Admission for AdmitAll {
    async fn mutate(&self, _: &Attributes<'_>, _: &mut Value, _: Option<&Value>) -> Result<(), ApiError> {
        Ok(())
    }
    async fn validate(&self, _: &Attributes<'_>, _: Option<&Value>, _: Option<&Value>) -> Result<(), ApiError> {
        Ok(())
    }
}
