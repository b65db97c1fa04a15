//! CEL rules of a schema (`x-kubernetes-validations`): compiled once a version, run on every write, and
//! checked for types and cost when a definition is written.

use std::collections::BTreeMap;

use ironkeel_expr::{
    Activation, Budget, CompileError, DeclType, EXPRESSION_COST_LIMIT, Environment, EvalError, Program, REQUEST_BUDGET,
    TOTAL_COST_LIMIT, Type,
};
use ironkeel_object::{Map, Value};

use super::correlation::{Correlated, by_key, key_of};
use super::schema::{ListKind, Schema};
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
    message_source: String,
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
        message_source: text(r, "messageExpression").to_owned(),
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
        })
    }

    /// Runs all rules within one request's budget. `old` is the value that is replaced, and both are of
    /// this schema; what a rule without `oldSelf` finds in a part that has not changed is a warning.
    pub(crate) fn check(&self, value: &Value, old: Option<&Value>, schema: &Schema) -> Vec<FieldError> {
        let mut run = Run { budget: Budget::new(REQUEST_BUDGET), over: false, errors: Errors::default() };
        let ratchet = Ratchet { here: old.map(|old| Correlated::new(value, old, schema)), above: None };
        self.below(value, old, ratchet, &Path::default(), &mut run);
        run.errors.into_vec()
    }

    /// Runs all rules on a default, as a value that was there and as a new one; whether that took all of
    /// the budget.
    pub(crate) fn check_default(&self, value: &Value, budget: &mut Budget) -> (Vec<FieldError>, bool) {
        let mut run = Run { budget: budget.clone(), over: false, errors: Errors::default() };
        self.below(value, Some(value), Ratchet::default(), &Path::default(), &mut run);
        if run.errors.len() == 0 {
            run.budget = budget.clone();
            self.below(value, None, Ratchet::default(), &Path::default(), &mut run);
        }
        *budget = run.budget;
        (run.errors.into_vec(), run.over)
    }

    fn below(&self, value: &Value, old: Option<&Value>, ratchet: Ratchet<'_>, at: &Path, run: &mut Run) {
        if value.is_null() || run.over {
            return;
        }
        let old = old.filter(|o| !o.is_null());
        for rule in &self.own {
            if run.over {
                return;
            }
            rule.run(&self.kind, value, old, &ratchet, at, run);
        }
        match value {
            Value::Object(members) => {
                for (name, member) in members.iter() {
                    let older = old.and_then(|o| o.get(name));
                    if let Some(rules) = self.properties.get(name.as_ref()) {
                        rules.below(member, older, ratchet.member(name), &at.child(name), run);
                    } else if let Some(each) = &self.each {
                        each.below(member, older, ratchet.member(name), &at.key(name), run);
                    }
                }
            }
            Value::Array(list) => {
                let Some(items) = &self.items else { return };
                let pairs = ratchet.here.map(|h| h.elements()).unwrap_or_default();
                let (keys, olds) = match (&self.list, old.and_then(Value::as_array)) {
                    (ListKind::Map(keys), Some(olds)) => (keys.as_slice(), by_key(olds, keys)),
                    _ => Default::default(),
                };
                for (i, item) in list.iter().enumerate() {
                    let older = key_of(item, keys).and_then(|key| olds.get(&key).copied());
                    let pair = pairs.get(i).copied().flatten();
                    items.below(item, older, ratchet.element(pair), &at.index(i), run);
                }
            }
            _ => {}
        }
    }
}

/// Where the walk is in the older object, for ratcheting.
#[derive(Clone, Copy, Default)]
struct Ratchet<'v> {
    /// The pair of this value, while it can be told which one it replaces.
    here: Option<Correlated<'v>>,
    /// The nearest pair above.
    above: Option<Correlated<'v>>,
}

impl<'v> Ratchet<'v> {
    /// Whether this value, or the part around it that can be told, is as before.
    fn unchanged(&self) -> bool {
        self.here.or(self.above).is_some_and(|pair| pair.unchanged())
    }

