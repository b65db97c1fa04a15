//! A policy with its programs, and its bindings.

use std::sync::Arc;

use ironkeel_expr::{CompileError, Program, Type};
use ironkeel_kinds::admission_expressions::{Variables, message_environment, policy_environment};
use ironkeel_object::{ObjectMeta, Value};

use crate::cel::Condition;
use crate::matching::{Match, texts};

/// Which of the two kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Validating,
    Mutating,
}

impl Sort {
    /// Plurals of the policies and of their bindings.
    pub(super) fn plurals(self) -> (&'static str, &'static str) {
        match self {
            Sort::Validating => ("validatingadmissionpolicies", "validatingadmissionpolicybindings"),
            Sort::Mutating => ("mutatingadmissionpolicies", "mutatingadmissionpolicybindings"),
        }
    }
}

pub(super) type Compiled = Result<Program, CompileError>;

/// One of `spec.validations`.
pub(super) struct Validation {
    pub(super) program: Compiled,
    pub(super) expression: String,
    pub(super) message: String,
    pub(super) message_program: Option<Compiled>,
    pub(super) reason: String,
}

/// One of `spec.auditAnnotations`.
pub(super) struct Annotation {
    pub(super) key: String,
    pub(super) program: Compiled,
    pub(super) expression: String,
}

/// One of `spec.mutations`.
pub(super) enum Mutation {
    Apply(Compiled),
    JsonPatch(Compiled),
    /// `patchType` is none of those.
    Unknown(String),
}

pub(super) struct Policy {
    pub(super) name: String,
    pub(super) matcher: Match,
    /// `apiVersion` and `kind` of parameters.
    pub(super) param_kind: Option<(String, String)>,
    pub(super) conditions: Vec<Condition>,
    /// `failurePolicy: Fail`.
    pub(super) fails: bool,
    pub(super) variables: Vec<(String, Compiled)>,
    pub(super) validations: Vec<Validation>,
    pub(super) annotations: Vec<Annotation>,
    pub(super) mutations: Vec<Mutation>,
    /// `reinvocationPolicy: IfNeeded`.
    pub(super) again: bool,
    pub(super) bindings: Vec<Binding>,
}

fn text(v: &Value, key: &str) -> String {
    v.str_at(&[key]).unwrap_or_default().to_owned()
}

impl Policy {
    pub(super) fn compile(policy: &Value, bindings: Vec<Binding>, sort: Sort) -> Policy {
        let spec = &policy["spec"];
        let param_kind = spec.get("paramKind").filter(|k| !k.is_null());
        let base = policy_environment(param_kind.is_some());
        let typed = if sort == Sort::Mutating { base.clone().with_patch_types() } else { base.clone() };
        let Variables { environment: env, programs: variables } =
            Variables::compile(spec.items_at(&["variables"]), typed);
        let messages = message_environment(&env);
        let expression = |v: &Value, key: &str| v.str_at(&[key]).unwrap_or_default().to_owned();
        let validation = |v: &Value| Validation {
            program: env.compile(&expression(v, "expression"), &[Type::Bool]),
            expression: expression(v, "expression"),
            message: text(v, "message"),
            message_program: v
                .str_at(&["messageExpression"])
                .filter(|e| !e.is_empty())
                .map(|e| messages.compile(e, &[Type::String])),
            reason: text(v, "reason"),
        };
        let annotation = |v: &Value| Annotation {
            key: text(v, "key"),
            program: env.compile(&expression(v, "valueExpression"), &[Type::String, Type::Null]),
            expression: expression(v, "valueExpression"),
        };
        let mutation = |v: &Value| match v.str_at(&["patchType"]).unwrap_or_default() {
            "ApplyConfiguration" => {
                let source = v.str_at(&["applyConfiguration", "expression"]).unwrap_or_default();
                Mutation::Apply(env.compile(source, &[Type::patch_object()]))
            }
            "JSONPatch" => {
                let source = v.str_at(&["jsonPatch", "expression"]).unwrap_or_default();
                Mutation::JsonPatch(env.compile(source, &[Type::list(Type::json_patch())]))
            }
            other => Mutation::Unknown(other.to_owned()),
        };
        Policy {
            name: policy.name().to_owned(),
            matcher: Match::of_policy(&spec["matchConstraints"], false),
            param_kind: param_kind.map(|k| (text(k, "apiVersion"), text(k, "kind"))),
            conditions: Condition::parse_all(spec.items_at(&["matchConditions"]), &base),
            fails: spec.str_at(&["failurePolicy"]) != Some("Ignore"),
            validations: spec.items_at(&["validations"]).iter().map(validation).collect(),
            annotations: spec.items_at(&["auditAnnotations"]).iter().map(annotation).collect(),
            mutations: spec.items_at(&["mutations"]).iter().map(mutation).collect(),
            again: spec.str_at(&["reinvocationPolicy"]) == Some("IfNeeded"),
            variables,
            bindings,
        }
    }
}

/// A binding.
#[derive(Clone)]
pub(super) struct Binding {
    pub(super) name: String,
    pub(super) policy: String,
    pub(super) param_ref: Option<Arc<Value>>,
    /// None binds whatever the policy means.
    pub(super) matcher: Option<Arc<Match>>,
    pub(super) actions: Vec<String>,
}

impl Binding {
    pub(super) fn parse(binding: &Value) -> Binding {
        let spec = &binding["spec"];
        let there = |key: &str| spec.get(key).filter(|v| !v.is_null());
        Binding {
            name: binding.name().to_owned(),
            policy: text(spec, "policyName"),
            param_ref: there("paramRef").map(|r| Arc::new(r.clone())),
            matcher: there("matchResources").map(|m| Arc::new(Match::of_policy(m, true))),
            actions: texts(spec, "validationActions"),
        }
    }
}
