//! Members that Go writes whether or not anybody set them: those without `omitempty`, and those whose
//! type `omitempty` has no hold on (structs, times, quantities). What [`crate::conform`] leaves out is
//! the other half; together they make of a tree what upstream answers for it.

use std::sync::LazyLock;

use ironkeel_object::Value;
use ironkeel_schema::{Field, Shape, TypeId, types};

/// What completing an object of one type looks at.
#[derive(Default)]
struct Plan {
    /// Always written.
    always: Vec<&'static Field>,
    /// Members that may hold something to complete.
    below: Vec<(&'static Field, TypeId)>,
}

static PLANS: LazyLock<Vec<Plan>> = LazyLock::new(|| {
    let all = types();
    let mut needed: Vec<bool> = all.iter().map(|t| t.fields.iter().any(is_always_written)).collect();
    // Types that hold such types, until there are no more.
    loop {
        let mut grown = false;
        for (i, t) in all.iter().enumerate() {
            if !needed[i] && t.fields.iter().any(|f| nested(&f.shape).is_some_and(|id| needed[usize::from(id.0)])) {
                needed[i] = true;
                grown = true;
            }
        }
        if !grown {
            break;
        }
    }
    all.iter()
        .map(|t| Plan {
            always: t.fields.iter().filter(|f| is_always_written(f)).collect(),
            below: t
                .fields
                .iter()
                .filter_map(|f| nested(&f.shape).filter(|id| needed[usize::from(id.0)]).map(|id| (f, id)))
                .collect(),
        })
        .collect()
});

/// Whether Go writes this field of whatever value.
fn is_always_written(field: &Field) -> bool {
    if !field.omit_empty {
        return true;
    }
    if matches!(field.name, "apiVersion" | "kind") {
        return false;
    }
    // `omitzero`, the only one of its kind.
    if field.pointer || field.name == "creationTimestamp" {
        return false;
    }
    field.shape.has_no_empty()
}

fn nested(shape: &Shape) -> Option<TypeId> {
    match shape {
        Shape::Struct(id) | Shape::SchemaOrArray(id) | Shape::SchemaOrBool(id) | Shape::SchemaOrStringArray(id) => {
            Some(*id)
        }
        Shape::List(inner) | Shape::Map(inner) => nested(inner),
        _ => None,
    }
}

/// Adds to an object of this type what Go would write of it besides.
pub fn complete(value: &mut Value, type_id: TypeId) {
    let Some(plan) = PLANS.get(usize::from(type_id.0)) else { return };
    let Some(map) = value.as_object_mut() else { return };
    for (field, id) in &plan.below {
        if let Some(member) = map.get_mut(field.name) {
            each(member, &field.shape, *id);
        }
    }
    for field in &plan.always {
        if !map.contains_key(field.name) {
            map.insert(field.name, zero(field));
        }
    }
}

fn each(value: &mut Value, shape: &Shape, id: TypeId) {
    match (shape, value) {
        (Shape::List(inner), Value::Array(elements)) => {
            elements.iter_mut().for_each(|e| each(e, inner, id));
        }
        (Shape::SchemaOrArray(_), Value::Array(elements)) => elements.iter_mut().for_each(|e| complete(e, id)),
        (Shape::Map(inner), Value::Object(members)) => members.iter_mut().for_each(|(_, m)| each(m, inner, id)),
        (Shape::List(_) | Shape::Map(_), _) => {}
        (_, value) => complete(value, id),
    }
}

/// Go's zero value of a field, as JSON.
fn zero(field: &Field) -> Value {
    if field.pointer {
        return Value::Null;
    }
    match field.shape {
        Shape::Bool => false.into(),
        Shape::Int32 | Shape::Int64 | Shape::Float64 | Shape::IntOrString => 0.into(),
        Shape::String | Shape::Enum(_) => "".into(),
        Shape::Quantity => "0".into(),
        Shape::Duration => "0s".into(),
        Shape::Struct(id) => {
            let mut object = Value::object();
            complete(&mut object, id);
            object
        }
        _ => Value::Null,
    }
}
