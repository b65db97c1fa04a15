//! Running a checked tree.
//!
//! Recursion is bounded: by the tree's depth, and over composed variables by a counter in the
//! activation. Costs are charged before the work where the arguments tell them.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::activation::{Activation, ComposedState, Root};
use crate::ast::{Bind, Call, Comprehension, Entry, Expr, Item, Kind, Logic, OptMap, Select, SelectMode, Struct};
use crate::budget::{Budget, Meter};
use crate::program::Tree;
use crate::types::Type;
use crate::value::{Entries, MapKey, MapVal, Message, Val};
use crate::{EvalError, convert, cost};

/// Deepest evaluation, over the expression and the composed variables that it reads.
const MAX_EVAL_DEPTH: u32 = 300;

/// What a new list, map or message costs.
const LIST_COST: u64 = 10;
const MAP_COST: u64 = 30;
const MESSAGE_COST: u64 = 40;

type Answer<'a> = Result<Val<'a>, EvalError>;

/// Runs a tree; answers what came out and what it cost.
pub(crate) fn run<'a>(tree: &'a Tree, activation: &Activation<'a>, budget: &mut Budget) -> (Answer<'a>, u64) {
    let mut run = Run {
        tree,
        activation,
        roots: SmallVec::from_elem(None, tree.variables.len()),
        slots: SmallVec::from_elem(Slot::Empty, tree.slots),
        meter: Meter::default(),
        budget,
    };
    if run.budget.is_interrupted() {
        return (Err(EvalError::Interrupted), 0);
    }
    let result = run.eval(&tree.expr);
    (result, run.meter.cost())
}

