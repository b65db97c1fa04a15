//! CEL rules of a schema (`x-kubernetes-validations`): compiled once a version, run on every write, and
//! checked for types and cost when a definition is written.

use std::collections::BTreeMap;

use ironkeel_expr::{
    Activation, Budget, CompileError, DeclType, EXPRESSION_COST_LIMIT, Environment, EvalError, Program, REQUEST_BUDGET,
    TOTAL_COST_LIMIT, Type,
};
use ironkeel_object::{Map, Value};

use super::schema::ListKind;
use crate::error::{Errors, shown};
use crate::{FieldError, FieldErrorKind, Path};

/// Longest text that a messageExpression may make, in bytes.
const MESSAGE_MAX_BYTES: usize = 5 * 1024;
/// Most bytes of a request; bounds how often an unbounded list can hold a value.
const REQUEST_MAX_BYTES: u64 = 3 << 20;
/// Where a rule reads the older value.
const OLD: &str = "oldSelf";

fn flag(s: &Value, field: &str) -> bool {
    s.get(field).and_then(Value::as_bool) == Some(true)
}

fn text<'v>(s: &'v Value, field: &str) -> &'v str {
    s.str_at(&[field]).unwrap_or_default()
}

/// One rule.
#[derive(Debug)]
struct Rule {
    program: Result<Program, String>,
    message_expression: Option<Result<Program, String>>,
    message: String,
    source: String,
    path: String,
    reason: FieldErrorKind,
    transition: bool,
    optional_old: bool,
}

/// The rules of a node and of what is below it.
#[derive(Debug)]
pub(crate) struct Rules {
    kind: String,
    own: Vec<Rule>,
    properties: BTreeMap<String, Rules>,
    each: Option<Box<Rules>>,
    items: Option<Box<Rules>>,
    list: ListKind,
    /// Members have no counterparts in the older value.
    atomic: bool,
}

fn compile_rule(r: &Value, decl: &DeclType) -> Rule {
    let optional_old = flag(r, "optionalOldSelf");
    let self_type = decl.cel_type();
    let old_type = if optional_old { Type::optional(self_type.clone()) } else { self_type.clone() };
    let env = Environment::kubernetes().variable("self", self_type).variable(OLD, old_type);
    let refused = |e: CompileError| match e {
        CompileError::OutputType(why) => why,
        other => format!("compilation failed: {other}"),
    };
    let source = text(r, "rule").trim().to_owned();
    let program = env.compile(&source, &[Type::Bool]).map_err(|e| match e {
        CompileError::OutputType(_) => "cel expression must evaluate to a bool".to_owned(),
        other => refused(other),
    });
    let expression = text(r, "messageExpression").trim();
    let message_expression = (!expression.is_empty()).then(|| {
        env.compile(expression, &[Type::String]).map_err(|e| match e {
            CompileError::OutputType(_) => "messageExpression must evaluate to a string".to_owned(),
            other => format!("messageExpression {}", refused(other)),
        })
    });
    Rule {
        transition: program.as_ref().is_ok_and(|p| p.references().contains(OLD)),
        program,
        message_expression,
        message: text(r, "message").trim().to_owned(),
        path: normalized(text(r, "fieldPath").trim()),
        reason: match text(r, "reason") {
            "FieldValueRequired" => FieldErrorKind::Required,
            "FieldValueForbidden" => FieldErrorKind::Forbidden,
            "FieldValueDuplicate" => FieldErrorKind::Duplicate,
            _ => FieldErrorKind::Invalid,
        },
        source,
        optional_old,
    }
}

/// `.a['b-c'].d` as a path below the value: `a[b-c].d`.
fn normalized(path: &str) -> String {
    path.trim_start_matches('.').replace("['", "[").replace("']", "]")
}

fn declaration(s: &Value, root: bool) -> Option<DeclType> {
    DeclType::from_structural(s, root || flag(s, "x-kubernetes-embedded-resource"))
}

