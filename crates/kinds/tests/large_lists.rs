//! No list of any kind costs more than its length: every list and map that the schema knows is made long, in every
//! object of `rules/`, and defaulting, preparing and validating it may not take time by the square of that length.
#![allow(clippy::unwrap_used)]

mod blocks;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use blocks::{Block, each};
use ironkeel_codec::{conform, parse_json};
use ironkeel_kinds::{validate_metadata, validate_metadata_update};
use ironkeel_object::{Map, ObjectMeta, Value};
use ironkeel_schema::{Shape, TypeId};

/// How long lists are made at first.
const SHORT: usize = 300;
/// What takes less is not looked at closer.
const SUSPECT: Duration = Duration::from_millis(15);
/// How much longer the lists of the second measurement are.
const FACTOR: u32 = 8;
/// What it may take of the first one's time: squares would make it 64.
const BOUND: u32 = 32;

/// One step to a list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    Member(&'static str),
    Key,
    First,
}

impl Step {
    fn shown(&self) -> &'static str {
        match self {
            Step::Member(name) => name,
            Step::Key => "{}",
            Step::First => "[]",
        }
    }
}

/// A list or map to be made long.
#[derive(Clone, Debug)]
struct Place {
    steps: Vec<Step>,
    shape: Shape,
}

/// A value of this shape; members of objects only where they are scalars.
fn sample(shape: &Shape, depth: usize) -> Option<Value> {
    Some(match shape {
        Shape::Bool => true.into(),
        Shape::Int32 | Shape::Int64 | Shape::IntOrString => 1i64.into(),
        Shape::Float64 => Value::from(1i64),
        Shape::String | Shape::Enum(_) | Shape::Any | Shape::Json => "x".into(),
        Shape::Bytes => "aGk=".into(),
        Shape::Quantity => "1".into(),
        Shape::Time => "2026-01-01T00:00:00Z".into(),
        Shape::MicroTime => "2026-01-01T00:00:00.000000Z".into(),
        Shape::Duration => "1s".into(),
        Shape::Struct(t) => {
            let mut map = Map::new();
            for f in t.get().fields.iter().filter(|_| depth < 2) {
                if matches!(f.shape, Shape::Bool | Shape::Int32 | Shape::Int64 | Shape::String | Shape::Enum(_)) {
                    map.insert(f.name, sample(&f.shape, depth + 1)?);
                }
            }
            Value::Object(map)
        }
        Shape::List(_) | Shape::StringItems => Value::Array(Vec::new()),
        Shape::Map(_) | Shape::FieldsV1 | Shape::RawExtension => Value::Object(Map::new()),
        Shape::SchemaOrArray(_) | Shape::SchemaOrBool(_) | Shape::SchemaOrStringArray(_) => return None,
    })
}

/// Every list and map below a type, each field of a type once a resource.
fn places(
    id: TypeId,
    whole: bool,
    steps: &mut Vec<Step>,
    chain: &mut Vec<TypeId>,
    seen: &mut HashSet<String>,
    out: &mut Vec<Place>,
) {
    let name = id.get().name;
    if chain.contains(&id) || chain.len() > 9 || (!whole && name == "core/v1.PodSpec") {
        return;
    }
    chain.push(id);
    for f in id.get().fields {
        if !whole && f.name == "metadata" {
            continue;
        }
        steps.push(Step::Member(f.name));
        below(&f.shape, &format!("{name}.{}", f.name), whole, steps, chain, seen, out);
        steps.pop();
    }
    chain.pop();
}

fn below(
    shape: &Shape,
    name: &str,
    whole: bool,
    steps: &mut Vec<Step>,
    chain: &mut Vec<TypeId>,
    seen: &mut HashSet<String>,
    out: &mut Vec<Place>,
) {
    match shape {
        Shape::List(inner) | Shape::Map(inner) => {
            if seen.insert(name.to_owned()) {
                out.push(Place { steps: steps.clone(), shape: *shape });
            }
            steps.push(if matches!(shape, Shape::List(_)) { Step::First } else { Step::Key });
            below(inner, &format!("{name}[]"), whole, steps, chain, seen, out);
            steps.pop();
        }
        Shape::StringItems => out.push(Place { steps: steps.clone(), shape: *shape }),
        Shape::Struct(t) => places(*t, whole, steps, chain, seen, out),
        _ => {}
    }
}

