//! ValidatingAdmissionPolicy: deny, warn, note.

use std::collections::BTreeMap;
use std::time::Instant;

use ironkeel_object::{Map, Value};
use ironkeel_registry::{ApiError, Attributes, Cause, Reason};

use super::compiled::{Binding, Sort};
use super::evaluate::{self, Data, Denial};
use super::{Policies, namespace_object, runs};
use crate::Cluster;
use crate::matching::shown;
use crate::observer::error_type;

const FAILURE_KEY: &str = "validation.policy.admission.k8s.io/validation_failure";

impl Policies {
    /// Runs every policy that means the request.
    pub(crate) async fn validate(
        &self,
        c: &Cluster,
        a: &Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let policies = self.validating.get(c, Sort::Validating, self.observer.as_deref());
        if policies.is_empty() {
            return Ok(());
        }
        let (runs, misfits) = runs(c, a, &policies, &self.params, object, old).await;
        let mut denied: Option<ApiError> = None;
        for misfit in misfits.iter().filter(|m| m.policy.fails) {
            let what = if misfit.binding.is_some() { "binding" } else { "policy" };
            let why = format!("failed to configure {what}: {}", misfit.why);
            let binding = misfit.binding.map(|b| b.name.as_str());
            denied.get_or_insert_with(|| denial(a, &misfit.policy.name, binding, &why, ""));
        }
        let namespace = if runs.is_empty() { None } else { namespace_object(c, a)? };
        let mut annotations: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for run in &runs {
            let (object, old) = (shown(c, a, &run.view, object).await?, shown(c, a, &run.view, old).await?);
            let data = Data { object: object.as_ref(), old: old.as_ref(), namespace: namespace.as_deref() };
            let started = Instant::now();
            let outcome = evaluate::validate(c, a, run, &data);
            let (policy, binding) = (run.policy, run.binding);
            let each = started.elapsed() / u32::try_from(policy.validations.len().max(1)).unwrap_or(1);
            for _ in outcome.denials.len()..policy.validations.len() {
                self.observe(run, false, "no_error", "allow", each);
            }
            for d in &outcome.denials {
                let error = error_type(&d.message);
                for action in &binding.actions {
                    match action.as_str() {
                        "Deny" => self.observe(run, false, error, "deny", each),
                        "Audit" => self.observe(run, false, error, "audit", each),
                        "Warn" => self.observe(run, false, error, "warn", each),
                        _ => {}
                    }
                    match action.as_str() {
                        "Deny" => {
                            denied.get_or_insert_with(|| {
                                denial(a, &policy.name, Some(&binding.name), &d.message, &d.reason)
                            });
                        }
                        "Audit" => a.annotate(FAILURE_KEY, &failure(&policy.name, binding, d)),
                        "Warn" => a.warn(&format!(
                            "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                            policy.name, binding.name, d.message
                        )),
                        _ => {}
                    }
                }
            }
            for why in &outcome.annotation_errors {
                denied.get_or_insert_with(|| denial(a, &policy.name, Some(&binding.name), why, ""));
            }
            for (key, value) in outcome.annotations {
                let values = annotations.entry(format!("{}/{key}", policy.name)).or_default();
                if !values.contains(&value) {
                    values.push(value);
                }
            }
        }
        for (key, values) in annotations {
            a.annotate(&key, &values.join(", "));
        }
        denied.map_or(Ok(()), Err)
    }
}

/// What the client is told.
fn denial(a: &Attributes<'_>, policy: &str, binding: Option<&str>, why: &str, reason: &str) -> ApiError {
    let message = match binding {
        Some(binding) => format!("ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {why}"),
        None => format!("ValidatingAdmissionPolicy '{policy}' denied request: {why}"),
    };
    let mut error = a.forbidden(&message);
    error.reason = match reason {
        "Forbidden" => Reason::Forbidden,
        "Unauthorized" => Reason::Unauthorized,
        "RequestEntityTooLarge" => Reason::RequestEntityTooLarge,
        _ => Reason::Invalid,
    };
    if let Some(details) = &mut error.details {
        details.causes.push(Cause { reason: String::new(), message, field: String::new() });
    }
    error
}

/// The audit annotation of a failed validation.
fn failure(policy: &str, binding: &Binding, d: &Denial) -> String {
    let mut one = Map::new();
    one.insert("message", d.message.as_str());
    one.insert("policy", policy);
    one.insert("binding", binding.name.as_str());
    one.insert("expressionIndex", i64::try_from(d.index).unwrap_or(i64::MAX));
    one.insert("validationActions", binding.actions.clone());
    let mut text = Vec::new();
    ironkeel_codec::encode_json(&Value::Array(vec![Value::Object(one)]), &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
