//! MutatingAdmissionPolicy: apply configurations and JSON patches that expressions make.

use std::time::Instant;

use ironkeel_object::{ObjectMeta, Value};
use ironkeel_patch::apply::Schema;
use ironkeel_registry::{ApiError, Attributes, Cause, Row};
use ironkeel_schema::{TypeId, type_id_for_kind};

use super::compiled::{Mutation, Sort};
use super::evaluate::{self, Data};
use super::{Policies, Run, namespace_object, runs};
use crate::Cluster;
use crate::matching::{settle, shown, taken_back};
use crate::observer::error_type;
use crate::reinvocation::Rounds;

impl Policies {
    /// Lets every policy that means the request change the object, in order of names.
    pub(crate) async fn mutate(
        &self,
        c: &Cluster,
        a: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
        rounds: &mut Rounds,
    ) -> Result<(), ApiError> {
        let policies = self.mutating.get(c, Sort::Mutating, self.observer.as_deref());
        if policies.is_empty() {
            return Ok(());
        }
        rounds.policies.begin(rounds.second, Some(object));
        let (runs, misfits) = runs(c, a, &policies, &self.params, Some(object), old).await;
        let mut errors: Vec<(String, String)> = Vec::new();
        for misfit in misfits.iter().filter(|m| m.policy.fails) {
            let why = match misfit.binding {
                Some(binding) => {
                    let (policy, binding) = (&misfit.policy.name, &binding.name);
                    format!(
                        "policy '{policy}' with binding '{binding}' denied request: failed to configure binding: {}",
                        misfit.why
                    )
                }
                None => {
                    format!(
                        "policy {:?} denied request: failed to configure policy: {}",
                        misfit.policy.name, misfit.why
                    )
                }
            };
            errors.push((why, String::new()));
        }
        let namespace = if runs.is_empty() { None } else { namespace_object(c, a)? };
        for run in &runs {
            let key = key(run);
            if rounds.second && !rounds.policies.is_outdated(&key) {
                continue;
            }
            let Some(before) = shown(c, a, &run.view, Some(object)).await? else { continue };
            let old = shown(c, a, &run.view, old).await?;
            let started = Instant::now();
            let made = mutated(c, a, run, before.clone(), old.as_ref(), namespace.as_deref())?;
            match &made {
                Ok(_) => self.observe(run, true, "no_error", "allow", started.elapsed()),
                Err(why) => self.observe(run, true, error_type(why), "deny", started.elapsed()),
            }
            match made {
                Ok(after) => {
                    if after != before {
                        taken_back(c, a, &run.view, after, object).await?;
                        rounds.policies.changed();
                        rounds.again = true;
                    }
                }
                Err(why) if run.policy.fails => {
                    let (policy, binding) = (&run.policy.name, &run.binding.name);
                    errors.push((
                        format!("policy '{policy}' with binding '{binding}' denied request: {why}"),
                        "Invalid".into(),
                    ));
                }
                Err(_) => {}
            }
            if run.policy.again {
                rounds.policies.called(key);
            }
        }
        rounds.policies.end(Some(object));
        refusal(a, errors)
    }
}

fn key(run: &Run<'_>) -> String {
    let param = run.param.as_ref().map(|p| format!("{}/{}", p.namespace(), p.name())).unwrap_or_default();
    format!("{}\n{}\n{param}", run.policy.name, run.binding.name)
}

/// The object after all mutations of one run. The inner error is the policy's failure; the outer one
/// stops the request.
fn mutated(
    c: &Cluster,
    a: &Attributes<'_>,
    run: &Run<'_>,
    mut object: Value,
    old: Option<&Value>,
    namespace: Option<&Value>,
) -> Result<Result<Value, String>, ApiError> {
    let row = run.view.row(a);
    for (index, mutation) in run.policy.mutations.iter().enumerate() {
        let data = Data { object: Some(&object), old, namespace };
        let made = match evaluate::mutation(c, a, run, &data, index) {
            Ok(Some(made)) => made,
            Ok(None) => return Ok(Ok(object)),
            Err(why) => return Ok(Err(why)),
        };
        let mut after = object.clone();
        match mutation {
            Mutation::Apply(_) => {
                let mut config = made;
                let gvk = object.gvk();
                config.set_gvk(&gvk.api_version(), &gvk.kind);
                let sent = type_of(row, &config);
                if let Err(why) = typed(sent, &config) {
                    return Ok(Err(format!(
                        "error applying patch: failed to convert patch object to typed object: {why}"
                    )));
                }
                let structure = ironkeel_registry::structure_of(row);
                let schema = sent.map_or_else(|| ironkeel_registry::schema_of(row, structure.as_ref()), Schema::Table);
                if let Err(atomics) = ironkeel_patch::apply::merge_configuration(&mut after, &config, schema) {
                    let paths = atomics.join(", ");
                    return Ok(Err(format!(
                        "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {paths}"
                    )));
                }
            }
            Mutation::JsonPatch(_) => match ironkeel_patch::json_patch(&mut after, &made) {
                Ok(()) => strict(row, &after)?,
                // A test that fails means that there is nothing to do.
                Err(e) if e.is_failed_test() => continue,
                Err(e) => return Ok(Err(format!("JSON Patch: {e}"))),
            },
            Mutation::Unknown(_) => {}
        }
        settle(row, &mut after)?;
        object = after;
    }
    Ok(Ok(object))
}

/// The type of an object, where it is of the API's own: what is sent to a subresource may be of another kind
/// than the resource.
fn type_of(row: &Row, object: &Value) -> Option<TypeId> {
    let gvk = object.gvk();
    if gvk.kind == row.kind_name() && gvk.group == row.group() {
        return row.kind.custom.is_none().then_some(row.kind.resource.type_id);
    }
    type_id_for_kind(&gvk.group, &gvk.version, &gvk.kind)
}

/// Refuses what the kind does not have: patches are decoded strictly.
fn strict(row: &Row, object: &Value) -> Result<(), ApiError> {
    let Some(type_id) = type_of(row, object) else { return Ok(()) };
    let mut unknown = Vec::new();
    // Wrong types are told where the object is settled.
    let _ = ironkeel_codec::conform(&mut object.clone(), type_id, &mut unknown);
    match unknown.is_empty() {
        true => Ok(()),
        false => {
            let all: Vec<String> = unknown.iter().map(ToString::to_string).collect();
            Err(ApiError::internal(format!("strict decoding error: {}", all.join(", "))))
        }
    }
}

/// Whether a configuration has the fields and types of its kind.
fn typed(type_id: Option<TypeId>, config: &Value) -> Result<(), String> {
    let Some(type_id) = type_id else { return Ok(()) };
    let mut unknown = Vec::new();
    ironkeel_codec::conform(&mut config.clone(), type_id, &mut unknown).map_err(|e| e.to_string())?;
    match unknown.first() {
        Some(field) => Err(format!(".{}: field not declared in schema", field.path)),
        None => Ok(()),
    }
}

fn refusal(a: &Attributes<'_>, errors: Vec<(String, String)>) -> Result<(), ApiError> {
    let Some((first, reason)) = errors.first() else { return Ok(()) };
    let mut error = a.forbidden(first);
    error.message.clone_from(first);
    if !reason.is_empty() {
        error.chosen = Some(Box::new((error.reason.code(), reason.clone())));
    }
    if let Some(details) = &mut error.details {
        for (message, _) in &errors {
            details.causes.push(Cause { reason: String::new(), message: message.clone(), field: String::new() });
        }
    }
    Err(error)
}
