//! Label selectors (text and object form) and field selectors, and what they match.
//!
//! Follows upstream's `labels` and `fields` packages. Which fields a kind can be selected by is
//! the kind's business (`kinds`).

use std::fmt;

use crate::{Map, Value};

/// Longest selector text that is read, in bytes.
const MAX_SELECTOR_BYTES: usize = 64 << 10;

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorError(String);

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SelectorError {}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The value is one of those given.
    In,
    /// There is no such label, or its value is none of those given.
    NotIn,
    /// There is such a label.
    Exists,
    /// There is no such label.
    DoesNotExist,
    /// The value is an integer above the one given.
    GreaterThan,
    /// The value is an integer below the one given.
    LessThan,
}

/// One condition on a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// The comparison.
    pub operator: Operator,
    /// What to compare with.
    pub values: Vec<String>,
}

impl Requirement {
    /// Whether a label with this value (`None`: no such label) meets the condition.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let number = |text: &str| text.parse::<i64>().ok();
        match (self.operator, value) {
            (Operator::In, Some(v)) => self.values.iter().any(|x| x == v),
            (Operator::NotIn, Some(v)) => self.values.iter().all(|x| x != v),
            (Operator::Exists, v) => v.is_some(),
            (Operator::DoesNotExist, v) => v.is_none(),
            (Operator::NotIn, None) => true,
            (Operator::In | Operator::GreaterThan | Operator::LessThan, None) => false,
            (Operator::GreaterThan | Operator::LessThan, Some(v)) => {
                let (Some(have), Some(want)) = (number(v), self.values.first().and_then(|x| number(x))) else {
                    return false;
                };
                if self.operator == Operator::GreaterThan { have > want } else { have < want }
            }
        }
    }
}

/// Conditions on labels, all of which must be met; none means everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// The conditions.
    pub requirements: Vec<Requirement>,
    /// Matches no object at all (a nil selector object).
    pub nothing: bool,
}

impl LabelSelector {
    /// Reads the text form: `a=b,c!=d,e in (x,y),!f,g>1`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > MAX_SELECTOR_BYTES {
            return Err(SelectorError(format!("selector is longer than {MAX_SELECTOR_BYTES} bytes")));
        }
        let mut parser = Parser::new(text);
        let mut requirements = Vec::new();
        loop {
            match parser.next_as_value() {
                Token::Word(_) | Token::Symbol("!") => {
                    let read = parser.requirement();
                    requirements.push(read.map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?);
                    match parser.take_value() {
                        Token::End => break,
                        Token::Symbol(",") => {
                            let next = parser.next_as_value();
                            if !matches!(next, Token::Word(_) | Token::Symbol("!")) {
                                return Err(found(next, ", expected: identifier after ','"));
                            }
                        }
                        other => return Err(found(other, ", expected: ',' or 'end of string'")),
                    }
                }
                Token::End => break,
                other => return Err(found(other, ", expected: !, identifier, or 'end of string'")),
            }
        }
        Ok(LabelSelector { requirements, nothing: false })
    }

    /// Reads the object form (`meta/v1.LabelSelector`); null matches nothing, `{}` everything.
    pub fn from_value(value: &Value) -> Result<Self, SelectorError> {
        let Value::Object(selector) = value else {
            return Ok(LabelSelector { requirements: Vec::new(), nothing: true });
        };
        let mut requirements = Vec::new();
        for (key, want) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flat_map(Map::iter) {
            let values = vec![want.as_str().unwrap_or_default().to_owned()];
            requirements.push(checked(key.to_string(), Operator::In, values)?);
        }
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let key = expression.get("key").and_then(Value::as_str).unwrap_or_default();
            let operator = match expression.get("operator").and_then(Value::as_str).unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(SelectorError(format!("{other:?} is not a valid label selector operator"))),
            };
            let values = expression.items_at(&["values"]).iter().filter_map(Value::as_str).map(str::to_owned);
            requirements.push(checked(key.to_owned(), operator, values.collect())?);
        }
        Ok(LabelSelector { requirements, nothing: false })
    }

    /// From a plain map of labels (`spec.selector` of a Service): every one must be there.
    pub fn from_labels(labels: &Map) -> Self {
        let requirement = |(key, value): (&crate::Key, &Value)| Requirement {
            key: key.to_string(),
            operator: Operator::In,
            values: vec![value.as_str().unwrap_or_default().to_owned()],
        };
        LabelSelector { requirements: labels.iter().map(requirement).collect(), nothing: false }
    }

    /// Whether everything matches.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether these labels (`None`: no labels) match.
    pub fn matches(&self, labels: Option<&Map>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels.and_then(|l| l.str(&r.key))))
    }

    /// Whether the labels of an object match.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.matches(object.at(&["metadata", "labels"]).and_then(Value::as_object))
    }
}

