//! JSON patch, RFC 6902, with the words and limits of upstream's library.

use ironkeel_object::{Key, Value};

use crate::{MAX_JSON_PATCH_COPY_BYTES, MAX_JSON_PATCH_OPERATIONS, MAX_JSON_PATCH_TOUCHED, MAX_NESTING, PatchError};

/// Applies a patch (an array of operations). On an error the target is left half changed.
pub fn json_patch(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let wrong = |value: &Value, expected: &str| {
        let found = value.type_name();
        PatchError::Malformed(format!(
            "error decoding patch: json: cannot unmarshal {found} into Go value of type {expected}"
        ))
    };
    let operations = match patch {
        Value::Array(operations) => operations,
        Value::Null => return Ok(()),
        other => return Err(wrong(other, "[]handlers.jsonPatchOp")),
    };
    if let Some(other) = operations.iter().find(|o| !matches!(o, Value::Object(_) | Value::Null)) {
        return Err(wrong(other, "handlers.jsonPatchOp"));
    }
    for (operation, name) in operations.iter().flat_map(|o| ["op", "path", "from"].map(|name| (o, name))) {
        if let Some(other) = operation.get(name).filter(|v| !matches!(v, Value::String(_) | Value::Null)) {
            let found = other.type_name();
            return Err(PatchError::Malformed(format!(
                "error decoding patch: json: cannot unmarshal {found} into Go struct field jsonPatchOp.{name} of type string"
            )));
        }
    }
    if operations.len() > MAX_JSON_PATCH_OPERATIONS {
        return Err(PatchError::TooManyOperations { max: MAX_JSON_PATCH_OPERATIONS, got: operations.len() });
    }
    let mut spent = Spent::default();
    for operation in operations {
        apply(target, operation, &mut spent)?;
    }
    Ok(())
}

/// What the operations so far have cost.
#[derive(Default)]
struct Spent {
    /// Bytes that were copied.
    copied: usize,
    /// Values that were walked over or moved aside.
    touched: usize,
}

impl Spent {
    fn touch(&mut self, values: usize) -> Result<(), PatchError> {
        self.touched += values;
        if self.touched > MAX_JSON_PATCH_TOUCHED {
            return Err(failed(format!("the patch's operations touch more than {MAX_JSON_PATCH_TOUCHED} values")));
        }
        Ok(())
    }

    /// Repeated adds must not nest an object deeper than trees are ever walked.
    fn check_depth(&mut self, path: &str, value: &Value) -> Result<(), PatchError> {
        let (depth, nodes) = depth(value);
        self.touch(nodes)?;
        if path.matches('/').count() + depth > MAX_NESTING {
            return Err(failed(format!("patched object nests deeper than {MAX_NESTING}")));
        }
        Ok(())
    }
}

fn apply(target: &mut Value, operation: &Value, spent: &mut Spent) -> Result<(), PatchError> {
    let text = |name: &str| operation.get(name).and_then(Value::as_str);
    let op = text("op").unwrap_or("unknown");
    let path = text("path").ok_or_else(|| failed(format!("{op} operation failed to decode path: missing value")))?;
    let from = || text("from").ok_or_else(|| failed(format!("{op} operation failed to decode from: missing value")));
    // A value that is not there is null.
    let value = || operation.get("value").cloned().unwrap_or(Value::Null);
    match op {
        "add" => add(target, path, value(), op, spent),
        "remove" => remove(target, path, op, spent).map(|_| ()),
        "replace" => replace(target, path, value(), spent),
        "move" => {
            let from = from()?;
            if path.strip_prefix(from).is_some_and(|rest| rest.starts_with('/')) {
                return Err(failed(format!("move operation does not apply: {path} is inside of {from}")));
            }
            let value = remove(target, from, op, spent)?;
            add(target, path, value, op, spent)
        }
        "copy" => {
            let from = from()?;
            let value = find(target, from)
                .ok_or_else(|| {
                    failed(format!("copy operation does not apply: doc is missing from path: {from}: missing value"))
                })?
                .cloned()
                .unwrap_or(Value::Null);
            spent.copied += size(&value);
            let copied = spent.copied;
            if copied > MAX_JSON_PATCH_COPY_BYTES {
                return Err(failed(format!(
                    "Unable to copy, the accumulated size increase of copy is {copied}, exceeding the limit \
                     {MAX_JSON_PATCH_COPY_BYTES}"
                )));
            }
            add(target, path, value, op, spent)
        }
        "test" => {
            let expected = operation.get("value").unwrap_or(&Value::Null);
            let found = if path.is_empty() { Some(Some(&*target)) } else { find(target, path) };
            let found = found.ok_or_else(|| {
                failed(format!("test operation does not apply: is missing path: {path}: missing value"))
            })?;
            if same(found.unwrap_or(&Value::Null), expected) {
                return Ok(());
            }
            Err(failed(format!("testing value {path} failed: test failed")))
        }
        other => Err(failed(format!("Unexpected kind: {other}"))),
    }
}

fn failed(message: String) -> PatchError {
    PatchError::Inapplicable(message)
}

/// Equal as JSON: `1` and `1.0` are the same number.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().zip(y.iter()).all(|((k, v), (l, w))| k == l && same(v, w))
        }
        _ => a == b,
    }
}

fn unescape(part: &str) -> Key {
    if part.contains('~') {
        Key::Owned(part.replace("~1", "/").replace("~0", "~"))
    } else {
        Key::Owned(part.to_owned())
    }
}

/// The parts of a path before its last one. What stands before the first slash says nothing, and a path
/// without a slash leads nowhere.
fn parts(path: &str) -> impl Iterator<Item = Key> {
    path.split('/').skip(1).map(unescape)
}

