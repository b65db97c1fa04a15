//! The tree of an expression, after macros are expanded; the checker fills in types and places.

use std::collections::BTreeSet;
use std::sync::Arc;

use regex::Regex;

use crate::functions::Function;
use crate::types::Type;
use crate::value::{MapKey, Val};

/// A node.
#[derive(Clone, Debug)]
pub(crate) struct Expr {
    pub(crate) kind: Kind,
    /// Byte offset in the source that messages point at.
    pub(crate) pos: u32,
    /// Longest way down from here.
    pub(crate) depth: u16,
    /// Set by the checker.
    pub(crate) ty: Type,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Literal(Val<'static>),
    /// A name, until the checker finds out what it means.
    Ident(Arc<str>),
    /// A root variable of the environment, by its place in [`crate::program::Program`]'s table.
    Var(u32),
    /// A variable of a macro, by its slot.
    Local(u32),
    /// The accumulator's last reading within a step: its value may be taken and extended.
    TakeLocal(u32),
    /// What is known when compiling and costs nothing to read; and what was written.
    Known(Val<'static>, Box<Expr>),
    Select(Box<Select>),
    Call(Box<Call>),
    /// `&&` or `||` of two terms or more.
    Logic(Logic, Vec<Expr>),
    Conditional(Box<[Expr; 3]>),
    List(Vec<Item>),
    Map(Vec<Entry>),
    Struct(Box<Struct>),
    Comprehension(Box<Comprehension>),
    Bind(Box<Bind>),
    OptMap(Box<OptMap>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logic {
    And,
    Or,
}

#[derive(Clone, Debug)]
pub(crate) struct Select {
    pub(crate) operand: Expr,
    pub(crate) field: Arc<str>,
    pub(crate) mode: SelectMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SelectMode {
    /// `a.b`
    Value,
    /// `has(a.b)`
    Test,
    /// `a.?b`
    Optional,
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) name: Arc<str>,
    pub(crate) target: Option<Expr>,
    pub(crate) args: Vec<Expr>,
    /// Set by the checker.
    pub(crate) function: Option<&'static Function>,
    /// The overload, where types leave only one.
    pub(crate) overload: Option<&'static str>,
    /// All overloads that fit.
    pub(crate) overloads: Vec<&'static str>,
    /// The pattern, where it is a literal.
    pub(crate) regex: Option<Regex>,
    /// The members of a literal list on the right of `in`.
    pub(crate) members: Option<BTreeSet<MapKey<'static>>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Expr,
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Struct {
    pub(crate) name: Arc<str>,
    pub(crate) fields: Vec<StructField>,
}

#[derive(Clone, Debug)]
pub(crate) struct StructField {
    pub(crate) name: Arc<str>,
    pub(crate) json_name: Arc<str>,
    pub(crate) value: Expr,
    pub(crate) optional: bool,
    pub(crate) pos: u32,
}

/// What the macros over lists and maps become.
#[derive(Clone, Debug)]
pub(crate) struct Comprehension {
    pub(crate) range: Expr,
    pub(crate) var: Arc<str>,
    pub(crate) var2: Option<Arc<str>>,
    pub(crate) init: Expr,
    pub(crate) condition: Expr,
    pub(crate) step: Expr,
    pub(crate) result: Expr,
    /// The accumulator's slot; the variables' are the next ones.
    pub(crate) slot: u32,
}

/// `cel.bind(var, init, body)`.
#[derive(Clone, Debug)]
pub(crate) struct Bind {
    pub(crate) var: Arc<str>,
    pub(crate) init: Expr,
    pub(crate) body: Expr,
    pub(crate) slot: u32,
}

/// `target.optMap(var, body)`, `target.optFlatMap(var, body)`.
#[derive(Clone, Debug)]
pub(crate) struct OptMap {
    pub(crate) target: Expr,
    pub(crate) var: Arc<str>,
    pub(crate) body: Expr,
    pub(crate) flat: bool,
    pub(crate) slot: u32,
}

/// The accumulator's name; no source can write it.
pub(crate) const ACCUMULATOR: &str = "@result";

impl Expr {
    /// A node, with its depth counted from its children.
    pub(crate) fn new(kind: Kind, pos: usize) -> Expr {
        let mut depth = 0;
        each_child(&kind, |child| depth = depth.max(child.depth));
        Expr { kind, pos: pos as u32, depth: depth.saturating_add(1), ty: Type::Dyn }
    }

    pub(crate) fn call(name: &str, target: Option<Expr>, args: Vec<Expr>, pos: usize) -> Expr {
        let call = Call {
            name: name.into(),
            target,
            args,
            function: None,
            overload: None,
            overloads: Vec::new(),
            regex: None,
            members: None,
        };
        Expr::new(Kind::Call(Box::new(call)), pos)
    }

    /// The name that a chain of selections spells: `a.b.c`.
    pub(crate) fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.to_string()),
            Kind::Select(s) if s.mode == SelectMode::Value => {
                let mut name = s.operand.qualified_name()?;
                name.push('.');
                name.push_str(&s.field);
                Some(name)
            }
            _ => None,
        }
    }
}

/// Calls `f` for each child.
pub(crate) fn each_child<'e>(kind: &'e Kind, mut f: impl FnMut(&'e Expr)) {
    match kind {
        Kind::Literal(_) | Kind::Ident(_) | Kind::Var(_) | Kind::Local(_) | Kind::TakeLocal(_) => {}
        Kind::Known(_, written) => f(written),
        Kind::Select(s) => f(&s.operand),
        Kind::Call(c) => c.target.iter().chain(&c.args).for_each(f),
        Kind::Logic(_, terms) => terms.iter().for_each(f),
        Kind::Conditional(parts) => parts.iter().for_each(f),
        Kind::List(items) => items.iter().for_each(|i| f(&i.value)),
        Kind::Map(entries) => entries.iter().for_each(|e| {
            f(&e.key);
            f(&e.value);
        }),
        Kind::Struct(s) => s.fields.iter().for_each(|i| f(&i.value)),
        Kind::Comprehension(c) => {
            [&c.range, &c.init, &c.condition, &c.step, &c.result].into_iter().for_each(f);
        }
        Kind::Bind(b) => [&b.init, &b.body].into_iter().for_each(f),
        Kind::OptMap(o) => [&o.target, &o.body].into_iter().for_each(f),
    }
}