/// The canonical text: conditions sorted by key.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&Requirement> = self.requirements.iter().collect();
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        for (i, r) in sorted.into_iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let mut values: Vec<&str> = r.values.iter().map(String::as_str).collect();
            values.sort_unstable();
            match r.operator {
                Operator::In if values.len() == 1 => write!(f, "{comma}{}={}", r.key, values[0])?,
                Operator::In => write!(f, "{comma}{} in ({})", r.key, values.join(","))?,
                Operator::NotIn if values.len() == 1 => write!(f, "{comma}{}!={}", r.key, values[0])?,
                Operator::NotIn => write!(f, "{comma}{} notin ({})", r.key, values.join(","))?,
                Operator::Exists => write!(f, "{comma}{}", r.key)?,
                Operator::DoesNotExist => write!(f, "{comma}!{}", r.key)?,
                Operator::GreaterThan => write!(f, "{comma}{}>{}", r.key, values.join(""))?,
                Operator::LessThan => write!(f, "{comma}{}<{}", r.key, values.join(""))?,
            }
        }
        Ok(())
    }
}

/// What a selector's text is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// A key, a value, or a keyword where one may stand.
    Word(&'a str),
    /// `=`, `==`, `!=`, `!`, `<`, `>`, `(`, `)` or `,`.
    Symbol(&'static str),
    End,
}

/// `found 'x'` and what was expected.
fn found(token: Token<'_>, expected: &str) -> SelectorError {
    let literal = match token {
        Token::Word(text) => text,
        Token::Symbol(symbol) => symbol,
        Token::End => "",
    };
    SelectorError(format!("found '{literal}'{expected}"))
}

/// The longer symbols first.
const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "<", ">", "(", ")", ","];

struct Parser<'a> {
    tokens: std::vec::IntoIter<Token<'a>>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        let special = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n' | '(' | ')' | ',' | '!' | '=' | '<' | '>');
        let mut tokens = Vec::new();
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
            if rest.is_empty() {
                break;
            }
            if let Some(symbol) = SYMBOLS.into_iter().find(|s| rest.starts_with(s)) {
                tokens.push(Token::Symbol(symbol));
                rest = &rest[symbol.len()..];
            } else {
                let (word, after) = rest.split_at(rest.find(special).unwrap_or(rest.len()));
                tokens.push(Token::Word(word));
                rest = after;
            }
        }
        Parser { tokens: tokens.into_iter() }
    }

    fn next_as_value(&self) -> Token<'a> {
        self.tokens.as_slice().first().copied().unwrap_or(Token::End)
    }

    fn take_value(&mut self) -> Token<'a> {
        self.tokens.next().unwrap_or(Token::End)
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let mut token = self.take_value();
        let negated = token == Token::Symbol("!");
        if negated {
            token = self.take_value();
        }
        let Token::Word(key) = token else { return Err(found(token, ", expected: identifier")) };
        let wrong = label_key_errors(key);
        if !wrong.is_empty() {
            return Err(SelectorError(format!("<nil>: Invalid value: {key:?}: {}", wrong.join("; "))));
        }
        if negated {
            return checked(key.to_owned(), Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.next_as_value(), Token::End | Token::Symbol(",")) {
            return checked(key.to_owned(), Operator::Exists, Vec::new());
        }
        let operator = match self.take_value() {
            Token::Symbol("=" | "==") => Operator::In,
            Token::Symbol("!=") => Operator::NotIn,
            Token::Symbol(">") => Operator::GreaterThan,
            Token::Symbol("<") => Operator::LessThan,
            Token::Word("in") => return checked(key.to_owned(), Operator::In, self.values()?),
            Token::Word("notin") => return checked(key.to_owned(), Operator::NotIn, self.values()?),
            other => return Err(found(other, ", expected: in, notin, =, ==, !=, gt, lt")),
        };
        let value = match self.next_as_value() {
            Token::End | Token::Symbol(",") => "",
            _ => match self.take_value() {
                Token::Word(value) => value,
                other => return Err(found(other, ", expected: identifier")),
            },
        };
        checked(key.to_owned(), operator, vec![value.to_owned()])
    }

    /// `(a,b)`; what is missing between commas is the empty value.
    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.take_value() {
            Token::Symbol("(") => {}
            other => return Err(found(other, " expected: '('")),
        }
        match self.next_as_value() {
            Token::Symbol(")" | ",") | Token::Word(_) => {}
            other => return Err(found(other, ", expected: ',', ')' or identifier")),
        }
        let mut values = std::collections::BTreeSet::new();
        let mut wanted = true;
        loop {
            match self.take_value() {
                Token::Word(value) if wanted => {
                    values.insert(value.to_owned());
                    wanted = false;
                    if !matches!(self.next_as_value(), Token::Symbol("," | ")")) {
                        return Err(found(self.next_as_value(), ", expected: ',' or ')'"));
                    }
                }
                Token::Symbol(separator @ ("," | ")")) => {
                    if wanted {
                        values.insert(String::new());
                    }
                    wanted = true;
                    if separator == ")" {
                        return Ok(values.into_iter().collect());
                    }
                }
                other => return Err(found(other, ", expected: ',', or identifier")),
            }
        }
    }
}