    fn member(&self, name: &str) -> Ratchet<'v> {
        let Some(here) = self.here else { return *self };
        // Both objects are of one kind and version by now, whatever they were.
        if self.above.is_none() && matches!(name, "kind" | "apiVersion") {
            return Ratchet::default();
        }
        Ratchet { here: here.member(name), above: Some(here) }
    }

    fn element(&self, pair: Option<Correlated<'v>>) -> Ratchet<'v> {
        if self.here.is_none() { *self } else { Ratchet { here: pair, above: self.here } }
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

    fn run(&self, kind: &str, value: &Value, old: Option<&Value>, ratchet: &Ratchet<'_>, at: &Path, run: &mut Run) {
        let program = match &self.program {
            Ok(program) => program,
            Err(why) => return run.errors.invalid(at, kind, &format!("rule compile error: {why}")),
        };
        if self.transition && old.is_none() && !self.optional_old {
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
        let at = if self.path.is_empty() { at.clone() } else { at.child(&self.path) };
        let mut found = Errors::default();
        match self.detail(&activation, run) {
            Err(why) => found.invalid(&at, kind, &why),
            Ok(detail) => {
                let bare = matches!(kind, "object" | "array");
                match self.reason {
                    FieldErrorKind::Required => found.required(&at, &detail),
                    FieldErrorKind::Forbidden => found.forbidden(&at, &detail),
                    FieldErrorKind::Duplicate if bare => found.duplicate_bare(&at),
                    FieldErrorKind::Duplicate => found.duplicate(&at, value.clone()),
                    _ if bare => found.invalid_bare(&at, &detail),
                    _ => found.invalid(&at, value.clone(), &detail),
                }
            }
        }
        // What was wrong before may stay as it is, unless the rule is about the change.
        let tolerated = !self.transition && ratchet.unchanged();
        for f in found.into_vec() {
            if tolerated {
                run.errors.tolerated(&f.path, f.message);
            } else {
                run.errors.extend(vec![f]);
            }
        }
    }

    /// What to say of a failed rule: the message that its expression makes, its message, or itself. An
    /// error when the expression takes more than there is left.
    fn detail<'r>(&'r self, activation: &Activation<'r>, run: &mut Run) -> Result<String, String> {
        if let Some(Ok(expression)) = &self.message_expression {
            match expression.eval(activation, &mut run.budget) {
                Ok(made) => {
                    let made = made.as_str().unwrap_or_default().trim();
                    if !made.is_empty() && made.len() <= MESSAGE_MAX_BYTES && !made.contains('\n') {
                        return Ok(made.to_owned());
                    }
                }
                Err(EvalError::OutOfBudget) => {
                    run.over = true;
                    return Err(
                        "messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run"
                            .to_owned(),
                    );
                }
                Err(EvalError::CostLimitExceeded) => {
                    run.over = true;
                    return Err(format!(
                        "no further validation rules will be run due to call cost exceeds limit for messageExpression: {:?}",
                        self.message_source
                    ));
                }
                Err(_) => {}
            }
        }
        Ok(if self.message.is_empty() { format!("failed rule: {}", self.source) } else { self.message.clone() })
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
    let below = |name: &str| s.get(name).filter(|v| v.as_object().is_some());
    let bounded = |field: &str| s.i64_at(&[field]).and_then(|n| u64::try_from(n).ok());
    let multiplied = |field: &str| Some(times?.saturating_mul(bounded(field)?));
    for (name, p) in below("properties").and_then(Value::as_object).into_iter().flat_map(Map::iter) {
        node(p, false, times, uncorrelated, &at.child("properties").key(name), costs, e);
    }
    if let Some(a) = below("additionalProperties") {
        node(a, false, multiplied("maxProperties"), uncorrelated, &at.child("additionalProperties"), costs, e);
    }
    if let Some(items) = below("items") {
        let cut = uncorrelated.or(Some(at).filter(|_| text(s, "x-kubernetes-list-type") != "map"));
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
        Err(why) => e.invalid_as(&at.child("rule"), &internal_form(r), why),
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
        Some(Err(why)) => e.invalid_as(&at.child("messageExpression"), &internal_form(r), why),
        Some(Ok(program)) => {
            let cost = program.estimate(&schemas).max;
            costs.add("estimated messageExpression cost", cost, &at.child("messageExpression"), e);
        }
        None => {}
    }
}

/// A rule as upstream shows it in errors: the JSON of its internal type.
fn internal_form(r: &Value) -> String {
    let plain = |field: &str| shown(&text(r, field).into());
    let or_null = |field: &str| r.get(field).map_or_else(|| "null".to_owned(), shown);
    format!(
        "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{},\"FieldPath\":{},\"OptionalOldSelf\":{}}}",
        plain("rule"),
        plain("message"),
        plain("messageExpression"),
        or_null("reason"),
        plain("fieldPath"),
        or_null("optionalOldSelf")
    )
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
