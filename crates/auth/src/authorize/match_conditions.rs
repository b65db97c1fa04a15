//! Match conditions of webhooks: expressions over the review (`request`) that say whether the webhook
//! is asked at all.

use ironkeel_expr::{Activation, Budget, Environment, MATCH_CONDITIONS_BUDGET, ObjectType, Program, Type};
use ironkeel_object::{FieldRequirement, Operator, Requirement};
use ironkeel_object::{FieldSelector, LabelSelector, Map, Value};

use super::Attributes;
use crate::configuration::Fields;

/// Most conditions of one webhook.
const CONDITIONS: usize = 64;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct MatchConditions(Vec<Program>);

fn list(of: Type) -> Type {
    Type::list(of)
}

/// `request`: a SubjectAccessReviewSpec of v1.
fn request_type() -> Type {
    let requirement = |name: &str| {
        let of = ObjectType::new(name).field("key", Type::String).field("operator", Type::String);
        Type::object(of.field("values", list(Type::String)))
    };
    let selector = |name: &str, requirement: Type| {
        let of = ObjectType::new(name).field("rawSelector", Type::String);
        Type::object(of.field("requirements", list(requirement)))
    };
    let fields = selector("kubernetes.FieldSelectorAttributes", requirement("kubernetes.FieldSelectorRequirement"));
    let labels = selector("kubernetes.LabelSelectorAttributes", requirement("kubernetes.LabelSelectorRequirement"));
    let mut resource = ObjectType::new("kubernetes.ResourceAttributes");
    for name in ["namespace", "verb", "group", "version", "resource", "subresource", "name"] {
        resource = resource.plain_field(name, Type::String);
    }
    let resource = resource.field("fieldSelector", fields).field("labelSelector", labels);
    let path = ObjectType::new("kubernetes.NonResourceAttributes");
    let path = path.field("path", Type::String).field("verb", Type::String);
    let spec = ObjectType::new("kubernetes.SubjectAccessReviewSpec")
        .field("resourceAttributes", Type::object(resource))
        .field("nonResourceAttributes", Type::object(path))
        .field("user", Type::String)
        .field("groups", list(Type::String))
        .field("extra", Type::map(Type::String, list(Type::String)))
        .field("uid", Type::String);
    Type::object(spec)
}

impl MatchConditions {
    pub(super) fn compile(expressions: impl Iterator<Item = String>, at: &str, f: &mut Fields) -> Self {
        let expressions: Vec<String> = expressions.collect();
        if expressions.len() > CONDITIONS {
            f.too_many(&format!("{at}.matchConditions"), expressions.len(), CONDITIONS);
            return MatchConditions::default();
        }
        let env = Environment::kubernetes().variable("request", request_type());
        let mut programs: Vec<Program> = Vec::new();
        for (i, expression) in expressions.iter().enumerate() {
            let path = format!("{at}.matchConditions[{i}].expression");
            if expression.trim().is_empty() {
                f.required(&path, "");
            } else if expressions[..i].contains(expression) {
                f.duplicate(&path, expression);
            } else {
                match env.compile(expression, &[Type::Bool]) {
                    Ok(program) => programs.push(program),
                    Err(e) => f.compile(&path, expression, &e),
                }
            }
        }
        MatchConditions(programs)
    }

    /// Whether all hold; one that is false decides, whatever fails beside it.
    ///
    /// # Errors
    /// The failures, where none is false.
    pub fn match_request(&self, attributes: &Attributes<'_>) -> Result<bool, String> {
        if self.0.is_empty() {
            return Ok(true);
        }
        let request = request(attributes);
        let mut activation = Activation::new();
        activation.bind("request", &request);
        let mut budget = Budget::new(MATCH_CONDITIONS_BUDGET);
        let mut failed = Vec::new();
        for program in &self.0 {
            match program.eval(&activation, &mut budget) {
                Ok(value) if value.as_bool() == Some(false) => return Ok(false),
                Ok(_) => {}
                Err(e) => failed
                    .push(format!("cel evaluation error: expression '{}' resulted in error: {e}", program.source())),
            }
        }
        match failed.len() {
            0 => Ok(true),
            1 => Err(failed.remove(0)),
            _ => Err(format!("[{}]", failed.join(", "))),
        }
    }
}

fn texts(list: &[String]) -> Value {
    Value::from(list.to_vec())
}

/// Selectors as a review has them; what cannot be read narrows nothing and is left out.
pub(super) fn selectors(a: &Attributes<'_>) -> [(&'static str, Option<Value>); 2] {
    let requirements = |all: Vec<Value>| {
        (!all.is_empty()).then(|| {
            let mut out = Map::new();
            out.insert("requirements", all);
            Value::Object(out)
        })
    };
    let requirement = |key: &str, operator: &str, values: &[String]| {
        let mut out = Map::new();
        out.insert("key", key);
        out.insert("operator", operator);
        if !values.is_empty() {
            out.insert("values", values.to_vec());
        }
        Value::Object(out)
    };
    let field = |r: &FieldRequirement| {
        requirement(&r.field, if r.negated { "NotIn" } else { "In" }, std::slice::from_ref(&r.value))
    };
    let label = |r: &Requirement| {
        let operator = match r.operator {
            Operator::In => "In",
            Operator::NotIn => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            // A review has no such operator; without it the check is a broader one.
            Operator::GreaterThan | Operator::LessThan => return None,
        };
        Some(requirement(&r.key, operator, &r.values))
    };
    let fields = FieldSelector::parse(a.field_selector).map(|s| s.requirements.iter().map(field).collect());
    let labels = LabelSelector::parse(a.label_selector).map(|s| s.requirements.iter().filter_map(label).collect());
    [("fieldSelector", fields.ok().and_then(requirements)), ("labelSelector", labels.ok().and_then(requirements))]
}

/// All fields of users and resources stand there, empty ones too.
fn request(a: &Attributes<'_>) -> Value {
    let mut out = Map::new();
    out.insert("user", a.user.name.as_str());
    out.insert("uid", a.user.uid.as_str());
    out.insert("groups", texts(&a.user.groups));
    let extra: Map = a.user.extra.iter().map(|(k, v)| (k.clone(), texts(v))).collect();
    out.insert("extra", extra);
    let mut inner = Map::new();
    inner.insert("verb", a.verb);
    if !a.resource_request {
        inner.insert("path", a.path);
        out.insert("nonResourceAttributes", inner);
        return Value::Object(out);
    }
    for (key, value) in [
        ("namespace", a.namespace),
        ("group", a.group),
        ("version", a.version),
        ("resource", a.resource),
        ("subresource", a.subresource),
        ("name", a.name),
    ] {
        inner.insert(key, value);
    }
    for (key, value) in selectors(a) {
        if let Some(value) = value {
            inner.insert(key, value);
        }
    }
    out.insert("resourceAttributes", inner);
    Value::Object(out)
}
