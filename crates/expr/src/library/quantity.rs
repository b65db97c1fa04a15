//! `quantity("1Gi")`; the functions that versions share with it.

use std::cmp::Ordering;

use ironkeel_object::Quantity;
use regex::Regex;

use crate::EvalError;
use crate::functions::{Answer, Cost, Row, refuse, text};
use crate::value::{OpaqueVal, Val};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "quantity",
        cost: Cost::Parse { sized: false },
        code: quantity,
        overloads: &["string_to_quantity (string) -> quantity"],
    },
    Row {
        name: "isQuantity",
        cost: Cost::Parse { sized: false },
        code: is_quantity,
        overloads: &["is_quantity_string (string) -> bool"],
    },
    Row { name: "sign", cost: Cost::One, code: sign, overloads: &["quantity_sign (quantity) -> int"] },
    Row {
        name: "isGreaterThan",
        cost: Cost::One,
        code: is_greater,
        overloads: &[
            ".quantity_is_greater_than (quantity, quantity) -> bool",
            ".semver_is_greater_than (semver, semver) -> bool",
        ],
    },
    Row {
        name: "isLessThan",
        cost: Cost::One,
        code: is_less,
        overloads: &[
            ".quantity_is_less_than (quantity, quantity) -> bool",
            ".semver_is_less_than (semver, semver) -> bool",
        ],
    },
    Row {
        name: "compareTo",
        cost: Cost::One,
        code: compare_to,
        overloads: &[".quantity_compare_to (quantity, quantity) -> int", ".semver_compare_to (semver, semver) -> int"],
    },
    Row {
        name: "asApproximateFloat",
        cost: Cost::One,
        code: as_float,
        overloads: &[".quantity_get_float (quantity) -> double"],
    },
    Row { name: "asInteger", cost: Cost::One, code: as_integer, overloads: &[".quantity_get_int (quantity) -> int"] },
    Row {
        name: "isInteger",
        cost: Cost::One,
        code: is_integer,
        overloads: &[".quantity_is_integer (quantity) -> bool"],
    },
    Row {
        name: "add",
        cost: Cost::One,
        code: add,
        overloads: &[".quantity_add (quantity, quantity) -> quantity", ".quantity_add_int (quantity, int) -> quantity"],
    },
    Row {
        name: "sub",
        cost: Cost::One,
        code: subtract,
        overloads: &[".quantity_sub (quantity, quantity) -> quantity", ".quantity_sub_int (quantity, int) -> quantity"],
    },
];

fn quantity<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    match Quantity::parse(text(args, 0)?) {
        Ok(q) => Ok(Val::from(OpaqueVal::Quantity(q))),
        Err(e) => refuse(e.to_string()),
    }
}

fn is_quantity<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Bool(Quantity::parse(text(args, 0)?).is_ok()))
}

fn of(args: &[Val<'_>], at: usize) -> Result<Quantity, EvalError> {
    match args.get(at) {
        Some(Val::Opaque(o)) => match &**o {
            OpaqueVal::Quantity(q) => Ok(*q),
            _ => Err(EvalError::NoSuchOverload),
        },
        Some(Val::Int(i)) if at > 0 => Ok(Quantity::from_value(*i)),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn order(args: &[Val<'_>]) -> Result<Ordering, EvalError> {
    match args {
        [Val::Opaque(a), Val::Opaque(b)] => match (&**a, &**b) {
            (OpaqueVal::Quantity(a), OpaqueVal::Quantity(b)) => Ok(a.cmp(b)),
            (OpaqueVal::Semver(a), OpaqueVal::Semver(b)) => Ok(a.precedence(b)),
            _ => Err(EvalError::NoSuchOverload),
        },
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn sign<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Int(of(args, 0)?.signum().into()))
}

fn is_greater<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Bool(order(args)?.is_gt()))
}

fn is_less<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Bool(order(args)?.is_lt()))
}

fn compare_to<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Int(order(args)? as i64))
}

fn as_float<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Double(of(args, 0)?.as_f64()))
}

fn whole(q: Quantity) -> Option<i64> {
    let value = q.value();
    (Quantity::from_value(value) == q).then_some(value)
}

fn as_integer<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    match whole(of(args, 0)?) {
        Some(value) => Ok(Val::Int(value)),
        None => refuse("cannot convert value to integer"),
    }
}

fn is_integer<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Bool(whole(of(args, 0)?).is_some()))
}

fn add<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::from(OpaqueVal::Quantity(of(args, 0)? + of(args, 1)?)))
}

fn subtract<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::from(OpaqueVal::Quantity(of(args, 0)? - of(args, 1)?)))
}
