//! Selectors in access reviews: what is wrong with them, and their text, as a request would have it.
//! What is not understood is left out, which asks for more than was meant, never for less.

use ironkeel_kinds::{FieldError, FieldErrorKind, Path};
use ironkeel_object::{FieldSelector, LabelSelector, Value};

/// One of the two selectors of a review.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selector {
    Fields,
    Labels,
}

impl Selector {
    fn member(self) -> &'static str {
        match self {
            Selector::Fields => "fieldSelector",
            Selector::Labels => "labelSelector",
        }
    }
}

/// A selector's text, and what is to be said of parts that were left out.
#[derive(Default)]
pub(crate) struct Read {
    pub(crate) text: String,
    pub(crate) error: Option<String>,
}

fn texts<'a>(value: &'a Value, key: &str) -> Vec<&'a str> {
    value.items_at(&[key]).iter().filter_map(Value::as_str).collect()
}

/// What is wrong with the selectors of `resourceAttributes`.
pub(crate) fn check(attributes: &Value, errors: &mut Vec<FieldError>) {
    let mut push = |path: Path, kind: FieldErrorKind, message: String| errors.push(FieldError { path, kind, message });
    for of in [Selector::Fields, Selector::Labels] {
        let Some(selector) = attributes.get(of.member()).filter(|s| !s.is_null()) else { continue };
        let path = Path::new("spec").child("resourceAttributes").child(of.member());
        let raw = selector.str_at(&["rawSelector"]).unwrap_or_default();
        let requirements = selector.items_at(&["requirements"]);
        if !raw.is_empty() && !requirements.is_empty() {
            let why = format!("Invalid value: {raw:?}: may not specified at the same time as requirements");
            push(path.child("rawSelector"), FieldErrorKind::Invalid, why);
        }
        if raw.is_empty() && requirements.is_empty() {
            let why = format!("Required value: when {path} is specified, requirements or rawSelector is required");
            push(path.child("requirements"), FieldErrorKind::Required, why);
        }
        for (i, requirement) in requirements.iter().enumerate() {
            let path = path.child("requirements").index(i);
            if requirement.str_at(&["key"]).is_none_or(str::is_empty) {
                push(path.child("key"), FieldErrorKind::Required, "Required value: must be specified".to_owned());
            }
            let values = texts(requirement, "values").len();
            match requirement.str_at(&["operator"]).unwrap_or_default() {
                "In" | "NotIn" if values == 0 => {
                    let why = "Required value: must be specified when `operator` is 'In' or 'NotIn'";
                    push(path.child("values"), FieldErrorKind::Required, why.to_owned());
                }
                "Exists" | "DoesNotExist" if values > 0 => {
                    let why = "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    push(path.child("values"), FieldErrorKind::Forbidden, why.to_owned());
                }
                _ => {}
            }
        }
    }
}

/// Reads one of the selectors of `resourceAttributes`.
pub(crate) fn read(attributes: &Value, of: Selector) -> Read {
    let Some(selector) = attributes.get(of.member()).filter(|s| !s.is_null()) else { return Read::default() };
    let parses = |text: &str| match of {
        Selector::Fields => FieldSelector::parse(text).is_ok(),
        Selector::Labels => LabelSelector::parse(text).is_ok(),
    };
    let raw = selector.str_at(&["rawSelector"]).unwrap_or_default();
    let wanted: Vec<Option<String>> = match selector.items_at(&["requirements"]) {
        [] if raw.is_empty() => Vec::new(),
        [] => vec![Some(raw.to_owned())],
        all => all.iter().map(|r| if of == Selector::Fields { field(r) } else { label(r) }).collect(),
    };
    let good: Vec<&str> = wanted.iter().flatten().map(String::as_str).filter(|t| parses(t)).collect();
    let error = (good.len() < wanted.len()).then(|| {
        let partially = if good.is_empty() { "" } else { "partially " };
        format!("spec.resourceAttributes.{} {partially}ignored due to parse error", of.member())
    });
    Read { text: good.join(","), error }
}

fn field(requirement: &Value) -> Option<String> {
    let sign = match requirement.str_at(&["operator"])? {
        "In" => "=",
        "NotIn" => "!=",
        _ => return None,
    };
    let [value] = texts(requirement, "values")[..] else { return None };
    let value = value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
    Some(format!("{}{sign}{value}", requirement.str_at(&["key"])?))
}

fn label(requirement: &Value) -> Option<String> {
    let key = requirement.str_at(&["key"])?;
    let values = texts(requirement, "values");
    // A text within a text would be another selector.
    let plain = |t: &&str| t.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    if !plain(&key) || key.is_empty() || !values.iter().all(plain) {
        return None;
    }
    Some(match requirement.str_at(&["operator"])? {
        "In" => format!("{key} in ({})", values.join(",")),
        "NotIn" => format!("{key} notin ({})", values.join(",")),
        "Exists" => key.to_owned(),
        "DoesNotExist" => format!("!{key}"),
        _ => return None,
    })
}
