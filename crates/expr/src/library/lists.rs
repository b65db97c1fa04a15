//! Kubernetes' list functions, cel-go's `lists` (version 3) and `sets` extensions.

use std::cmp::Ordering;

use regex::Regex;

use super::compare;
use super::operators::sum as add;
use crate::functions::{Answer, Cost, Row, int, refuse};
use crate::value::{List, Val};
use crate::{EvalError, PER_CALL_LIMIT};

macro_rules! comparable {
    ($suffix:literal, $result:literal) => {
        &[
            concat!(".list_int_", $suffix, " (list<int>) -> ", $result),
            concat!(".list_uint_", $suffix, " (list<uint>) -> ", $result),
            concat!(".list_double_", $suffix, " (list<double>) -> ", $result),
            concat!(".list_bool_", $suffix, " (list<bool>) -> ", $result),
            concat!(".list_duration_", $suffix, " (list<duration>) -> ", $result),
            concat!(".list_timestamp_", $suffix, " (list<timestamp>) -> ", $result),
            concat!(".list_string_", $suffix, " (list<string>) -> ", $result),
            concat!(".list_bytes_", $suffix, " (list<bytes>) -> ", $result),
        ]
    };
}

macro_rules! each_own_type {
    ($suffix:literal) => {
        each_own_type!($suffix, "", "")
    };
    ($suffix:literal, $before:literal, $after:literal) => {
        &[
            concat!(".list_int_", $suffix, " (list<int>) -> ", $before, "int", $after),
            concat!(".list_uint_", $suffix, " (list<uint>) -> ", $before, "uint", $after),
            concat!(".list_double_", $suffix, " (list<double>) -> ", $before, "double", $after),
            concat!(".list_bool_", $suffix, " (list<bool>) -> ", $before, "bool", $after),
            concat!(".list_duration_", $suffix, " (list<duration>) -> ", $before, "duration", $after),
            concat!(".list_timestamp_", $suffix, " (list<timestamp>) -> ", $before, "timestamp", $after),
            concat!(".list_string_", $suffix, " (list<string>) -> ", $before, "string", $after),
            concat!(".list_bytes_", $suffix, " (list<bytes>) -> ", $before, "bytes", $after),
        ]
    };
}

pub(crate) const ROWS: &[Row] = &[
    Row { name: "isSorted", cost: Cost::Walk, code: is_sorted, overloads: comparable!("is_sorted_bool", "bool") },
    Row { name: "max", cost: Cost::Walk, code: max, overloads: each_own_type!("max") },
    Row { name: "min", cost: Cost::Walk, code: min, overloads: each_own_type!("min") },
    Row {
        name: "sum",
        cost: Cost::Walk,
        code: sum,
        overloads: &[
            ".list_int_sum_int (list<int>) -> int",
            ".list_uint_sum_uint (list<uint>) -> uint",
            ".list_double_sum_double (list<double>) -> double",
            ".list_duration_sum_duration (list<duration>) -> duration",
        ],
    },
    Row { name: "slice", cost: Cost::ListOut, code: slice, overloads: &[".list_slice (list<A>, int, int) -> list<A>"] },
    Row {
        name: "flatten",
        cost: Cost::Flatten,
        code: flatten,
        overloads: &[".list_flatten (list<list<A>>) -> list<A>", ".list_flatten_int (list<dyn>, int) -> list<dyn>"],
    },
    Row { name: "sort", cost: Cost::SelfCompare(0), code: sort, overloads: each_own_type!("sort", "list<", ">") },
    Row {
        name: "@sortByAssociatedKeys",
        cost: Cost::SelfCompare(1),
        code: sort_by_keys,
        overloads: &[
            ".list_int_sortByAssociatedKeys (list<A>, list<int>) -> list<A>",
            ".list_uint_sortByAssociatedKeys (list<A>, list<uint>) -> list<A>",
            ".list_double_sortByAssociatedKeys (list<A>, list<double>) -> list<A>",
            ".list_bool_sortByAssociatedKeys (list<A>, list<bool>) -> list<A>",
            ".list_duration_sortByAssociatedKeys (list<A>, list<duration>) -> list<A>",
            ".list_timestamp_sortByAssociatedKeys (list<A>, list<timestamp>) -> list<A>",
            ".list_string_sortByAssociatedKeys (list<A>, list<string>) -> list<A>",
            ".list_bytes_sortByAssociatedKeys (list<A>, list<bytes>) -> list<A>",
        ],
    },
    Row { name: "lists.range", cost: Cost::ListOut, code: range, overloads: &["lists_range (int) -> list<int>"] },
    Row { name: "reverse", cost: Cost::ListOut, code: reverse, overloads: &[".list_reverse (list<A>) -> list<A>"] },
    Row {
        name: "distinct",
        cost: Cost::SelfCompare(0),
        code: distinct,
        overloads: &[".list_distinct (list<A>) -> list<A>"],
    },
    Row {
        name: "sets.contains",
        cost: Cost::Sets(1),
        code: sets_contains,
        overloads: &["list_sets_contains_list (list<A>, list<A>) -> bool"],
    },
    Row {
        name: "sets.equivalent",
        cost: Cost::Sets(2),
        code: sets_equivalent,
        overloads: &["list_sets_equivalent_list (list<A>, list<A>) -> bool"],
    },
    Row {
        name: "sets.intersects",
        cost: Cost::Sets(1),
        code: sets_intersects,
        overloads: &["list_sets_intersects_list (list<A>, list<A>) -> bool"],
    },
];

fn list<'v, 'a>(args: &'v [Val<'a>], at: usize) -> Result<&'v List<'a>, EvalError> {
    match args.get(at) {
        Some(Val::List(list)) => Ok(list),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn items<'a>(args: &[Val<'a>], at: usize) -> Result<Vec<Val<'a>>, EvalError> {
    list(args, at)?.iter().collect()
}