/// A requirement that is well-formed, or all that is wrong with it.
fn checked(key: String, operator: Operator, values: Vec<String>) -> Result<Requirement, SelectorError> {
    let mut errors = Vec::new();
    let wrong = label_key_errors(&key);
    if !wrong.is_empty() {
        errors.push(format!("key: Invalid value: {key:?}: {}", wrong.join("; ")));
    }
    match operator {
        Operator::In | Operator::NotIn if values.is_empty() => {
            errors.push("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".to_owned());
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            errors.push(format!(
                "values: Invalid value: {values:?}: values set must be empty for exists and does not exist"
            ));
        }
        Operator::GreaterThan | Operator::LessThan if values.first().is_none_or(|v| v.parse::<i64>().is_err()) => {
            errors.push(format!(
                "values[0]: Invalid value: {:?}: for 'Gt', 'Lt' operators, the value must be an integer",
                values.join("")
            ));
        }
        _ => {}
    }
    for (i, value) in values.iter().enumerate() {
        let wrong = label_value_errors(value);
        if !wrong.is_empty() {
            errors.push(format!("values[{i}][{key}]: Invalid value: {value:?}: {}", wrong.join("; ")));
        }
    }
    match errors.as_slice() {
        [] => Ok(Requirement { key, operator, values }),
        [one] => Err(SelectorError(one.clone())),
        many => Err(SelectorError(format!("[{}]", many.join(", ")))),
    }
}

/// Longest name of a label and longest value, in bytes.
const LABEL_BYTES: usize = 63;
/// Longest prefix of a label's key, in bytes.
const PREFIX_BYTES: usize = 253;

const NAME_RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
     alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

fn is_label_name(text: &str) -> bool {
    let b = text.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    edge(b.first()) && edge(b.last()) && b.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn too_long(text: &str, limit: usize) -> Option<String> {
    (text.len() > limit).then(|| format!("must be no more than {limit} bytes"))
}

fn label_value_errors(text: &str) -> Vec<String> {
    let mut errors: Vec<String> = too_long(text, LABEL_BYTES).into_iter().collect();
    if !text.is_empty() && !is_label_name(text) {
        errors.push(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
             validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
                .to_owned(),
        );
    }
    errors
}

fn label_key_errors(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            let part = |p: &str| {
                let b = p.as_bytes();
                let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
                edge(b.first())
                    && edge(b.last())
                    && b.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
            };
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(too_long(prefix, PREFIX_BYTES).map(|e| format!("prefix part {e}")));
                if !prefix.split('.').all(part) {
                    errors.push(
                        "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
                         characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
                         'example.com', regex used for validation is \
                         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                            .to_owned(),
                    );
                }
            }
            *name
        }
        _ => {
            return vec![format!(
                "a valid label key {NAME_RULE} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else {
        errors.extend(too_long(name, LABEL_BYTES).map(|e| format!("name part {e}")));
    }
    if !is_label_name(name) {
        errors.push(format!("name part {NAME_RULE}"));
    }
    errors
}

/// One condition on a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// `metadata.name`, `status.phase`, …
    pub field: String,
    /// What to compare with.
    pub value: String,
    /// `!=` instead of `=`.
    pub negated: bool,
}

