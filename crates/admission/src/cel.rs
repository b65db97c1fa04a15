//! What CEL expressions of admission see: names, types, data.

use std::sync::Arc;

use ironkeel_auth::{Authorizer, UserInfo};
use ironkeel_expr::{
    Activation, AuthorizationCheck, AuthorizationDecision, AuthorizerHook, Budget, CheckTarget, CompileError,
    Environment, EvalError, MATCH_CONDITIONS_BUDGET, Program, ResourceCheck, Type,
};
use ironkeel_object::{Map, Value};
use ironkeel_registry::{Attributes, Row};

use crate::Cluster;
use crate::attributes::{caller, options_value, request_kind, resource_value, user_value};
use crate::matching::namespace_of;

/// A match condition.
pub(crate) struct Condition {
    pub(crate) program: Result<Program, CompileError>,
}

impl Condition {
    pub(crate) fn parse_all(list: &[Value], env: &Environment) -> Vec<Condition> {
        list.iter()
            .map(|c| Condition { program: env.compile(c.str_at(&["expression"]).unwrap_or_default(), &[Type::Bool]) })
            .collect()
    }
}

/// What match conditions say.
pub(crate) enum Verdict {
    Matches,
    /// One of them is false, or one failed and failures are ignored.
    Skips,
    /// One failed, and none is false.
    Fails(String),
}

/// Runs match conditions: one that is false decides, whatever fails beside it.
pub(crate) fn conditions<'a>(list: &'a [Condition], fail: bool, activation: &Activation<'a>) -> Verdict {
    let mut budget = Budget::new(MATCH_CONDITIONS_BUDGET);
    let mut errors = Vec::new();
    for condition in list {
        let program = match &condition.program {
            Ok(program) => program,
            Err(e) => {
                errors.push(format!("compilation error: {e}"));
                continue;
            }
        };
        match program.eval(activation, &mut budget) {
            Ok(value) if value.as_bool() == Some(false) => return Verdict::Skips,
            Ok(_) => {}
            Err(e) => {
                let text = condition_error(program, &e);
                if e.is_fatal() {
                    errors = vec![text];
                    break;
                }
                errors.push(text);
            }
        }
    }
    match errors.len() {
        0 => Verdict::Matches,
        _ if !fail => Verdict::Skips,
        1 => Verdict::Fails(errors.remove(0)),
        _ => Verdict::Fails(format!("[{}]", errors.join(", "))),
    }
}

/// The match conditions of a webhook.
pub(crate) fn match_conditions(
    c: &Cluster,
    a: &Attributes<'_>,
    list: &[Condition],
    fail: bool,
    row: &Row,
    (object, old): (Option<&Value>, Option<&Value>),
) -> Verdict {
    let door = Door::new(c, a);
    let request = request_value(a, row, object.or(old), &options_value(a));
    let mut activation = Activation::new();
    bind(&mut activation, a, &request, object, old, &door);
    conditions(list, fail, &activation)
}

/// An evaluation error as upstream words it.
pub(crate) fn condition_error(program: &Program, e: &EvalError) -> String {
    match e {
        EvalError::OutOfBudget => {
            "validation failed due to running out of cost budget, no further validation rules will be run".into()
        }
        e => format!("expression '{}' resulted in error: {e}", program.source()),
    }
}

/// `request`: the AdmissionRequest without its objects.
pub(crate) fn request_value(a: &Attributes<'_>, row: &Row, object: Option<&Value>, options: &Value) -> Value {
    let mut out = Map::new();
    let own = request_kind(a, a.row, object);
    out.insert("kind", request_kind(a, row, object));
    out.insert("resource", resource_value(row));
    out.insert("requestKind", own);
    out.insert("requestResource", resource_value(a.row));
    // What is empty is absent.
    let texts = [("subResource", a.subresource), ("requestSubResource", a.subresource)];
    for (key, text) in texts.into_iter().chain([("name", a.name), ("namespace", namespace_of(a))]) {
        if !text.is_empty() {
            out.insert(key, text);
        }
    }
    out.insert("operation", a.operation.as_str());
    out.insert("userInfo", user_value(a));
    out.insert("dryRun", a.dry_run);
    if !options.is_null() {
        out.insert("options", options.clone());
    }
    Value::Object(out)
}

/// The API server's authorizer behind `authorizer`.
pub(crate) struct Door<'a> {
    authorizer: Option<&'a Arc<Authorizer>>,
    user: UserInfo,
}

impl<'a> Door<'a> {
    pub(crate) fn new(c: &'a Cluster, a: &Attributes<'_>) -> Self {
        let user = caller(a);
        Door { authorizer: c.authorizer.as_ref(), user }
    }
}

impl AuthorizerHook for Door<'_> {
    fn authorize(&self, check: &AuthorizationCheck) -> AuthorizationDecision {
        let Some(authorizer) = self.authorizer else {
            return AuthorizationDecision { error: Some("no authorizer".into()), ..Default::default() };
        };
        let account;
        let user = match &check.service_account {
            None => &self.user,
            Some((namespace, name)) => {
                account = UserInfo::new(
                    format!("system:serviceaccount:{namespace}:{name}"),
                    [
                        "system:serviceaccounts".to_owned(),
                        format!("system:serviceaccounts:{namespace}"),
                        "system:authenticated".to_owned(),
                    ],
                );
                &account
            }
        };
        let attributes = match &check.target {
            CheckTarget::Path(path) => ironkeel_auth::Attributes::for_path(user, &check.verb, path),
            CheckTarget::Resource(r) => ironkeel_auth::Attributes {
                subresource: &r.subresource,
                namespace: &r.namespace,
                name: &r.name,
                field_selector: &r.field_selector,
                ..ironkeel_auth::Attributes::for_resource(user, &check.verb, &r.group, &r.version, &r.resource)
            },
        };
        let decision = authorizer.authorize(&attributes);
        AuthorizationDecision { allowed: decision.is_allowed(), reason: decision.reason().to_owned(), error: None }
    }
}

/// Binds what every expression of admission sees.
pub(crate) fn bind<'a>(
    activation: &mut Activation<'a>,
    a: &Attributes<'_>,
    request: &'a Value,
    object: Option<&'a Value>,
    old: Option<&'a Value>,
    door: &'a Door<'a>,
) {
    static NULL: Value = Value::Null;
    activation.bind("object", object.unwrap_or(&NULL));
    activation.bind("oldObject", old.unwrap_or(&NULL));
    activation.bind("request", request);
    activation.bind_authorizer("authorizer", door);
    let check = ResourceCheck {
        group: a.row.group().to_owned(),
        version: a.row.kind.resource.version.to_owned(),
        resource: a.row.plural().to_owned(),
        subresource: a.subresource.to_owned(),
        namespace: namespace_of(a).to_owned(),
        name: a.name.to_owned(),
        ..ResourceCheck::default()
    };
    activation.bind_request_resource("authorizer.requestResource", door, check);
}
