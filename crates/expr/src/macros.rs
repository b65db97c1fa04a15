//! Macros: calls that become other trees while the source is read.
//!
//! The trees are cel-go's, because the cost of an expression is the cost of its tree. The one
//! exception is `optMap`, which would repeat its target and grow without bound when chained.

use std::sync::Arc;

use crate::ast::{ACCUMULATOR, Bind, Comprehension, Expr, Item, Kind, Logic, OptMap, SelectMode};
use crate::source::Fault;
use crate::value::Val;

type Expanded = Result<Expr, Fault>;

/// A call without a target: `has(a.b)` or a function.
pub(crate) fn global(name: &str, mut args: Vec<Expr>, pos: usize) -> Expanded {
    if name != "has" || args.len() != 1 {
        return Ok(Expr::call(name, None, args, pos));
    }
    let arg = args.remove(0);
    match arg.kind {
        Kind::Select(mut select) if select.mode == SelectMode::Value => {
            select.mode = SelectMode::Test;
            Ok(Expr::new(Kind::Select(select), pos))
        }
        _ => Err(Fault::at(arg.pos as usize, "invalid argument to has() macro")),
    }
}

/// A call with a target: a macro or a member function.
pub(crate) fn member(name: &str, target: Expr, args: Vec<Expr>, pos: usize, bindings: bool) -> Expanded {
    let make = match (name, args.len()) {
        ("all", 2 | 3) => all,
        ("exists", 2 | 3) => exists,
        ("exists_one" | "existsOne", 2) | ("existsOne", 3) => exists_one,
        ("map", 2 | 3) => map,
        ("filter", 2) => filter,
        ("sortBy", 2) => sort_by,
        ("transformList", 3 | 4) => transform_list,
        ("transformMap", 3 | 4) => transform_map,
        ("transformMapEntry", 3 | 4) => transform_map_entry,
        ("optMap" | "optFlatMap", 2) => return opt_map(name == "optFlatMap", target, args, pos),
        ("bind", 3) if bindings && matches!(&target.kind, Kind::Ident(n) if &**n == "cel") => return bind(args, pos),
        _ => return Ok(Expr::call(name, Some(target), args, pos)),
    };
    make(Shape { target, args, pos })
}

struct Shape {
    target: Expr,
    args: Vec<Expr>,
    pos: usize,
}

impl Shape {
    /// Takes the variables' names off the arguments.
    fn variables(&mut self, count: usize, not_a_name: &str) -> Result<(Arc<str>, Option<Arc<str>>), Fault> {
        let mut names: Vec<Arc<str>> = Vec::with_capacity(2);
        for arg in self.args.drain(..count) {
            let Kind::Ident(name) = arg.kind else { return Err(Fault::at(arg.pos as usize, not_a_name)) };
            if &*name == "__result__" {
                let message = "iteration variable overwrites accumulator variable";
                return Err(Fault::at(arg.pos as usize, message));
            }
            if names.contains(&name) {
                return Err(Fault::at(arg.pos as usize, format!("duplicate variable name: {name}")));
            }
            names.push(name);
        }
        let second = if count == 2 { names.pop() } else { None };
        // `count` is 1 or 2, so a first name is there.
        Ok((names.pop().unwrap_or_else(|| Arc::from("")), second))
    }

    fn literal(&self, value: Val<'static>) -> Expr {
        Expr::new(Kind::Literal(value), self.pos)
    }

    fn accumulator(&self) -> Expr {
        Expr::new(Kind::Ident(ACCUMULATOR.into()), self.pos)
    }

    fn call(&self, name: &str, args: Vec<Expr>) -> Expr {
        Expr::call(name, None, args, self.pos)
    }

    fn conditional(&self, parts: [Expr; 3]) -> Expr {
        Expr::new(Kind::Conditional(Box::new(parts)), self.pos)
    }

    fn list(&self, item: Option<Expr>) -> Expr {
        Expr::new(Kind::List(item.into_iter().map(|value| Item { value, optional: false }).collect()), self.pos)
    }

    fn finish(self, (var, var2): (Arc<str>, Option<Arc<str>>), [init, condition, step, result]: [Expr; 4]) -> Expanded {
        let comprehension = Comprehension { range: self.target, var, var2, init, condition, step, result, slot: 0 };
        Ok(Expr::new(Kind::Comprehension(Box::new(comprehension)), self.pos))
    }

    /// `filter ? step : accumulator`, where there is a filter.
    fn filtered(&self, filter: Option<Expr>, step: Expr) -> Expr {
        match filter {
            Some(filter) => self.conditional([filter, step, self.accumulator()]),
            None => step,
        }
    }
}

const NOT_SIMPLE: &str = "argument must be a simple name";
const NOT_IDENTIFIER: &str = "argument is not an identifier";

fn last(s: &mut Shape) -> Result<Expr, Fault> {
    s.args.pop().ok_or_else(|| Fault::at(s.pos, NOT_SIMPLE))
}

fn all(mut s: Shape) -> Expanded {
    let vars = s.variables(s.args.len() - 1, NOT_SIMPLE)?;
    let predicate = last(&mut s)?;
    let init = s.literal(Val::Bool(true));
    let condition = s.call("@not_strictly_false", vec![s.accumulator()]);
    let step = Expr::new(Kind::Logic(Logic::And, vec![s.accumulator(), predicate]), s.pos);
    let result = s.accumulator();
    s.finish(vars, [init, condition, step, result])
}

