//! What a ValidatingAdmissionPolicy's expressions get wrong about the types that it matches: the
//! warnings of `status.typeChecking`. They change nothing of what the policy does.

use std::collections::BTreeSet;
use std::sync::Arc;

use ironkeel_expr::{CompileError, DeclType, ObjectType, Type};
use ironkeel_kinds::admission_expressions::{Variables, typed_environment};
use ironkeel_object::Value;
use ironkeel_registry::{Registry, Row};
use ironkeel_schema::{Shape, TypeId};

use crate::matching::texts;

/// Types that one policy is checked against at most.
const TYPES_MAX: usize = 10;
/// How deep declared types go; what is below is not checked.
const DEPTH_MAX: usize = 16;

/// One of `status.typeChecking.expressionWarnings`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionWarning {
    /// `spec.validations[0].expression`.
    pub field: String,
    /// The compiler's words, a type a paragraph.
    pub warning: String,
}

/// Checks a policy against the resources that it names; wildcards are not looked into.
pub fn type_warnings(registry: &Registry, policy: &Value) -> Vec<ExpressionWarning> {
    let spec = &policy["spec"];
    let rows = matched(registry, spec);
    let params = spec.get("paramKind").filter(|k| !k.is_null()).map(|kind| {
        let text = |key: &str| kind.str_at(&[key]).unwrap_or_default();
        let all = registry.rows();
        let row = all.iter().find(|r| r.api_version == text("apiVersion") && r.kind_name() == text("kind"));
        row.map_or(Type::Dyn, |r| type_of_row(r))
    });
    let environments: Vec<_> = rows
        .iter()
        .map(|row| {
            let env = typed_environment(type_of_row(row), params.clone());
            (row, Variables::compile(spec.items_at(&["variables"]), env).environment)
        })
        .collect();
    let mut out = Vec::new();
    for (i, validation) in spec.items_at(&["validations"]).iter().enumerate() {
        for key in ["expression", "messageExpression"] {
            let Some(expression) = validation.str_at(&[key]).filter(|e| !e.is_empty()) else { continue };
            let mut warning = String::new();
            for (row, env) in &environments {
                if let Err(why) = env.compile(expression, &[]) {
                    let detail = match why {
                        CompileError::OutputType(text) => text,
                        other => format!("compilation failed: {other}"),
                    };
                    let (group, version) = (row.group(), row.kind.resource.version);
                    warning.push_str(&format!("{group}/{version}, Kind={}: {detail}\n", row.kind_name()));
                }
            }
            if !warning.is_empty() {
                out.push(ExpressionWarning { field: format!("spec.validations[{i}].{key}"), warning });
            }
        }
    }
    out
}

/// The rows that a policy's rules name, in order.
fn matched(registry: &Registry, spec: &Value) -> Vec<Arc<Row>> {
    let mut found: BTreeSet<(String, String, String)> = BTreeSet::new();
    for rule in spec.items_at(&["matchConstraints", "resourceRules"]) {
        let parts = |key: &str| {
            let all = texts(rule, key);
            if all.iter().any(|t| t.contains('*')) { Vec::new() } else { all }
        };
        let resources: Vec<String> = parts("resources").into_iter().filter(|r| !r.contains('/')).collect();
        for group in parts("apiGroups") {
            for version in parts("apiVersions") {
                found.extend(resources.iter().map(|r| (group.clone(), version.clone(), r.clone())));
            }
        }
    }
    found.iter().filter_map(|(g, v, r)| registry.row(g, v, r)).take(TYPES_MAX).collect()
}

fn type_of_row(row: &Row) -> Type {
    match &row.kind.custom {
        Some(version) => DeclType::from_structural(&version.openapi, true).map_or(Type::Dyn, |d| d.cel_type()),
        None => type_of(row.kind.resource.type_id, &mut Vec::new()),
    }
}

fn type_of(id: TypeId, above: &mut Vec<TypeId>) -> Type {
    if above.contains(&id) || above.len() >= DEPTH_MAX {
        return Type::Dyn;
    }
    above.push(id);
    let mut out = ObjectType::new(id.get().name);
    for field in id.get().fields {
        out.add_field(field.name, type_of_shape(&field.shape, above));
    }
    above.pop();
    Type::object(out)
}

fn type_of_shape(shape: &Shape, above: &mut Vec<TypeId>) -> Type {
    match shape {
        Shape::Bool => Type::Bool,
        Shape::Int32 | Shape::Int64 => Type::Int,
        Shape::Float64 => Type::Double,
        Shape::String | Shape::Enum(_) | Shape::Duration => Type::String,
        Shape::Bytes => Type::Bytes,
        Shape::Time | Shape::MicroTime => Type::Timestamp,
        Shape::Struct(id) => type_of(*id, above),
        Shape::List(of) => Type::list(type_of_shape(of, above)),
        Shape::StringItems => Type::list(Type::String),
        Shape::Map(of) => Type::map(Type::String, type_of_shape(of, above)),
        Shape::Quantity
        | Shape::IntOrString
        | Shape::FieldsV1
        | Shape::RawExtension
        | Shape::Json
        | Shape::Any
        | Shape::SchemaOrArray(_)
        | Shape::SchemaOrBool(_)
        | Shape::SchemaOrStringArray(_) => Type::Dyn,
    }
}
