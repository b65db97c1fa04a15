//! Label and field selectors of list, watch and deletecollection: their text forms and matching.

use ironkeel_object::Value;

use crate::entry::Entry;
use crate::error::ApiError;

/// One requirement of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    Greater(String, i64),
    Less(String, i64),
}

/// A parsed label selector; the empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

impl LabelSelector {
    /// Parses `a=b,c!=d,e in (x,y),f notin (z),g,!h,i>5`.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let bad = |why: String| ApiError::bad_request(format!("unable to parse requirement: {why}"));
        let mut out = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if part.is_empty() {
                if text.trim().is_empty() {
                    continue;
                }
                return Err(bad("found '', expected: identifier".to_owned()));
            }
            out.push(requirement(part).map_err(bad)?);
        }
        Ok(LabelSelector(out))
    }

    /// From `meta/v1.LabelSelector`: `matchLabels` and `matchExpressions`.
    pub fn from_object(selector: &Value) -> Result<Self, ApiError> {
        let mut out = Vec::new();
        for (k, v) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flat_map(|m| m.iter()) {
            out.push(Requirement::In(k.to_string(), vec![v.as_str().unwrap_or_default().to_owned()]));
        }
        for e in selector.items_at(&["matchExpressions"]) {
            let key = e.str_at(&["key"]).unwrap_or_default().to_owned();
            let values = e.items_at(&["values"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
            out.push(match e.str_at(&["operator"]).unwrap_or_default() {
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::Absent(key),
                other => {
                    return Err(ApiError::bad_request(format!("\"{other}\" is not a valid label selector operator")));
                }
            });
        }
        Ok(LabelSelector(out))
    }

    /// Selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether labels, looked up by `get`, satisfy every requirement.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|r| match r {
            Requirement::In(k, values) => get(k).is_some_and(|v| values.iter().any(|x| x == v)),
            Requirement::NotIn(k, values) => get(k).is_none_or(|v| values.iter().all(|x| x != v)),
            Requirement::Exists(k) => get(k).is_some(),
            Requirement::Absent(k) => get(k).is_none(),
            Requirement::Greater(k, n) => get(k).and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *n),
            Requirement::Less(k, n) => get(k).and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *n),
        })
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut out) = (0i32, 0, Vec::new());
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                out.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
}