fn exists(mut s: Shape) -> Expanded {
    let vars = s.variables(s.args.len() - 1, NOT_SIMPLE)?;
    let predicate = last(&mut s)?;
    let init = s.literal(Val::Bool(false));
    let condition = s.call("@not_strictly_false", vec![s.call("!_", vec![s.accumulator()])]);
    let step = Expr::new(Kind::Logic(Logic::Or, vec![s.accumulator(), predicate]), s.pos);
    let result = s.accumulator();
    s.finish(vars, [init, condition, step, result])
}

fn exists_one(mut s: Shape) -> Expanded {
    let vars = s.variables(s.args.len() - 1, NOT_SIMPLE)?;
    let predicate = last(&mut s)?;
    let init = s.literal(Val::Int(0));
    let condition = s.literal(Val::Bool(true));
    let more = s.call("_+_", vec![s.accumulator(), s.literal(Val::Int(1))]);
    let step = s.conditional([predicate, more, s.accumulator()]);
    let result = s.call("_==_", vec![s.accumulator(), s.literal(Val::Int(1))]);
    s.finish(vars, [init, condition, step, result])
}

fn map(mut s: Shape) -> Expanded {
    let vars = s.variables(1, NOT_IDENTIFIER)?;
    collect(s, vars)
}

/// The list is bound to a name, as it is both sorted and mapped to its keys.
fn sort_by(mut s: Shape) -> Expanded {
    const INPUT: &str = "@__sortBy_input__";
    let pos = s.pos;
    let input = || Expr::new(Kind::Ident(INPUT.into()), pos);
    let init = std::mem::replace(&mut s.target, input());
    let keys = map(s)?;
    let body = Expr::call("@sortByAssociatedKeys", Some(input()), vec![keys], pos);
    Ok(Expr::new(Kind::Bind(Box::new(Bind { var: INPUT.into(), init, body, slot: 0 })), pos))
}

fn transform_list(mut s: Shape) -> Expanded {
    let vars = s.variables(2, NOT_SIMPLE)?;
    collect(s, vars)
}

fn collect(mut s: Shape, vars: (Arc<str>, Option<Arc<str>>)) -> Expanded {
    let transform = last(&mut s)?;
    let filter = s.args.pop();
    let step = s.call("_+_", vec![s.accumulator(), s.list(Some(transform))]);
    let step = s.filtered(filter, step);
    let (init, condition, result) = (s.list(None), s.literal(Val::Bool(true)), s.accumulator());
    s.finish(vars, [init, condition, step, result])
}

fn filter(mut s: Shape) -> Expanded {
    let vars = s.variables(1, NOT_IDENTIFIER)?;
    let predicate = last(&mut s)?;
    let element = Expr::new(Kind::Ident(vars.0.clone()), s.pos);
    let step = s.call("_+_", vec![s.accumulator(), s.list(Some(element))]);
    let step = s.filtered(Some(predicate), step);
    let (init, condition, result) = (s.list(None), s.literal(Val::Bool(true)), s.accumulator());
    s.finish(vars, [init, condition, step, result])
}

fn transform_map(mut s: Shape) -> Expanded {
    let vars = s.variables(2, NOT_SIMPLE)?;
    let transform = last(&mut s)?;
    let key = Expr::new(Kind::Ident(vars.0.clone()), s.pos);
    let step = s.call("cel.@mapInsert", vec![s.accumulator(), key, transform]);
    insert(s, vars, step)
}

fn transform_map_entry(mut s: Shape) -> Expanded {
    let vars = s.variables(2, NOT_SIMPLE)?;
    let transform = last(&mut s)?;
    let step = s.call("cel.@mapInsert", vec![s.accumulator(), transform]);
    insert(s, vars, step)
}

fn insert(mut s: Shape, vars: (Arc<str>, Option<Arc<str>>), step: Expr) -> Expanded {
    let filter = s.args.pop();
    let step = s.filtered(filter, step);
    let init = Expr::new(Kind::Map(Vec::new()), s.pos);
    let (condition, result) = (s.literal(Val::Bool(true)), s.accumulator());
    s.finish(vars, [init, condition, step, result])
}

fn take_two(mut args: Vec<Expr>) -> Option<(Expr, Expr, Vec<Expr>)> {
    let body = args.pop()?;
    let second = args.pop()?;
    Some((second, body, args))
}

fn bind(args: Vec<Expr>, pos: usize) -> Expanded {
    let Some((init, body, mut rest)) = take_two(args) else { return Err(Fault::at(pos, NOT_SIMPLE)) };
    match rest.pop().map(|e| (e.kind, e.pos)) {
        Some((Kind::Ident(var), _)) => Ok(Expr::new(Kind::Bind(Box::new(Bind { var, init, body, slot: 0 })), pos)),
        other => Err(Fault::at(
            other.map_or(pos, |(_, pos)| pos as usize),
            "cel.bind() variable names must be simple identifiers",
        )),
    }
}

fn opt_map(flat: bool, target: Expr, args: Vec<Expr>, pos: usize) -> Expanded {
    let Some((var, body, _)) = take_two(args) else { return Err(Fault::at(pos, NOT_SIMPLE)) };
    let Kind::Ident(var_name) = var.kind else {
        let name = if flat { "optFlatMap" } else { "optMap" };
        return Err(Fault::at(var.pos as usize, format!("{name}() variable name must be a simple identifier")));
    };
    let map = OptMap { target, var: var_name, body, flat, slot: 0 };
    Ok(Expr::new(Kind::OptMap(Box::new(map)), pos))
}