/// The value at a place, made with all that is missing on the way.
fn open<'a>(mut at: &'a mut Value, mut id: TypeId, steps: &[Step]) -> Option<&'a mut Value> {
    let mut shape = Shape::Struct(id);
    for step in steps {
        match (step, shape) {
            (Step::Member(name), Shape::Struct(t)) => {
                id = t;
                shape = id.get().field(name)?.shape;
                let fresh = sample(&shape, 0)?;
                if at.is_null() {
                    *at = Value::object();
                }
                at = at.as_object_mut()?.entry(*name, || fresh);
            }
            (Step::First, Shape::List(inner)) => {
                let fresh = sample(inner, 0)?;
                let list = at.as_array_mut()?;
                if list.is_empty() {
                    list.push(fresh);
                }
                at = &mut list[0];
                shape = *inner;
            }
            (Step::Key, Shape::Map(inner)) => {
                let fresh = sample(inner, 0)?;
                let map = at.as_object_mut()?;
                let key = map.keys().next().cloned().unwrap_or_else(|| "a".into());
                at = map.entry(key, || fresh);
                shape = *inner;
            }
            _ => return None,
        }
    }
    Some(at)
}

/// Members by which elements of lists are told apart.
const IDENTITY: &[&str] = &[
    "name",
    "key",
    "type",
    "uid",
    "path",
    "mountPath",
    "devicePath",
    "topologyKey",
    "value",
    "device",
    "driver",
    "pool",
    "ip",
    "port",
    "hostPort",
    "containerPort",
    "nodePort",
    "counterSet",
    "apiServerID",
    "resourceName",
    "request",
    "reason",
    "resource",
];

fn told_apart(value: &mut Value, i: usize) {
    match value {
        Value::String(s) => s.push_str(&format!("{i}")),
        Value::Number(_) => *value = (i as i64 + 1).into(),
        Value::Object(m) => {
            for name in IDENTITY {
                if let Some(v) = m.get_mut(name).filter(|v| matches!(v, Value::String(_) | Value::Number(_))) {
                    told_apart(v, i);
                }
            }
        }
        _ => {}
    }
}

/// Makes a list or map long: of equal elements, or of elements that can be told apart.
fn lengthen(at: &mut Value, shape: &Shape, n: usize, equal: bool) -> Option<()> {
    match shape {
        Shape::List(_) | Shape::StringItems => {
            let fresh = if let Shape::List(inner) = shape { sample(inner, 0)? } else { "x".into() };
            let list = at.as_array_mut()?;
            let first = list.first().cloned().unwrap_or(fresh);
            list.truncate(1);
            for i in list.len()..n {
                let mut v = first.clone();
                if !equal {
                    told_apart(&mut v, i);
                }
                list.push(v);
            }
        }
        Shape::Map(inner) => {
            let fresh = sample(inner, 0)?;
            let map = at.as_object_mut()?;
            let (key, first) =
                map.iter().next().map(|(k, v)| (k.to_string(), v.clone())).unwrap_or_else(|| ("a".into(), fresh));
            let all = (0..n).map(|i| (format!("{key}{i:07}").into(), first.clone())).collect();
            *map = Map::from_unsorted(all).0;
        }
        _ => return None,
    }
    Some(())
}

/// How long each part of a write takes.
fn measure(block: &Block, object: &Value) -> Option<Vec<(&'static str, Duration)>> {
    let hooks = &block.kind.hooks;
    let mut object = object.clone();
    conform(&mut object, block.kind.resource.type_id, &mut Vec::new()).ok()?;
    let mut old = object.clone();
    let subresource = (block.way != "update" && block.way != "create").then_some(block.way.as_str());
    let mut all = Vec::new();
    let mut begun = Instant::now();
    let mut lap = |what| {
        all.push((what, begun.elapsed()));
        begun = Instant::now();
    };
    hooks.default(&mut object);
    lap("default");
    if block.way == "create" {
        hooks.prepare_create(&mut object);
        lap("prepare_create");
        drop(validate_metadata(&object, block.kind));
        lap("metadata");
        drop(hooks.validate(&object));
        lap("validate");
        old = object.clone();
    }
    begun = Instant::now();
    let mut lap = |what| {
        all.push((what, begun.elapsed()));
        begun = Instant::now();
    };
    let mut changed = object.clone();
    changed.meta_mut().insert("labels", parse_json(b"{\"other\":\"x\"}").unwrap());
    hooks.prepare_update(&mut changed, &old, subresource);
    lap("prepare_update");
    drop(validate_metadata_update(&changed, &old));
    lap("metadata_update");
    drop(hooks.validate_update(&changed, &old, subresource));
    lap("validate_update");
    drop(hooks.warnings(&changed, None, None));
    lap("warnings");
    Some(all)
}

