//! CEL in admission: the names that expressions see, and what is wrong with an expression.

use std::sync::LazyLock;

use ironkeel_expr::{CompileError, Environment, ObjectType, Opaque, Program, Type};
use ironkeel_object::Value;

use crate::Path;
use crate::error::Errors;

fn gvk_type(name: &str, last: &str) -> Type {
    let fields = ["group", "version", last];
    Type::object(fields.iter().fold(ObjectType::new(name), |t, f| t.field(f, Type::String)))
}

/// The type of `request`.
fn request_type() -> Type {
    let user = ObjectType::new("kubernetes.UserInfo")
        .field("username", Type::String)
        .field("uid", Type::String)
        .field("groups", Type::list(Type::String))
        .field("extra", Type::map(Type::String, Type::list(Type::String)));
    let kind = || gvk_type("kubernetes.GroupVersionKind", "kind");
    let resource = || gvk_type("kubernetes.GroupVersionResource", "resource");
    Type::object(
        ObjectType::new("kubernetes.AdmissionRequest")
            .field("kind", kind())
            .field("resource", resource())
            .field("subResource", Type::String)
            .field("requestKind", kind())
            .field("requestResource", resource())
            .field("requestSubResource", Type::String)
            .field("name", Type::String)
            .plain_field("namespace", Type::String)
            .field("operation", Type::String)
            .field("userInfo", Type::object(user))
            .field("dryRun", Type::Bool)
            .field("options", Type::Dyn),
    )
}

/// The type of `namespaceObject`: metadata without what is private to the server, spec and status.
fn namespace_type() -> Type {
    let texts = || Type::map(Type::String, Type::String);
    let metadata = ObjectType::new("kubernetes.NamespaceMetadata")
        .field("name", Type::String)
        .field("generateName", Type::String)
        .plain_field("namespace", Type::String)
        .field("labels", texts())
        .field("annotations", texts())
        .field("UID", Type::String)
        .field("creationTimestamp", Type::Timestamp)
        .field("deletionGracePeriodSeconds", Type::Int)
        .field("deletionTimestamp", Type::Timestamp)
        .field("generation", Type::Int)
        .field("resourceVersion", Type::String)
        .field("finalizers", Type::list(Type::String));
    let condition = ObjectType::new("kubernetes.NamespaceCondition")
        .field("status", Type::String)
        .field("type", Type::String)
        .field("lastTransitionTime", Type::Timestamp)
        .field("message", Type::String)
        .field("reason", Type::String);
    Type::object(
        ObjectType::new("kubernetes.Namespace")
            .field("metadata", Type::object(metadata))
            .field(
                "spec",
                Type::object(ObjectType::new("kubernetes.NamespaceSpec").field("finalizers", Type::list(Type::String))),
            )
            .field(
                "status",
                Type::object(
                    ObjectType::new("kubernetes.NamespaceStatus")
                        .field("conditions", Type::list(Type::object(condition)))
                        .field("phase", Type::String),
                ),
            ),
    )
}

/// `object`, `oldObject`, `request` and the authorizer.
fn base(object: Type) -> Environment {
    Environment::kubernetes()
        .variable("object", object.clone())
        .variable("oldObject", object)
        .variable("request", request_type())
        .variable("authorizer", Type::Opaque(Opaque::Authorizer))
        .variable("authorizer.requestResource", Type::Opaque(Opaque::ResourceCheck))
}

/// What match conditions of webhooks see.
pub static MATCH_CONDITIONS: LazyLock<Environment> = LazyLock::new(|| base(Type::Dyn));

/// What expressions of policies see: also `namespaceObject`, and `params` where there is a
/// `paramKind`.
pub fn policy_environment(params: bool) -> Environment {
    typed_environment(Type::Dyn, params.then_some(Type::Dyn))
}

/// The same with the types of objects and parameters known, for type checking.
pub fn typed_environment(object: Type, params: Option<Type>) -> Environment {
    let env = base(object).variable("namespaceObject", namespace_type());
    match params {
        Some(params) => env.variable("params", params),
        None => env,
    }
}

/// The same for messages of validations, which do not ask what the caller may do.
pub fn message_environment(environment: &Environment) -> Environment {
    environment.clone().without("authorizer").without("authorizer.requestResource")
}

/// Variables of a policy, each of which sees those before it.
#[derive(Debug)]
pub struct Variables {
    /// The environment that sees them all.
    pub environment: Environment,
    /// Name and program of each.
    pub programs: Vec<(String, Result<Program, CompileError>)>,
}

impl Variables {
    /// Compiles `spec.variables`.
    pub fn compile(list: &[Value], mut environment: Environment) -> Self {
        let mut programs = Vec::new();
        if !list.is_empty() {
            environment = environment.composition("variables");
        }
        for variable in list {
            let text = |key: &str| variable.str_at(&[key]).unwrap_or_default();
            let program = environment.compile(text("expression"), &[]);
            let ty = program.as_ref().map_or(Type::Dyn, |p| p.output_type().clone());
            environment = environment.composed("variables", text("name"), ty);
            programs.push((text("name").to_owned(), program));
        }
        Variables { environment, programs }
    }
}

/// Whether a name can be a field of `variables`.
pub(super) fn is_identifier(name: &str) -> bool {
    const RESERVED: &[&str] = &[
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c == '_' || c.is_ascii_alphabetic())
        && chars.all(|c| c == '_' || c.is_ascii_alphanumeric())
        && !RESERVED.contains(&name)
}

/// Says what is wrong with an expression.
pub(super) fn wrong(expression: &str, why: &CompileError, at: &Path, e: &mut Errors) {
    let detail = match why {
        CompileError::OutputType(text) => text.clone(),
        other => format!("compilation failed: {other}"),
    };
    e.invalid(at, expression, &detail);
}

fn check(env: &Environment, expression: &str, types: &[Type], at: &Path, e: &mut Errors) {
    if let Err(why) = env.compile(expression, types) {
        wrong(expression, &why, at, e);
    }
}

/// An expression that must be a boolean.
pub(super) fn condition(env: &Environment, expression: &str, at: &Path, e: &mut Errors) {
    check(env, expression, &[Type::Bool], at, e);
}

/// An expression that must be a text.
pub(super) fn text(env: &Environment, expression: &str, at: &Path, e: &mut Errors) {
    check(env, expression, &[Type::String], at, e);
}

/// An expression that must be a text or null.
pub(super) fn text_or_null(env: &Environment, expression: &str, at: &Path, e: &mut Errors) {
    check(env, expression, &[Type::String, Type::Null], at, e);
}

/// An expression that must make an `Object{…}`.
pub(super) fn apply_configuration(env: &Environment, expression: &str, at: &Path, e: &mut Errors) {
    check(env, expression, &[Type::patch_object()], at, e);
}

/// An expression that must make a list of `JSONPatch{…}`.
pub(super) fn json_patch(env: &Environment, expression: &str, at: &Path, e: &mut Errors) {
    check(env, expression, &[Type::list(Type::json_patch())], at, e);
}