/// Splits off the last part; `None` where there is no slash.
fn split_last(path: &str) -> Option<(&str, Key)> {
    path.rsplit_once('/').map(|(parent, last)| (parent, unescape(last)))
}

/// An index; negative ones count from the end, as upstream's library allows.
fn index(part: &str, length: usize) -> Option<usize> {
    let index: i64 = part.parse().ok()?;
    let index = if index < 0 { index + length as i64 } else { index };
    usize::try_from(index).ok()
}

/// What stands at a path: `None` where nothing could, `Some(None)` for a member that its object does not have.
fn find<'v>(target: &'v Value, path: &str) -> Option<Option<&'v Value>> {
    let (parent, last) = split_last(path)?;
    let parent = parts(parent).try_fold(target, |here, part| match here {
        Value::Object(members) => members.get(&part).filter(|v| !v.is_null()),
        Value::Array(elements) => elements.get(index(&part, elements.len())?),
        _ => None,
    })?;
    match parent {
        Value::Object(members) => Some(members.get(&last)),
        Value::Array(elements) => elements.get(index(&last, elements.len())?).map(Some),
        _ => None,
    }
}

/// Sets a member, there or not, or an element that is there.
fn replace(target: &mut Value, path: &str, value: Value, spent: &mut Spent) -> Result<(), PatchError> {
    spent.check_depth(path, &value)?;
    if path.is_empty() {
        if !matches!(value, Value::Object(_) | Value::Array(_)) {
            return Err(failed("replace operation value must be object or array".to_owned()));
        }
        *target = value;
        return Ok(());
    }
    let missing =
        |what: &str| failed(format!("replace operation does not apply: doc is missing {what}: {path}: missing value"));
    let (parent, last) = split_last(path).ok_or_else(|| missing("path"))?;
    match find_mut(target, parent) {
        Some(Value::Object(members)) => {
            spent.touch(members.len())?;
            members.insert(last, value);
            Ok(())
        }
        Some(Value::Array(elements)) => {
            let at = index(&last, elements.len());
            *at.and_then(|at| elements.get_mut(at)).ok_or_else(|| missing("key"))? = value;
            Ok(())
        }
        _ => Err(missing("path")),
    }
}

fn find_mut<'v>(target: &'v mut Value, path: &str) -> Option<&'v mut Value> {
    parts(path).try_fold(target, |here, part| match here {
        Value::Object(members) => members.get_mut(&part),
        Value::Array(elements) => {
            let at = index(&part, elements.len())?;
            elements.get_mut(at)
        }
        _ => None,
    })
}

fn add(target: &mut Value, path: &str, value: Value, op: &str, spent: &mut Spent) -> Result<(), PatchError> {
    spent.check_depth(path, &value)?;
    let missing = || failed(format!("{op} operation does not apply: doc is missing path: \"{path}\": missing value"));
    let Some((parent, last)) = split_last(path) else { return Err(missing()) };
    match find_mut(target, parent) {
        Some(Value::Object(members)) => {
            spent.touch(members.len())?;
            members.insert(last, value);
            Ok(())
        }
        Some(Value::Array(elements)) => {
            let at = if last == "-" { Some(elements.len()) } else { index(&last, elements.len() + 1) };
            match at.filter(|i| *i <= elements.len()) {
                Some(at) => {
                    spent.touch(elements.len() - at)?;
                    elements.insert(at, value);
                    Ok(())
                }
                None => Err(failed(format!(
                    "error in {op} for path: '{path}': Unable to access invalid index: {last}: invalid index referenced"
                ))),
            }
        }
        _ => Err(missing()),
    }
}

fn remove(target: &mut Value, path: &str, op: &str, spent: &mut Spent) -> Result<Value, PatchError> {
    let missing = || failed(format!("{op} operation does not apply: doc is missing path: \"{path}\": missing value"));
    let Some((parent, last)) = split_last(path) else { return Err(missing()) };
    match find_mut(target, parent) {
        Some(Value::Object(members)) => {
            spent.touch(members.len())?;
            members.remove(&last).ok_or_else(|| {
                failed(format!(
                    "error in {op} for path: '{path}': Unable to remove nonexistent key: {last}: missing value"
                ))
            })
        }
        Some(Value::Array(elements)) => match index(&last, elements.len()).filter(|i| *i < elements.len()) {
            Some(at) => {
                spent.touch(elements.len() - at)?;
                Ok(elements.remove(at))
            }
            None => Err(failed(format!(
                "error in {op} for path: '{path}': Unable to access invalid index: {last}: invalid index referenced"
            ))),
        },
        _ => Err(missing()),
    }
}

/// How deep a value nests, and how many values it is.
fn depth(value: &Value) -> (usize, usize) {
    let below = |(deepest, nodes): (usize, usize), v| {
        let (depth, more) = depth(v);
        (deepest.max(depth), nodes + more)
    };
    let (deepest, nodes) = match value {
        Value::Array(elements) => elements.iter().fold((0, 1), below),
        Value::Object(members) => members.values().fold((0, 1), below),
        _ => return (0, 1),
    };
    (deepest + 1, nodes)
}

/// About the bytes of the value's JSON.
fn size(value: &Value) -> usize {
    match value {
        Value::String(s) => s.len() + 2,
        Value::Array(elements) => 2 + elements.iter().map(|v| size(v) + 1).sum::<usize>(),
        Value::Object(members) => 2 + members.iter().map(|(k, v)| k.len() + 4 + size(v)).sum::<usize>(),
        _ => 5,
    }
}