/// Names the parts of a write whose time grows with the square: what looks slow is measured again, and twice, since
/// others may use the machine too.
fn squares(block: &Block, build: &dyn Fn(usize) -> Option<Value>) -> Vec<String> {
    let Some(first) = build(SHORT).and_then(|o| measure(block, &o)) else { return Vec::new() };
    if first.iter().all(|(_, t)| *t < SUSPECT) {
        return Vec::new();
    }
    let again = |n| build(n).and_then(|o| measure(block, &o)).unwrap_or_default();
    let [short, more, long, longer] = [SHORT, SHORT, SHORT * FACTOR as usize, SHORT * FACTOR as usize].map(again);
    let best = |a: &[(_, Duration)], b: &[(_, Duration)], i: usize| a[i].1.min(b[i].1);
    let slow = |i: &usize| best(&long, &longer, *i) > BOUND * best(&short, &more, *i).max(SUSPECT / 4);
    (0..first.len()).filter(slow).map(|i| format!("{} takes {:?}", first[i].0, best(&long, &longer, i))).collect()
}

/// What is wrong with one object's lists; `seen` are the fields that were looked at before.
fn faults(block: &Block, seen: &mut HashSet<String>) -> Vec<String> {
    let row = &block.kind.resource;
    let id = row.type_id;
    let mut all = Vec::new();
    places(id, row.plural == "pods", &mut Vec::new(), &mut Vec::new(), seen, &mut all);
    all.retain(|p| (p.steps[0] == Step::Member("status")) == (block.way == "status"));
    let mut found = Vec::new();
    for equal in [true, false] {
        for place in &all {
            let build = |n| {
                let mut object = block.object.clone();
                lengthen(open(&mut object, id, &place.steps)?, &place.shape, n, equal)?;
                Some(object)
            };
            let path: Vec<_> = place.steps.iter().map(Step::shown).collect();
            let told = squares(block, &build);
            found.extend(told.into_iter().map(|f| format!("{} {}, equal {equal}: {f}", block.title, path.join("."))));
        }
        // Lists that are looked up in each other: all that the object has.
        let build = |n: usize| {
            let mut object = block.object.clone();
            for place in all.iter().filter(|p| p.steps.len() <= 5 && p.steps[0] != Step::Member("metadata")) {
                let above = &place.steps[..place.steps.len() - 1];
                if open(&mut block.object.clone(), id, above).is_some_and(|v| !v.is_empty()) {
                    lengthen(open(&mut object, id, &place.steps)?, &place.shape, n / 4, equal)?;
                }
            }
            Some(object)
        };
        let told = squares(block, &build);
        found.extend(told.into_iter().map(|f| format!("{} all lists, equal {equal}: {f}", block.title)));
    }
    found
}

#[test]
fn time_grows_with_the_length_of_a_list_and_not_with_its_square() {
    let seen = std::cell::RefCell::new([HashSet::new(), HashSet::new()]);
    let found = std::cell::RefCell::new(Vec::new());
    each(|block| {
        if block.way != "update" {
            let told = faults(block, &mut seen.borrow_mut()[usize::from(block.way == "status")]);
            found.borrow_mut().extend(told);
        }
    });
    let found = found.into_inner();
    assert!(found.is_empty(), "{} faults:\n{}", found.len(), found.join("\n"));
}

#[test]
fn time_grows_with_the_length_of_a_path_and_not_with_its_square() {
    let found = std::cell::RefCell::new(Vec::new());
    let done = std::cell::Cell::new(false);
    each(|block| {
        if block.way != "create" || block.kind.resource.plural != "pods" || done.replace(true) {
            return;
        }
        for kind in ["configMap", "secret", "downwardAPI"] {
            let build = |n: usize| {
                let item = |name: &str| format!(r#"{{"key":"k","path":"{}{name}"}}"#, "a/".repeat(n * 200));
                let items = [item("x"), item("y"), item("x/z")].join(",");
                let volumes = format!(r#"[{{"name":"v","{kind}":{{"items":[{items}]}}}}]"#);
                let mut object = block.object.clone();
                let spec = object.as_object_mut()?.entry("spec", Value::object).as_object_mut()?;
                spec.insert("volumes", parse_json(volumes.as_bytes()).ok()?);
                Some(object)
            };
            found.borrow_mut().extend(squares(block, &build).into_iter().map(|f| format!("{kind}: {f}")));
        }
    });
    let found = found.into_inner();
    assert!(done.get() && found.is_empty(), "{} faults:\n{}", found.len(), found.join("\n"));
}
