//! One run of a policy: its data bound, its expressions evaluated.

use ironkeel_expr::{Activation, Budget, EvalError, Program, REQUEST_BUDGET, Val};
use ironkeel_object::Value;
use ironkeel_registry::Attributes;

use super::Run;
use super::compiled::Compiled;
use crate::Cluster;
use crate::attributes::options_value;
use crate::cel::{Door, Verdict, bind, condition_error, conditions, request_value};

static NULL: Value = Value::Null;

/// Longest text that a message expression may make, in bytes.
const MESSAGE_MAX_BYTES: usize = 5 * 1024;
/// Longest value of an audit annotation, in bytes.
pub(super) const ANNOTATION_MAX_BYTES: usize = 10 * 1024;

/// What the expressions of one run read.
pub(super) struct Data<'a> {
    pub(super) object: Option<&'a Value>,
    pub(super) old: Option<&'a Value>,
    pub(super) namespace: Option<&'a Value>,
}

/// A refusal of one validation.
pub(super) struct Denial {
    /// Place among the validations.
    pub(super) index: usize,
    pub(super) message: String,
    /// Empty where an expression failed.
    pub(super) reason: String,
}

/// What a validating run brings.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) denials: Vec<Denial>,
    /// Key and value.
    pub(super) annotations: Vec<(String, String)>,
    /// Audit annotations that failed.
    pub(super) annotation_errors: Vec<String>,
}

fn run_program<'a>(
    compiled: &'a Compiled,
    activation: &Activation<'a>,
    budget: &mut Budget,
) -> Result<Val<'a>, String> {
    let program: &'a Program = compiled.as_ref().map_err(|e| format!("compilation error: {e}"))?;
    program.eval(activation, budget).map_err(|e| condition_error(program, &e))
}

/// Binds a run's data and hands it to `work`, unless the match conditions are asked and skip the run.
fn with_data<T>(
    c: &Cluster,
    a: &Attributes<'_>,
    run: &Run<'_>,
    data: &Data<'_>,
    ask: bool,
    work: impl for<'x> FnOnce(&Activation<'x>, &'x Run<'x>) -> T,
) -> Result<Option<T>, String> {
    let door = Door::new(c, a);
    let request = request_value(a, run.view.row(a), data.object.or(data.old), &options_value(a));
    let mut activation = Activation::new();
    bind(&mut activation, a, &request, data.object, data.old, &door);
    // Match conditions do not see it.
    activation.bind("namespaceObject", &NULL);
    if run.policy.param_kind.is_some() {
        activation.bind("params", run.param.as_deref().unwrap_or(&NULL));
    }
    if ask {
        match conditions(&run.policy.conditions, run.policy.fails, &activation) {
            Verdict::Matches => {}
            Verdict::Skips => return Ok(None),
            Verdict::Fails(why) => return Err(why),
        }
    }
    activation.bind("namespaceObject", data.namespace.unwrap_or(&NULL));
    let programs = run.policy.variables.iter().filter_map(|(n, p)| Some((n.as_str(), p.as_ref().ok()?)));
    activation.compose("variables", programs);
    Ok(Some(work(&activation, run)))
}

/// Runs validations and audit annotations.
pub(super) fn validate(c: &Cluster, a: &Attributes<'_>, run: &Run<'_>, data: &Data<'_>) -> Outcome {
    let failed = |message: String| Denial { index: 0, message, reason: String::new() };
    match with_data(c, a, run, data, true, outcome) {
        Ok(Some(outcome)) => outcome,
        Ok(None) => Outcome::default(),
        Err(_) if !run.policy.fails => Outcome::default(),
        Err(why) => Outcome { denials: vec![failed(why)], ..Outcome::default() },
    }
}

fn outcome<'a>(activation: &Activation<'a>, run: &'a Run<'a>) -> Outcome {
    let mut out = Outcome::default();
    let mut budget = Budget::new(REQUEST_BUDGET);
    for (index, validation) in run.policy.validations.iter().enumerate() {
        match run_program(&validation.program, activation, &mut budget) {
            Ok(value) if value.as_bool() == Some(true) => {}
            Ok(_) => {
                let said = validation.message_program.as_ref().and_then(|p| {
                    let value = run_program(p, activation, &mut budget).ok()?;
                    let text = value.as_str()?.trim().to_owned();
                    (!text.is_empty() && text.len() <= MESSAGE_MAX_BYTES && !text.contains('\n')).then_some(text)
                });
                let fixed = Some(validation.message.trim()).filter(|m| !m.is_empty()).map(str::to_owned);
                let message =
                    said.or(fixed).unwrap_or_else(|| format!("failed expression: {}", validation.expression.trim()));
                let reason = if validation.reason.is_empty() { "Invalid" } else { &validation.reason };
                out.denials.push(Denial { index, message, reason: reason.to_owned() });
            }
            Err(why) if run.policy.fails => {
                out.denials.push(Denial { index, message: why, reason: String::new() });
            }
            Err(_) => {}
        }
    }
    let mut budget = Budget::new(REQUEST_BUDGET);
    for annotation in &run.policy.annotations {
        match run_program(&annotation.program, activation, &mut budget) {
            Ok(value) if value.is_null() => {}
            Ok(value) => match value.as_str() {
                Some(text) if text.trim().is_empty() => {}
                Some(text) => {
                    let mut text = text.trim().to_owned();
                    let end = (0..=text.len().min(ANNOTATION_MAX_BYTES)).rev().find(|i| text.is_char_boundary(*i));
                    text.truncate(end.unwrap_or(0));
                    out.annotations.push((annotation.key.clone(), text));
                }
                None => out.annotation_errors.push(format!(
                    "valueExpression '{}' resulted in unsupported return type: {}. Return type must be either string or null.",
                    annotation.expression,
                    value.type_of()
                )),
            },
            Err(why) if run.policy.fails => out.annotation_errors.push(why),
            Err(_) => {}
        }
    }
    out
}

/// Runs one mutation's expression; none where the match conditions, asked before the first, skip the run.
pub(super) fn mutation(
    c: &Cluster,
    a: &Attributes<'_>,
    run: &Run<'_>,
    data: &Data<'_>,
    index: usize,
) -> Result<Option<Value>, String> {
    use super::compiled::Mutation;
    let made = with_data(c, a, run, data, index == 0, |activation, run| {
        let mut budget = Budget::new(REQUEST_BUDGET);
        match &run.policy.mutations[index] {
            Mutation::Apply(program) | Mutation::JsonPatch(program) => {
                let value = run_program(program, activation, &mut budget)?;
                value.to_value().map_err(|e: EvalError| match e.to_string() {
                    why if why.starts_with("unexpected type name") => format!("type mismatch: {why}"),
                    why => why,
                })
            }
            Mutation::Unknown(kind) => Err(format!("unsupported patchType {kind:?}")),
        }
    })?;
    made.transpose()
}