/// Conditions on fields, all of which must be met; none means everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// The conditions.
    pub requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Reads `a=b,c!=d`; `\`, `,` and `=` in values are escaped by `\`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > MAX_SELECTOR_BYTES {
            return Err(SelectorError(format!("selector is longer than {MAX_SELECTOR_BYTES} bytes")));
        }
        let mut requirements = Vec::new();
        for term in split_terms(text) {
            if term.is_empty() {
                continue;
            }
            let (field, value, negated) = term
                .char_indices()
                .scan(false, |escaped, (i, c)| {
                    let here = *escaped;
                    *escaped = c == '\\' && !here;
                    Some((i, here))
                })
                .filter(|(_, escaped)| !escaped)
                .find_map(|(i, _)| {
                    let (field, rest) = term.split_at(i);
                    let cut = |token| rest.strip_prefix(token);
                    cut("!=")
                        .map(|v| (field, v, true))
                        .or_else(|| cut("==").map(|v| (field, v, false)))
                        .or_else(|| cut("=").map(|v| (field, v, false)))
                })
                .ok_or_else(|| SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'")))?;
            requirements.push(FieldRequirement { field: field.to_owned(), value: unescape(value)?, negated });
        }
        Ok(FieldSelector { requirements })
    }

    /// Whether everything matches.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether all conditions are met; `field` gives a field's text, empty where it is absent.
    pub fn matches(&self, mut field: impl FnMut(&str) -> Option<String>) -> bool {
        self.requirements.iter().all(|r| (field(&r.field).unwrap_or_default() == r.value) != r.negated)
    }

    /// The value that a field must have, where the selector says one (`metadata.name=a`).
    pub fn required(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.field == field && !r.negated).map(|r| r.value.as_str())
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn unescape(text: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    let sequence: String = ['\\'].into_iter().chain(other).collect();
                    return Err(SelectorError(format!("invalid field selector: invalid escape sequence: {sequence}")));
                }
            },
            ',' | '=' => {
                // Upstream shows the character's number.
                return Err(SelectorError(format!(
                    "invalid field selector: unescaped character in value: {}",
                    u32::from(c)
                )));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::object;

    #[test]
    fn label_selectors_match_as_upstream() {
        let labels = object!({"a": "b", "n": "5", "x.y/z": ""});
        let matches = |text: &str| LabelSelector::parse(text).unwrap().matches(labels.as_object());
        for text in ["", "a=b", "a==b", "a", "!q", "a in (b, c)", "a notin (c),n>4", "n<6", "q!=1", "x.y/z=", "x.y/z"] {
            assert!(matches(text), "{text}");
        }
        for text in ["a=c", "!a", "q", "a notin (b)", "n>5", "a!=b", "q in (b)", "a=b,q"] {
            assert!(!matches(text), "{text}");
        }
        for text in ["a=b,", "=b", "a in b", "a in (b", "a b", "a>x", "-a=b", "a=b c", "a=é", "A.b/c/d"] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
        assert_eq!(LabelSelector::parse("z in (c,b),!a, k != v").unwrap().to_string(), "!a,k!=v,z in (b,c)");
    }

    #[test]
    fn what_is_wrong_with_a_selector_is_told_as_upstream_tells_it() {
        let rule = super::NAME_RULE;
        for (text, wanted) in [
            ("a in b", "unable to parse requirement: found 'b' expected: '('".to_owned()),
            ("=b", "found '=', expected: !, identifier, or 'end of string'".to_owned()),
            ("!a=b", "found '=', expected: ',' or 'end of string'".to_owned()),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt".to_owned()),
            ("a,b,,c", "found ',', expected: identifier after ','".to_owned()),
            ("a=!b", "unable to parse requirement: found '!', expected: identifier".to_owned()),
            ("a>=1", "unable to parse requirement: found '=', expected: identifier".to_owned()),
            ("a notin(", "unable to parse requirement: found '', expected: ',', ')' or identifier".to_owned()),
            ("-a", format!("unable to parse requirement: <nil>: Invalid value: \"-a\": name part {rule}")),
            (
                "/a",
                "unable to parse requirement: <nil>: Invalid value: \"/a\": prefix part must be non-empty".to_owned(),
            ),
            (
                &format!("a in (x,{})", "y".repeat(64)),
                format!(
                    "unable to parse requirement: values[1][a]: Invalid value: \"{}\": must be no more than 63 bytes",
                    "y".repeat(64)
                ),
            ),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap_err().to_string(), wanted, "{text}");
        }
        assert_eq!(LabelSelector::parse("a in (,b,),c in ()").unwrap().to_string(), "a in (,b),c=");
        let wrong = FieldSelector::parse("a=b=c").unwrap_err().to_string();
        assert_eq!(wrong, "invalid field selector: unescaped character in value: 61");
    }

    #[test]
    fn selector_objects_match_nothing_when_null_and_everything_when_empty() {
        let labels = object!({"a": "b"});
        let of = |v: Value| LabelSelector::from_value(&v).unwrap().matches(labels.as_object());
        assert!(!of(Value::Null));
        assert!(of(Value::object()));
        assert!(of(
            object!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "DoesNotExist"}]})
        ));
        assert!(!of(object!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]})));
        assert!(LabelSelector::from_value(&object!({"matchExpressions": [{"key": "a", "operator": "In"}]})).is_err());
    }

    #[test]
    fn field_selectors_compare_text() {
        let matches = |text: &str| {
            FieldSelector::parse(text).unwrap().matches(|f| (f == "metadata.name").then(|| "a,b".to_owned()))
        };
        assert!(matches(r"metadata.name=a\,b"));
        assert!(matches("metadata.name!=c,spec.nodeName="));
        assert!(!matches(r"metadata.name!=a\,b"));
        assert!(FieldSelector::parse("abc").is_err());
        assert!(FieldSelector::parse(r"a=\x").is_err());
        assert_eq!(FieldSelector::parse("a==b").unwrap().required("a"), Some("b"));
    }
}