struct Run<'r, 'a> {
    tree: &'a Tree,
    activation: &'r Activation<'a>,
    roots: SmallVec<[Option<Val<'a>>; 4]>,
    slots: SmallVec<[Slot<'a>; 4]>,
    meter: Meter,
    budget: &'r mut Budget,
}

/// A macro's variable.
#[derive(Clone)]
enum Slot<'a> {
    Empty,
    Known(Val<'a>),
    /// The accumulator of `all` and `exists` may be an error that a later element makes up for.
    Failed(EvalError),
    /// `cel.bind`: worked out when it is first read.
    Lazy(&'a Expr),
}

impl<'a> Run<'_, 'a> {
    fn eval(&mut self, e: &'a Expr) -> Answer<'a> {
        let depth = self.activation.depth();
        if depth.get() >= MAX_EVAL_DEPTH {
            return Err(EvalError::Refused(format!("expression recursion limit exceeded: {MAX_EVAL_DEPTH}")));
        }
        depth.set(depth.get() + 1);
        let result = self.node(e);
        let depth = self.activation.depth();
        depth.set(depth.get() - 1);
        result
    }

    fn node(&mut self, e: &'a Expr) -> Answer<'a> {
        match &e.kind {
            Kind::Literal(value) | Kind::Known(value, _) => Ok(value.clone()),
            Kind::Var(at) => self.root(*at as usize),
            Kind::Local(slot) => self.local(*slot as usize, false),
            Kind::TakeLocal(slot) => self.local(*slot as usize, true),
            Kind::Select(select) => self.select(select),
            Kind::Call(call) => self.call(call),
            Kind::Logic(logic, terms) => self.logic(*logic, terms),
            Kind::Conditional(parts) => match self.eval(&parts[0])? {
                Val::Bool(true) => self.eval(&parts[1]),
                Val::Bool(false) => self.eval(&parts[2]),
                _ => Err(EvalError::NoSuchOverload),
            },
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct(message) => self.message(message, &e.ty),
            Kind::Comprehension(c) => self.comprehension(c),
            Kind::Bind(bind) => self.bind(bind),
            Kind::OptMap(map) => self.opt_map(map),
            // The checker leaves no names.
            Kind::Ident(name) => Err(EvalError::NoSuchAttribute(name.to_string())),
        }
    }

    #[inline(never)]
    fn root(&mut self, at: usize) -> Answer<'a> {
        self.meter.add(1)?;
        if let Some(Some(known)) = self.roots.get(at) {
            return Ok(known.clone());
        }
        let Some((name, ty)) = self.tree.variables.get(at) else {
            return Err(EvalError::NoSuchAttribute(at.to_string()));
        };
        let value = match self.activation.root(name) {
            None => return Err(EvalError::NoSuchAttribute(name.to_string())),
            Some(Root::Val(value)) => value,
            Some(Root::Tree(tree)) => convert::to_val(tree, ty)?,
            Some(Root::Optional(tree)) => {
                let inner = match ty {
                    Type::Optional(inner) => inner,
                    other => other,
                };
                Val::Optional(tree.map(|tree| convert::to_val(tree, inner)).transpose()?.map(Arc::new))
            }
        };
        self.roots[at] = Some(value.clone());
        Ok(value)
    }

    #[inline(never)]
    fn local(&mut self, slot: usize, take: bool) -> Answer<'a> {
        self.meter.add(1)?;
        match &mut self.slots[slot] {
            Slot::Known(value) if take => Ok(std::mem::replace(value, Val::Null)),
            Slot::Known(value) => Ok(value.clone()),
            Slot::Failed(error) => Err(error.clone()),
            Slot::Lazy(init) => {
                let init: &'a Expr = init;
                let result = self.eval(init);
                if let Ok(value) = &result {
                    self.slots[slot] = Slot::Known(value.clone());
                }
                result
            }
            Slot::Empty => Err(EvalError::NoSuchAttribute(slot.to_string())),
        }
    }

    #[inline(never)]
    fn select(&mut self, select: &'a Select) -> Answer<'a> {
        let operand = self.eval(&select.operand)?;
        if select.mode != SelectMode::Test {
            self.meter.add(1)?;
        }
        self.field(&operand, &select.field, select.mode)
    }

    fn field(&mut self, operand: &Val<'a>, name: &str, mode: SelectMode) -> Answer<'a> {
        let found = match operand {
            Val::Variables => self.composed(name)?,
            Val::Map(_) | Val::Object(..) | Val::Message(_) => {
                if mode == SelectMode::Test {
                    return Ok(Val::Bool(operand.field(name).is_some()));
                }
                operand.field(name).transpose()?
            }
            Val::Optional(None) if mode == SelectMode::Test => return Ok(Val::Bool(false)),
            Val::Optional(None) => return Ok(Val::Optional(None)),
            Val::Optional(Some(inner)) => {
                let mode = if mode == SelectMode::Test { mode } else { SelectMode::Optional };
                return self.field(&inner.clone(), name, mode);
            }
            Val::List(_) => return Err(EvalError::Refused("unsupported index type 'string' in list".to_owned())),
            _ => None,
        };
        match (mode, found) {
            (SelectMode::Test, found) => Ok(Val::Bool(found.is_some())),
            (SelectMode::Optional, found) => Ok(Val::Optional(found.map(Arc::new))),
            (SelectMode::Value, Some(value)) => Ok(value),
            (SelectMode::Value, None) => Err(EvalError::NoSuchKey(name.to_owned())),
        }
    }

    /// A field of the composed variable: another program's result.
    fn composed(&mut self, name: &str) -> Result<Option<Val<'a>>, EvalError> {
        match self.activation.composed(name) {
            ComposedState::Absent => Ok(None),
            ComposedState::Known(result) => result.map(Some),
            ComposedState::Unknown(at, program) => {
                // A variable that reads itself finds this.
                let itself = EvalError::Refused(format!("composited variable {name:?} refers to itself"));
                self.activation.remember(at, Err(itself));
                let result = program.eval(self.activation, self.budget).map_err(|e| match e {
                    fatal if fatal.is_fatal() => fatal,
                    other => EvalError::Refused(format!("composited variable {name:?} fails to evaluate: {other}")),
                });
                self.activation.remember(at, result.clone());
                result.map(Some)
            }
        }
    }

    #[inline(never)]
    fn logic(&mut self, logic: Logic, terms: &'a [Expr]) -> Answer<'a> {
        let decides = logic == Logic::Or;
        let mut failed = None;
        for term in terms {
            match self.eval(term) {
                Ok(Val::Bool(b)) if b == decides => return Ok(Val::Bool(decides)),
                Ok(Val::Bool(_)) => {}
                Ok(_) => {
                    failed.get_or_insert(EvalError::NoSuchOverload);
                }
                Err(e) if e.is_fatal() => return Err(e),
                Err(e) => {
                    failed.get_or_insert(e);
                }
            }
        }
        failed.map_or(Ok(Val::Bool(!decides)), Err)
    }

    #[inline(never)]
    fn call(&mut self, call: &'a Call) -> Answer<'a> {
        let Some(function) = call.function else { return Err(EvalError::NoSuchOverload) };
        let mut args: SmallVec<[Val<'a>; 3]> = SmallVec::new();
        if function.name == "@not_strictly_false" {
            self.meter.add(1)?;
            return match self.eval(&call.args[0]) {
                Err(e) if !e.is_fatal() => Ok(Val::Bool(true)),
                other => other,
            };
        }
        if matches!(function.name, "or" | "orValue")
            && let (Some(target), Some(arg)) = (&call.target, call.args.first())
        {
            return self.alternative(target, arg, function.name == "orValue");
        }
        for arg in call.target.iter().chain(&call.args) {
            args.push(self.eval(arg)?);
        }
        if let Some(members) = &call.members
            && let Some(key) = MapKey::of(&args[0])
        {
            // The members are the program's, the key the data's: both are only looked at.
            return Ok(Val::Bool(contains(members, &key)));
        }
        self.meter.add(cost::before(function.cost, call.overload, &args))?;
        let result = (function.code)(&mut args, call.regex.as_ref())?;
        self.meter.add(cost::after(function.cost, &result))?;
        Ok(result)
    }

    /// `a.or(b)`, `a.orValue(b)`: the second is only worked out where the first is absent.
    #[inline(never)]
    fn alternative(&mut self, target: &'a Expr, arg: &'a Expr, value: bool) -> Answer<'a> {
        self.meter.add(1)?;
        match self.eval(target)? {
            Val::Optional(Some(inner)) if value => Ok((*inner).clone()),
            some @ Val::Optional(Some(_)) => Ok(some),
            Val::Optional(None) => self.eval(arg),
            _ => Err(EvalError::NoSuchOverload),
        }
    }

    #[inline(never)]
    fn list(&mut self, items: &'a [Item]) -> Answer<'a> {
        let mut out = Vec::with_capacity(items.len());
        for item in items {
            let value = self.eval(&item.value)?;
            out.extend(present(value, item.optional)?);
        }
        self.meter.add(LIST_COST)?;
        Ok(Val::from(out))
    }

    #[inline(never)]
    fn map(&mut self, entries: &'a [Entry]) -> Answer<'a> {
        let mut out = Entries::new();
        for entry in entries {
            let key = self.eval(&entry.key)?;
            let value = self.eval(&entry.value)?;
            let Some(value) = present(value, entry.optional)? else { continue };
            let Some(by) = MapKey::of(&key) else {
                return Err(EvalError::Refused(format!("unsupported key type: {}", key.type_of().runtime_name())));
            };
            // Of equal keys the last one counts.
            out.insert(by, (key, value));
        }
        self.meter.add(MAP_COST)?;
        Ok(Val::Map(MapVal::Owned(Arc::new(out))))
    }

    #[inline(never)]
    fn message(&mut self, message: &'a Struct, ty: &'a Type) -> Answer<'a> {
        let mut fields = Vec::with_capacity(message.fields.len());
        for field in &message.fields {
            let value = self.eval(&field.value)?;
            if let Some(value) = present(value, field.optional)? {
                fields.push((field.json_name.clone(), value));
            }
        }
        self.meter.add(MESSAGE_COST)?;
        Ok(Val::Message(Arc::new(Message { ty: ty.clone(), name: message.name.clone(), fields })))
    }

    #[inline(never)]
    fn bind(&mut self, bind: &'a Bind) -> Answer<'a> {
        let slot = bind.slot as usize;
        let outer = std::mem::replace(&mut self.slots[slot], Slot::Lazy(&bind.init));
        let result = self.eval(&bind.body);
        self.slots[slot] = outer;
        result
    }

    #[inline(never)]
    fn opt_map(&mut self, map: &'a OptMap) -> Answer<'a> {
        let before = self.meter.cost();
        let target = self.eval(&map.target)?;
        self.meter.add(1)?;
        let Val::Optional(target) = target else { return Err(EvalError::NoSuchOverload) };
        let Some(value) = target else {
            self.meter.add(1)?;
            return Ok(Val::Optional(None));
        };
        // The macro would read its target once to ask whether it is there and once for the value.
        self.meter.add(self.meter.cost() - before)?;
        let slot = map.slot as usize;
        let outer = std::mem::replace(&mut self.slots[slot], Slot::Known((*value).clone()));
        let result = self.eval(&map.body);
        self.slots[slot] = outer;
        let result = result?;
        if map.flat {
            return Ok(result);
        }
        self.meter.add(1)?;
        Ok(Val::Optional(Some(Arc::new(result))))
    }

    #[inline(never)]
    fn comprehension(&mut self, c: &'a Comprehension) -> Answer<'a> {
        let range = self.eval(&c.range)?;
        let slot = c.slot as usize;
        let outer = [slot, slot + 1].map(|s| self.slots[s].clone());
        let init = self.eval(&c.init)?;
        self.slots[slot] = Slot::Known(init);
        let walked = self.walk(c, &range);
        let result = match walked {
            Ok(()) => self.eval(&c.result),
            Err(e) => Err(e),
        };
        for (at, old) in outer.into_iter().enumerate() {
            self.slots[slot + at] = old;
        }
        result
    }

    fn walk(&mut self, c: &'a Comprehension, range: &Val<'a>) -> Result<(), EvalError> {
        let pairs = match range {
            Val::List(list) => {
                for (i, item) in list.iter().enumerate() {
                    let item = item?;
                    let more = match &c.var2 {
                        Some(_) => self.step(c, Val::Int(i as i64), Some(item))?,
                        None => self.step(c, item, None)?,
                    };
                    if !more {
                        break;
                    }
                }
                return Ok(());
            }
            Val::Map(map) => map.entries()?,
            // An object declared with fields is no map; a `dyn` one is.
            _ => {
                return Err(EvalError::Refused(format!(
                    "got '{}', expected iterable type",
                    range.type_of().runtime_name()
                )));
            }
        };
        for (key, value) in pairs {
            let value = c.var2.is_some().then_some(value);
            if !self.step(c, key, value)? {
                break;
            }
        }
        Ok(())
    }

    /// One element; answers whether to go on.
    fn step(&mut self, c: &'a Comprehension, first: Val<'a>, second: Option<Val<'a>>) -> Result<bool, EvalError> {
        let slot = c.slot as usize;
        self.meter.iterate(self.budget)?;
        self.slots[slot + 1] = Slot::Known(first);
        if let Some(second) = second {
            self.slots[slot + 2] = Slot::Known(second);
        }
        match self.eval(&c.condition) {
            Ok(Val::Bool(false)) => return Ok(false),
            Ok(_) => {}
            Err(e) => return Err(e),
        }
        match self.eval(&c.step) {
            Ok(value) => self.slots[slot] = Slot::Known(value),
            // Only `all` and `exists` may yet be decided by another element.
            Err(e) if e.is_fatal() || !matches!(c.step.kind, Kind::Logic(..)) => return Err(e),
            Err(e) => self.slots[slot] = Slot::Failed(e),
        }
        Ok(true)
    }
}

/// The element itself, or what is in an optional one.
fn present(value: Val<'_>, optional: bool) -> Result<Option<Val<'_>>, EvalError> {
    if !optional {
        return Ok(Some(value));
    }
    match value {
        Val::Optional(inner) => Ok(inner.map(|v| (*v).clone())),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn contains<'k>(members: &std::collections::BTreeSet<MapKey<'k>>, key: &MapKey<'k>) -> bool {
    members.contains(key)
}
