//! What came of plugins, webhooks and policies, for whoever counts: upstream's `apiserver_admission_*` and
//! `apiserver_*_admission_policy_*` metrics are made of it, and the request's trace.

use std::fmt;
use std::time::Duration;

use ironkeel_registry::Operation;

pub use crate::webhook::WebhookCall;

/// What came of one plugin's turn.
#[derive(Clone, Copy, Debug)]
pub struct PluginCall {
    /// The plugin's name.
    pub name: &'static str,
    /// Whether it only judges; it may change objects otherwise.
    pub validating: bool,
    /// What is done to the object.
    pub operation: Operation,
    /// Whether the request ends here.
    pub rejected: bool,
    /// How long it took.
    pub took: Duration,
}

/// What came of one validation or mutation of a policy through one binding.
#[derive(Clone, Copy, Debug)]
pub struct PolicyCall<'a> {
    /// Whether it may change objects.
    pub mutating: bool,
    /// The policy's name.
    pub policy: &'a str,
    /// The binding's name.
    pub binding: &'a str,
    /// `no_error`, `compile_error`, `invalid_error` or `out_of_budget`.
    pub error: &'static str,
    /// `allow`, `deny`, `audit` or `warn`.
    pub action: &'static str,
    /// How long it took.
    pub took: Duration,
}

/// Is told of everything that admission asks.
pub trait AdmissionObserver: fmt::Debug + Send + Sync {
    /// A plugin's turn is over.
    fn plugin(&self, call: &PluginCall);
    /// A webhook was called.
    fn webhook(&self, call: &WebhookCall<'_>);
    /// A policy was asked.
    fn policy(&self, call: &PolicyCall<'_>);
    /// A policy's expressions were compiled.
    fn compiled(&self, took: Duration);
}

/// What the words of a failed expression say of its sort; upstream's error types.
pub(crate) fn error_type(why: &str) -> &'static str {
    if why.contains("compilation error") {
        "compile_error"
    } else if why.contains("budget") || why.contains("cost") {
        "out_of_budget"
    } else {
        "invalid_error"
    }
}
