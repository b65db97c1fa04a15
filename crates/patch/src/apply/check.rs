//! Whether a configuration can be applied at all: values of another type, fields that the type does not have,
//! elements without a key or with the key of another.

use std::collections::HashSet;
use std::fmt;

use ironkeel_object::{Key, Value};
use ironkeel_schema::Shape;

use super::set::step_text;
use super::structure::Structure;
use super::view::View;
use crate::shown::{shown, shown_typed, type_name};

/// Bytes of text after which no more is told: a body has room for far more faults than anybody reads.
const TOLD_MAX_BYTES: usize = 256 << 10;

/// Where a value stands, put into words only where something is wrong: names may be as long as a body.
#[derive(Clone, Copy)]
struct At<'a> {
    above: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    /// Of an associative list, in words.
    Element(&'a str),
    Index(usize),
}

impl<'a> At<'a> {
    fn below(&'a self, step: Step<'a>) -> At<'a> {
        At { above: Some(self), step }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The root has no words.
        let Some(above) = self.above else { return Ok(()) };
        above.fmt(f)?;
        match self.step {
            Step::Field(name) => write!(f, ".{name}"),
            Step::Element(text) => f.write_str(text),
            Step::Index(i) => write!(f, "[{i}]"),
        }
    }
}

/// What was found.
#[derive(Default)]
struct Problems {
    list: Vec<String>,
    bytes: usize,
}

impl Problems {
    fn add(&mut self, at: &At<'_>, why: impl fmt::Display) {
        if !self.is_full() {
            let text = format!("{at}: {why}");
            self.bytes += text.len();
            self.list.push(text);
        }
    }

    fn is_full(&self) -> bool {
        self.bytes >= TOLD_MAX_BYTES
    }
}

const UNDECLARED: &str = "field not declared in schema";

/// What is wrong, each as `.spec.foo: field not declared in schema`.
pub(super) fn problems(config: &Value, root: View<'_>) -> Vec<String> {
    let mut out = Problems::default();
    walk(config, root, &At { above: None, step: Step::Field("") }, &mut out);
    out.list
}

fn walk(value: &Value, view: View<'_>, at: &At<'_>, out: &mut Problems) {
    if out.is_full() {
        return;
    }
    match value {
        Value::Null => {}
        Value::Object(members) if view.is_object(value) => {
            for (name, member) in members.iter() {
                let at = at.below(Step::Field(name));
                match view.known_member(name) {
                    Some(known) => walk(member, known.view, &at, out),
                    None => out.add(&at, UNDECLARED),
                }
            }
        }
        Value::Array(elements) if view.is_list(value) => {
            let mut seen: HashSet<Key> = HashSet::with_capacity(elements.len());
            for (i, element) in elements.iter().enumerate() {
                if let Some(missing) = missing_key(element, view) {
                    out.add(at, format_args!("element {i}: {missing}"));
                    // What stands behind it is not looked at.
                    return;
                }
                let key = view.key_of(element);
                let text = step_text(&key);
                walk(element, view.element(), &at.below(Step::Element(&text)), out);
                if !seen.insert(key) {
                    out.add(at, format_args!("duplicate entries for key {text}"));
                }
            }
        }
        _ => match view {
            View::Leaf(Some(shape)) => leaf(value, shape, at, out),
            View::Struct(_) | View::Map(_) | View::Custom(Structure::Object { .. }) => {
                out.add(at, not_a("map", value));
            }
            View::Keyed(..) | View::Set | View::Custom(Structure::Keyed { .. }) => {
                out.add(at, not_a("list", value));
            }
            _ => {}
        },
    }
}

/// Upstream shows the value as it holds it.
fn not_a(expected: &str, value: &Value) -> String {
    format!("expected {expected}, got &{{{}}}", shown(value))
}

/// What is wrong with a value that has one owner.
fn leaf(value: &Value, shape: &Shape, at: &At<'_>, out: &mut Problems) {
    if out.is_full() {
        return;
    }
    let why = match (shape, value) {
        (_, Value::Null)
        | (Shape::FieldsV1 | Shape::RawExtension | Shape::Json | Shape::Any, _)
        | (Shape::SchemaOrArray(_) | Shape::SchemaOrBool(_) | Shape::SchemaOrStringArray(_), _)
        | (Shape::Bool, Value::Bool(_))
        | (Shape::Int32 | Shape::Int64 | Shape::Float64, Value::Number(_))
        // Texts and numbers with readers of their own, which say themselves what is wrong.
        | (Shape::Quantity | Shape::IntOrString | Shape::Time | Shape::MicroTime, _) => return,
        (Shape::Bool, _) => not_a("boolean", value),
        (Shape::Int32 | Shape::Int64 | Shape::Float64, _) => {
            format!("expected numeric (int or float), got {}", type_name(value))
        }
        (Shape::List(inner), Value::Array(elements)) => {
            for (i, element) in elements.iter().enumerate() {
                leaf(element, inner, &at.below(Step::Index(i)), out);
            }
            return;
        }
        (Shape::Map(inner), Value::Object(members)) => {
            for (name, member) in members.iter() {
                leaf(member, inner, &at.below(Step::Field(name)), out);
            }
            return;
        }
        (Shape::Struct(id), Value::Object(members)) => {
            for (name, member) in members.iter() {
                let at = at.below(Step::Field(name));
                match id.get().field(name) {
                    Some(field) => leaf(member, &field.shape, &at, out),
                    None => out.add(&at, UNDECLARED),
                }
            }
            return;
        }
        (Shape::StringItems, Value::Array(_)) => return,
        (Shape::List(_) | Shape::StringItems, _) => not_a("list", value),
        (Shape::Map(_) | Shape::Struct(_), _) => not_a("map", value),
        (_, Value::String(_)) => return,
        (_, _) => format!("expected string, got &value.valueUnstructured{{Value:{}}}", shown_typed(value)),
    };
    out.add(at, why);
}

fn missing_key(element: &Value, view: View<'_>) -> Option<String> {
    let keys = view.keys();
    if keys.is_empty() {
        return None;
    }
    if !matches!(element, Value::Object(_)) {
        let what = if element.is_null() { "a null element" } else { "non-map elements" };
        return Some(format!("associative list with keys may not have {what}"));
    }
    let absent = |key: &str| element.get(key).is_none_or(Value::is_null);
    let missing: Vec<&str> = keys.iter().copied().filter(|k| absent(k) && !view.key_has_default(k)).collect();
    // An element with some of its keys is another element than one with all of them.
    (missing.len() == keys.len()).then(|| {
        let names: Vec<String> = keys.iter().map(|k| format!("{k:?}")).collect();
        format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values \
             for any key fields)",
            names.join(" ")
        )
    })
}