fn is_sorted<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let items = items(args, 0)?;
    for pair in items.windows(2) {
        if compare(&pair[0], &pair[1])? == Some(Ordering::Greater) {
            return Ok(Val::Bool(false));
        }
    }
    Ok(Val::Bool(true))
}

fn extreme<'a>(args: &[Val<'a>], name: &str, better: Ordering) -> Answer<'a> {
    let mut best: Option<Val<'a>> = None;
    for item in list(args, 0)?.iter() {
        let item = item?;
        best = Some(match best {
            None => item,
            Some(best) if compare(&item, &best)? == Some(better) => item,
            Some(best) => best,
        });
    }
    best.map_or_else(|| refuse(format!("{name} called on empty list")), Ok)
}

fn max<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    extreme(args, "max", Ordering::Greater)
}

fn min<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    extreme(args, "min", Ordering::Less)
}

fn sum<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let mut total: Option<Val<'a>> = None;
    for item in list(args, 0)?.iter() {
        total = Some(match total {
            None => item?,
            Some(total) => add(total, item?)?,
        });
    }
    // The sum of nothing is of the elements' type, which only the checker knows.
    Ok(total.unwrap_or(Val::Int(0)))
}

fn slice<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let (from, to) = (int(args, 1)?, int(args, 2)?);
    let list = list(args, 0)?;
    let place = format!("cannot slice({from}, {to})");
    let (Ok(start), Ok(end)) = (usize::try_from(from), usize::try_from(to)) else {
        return refuse(format!("{place}, negative indexes not supported"));
    };
    if start > end {
        return refuse(format!("{place}, start index must be less than or equal to end index"));
    }
    if end > list.len() {
        return refuse(format!("{place}, list is length {}", list.len()));
    }
    let items: Result<Vec<_>, _> = (start..end).filter_map(|i| list.get(i)).collect();
    Ok(Val::from(items?))
}

fn flatten<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let levels = if args.len() > 1 { int(args, 1)? } else { 1 };
    if levels < 0 {
        return refuse("level must be non-negative");
    }
    let mut items = items(args, 0)?;
    for _ in 0..levels {
        if !items.iter().any(|item| matches!(item, Val::List(_))) {
            break;
        }
        let mut out = Vec::new();
        for item in items {
            match item {
                Val::List(inner) => {
                    for item in inner.iter() {
                        out.push(item?);
                    }
                }
                other => out.push(other),
            }
            bounded(out.len())?;
        }
        items = out;
    }
    Ok(Val::from(items))
}

/// Refuses a list whose cost alone would be over the limit, before it takes memory.
fn bounded(len: usize) -> Result<(), EvalError> {
    if len as u64 > PER_CALL_LIMIT { Err(EvalError::CostLimitExceeded) } else { Ok(()) }
}

fn sorted<'a>(items: Vec<Val<'a>>, keys: Vec<Val<'a>>) -> Answer<'a> {
    if items.len() != keys.len() {
        return refuse(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} elements respectively",
            items.len(),
            keys.len()
        ));
    }
    if let Some(first) = keys.first() {
        if compare(first, first).is_err() {
            return refuse("list elements must be comparable");
        }
        if keys.iter().any(|k| std::mem::discriminant(k) != std::mem::discriminant(first)) {
            return refuse("list elements must have the same type");
        }
    }
    let mut pairs: Vec<_> = keys.into_iter().zip(items).collect();
    // All keys are of one ordered type; only NaN has no place, and keeps the one it had.
    pairs.sort_by(|a, b| match compare(&a.0, &b.0) {
        Ok(Some(order)) => order,
        _ => Ordering::Equal,
    });
    Ok(Val::from(pairs.into_iter().map(|(_, item)| item).collect::<Vec<_>>()))
}

fn sort<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let items = items(args, 0)?;
    sorted(items.clone(), items)
}

fn sort_by_keys<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    sorted(items(args, 0)?, items(args, 1)?)
}

fn range<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let n = int(args, 0)?.max(0);
    bounded(n as usize)?;
    Ok(Val::from((0..n).map(Val::Int).collect::<Vec<_>>()))
}

fn reverse<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let mut items = items(args, 0)?;
    items.reverse();
    Ok(Val::from(items))
}

/// Refuses what is quadratic in the lists' lengths when it would go over the limit.
fn quadratic(a: usize, b: usize) -> Result<(), EvalError> {
    if a.saturating_mul(b) as u64 > PER_CALL_LIMIT { Err(EvalError::CostLimitExceeded) } else { Ok(()) }
}

fn distinct<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let items = items(args, 0)?;
    quadratic(items.len(), items.len())?;
    let mut out: Vec<Val<'a>> = Vec::new();
    for item in items {
        if !out.iter().any(|known| known.equals(&item)) {
            out.push(item);
        }
    }
    Ok(Val::from(out))
}

fn contains_all<'a>(args: &[Val<'a>], all: usize, part: usize) -> Result<bool, EvalError> {
    let (all, part) = (items(args, all)?, items(args, part)?);
    quadratic(all.len(), part.len())?;
    Ok(part.iter().all(|p| all.iter().any(|a| a.equals(p))))
}

fn sets_contains<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    contains_all(args, 0, 1).map(Val::Bool)
}

fn sets_equivalent<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Bool(contains_all(args, 0, 1)? && contains_all(args, 1, 0)?))
}

fn sets_intersects<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let (a, b) = (items(args, 0)?, items(args, 1)?);
    quadratic(a.len(), b.len())?;
    Ok(Val::Bool(a.iter().any(|a| b.iter().any(|b| a.equals(b)))))
}
