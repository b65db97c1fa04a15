//! The JSONPath of printer columns: members, elements, wildcards and the filters that conditions need
//! (`.status.conditions[?(@.type=="Ready")].status`). A missing member selects nothing.

use ironkeel_object::{Number, Value};

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Member(String),
    Index(i64),
    All,
    /// Everything below, of any depth.
    Recursive,
    /// A path below the element, an operator and a literal; without them the path must select something.
    Filter(Vec<Step>, Option<(Operator, Value)>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A parsed path.
#[derive(Clone, Debug)]
pub(crate) struct JsonPath(Vec<Step>);

impl JsonPath {
    /// Parses `.spec.replicas`; `None` for what is no path.
    pub(crate) fn parse(text: &str) -> Option<JsonPath> {
        steps(text).map(JsonPath)
    }

    /// The first value selected.
    pub(crate) fn first<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        select(&self.0, value).into_iter().next()
    }
}

fn steps(text: &str) -> Option<Vec<Step>> {
    let mut out = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("..") {
            out.push(Step::Recursive);
            rest = after;
            if !rest.starts_with('[') && !rest.is_empty() {
                let end = member_end(rest);
                out.push(member(&rest[..end]));
                rest = &rest[end..];
            }
        } else if let Some(after) = rest.strip_prefix('.') {
            if after.is_empty() || after.starts_with('[') {
                rest = after;
                continue;
            }
            let end = member_end(after);
            if end == 0 {
                return None;
            }
            out.push(member(&after[..end]));
            rest = &after[end..];
        } else if let Some(after) = rest.strip_prefix('[') {
            let end = bracket_end(after)?;
            out.push(bracket(&after[..end])?);
            rest = &after[end + 1..];
        } else {
            return None;
        }
    }
    Some(out)
}

fn member(name: &str) -> Step {
    if name == "*" { Step::All } else { Step::Member(name.replace('\\', "")) }
}

/// The end of a member's name: a dot or bracket that is not escaped.
fn member_end(text: &str) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '.' | '[' => return i,
            _ => {}
        }
    }
    text.len()
}

/// The closing bracket that belongs to one that is open.
fn bracket_end(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0usize, None);
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(i),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(text: &str) -> Option<Step> {
    let text = text.trim();
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        return filter_of(filter);
    }
    match literal(text)? {
        Value::String(name) => Some(Step::Member(name)),
        Value::Number(Number::Int(i)) => Some(Step::Index(i)),
        _ => None,
    }
}

fn filter_of(text: &str) -> Option<Step> {
    const OPERATORS: &[(&str, Operator)] = &[
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];
    let found =
        OPERATORS.iter().filter_map(|(s, o)| text.find(s).map(|at| (at, *s, *o))).min_by_key(|f| (f.0, 2 - f.1.len()));
    let path = |t: &str| steps(t.trim().strip_prefix('@')?);
    match found {
        Some((at, sign, operator)) => {
            let wanted = literal(text[at + sign.len()..].trim())?;
            Some(Step::Filter(path(&text[..at])?, Some((operator, wanted))))
        }
        None => Some(Step::Filter(path(text)?, None)),
    }
}

fn literal(text: &str) -> Option<Value> {
    for q in ['\'', '"'] {
        if let Some(inner) = text.strip_prefix(q).and_then(|t| t.strip_suffix(q)) {
            return Some(inner.into());
        }
    }
    match text {
        "true" => Some(true.into()),
        "false" => Some(false.into()),
        _ => text.parse::<i64>().map(Value::from).ok().or_else(|| text.parse::<f64>().map(Value::from).ok()),
    }
}

fn select<'v>(steps: &[Step], value: &'v Value) -> Vec<&'v Value> {
    let mut here = vec![value];
    for step in steps {
        let mut next = Vec::new();
        for v in here {
            match (step, v) {
                (Step::Member(name), v) => next.extend(v.get(name)),
                (Step::Index(i), Value::Array(a)) => {
                    let at = if *i < 0 { a.len() as i64 + i } else { *i };
                    next.extend(usize::try_from(at).ok().and_then(|at| a.get(at)));
                }
                (Step::All, Value::Array(a)) => next.extend(a),
                (Step::All, Value::Object(m)) => next.extend(m.values()),
                (Step::Recursive, v) => everything(v, &mut next),
                (Step::Filter(path, test), Value::Array(a)) => {
                    next.extend(a.iter().filter(|item| passes(path, test.as_ref(), item)));
                }
                _ => {}
            }
        }
        here = next;
    }
    here
}

fn everything<'v>(value: &'v Value, out: &mut Vec<&'v Value>) {
    out.push(value);
    match value {
        Value::Array(a) => a.iter().for_each(|v| everything(v, out)),
        Value::Object(m) => m.values().for_each(|v| everything(v, out)),
        _ => {}
    }
}

fn passes(path: &[Step], test: Option<&(Operator, Value)>, item: &Value) -> bool {
    let found = select(path, item).into_iter().next();
    let Some((operator, wanted)) = test else { return found.is_some() };
    let Some(found) = found else { return false };
    let order = match (found, wanted) {
        (Value::String(a), Value::String(b)) => Some(a.as_str().cmp(b.as_str())),
        (a, b) => a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b)),
    };
    use std::cmp::Ordering::{Equal, Greater, Less};
    match operator {
        Operator::Equal => found == wanted || order == Some(Equal),
        Operator::NotEqual => found != wanted && order != Some(Equal),
        Operator::Less => order == Some(Less),
        Operator::LessOrEqual => matches!(order, Some(Less | Equal)),
        Operator::Greater => order == Some(Greater),
        Operator::GreaterOrEqual => matches!(order, Some(Greater | Equal)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ironkeel_object::object;

    #[test]
    fn columns_read_conditions_members_and_elements() {
        let o = object!({ "status": { "conditions": [
            { "type": "A", "status": "False" }, { "type": "Ready", "status": "True" }
        ] }, "metadata": { "labels": { "a.b/c": "x" } } });
        let check = |path: &str, wanted: Option<&str>| {
            assert_eq!(JsonPath::parse(path).unwrap().first(&o).and_then(Value::as_str), wanted, "{path}");
        };
        check(".status.conditions[?(@.type==\"Ready\")].status", Some("True"));
        check(".status.conditions[?(@.type=='Missing')].status", None);
        check(".status.conditions[0].type", Some("A"));
        check(".status.conditions[-1].type", Some("Ready"));
        check(".status.conditions[*].type", Some("A"));
        check(".metadata.labels['a.b/c']", Some("x"));
        check(".metadata.labels.a\\.b/c", Some("x"));
        check(".spec.missing", None);
    }
}
