//! The table of functions and operators: what the checker may choose, what runs, what it costs.
//!
//! A library is a list of rows. An overload is written as `id (types) -> type`, with a leading dot
//! for a member function; single capitals are type parameters.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

use crate::types::{Opaque, Type};
use crate::value::Val;
use crate::{EvalError, library};

/// What a function answers.
pub(crate) type Answer<'a> = Result<Val<'a>, EvalError>;

/// A function's code. Arguments may be taken; they are not looked at afterwards.
pub(crate) type Code = for<'a> fn(&mut [Val<'a>], Option<&Regex>) -> Answer<'a>;

/// A row as a library writes it.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) cost: Cost,
    pub(crate) code: Code,
    pub(crate) overloads: &'static [&'static str],
}

/// A function as the checker sees it.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) cost: Cost,
    pub(crate) code: Code,
    pub(crate) overloads: Vec<Overload>,
}

#[derive(Debug)]
pub(crate) struct Overload {
    pub(crate) id: &'static str,
    pub(crate) member: bool,
    pub(crate) params: Vec<Type>,
    pub(crate) result: Type,
    /// Number of type parameters.
    pub(crate) generics: u32,
}

/// How the cost of a call is counted; see `cost` (running) and `estimate` (ahead).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cost {
    /// 1, or what the standard overload says.
    Standard,
    /// 1.
    One,
    /// An authorization check.
    Check,
    /// Parsing a selector.
    Selector,
    /// Looking at each element of a list.
    Walk,
    /// Reading the first argument once; whether the result is as long as that.
    Parse { sized: bool },
    /// `replace`.
    Replace,
    /// `split`.
    Split,
    /// `join`.
    Join,
    /// `find`, `findAll`.
    Find,
    /// `ip`: parsing, or a CIDR's address.
    Ip,
    /// `ip.isCanonical`.
    Canonical,
    /// `containsIP`.
    ContainsIp,
    /// `containsCIDR`.
    ContainsCidr,
    /// `validate` of a format.
    Validate,
    /// A new list as long as the result.
    ListOut,
    /// `flatten`.
    Flatten,
    /// Comparing each element with each other; the argument that tells how many.
    SelfCompare(usize),
    /// Comparing two lists' elements with one another, this many times.
    Sets(u64),
}

static FUNCTIONS: LazyLock<HashMap<&'static str, Function>> = LazyLock::new(|| {
    let mut table = HashMap::new();
    for row in library::ROWS.iter().flat_map(|rows| rows.iter()) {
        let overloads = row.overloads.iter().filter_map(|text| overload(text)).collect();
        let Row { name, cost, code, .. } = *row;
        table.insert(name, Function { name, cost, code, overloads });
    }
    table
});

/// The function of that name.
pub(crate) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.get(name)
}

/// Reads an overload's text; `None` for a text that a test would refuse.
fn overload(text: &'static str) -> Option<Overload> {
    let (id, rest) = text.split_once(" (")?;
    let (params, result) = rest.rsplit_once(") -> ")?;
    let member = id.starts_with('.');
    let mut generics = Vec::new();
    let params = split(params).map(|p| signature_type(p, &mut generics)).collect::<Option<Vec<_>>>()?;
    let result = signature_type(result, &mut generics)?;
    Some(Overload { id: id.trim_start_matches('.'), member, params, result, generics: generics.len() as u32 })
}

/// Splits at the commas that are in no brackets.
fn split(text: &'static str) -> impl Iterator<Item = &'static str> {
    let mut depth = 0i32;
    text.split(move |c| {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

fn signature_type(text: &'static str, generics: &mut Vec<&'static str>) -> Option<Type> {
    if let Some((outer, inner)) = text.split_once('<') {
        let inner = inner.strip_suffix('>')?;
        let mut parts = split(inner).map(|p| signature_type(p, generics)).collect::<Option<Vec<_>>>()?;
        let last = parts.pop()?;
        return Some(match outer {
            "list" => Type::list(last),
            "map" => Type::map(parts.pop()?, last),
            "optional" => Type::optional(last),
            "type" => Type::type_of(last),
            _ => return None,
        });
    }
    Some(match text {
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "quantity" => Type::Opaque(Opaque::Quantity),
        "url" => Type::Opaque(Opaque::Url),
        "ip" => Type::Opaque(Opaque::Ip),
        "cidr" => Type::Opaque(Opaque::Cidr),
        "semver" => Type::Opaque(Opaque::Semver),
        "format" => Type::Opaque(Opaque::Format),
        "authorizer" => Type::Opaque(Opaque::Authorizer),
        "pathcheck" => Type::Opaque(Opaque::PathCheck),
        "groupcheck" => Type::Opaque(Opaque::GroupCheck),
        "resourcecheck" => Type::Opaque(Opaque::ResourceCheck),
        "decision" => Type::Opaque(Opaque::Decision),
        generic if generic.len() == 1 => {
            let at = generics.iter().position(|g| *g == generic).unwrap_or_else(|| {
                generics.push(generic);
                generics.len() - 1
            });
            Type::Param(at as u32)
        }
        _ => return None,
    })
}

/// The text in an argument.
pub(crate) fn text<'v>(args: &'v [Val<'_>], at: usize) -> Result<&'v str, EvalError> {
    args.get(at).and_then(Val::as_str).ok_or(EvalError::NoSuchOverload)
}

/// The integer in an argument.
pub(crate) fn int(args: &[Val<'_>], at: usize) -> Result<i64, EvalError> {
    match args.get(at) {
        Some(Val::Int(i)) => Ok(*i),
        _ => Err(EvalError::NoSuchOverload),
    }
}

/// Fails with a function's own words.
pub(crate) fn refuse<T>(message: impl Into<String>) -> Result<T, EvalError> {
    Err(EvalError::Refused(message.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_overload_is_readable_and_every_name_has_one_row() {
        let rows: Vec<&Row> = library::ROWS.iter().flat_map(|rows| rows.iter()).collect();
        for row in &rows {
            for text in row.overloads {
                assert!(overload(text).is_some(), "{text}");
            }
            assert_eq!(rows.iter().filter(|other| other.name == row.name).count(), 1, "{}", row.name);
        }
    }
}