fn label_key(key: &str) -> Result<String, String> {
    let key = key.trim();
    let name = key.rsplit('/').next().unwrap_or(key);
    let fine = !name.is_empty()
        && name.len() <= 63
        && key.matches('/').count() <= 1
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'));
    if fine {
        Ok(key.to_owned())
    } else {
        Err(format!(
            "<nil>: Invalid value: \"{key}\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        ))
    }
}

fn label_value(value: &str) -> Result<String, String> {
    let value = value.trim();
    let edge = |b: Option<&u8>| b.is_none_or(|b| b.is_ascii_alphanumeric());
    let fine = value.len() <= 63
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && edge(value.as_bytes().first())
        && edge(value.as_bytes().last());
    if fine {
        Ok(value.to_owned())
    } else {
        Err(format!(
            "values[0][]: Invalid value: \"{value}\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        ))
    }
}

fn requirement(part: &str) -> Result<Requirement, String> {
    if let Some(key) = part.strip_prefix('!') {
        return Ok(Requirement::Absent(label_key(key)?));
    }
    if let Some(open) = part.find('(') {
        let values = part[open + 1..]
            .strip_suffix(')')
            .ok_or_else(|| "found '', expected: ',' or ')'".to_owned())?
            .split(',')
            .map(label_value)
            .collect::<Result<Vec<_>, _>>()?;
        let mut head = part[..open].split_whitespace();
        let (key, operator) = (head.next().unwrap_or_default(), head.next().unwrap_or_default());
        let key = label_key(key)?;
        return match operator {
            "in" => Ok(Requirement::In(key, values)),
            "notin" => Ok(Requirement::NotIn(key, values)),
            other => Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Ok(Requirement::NotIn(label_key(key)?, vec![label_value(value)?]));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(Requirement::In(label_key(key)?, vec![label_value(value)?]));
    }
    for (sign, greater) in [('>', true), ('<', false)] {
        if let Some((key, value)) = part.split_once(sign) {
            let n = value.trim().parse().map_err(|_| {
                format!(
                    "values[0]: Invalid value: \"{}\": for 'Gt', 'Lt' operators, the value must be an integer",
                    value.trim()
                )
            })?;
            let key = label_key(key)?;
            return Ok(if greater { Requirement::Greater(key, n) } else { Requirement::Less(key, n) });
        }
    }
    Ok(Requirement::Exists(label_key(part)?))
}

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldTerm {
    pub(crate) path: String,
    pub(crate) value: String,
    pub(crate) equal: bool,
}

/// A parsed field selector; the empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(pub(crate) Vec<FieldTerm>);

impl FieldSelector {
    /// Parses `metadata.name=a,status.phase!=Running`; `\,`, `\=` and `\\` escape.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let mut out = Vec::new();
        for part in split_unescaped(text) {
            if part.is_empty() {
                continue;
            }
            let (path, value, equal) = if let Some((p, v)) = part.split_once("!=") {
                (p, v, false)
            } else if let Some((p, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (p, v, true)
            } else {
                return Err(ApiError::bad_request(format!("invalid selector: '{text}'; can't understand '{part}'")));
            };
            out.push(FieldTerm { path: path.trim().to_owned(), value: unescape(value), equal });
        }
        Ok(FieldSelector(out))
    }

    /// Selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value that `path` must have, where the selector says so.
    pub fn exact(&self, path: &str) -> Option<&str> {
        self.0.iter().find(|t| t.equal && t.path == path).map(|t| t.value.as_str())
    }
}

fn split_unescaped(text: &str) -> Vec<String> {
    let (mut out, mut here, mut escaped) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        if escaped {
            here.push('\\');
            here.push(c);
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == ',' {
            out.push(std::mem::take(&mut here));
        } else {
            here.push(c);
        }
    }
    out.push(here);
    out
}

fn unescape(text: &str) -> String {
    let (mut out, mut escaped) = (String::with_capacity(text.len()), false);
    for c in text.chars() {
        if c == '\\' && !escaped {
            escaped = true;
        } else {
            out.push(c);
            escaped = false;
        }
    }
    out
}

/// What a list or watch wants: selectors resolved against one stored resource.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Namespace; empty for all.
    pub namespace: String,
    /// Name, where one object alone is wanted.
    pub name: Option<String>,
    /// Labels.
    pub labels: LabelSelector,
    /// `(index into the entry's fields, value, equal)`.
    fields: Vec<(usize, String, bool)>,
    /// `metadata.namespace` and `metadata.name` terms that are not plain equality on the above.
    not_name: Vec<String>,
    not_namespace: Vec<String>,
    field_namespace: Option<String>,
}

impl Selection {
    /// Resolves selectors; a field that the kind cannot select by is a 400 as upstream's.
    pub fn new(
        namespace: &str,
        labels: LabelSelector,
        fields: &FieldSelector,
        selectable: &[&'static str],
    ) -> Result<Self, ApiError> {
        let mut s = Selection { namespace: namespace.to_owned(), labels, ..Selection::default() };
        for term in &fields.0 {
            match (term.path.as_str(), term.equal) {
                ("metadata.name", true) => {
                    if s.name.as_ref().is_some_and(|n| *n != term.value) {
                        s.not_name.push(term.value.clone());
                        s.not_name.extend(s.name.clone());
                    }
                    s.name = Some(term.value.clone());
                }
                ("metadata.name", false) => s.not_name.push(term.value.clone()),
                ("metadata.namespace", true) => s.field_namespace = Some(term.value.clone()),
                ("metadata.namespace", false) => s.not_namespace.push(term.value.clone()),
                (path, equal) => {
                    let i = selectable
                        .iter()
                        .position(|f| *f == path)
                        .ok_or_else(|| ApiError::bad_request(format!("field label not supported: {path}")))?;
                    s.fields.push((i, term.value.clone(), equal));
                }
            }
        }
        Ok(s)
    }

    /// Everything of a namespace, or of all.
    pub fn all(namespace: &str) -> Self {
        Selection { namespace: namespace.to_owned(), ..Selection::default() }
    }

    /// Whether only namespace counts, so that no entry needs a look inside.
    pub fn is_whole_namespace(&self) -> bool {
        self.name.is_none()
            && self.labels.is_empty()
            && self.fields.is_empty()
            && self.not_name.is_empty()
            && self.not_namespace.is_empty()
            && self.field_namespace.is_none()
    }

    /// Whether the entry is selected.
    pub fn matches(&self, entry: &Entry) -> bool {
        (self.namespace.is_empty() || self.namespace == entry.namespace())
            && self.name.as_deref().is_none_or(|n| n == entry.name())
            && self.field_namespace.as_deref().is_none_or(|n| n == entry.namespace())
            && self.not_name.iter().all(|n| n != entry.name())
            && self.not_namespace.iter().all(|n| n != entry.namespace())
            && self.fields.iter().all(|(i, value, equal)| (entry.field(*i) == value) == *equal)
            && (self.labels.is_empty() || self.labels.matches(|k| entry.label(k)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn label_selectors_select_as_upstream() {
        let labels = [("app", "web"), ("tier", "front"), ("n", "7")];
        let get = |k: &str| labels.iter().find(|(key, _)| *key == k).map(|(_, v)| *v);
        for (text, wanted) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app in (api, web),!missing", true),
            ("app notin (web)", false),
            ("missing notin (web)", true),
            ("tier", true),
            ("!tier", false),
            ("n>6,n<8", true),
            ("n>7", false),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(get), wanted, "{text}");
        }
        for bad in ["a=b,,c", "a in (x", "a=b c", "-=(", "a in x"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn field_selectors_unescape_and_name_unknown_fields() {
        let parsed = FieldSelector::parse(r"metadata.name=a\,b,status.phase!=Running").unwrap();
        assert_eq!(parsed.exact("metadata.name"), Some("a,b"));
        let error = Selection::new("", LabelSelector::default(), &parsed, &[]).unwrap_err();
        assert_eq!(error.message, "field label not supported: status.phase");
        assert!(FieldSelector::parse("nonsense").is_err());
    }
}
