//! Functions by library: CEL's own, cel-go's extensions that Kubernetes turns on, Kubernetes' own.

pub(crate) mod authz;
mod compare;
mod convert;
pub(crate) mod format;
pub(crate) mod ip;
mod lists;
mod operators;
mod optional;
mod quantity;
mod regexes;
pub(crate) mod semver;
mod strings;
mod strings_format;
mod time;
pub(crate) mod url;

use crate::functions::Row;

pub(crate) use compare::compare;
pub(crate) use convert::is_conversion;
pub(crate) use regexes::compile as compile_regex;

/// All rows.
pub(crate) const ROWS: &[&[Row]] = &[
    operators::ROWS,
    compare::ROWS,
    convert::ROWS,
    time::ROWS,
    strings::ROWS,
    lists::ROWS,
    optional::ROWS,
    regexes::ROWS,
    url::ROWS,
    ip::ROWS,
    quantity::ROWS,
    semver::ROWS,
    format::ROWS,
    authz::ROWS,
];