impl Rules {
    /// The rules of a schema; `None` where there are none.
    pub(crate) fn of(s: &Value, root: bool) -> Option<Rules> {
        let own: Vec<Rule> = match s.items_at(&["x-kubernetes-validations"]) {
            [] => Vec::new(),
            rules => {
                declaration(s, root).map(|d| rules.iter().map(|r| compile_rule(r, &d)).collect()).unwrap_or_default()
            }
        };
        let below = |name: &str| s.get(name).filter(|v| v.as_object().is_some());
        let properties: BTreeMap<String, Rules> = below("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(Map::iter)
            .filter_map(|(name, p)| Some((name.to_string(), Rules::of(p, false)?)))
            .collect();
        let each = below("additionalProperties").and_then(|a| Rules::of(a, false)).map(Box::new);
        let items = below("items").and_then(|i| Rules::of(i, false)).map(Box::new);
        if own.is_empty() && properties.is_empty() && each.is_none() && items.is_none() {
            return None;
        }
        let keys = s.items_at(&["x-kubernetes-list-map-keys"]);
        Some(Rules {
            kind: text(s, "type").to_owned(),
            own,
            properties,
            each,
            items,
            list: match text(s, "x-kubernetes-list-type") {
                "map" => ListKind::Map(keys.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
                _ => ListKind::Atomic,
            },
            atomic: text(s, "x-kubernetes-map-type") == "atomic",
        })
    }

    /// Runs all rules within one request's budget. `old` is the value that is replaced.
    pub(crate) fn check(&self, value: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut run = Run { budget: Budget::new(REQUEST_BUDGET), over: false, errors: Errors::default() };
        self.below(value, old, false, &Path::default(), &mut run);
        run.errors.into_vec()
    }

    fn below(&self, value: &Value, old: Option<&Value>, unchanged: bool, at: &Path, run: &mut Run) {
        if value.is_null() || run.over {
            return;
        }
        let old = old.filter(|o| !o.is_null());
        let unchanged = unchanged || old == Some(value);
        for rule in &self.own {
            if run.over {
                return;
            }
            rule.run(&self.kind, value, old, unchanged, at, run);
        }
        match value {
            Value::Object(members) => {
                let old = old.filter(|_| !self.atomic);
                for (name, member) in members.iter() {
                    let older = old.and_then(|o| o.get(name));
                    if let Some(rules) = self.properties.get(name.as_ref()) {
                        rules.below(member, older, unchanged, &at.child(name), run);
                    } else if let Some(each) = &self.each {
                        each.below(member, older, unchanged, &at.key(name), run);
                    }
                }
            }
            Value::Array(list) => {
                let Some(items) = &self.items else { return };
                for (i, item) in list.iter().enumerate() {
                    let older = match (&self.list, old.and_then(Value::as_array)) {
                        (ListKind::Map(keys), Some(olds)) => {
                            olds.iter().find(|o| keys.iter().all(|k| o.get(k) == item.get(k)))
                        }
                        _ => None,
                    };
                    items.below(item, older, unchanged, &at.index(i), run);
                }
            }
            _ => {}
        }
    }
}

struct Run {
    budget: Budget,
    /// Nothing more is run.
    over: bool,
    errors: Errors,
}

impl Rule {
    fn name(&self) -> &str {
        if self.message.is_empty() { &self.source } else { &self.message }
    }

    fn run(&self, kind: &str, value: &Value, old: Option<&Value>, unchanged: bool, at: &Path, run: &mut Run) {
        let program = match &self.program {
            Ok(program) => program,
            Err(why) => return run.errors.invalid(at, kind, &format!("rule compile error: {why}")),
        };
        if self.transition && old.is_none() && !self.optional_old {
            return;
        }
        // What was wrong before may stay as it is.
        if unchanged && !self.transition {
            return;
        }
        let mut activation = Activation::new();
        activation.bind("self", value);
        if self.optional_old {
            activation.bind_optional(OLD, old);
        } else if let Some(old) = old {
            activation.bind(OLD, old);
        }
        match program.eval(&activation, &mut run.budget) {
            Ok(result) if result.as_bool() == Some(true) => return,
            Ok(_) => {}
            Err(error) => {
                let name = self.name();
                let detail = match &error {
                    EvalError::OutOfBudget => error.to_string(),
                    EvalError::CostLimitExceeded => format!(
                        "'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {name}"
                    ),
                    EvalError::NoSuchOverload | EvalError::NoSuchOverloadFor(_) => format!(
                        "'{error}': call arguments did not match a supported operator, function or macro signature for rule: {name}"
                    ),
                    other => format!("{other} evaluating rule: {name}"),
                };
                run.over |= error.is_fatal();
                return run.errors.invalid(at, kind, &detail);
            }
        }
        let detail = self.detail(&activation, run);
        let at = if self.path.is_empty() { at.clone() } else { at.child(&self.path) };
        match self.reason {
            FieldErrorKind::Required => run.errors.required(&at, &detail),
            FieldErrorKind::Forbidden => run.errors.forbidden(&at, &detail),
            FieldErrorKind::Duplicate => run.errors.duplicate(&at, kind),
            _ => run.errors.invalid(&at, kind, &detail),
        }
    }

    /// What to say of a failed rule: the message that its expression makes, its message, or itself.
    fn detail<'r>(&'r self, activation: &Activation<'r>, run: &mut Run) -> String {
        if let Some(Ok(expression)) = &self.message_expression {
            match expression.eval(activation, &mut run.budget) {
                Ok(made) => {
                    let made = made.as_str().unwrap_or_default().trim();
                    if !made.is_empty() && made.len() <= MESSAGE_MAX_BYTES && !made.contains(['\n', '\r']) {
                        return made.to_owned();
                    }
                }
                Err(error) => run.over |= matches!(error, EvalError::OutOfBudget),
            }
        }
        if self.message.is_empty() { format!("failed rule: {}", self.source) } else { self.message.clone() }
    }
}

/// Checks the rules of a root schema: types, cost, use of `oldSelf`. `before` is the schema that it
/// replaces; rules that it had already are not held to the cost of a single one.
pub(crate) fn validate(schema: &Value, before: Option<&Value>, at: &Path, e: &mut Errors) {
    let mut costs = Costs { total: 0, all: Vec::new(), known: before == Some(schema) };
    node(schema, true, Some(1), None, at, &mut costs, e);
    if costs.total > TOTAL_COST_LIMIT {
        costs.all.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        for (_, place) in costs.all.iter().take(COSTLIEST) {
            let detail = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            e.forbidden(place, detail);
        }
        let name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        e.forbidden(at, &cost_text(name, costs.total, TOTAL_COST_LIMIT));
    }
}

/// So many rules are named when all together cost too much.
const COSTLIEST: usize = 4;

struct Costs {
    total: u64,
    all: Vec<(u64, Path)>,
    known: bool,
}

/// `times` says how often a value can stand here; unknown in a list without a bound. `uncorrelated` is
/// the first node on the way whose parts have no counterparts in the older object.
fn node(
    s: &Value,
    root: bool,
    times: Option<u64>,
    uncorrelated: Option<&Path>,
    at: &Path,
    costs: &mut Costs,
    e: &mut Errors,
) {
    let rules = s.items_at(&["x-kubernetes-validations"]);
    if let (false, Some(decl)) = (rules.is_empty(), declaration(s, root)) {
        let often = times.unwrap_or(REQUEST_MAX_BYTES / (smallest(s) + 1));
        for (i, r) in rules.iter().enumerate() {
            let place = at.child("x-kubernetes-validations").index(i);
            rule(r, &compile_rule(r, &decl), &decl, often, uncorrelated, &place, costs, e);
        }
    }
    let here = Some(at);
    let below = |name: &str| s.get(name).filter(|v| v.as_object().is_some());
    let bounded = |field: &str| s.i64_at(&[field]).and_then(|n| u64::try_from(n).ok());
    let multiplied = |field: &str| Some(times?.saturating_mul(bounded(field)?));
    let atomic = text(s, "x-kubernetes-map-type") == "atomic";
    for (name, p) in below("properties").and_then(Value::as_object).into_iter().flat_map(Map::iter) {
        let cut = uncorrelated.or(here.filter(|_| atomic));
        node(p, false, times, cut, &at.child("properties").key(name), costs, e);
    }
    if let Some(a) = below("additionalProperties") {
        node(a, false, multiplied("maxProperties"), uncorrelated, &at.child("additionalProperties"), costs, e);
    }
    if let Some(items) = below("items") {
        let cut = uncorrelated.or(here.filter(|_| text(s, "x-kubernetes-list-type") != "map"));
        node(items, false, multiplied("maxItems"), cut, &at.child("items"), costs, e);
    }
}

#[allow(clippy::too_many_arguments)]
fn rule(
    r: &Value,
    compiled: &Rule,
    decl: &DeclType,
    often: u64,
    uncorrelated: Option<&Path>,
    at: &Path,
    costs: &mut Costs,
    e: &mut Errors,
) {
    let schemas = [("self", decl), (OLD, decl)];
    match &compiled.program {
        Err(why) => e.invalid(&at.child("rule"), r.clone(), why),
        Ok(program) => {
            let cost = program.estimate(&schemas).max.saturating_mul(often);
            costs.add("estimated rule cost", cost, &at.child("rule"), e);
            if compiled.transition {
                if let Some(cut) = uncorrelated {
                    let detail =
                        format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {cut}");
                    e.invalid(&at.child("rule"), text(r, "rule"), &detail);
                }
            } else if let Some(optional) = r.get("optionalOldSelf").and_then(Value::as_bool) {
                let detail = "may not be set if oldSelf is not used in rule";
                e.invalid(&at.child("optionalOldSelf"), optional, detail);
            }
        }
    }
    match &compiled.message_expression {
        Some(Err(why)) => e.invalid(&at.child("messageExpression"), r.clone(), why),
        Some(Ok(program)) => {
            let cost = program.estimate(&schemas).max;
            costs.add("estimated messageExpression cost", cost, &at.child("messageExpression"), e);
        }
        None => {}
    }
}

impl Costs {
    fn add(&mut self, name: &str, cost: u64, at: &Path, e: &mut Errors) {
        if cost > EXPRESSION_COST_LIMIT && !self.known {
            e.forbidden(at, &cost_text(name, cost, EXPRESSION_COST_LIMIT));
        }
        self.total = self.total.saturating_add(cost);
        self.all.push((cost, at.clone()));
    }
}

fn cost_text(name: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{name} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// The shortest JSON of a value of this schema, in bytes.
fn smallest(s: &Value) -> u64 {
    match text(s, "type") {
        "boolean" => 4,
        "string" | "array" => 2,
        "object" => {
            let required = s.items_at(&["required"]).iter().filter_map(Value::as_str);
            let of = |name: &str| {
                let p = s.at(&["properties", name]).filter(|p| p.get("default").is_none())?;
                Some(name.len() as u64 + smallest(p) + 4)
            };
            2 + required.filter_map(of).sum::<u64>()
        }
        _ => 1,
    }
}

/// What is said where rules were not run, since the object is malformed already.
pub(crate) fn skipped() -> FieldError {
    let detail = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
    FieldError {
        path: Path::new("<nil>"),
        kind: FieldErrorKind::Invalid,
        message: format!("Invalid value: {}: {detail}", shown(&"null".into())),
    }
}
