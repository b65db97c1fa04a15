//! The type check: finds out what names mean, which overloads fit, and what each node's type is.

use std::sync::Arc;

use crate::ast::{ACCUMULATOR, Call, Comprehension, Expr, Kind, SelectMode, Struct};
use crate::env::Environment;
use crate::functions::{self, Function};
use crate::library;
use crate::source::{Fault, MAX_ISSUES};
use crate::types::{Opaque, Type};
use crate::unify::{Unifier, instantiate, less_specific};
use crate::value::{MapKey, Val};

/// A checked tree.
pub(crate) struct Checked {
    pub(crate) expr: Expr,
    /// The root variables that it reads, with their declared types.
    pub(crate) variables: Vec<(Arc<str>, Type)>,
    /// Slots for variables of macros.
    pub(crate) slots: u32,
}

pub(crate) struct Checker<'e> {
    env: &'e Environment,
    scopes: Vec<(Arc<str>, Type)>,
    variables: Vec<(Arc<str>, Type)>,
    types: Unifier,
    faults: Vec<Fault>,
    slots: u32,
    /// Calls around here whose lists and maps may hold values of unlike types.
    mixed_allowed: u32,
}

impl<'e> Checker<'e> {
    /// Checks a tree; all its errors come together.
    pub(crate) fn run(env: &'e Environment, mut expr: Expr) -> Result<Checked, Vec<Fault>> {
        let mut checker = Checker {
            env,
            scopes: Vec::new(),
            variables: Vec::new(),
            types: Unifier::default(),
            faults: Vec::new(),
            slots: 0,
            mixed_allowed: 0,
        };
        checker.check(&mut expr);
        if !checker.faults.is_empty() {
            return Err(checker.faults);
        }
        checker.finish(&mut expr);
        if !checker.faults.is_empty() {
            return Err(checker.faults);
        }
        Ok(Checked { expr, variables: checker.variables, slots: checker.slots })
    }

    fn fault(&mut self, pos: u32, message: String) {
        if self.faults.len() < MAX_ISSUES {
            self.faults.push(Fault::at(pos as usize, message));
        }
    }

    fn check(&mut self, e: &mut Expr) {
        let pos = e.pos;
        e.ty = match &mut e.kind {
            Kind::Literal(value) => value.type_of(),
            Kind::Ident(_) => return self.ident(e),
            Kind::Select(_) => return self.select(e),
            Kind::Call(call) => self.call(call, pos),
            Kind::Logic(_, terms) => {
                for term in terms {
                    self.check(term);
                    self.expect(term, &Type::Bool);
                }
                Type::Bool
            }
            Kind::Conditional(parts) => self.conditional(parts, pos),
            Kind::List(items) => {
                let mut element = None;
                for item in items {
                    self.check(&mut item.value);
                    let ty = self.element_type(&item.value, item.optional);
                    element = Some(self.join(element, ty));
                }
                Type::list(element.unwrap_or_else(|| Type::Param(self.types.fresh(1))))
            }
            Kind::Map(entries) => {
                let (mut key, mut value) = (None, None);
                for entry in entries {
                    self.check(&mut entry.key);
                    // Only plain keys can be looked up; others fail when they run.
                    let ty = match &entry.key.ty {
                        plain @ (Type::Bool | Type::Int | Type::Uint | Type::String | Type::Double) => plain.clone(),
                        _ => Type::Dyn,
                    };
                    key = Some(self.join(key, ty));
                    self.check(&mut entry.value);
                    let ty = self.element_type(&entry.value, entry.optional);
                    value = Some(self.join(value, ty));
                }
                let mut or_fresh = |ty: Option<Type>| ty.unwrap_or_else(|| Type::Param(self.types.fresh(1)));
                Type::map(or_fresh(key), or_fresh(value))
            }
            Kind::Struct(message) => self.message(message, pos),
            Kind::Comprehension(c) => self.comprehension(c),
            Kind::Bind(b) => {
                self.check(&mut b.init);
                b.slot = self.enter(b.var.clone(), b.init.ty.clone());
                self.check(&mut b.body);
                self.scopes.pop();
                b.body.ty.clone()
            }
            Kind::OptMap(o) => {
                self.check(&mut o.target);
                let element = Type::Param(self.types.fresh(1));
                self.expect(&o.target, &Type::optional(element.clone()));
                o.slot = self.enter(o.var.clone(), element);
                self.check(&mut o.body);
                self.scopes.pop();
                if o.flat {
                    let inner = Type::Param(self.types.fresh(1));
                    self.expect(&o.body, &Type::optional(inner));
                    o.body.ty.clone()
                } else {
                    Type::optional(o.body.ty.clone())
                }
            }
            Kind::Var(_) | Kind::Local(_) | Kind::TakeLocal(_) | Kind::Known(..) => return,
        };
    }

    fn enter(&mut self, name: Arc<str>, ty: Type) -> u32 {
        self.scopes.push((name, ty));
        self.slots = self.slots.max(self.scopes.len() as u32);
        self.scopes.len() as u32 - 1
    }

    fn expect(&mut self, e: &Expr, wanted: &Type) {
        if !self.types.assignable(wanted, &e.ty) {
            let (wanted, found) = (self.types.resolve(wanted, true), self.types.resolve(&e.ty, true));
            self.fault(e.pos, format!("expected type '{wanted}' but found '{found}'"));
        }
    }

    /// The type that an element has in its list or map: an optional one's inner type.
    fn element_type(&mut self, e: &Expr, optional: bool) -> Type {
        if !optional {
            return e.ty.clone();
        }
        match self.types.resolve(&e.ty, false) {
            Type::Optional(inner) => (*inner).clone(),
            Type::Dyn => Type::Dyn,
            other => {
                self.fault(e.pos, format!("expected type 'optional_type({other})' but found '{other}'"));
                Type::Dyn
            }
        }
    }

    /// The type of elements of these types: `dyn` where they do not agree.
    fn join(&mut self, known: Option<Type>, next: Type) -> Type {
        let Some(known) = known else { return next };
        if self.types.assignable(&known, &next) {
            return if less_specific(&known, &next) { known } else { next };
        }
        Type::Dyn
    }

    /// Refuses literals whose elements are of unlike types; what `format` is given may be mixed.
    fn alike<'t>(&mut self, elements: impl Iterator<Item = (&'t Expr, bool)>) {
        if self.mixed_allowed > 0 {
            return;
        }
        let mut first: Option<Type> = None;
        for (e, optional) in elements {
            let ty = match &e.ty {
                Type::Optional(inner) if optional => (**inner).clone(),
                other => other.clone(),
            };
            match &first {
                None => first = Some(ty),
                Some(first) if *first == ty => {}
                Some(first) => {
                    let text = format!("expected type '{first}' but found '{ty}'");
                    self.fault(e.pos, text);
                    return;
                }
            }
        }
    }

    /// A variable's or a type's node; `None` for a name that nobody declared.
    fn lookup(&mut self, name: &str) -> Option<(Kind, Type)> {
        if let Some(slot) = self.scopes.iter().rposition(|(n, _)| &**n == name) {
            return Some((Kind::Local(slot as u32), self.scopes[slot].1.clone()));
        }
        if let Some((name, ty)) = self.env.variables.get_key_value(name) {
            let at = self.variables.iter().position(|(n, _)| n == name).unwrap_or_else(|| {
                self.variables.push((name.clone(), ty.clone()));
                self.variables.len() - 1
            });
            return Some((Kind::Var(at as u32), ty.clone()));
        }
        let named = named_type(name)?;
        let written = Expr::new(Kind::Ident(name.into()), 0);
        Some((Kind::Known(Val::Type(named.clone()), Box::new(written)), Type::type_of(named)))
    }

    fn ident(&mut self, e: &mut Expr) {
        let Kind::Ident(name) = &e.kind else { return };
        let name = name.clone();
        match self.lookup(&name) {
            Some((kind, ty)) => {
                e.kind = kind;
                e.ty = ty;
            }
            None => self.fault(e.pos, format!("undeclared reference to '{name}' (in container '')")),
        }
    }

    fn select(&mut self, e: &mut Expr) {
        if let Some(name) = e.qualified_name()
            && let Some((kind, ty)) = self.lookup(&name)
        {
            e.kind = kind;
            e.ty = ty;
            return;
        }
        let pos = e.pos;
        let Kind::Select(s) = &mut e.kind else { return };
        self.check(&mut s.operand);
        let operand = self.types.resolve(&s.operand.ty, false);
        let (target, mut optional) = match &operand {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let result = match &target {
            Type::Map(m) => m.1.clone(),
            Type::Object(object) => match object.get(&s.field) {
                Some(field) => field.ty.clone(),
                None if self.env.is_open(object.name()) => Type::Dyn,
                None => {
                    let message = format!("undefined field '{}'", s.field);
                    self.fault(pos, message);
                    Type::Dyn
                }
            },
            Type::Param(_) => {
                self.types.assignable(&Type::Dyn, &target);
                Type::Dyn
            }
            Type::Dyn => Type::Dyn,
            other => {
                let message = match other {
                    // Types of libraries are messages without fields.
                    Type::Opaque(o) if !matches!(o, Opaque::Ip | Opaque::Cidr) => {
                        format!("undefined field '{}'", s.field)
                    }
                    other => format!("type '{other}' does not support field selection"),
                };
                self.fault(pos, message);
                Type::Dyn
            }
        };
        optional |= s.mode == SelectMode::Optional;
        e.ty = if s.mode == SelectMode::Test {
            Type::Bool
        } else if optional {
            Type::optional(result)
        } else {
            result
        };
    }

    fn call(&mut self, call: &mut Call, pos: u32) -> Type {
        for arg in &mut call.args {
            self.check(arg);
        }
        if let Some(target) = &mut call.target {
            let qualified = target.qualified_name().map(|prefix| format!("{prefix}.{}", call.name));
            if let Some(function) = qualified.and_then(|name| functions::find(&name)) {
                call.name = function.name.into();
                call.target = None;
                return self.resolve(call, function, pos);
            }
            self.check(target);
        }
        match functions::find(&call.name) {
            Some(function) => self.resolve(call, function, pos),
            None => {
                self.fault(pos, format!("undeclared reference to '{}' (in container '')", call.name));
                Type::Dyn
            }
        }
    }

    fn resolve(&mut self, call: &mut Call, function: &'static Function, pos: u32) -> Type {
        let member = call.target.is_some();
        let args: Vec<Type> = call.target.iter().chain(&call.args).map(|a| a.ty.clone()).collect();
        let mut result: Option<Type> = None;
        for overload in function.overloads.iter().filter(|o| o.member == member && o.params.len() == args.len()) {
            let first = self.types.fresh(overload.generics);
            let params: Vec<Type> = overload.params.iter().map(|p| instantiate(p, first)).collect();
            if !self.types.all_assignable(&args, &params) {
                continue;
            }
            call.overloads.push(overload.id);
            let found = self.types.resolve(&instantiate(&overload.result, first), false);
            result = Some(match result {
                None => found,
                Some(Type::Dyn) => Type::Dyn,
                Some(known) if known == found => known,
                Some(_) => Type::Dyn,
            });
        }
        call.function = Some(function);
        if let [one] = call.overloads[..] {
            call.overload = Some(one);
        }
        result.unwrap_or_else(|| {
            self.no_overload(pos, &call.name, &args, member);
            Type::Dyn
        })
    }

    fn no_overload(&mut self, pos: u32, name: &str, args: &[Type], member: bool) {
        let names: Vec<String> = args.iter().map(|a| self.types.resolve(a, true).to_string()).collect();
        let signature = match &names[..] {
            [target, rest @ ..] if member => format!("{target}.({})", rest.join(", ")),
            all => format!("({})", all.join(", ")),
        };
        self.fault(pos, format!("found no matching overload for '{name}' applied to '{signature}'"));
    }

    fn conditional(&mut self, parts: &mut [Expr; 3], pos: u32) -> Type {
        for part in parts.iter_mut() {
            self.check(part);
        }
        let result = Type::Param(self.types.fresh(1));
        let args: Vec<Type> = parts.iter().map(|p| p.ty.clone()).collect();
        if self.types.all_assignable(&args, &[Type::Bool, result.clone(), result.clone()]) {
            return self.types.resolve(&result, false);
        }
        self.no_overload(pos, "_?_:_", &args, false);
        Type::Dyn
    }

    fn message(&mut self, message: &mut Struct, pos: u32) -> Type {
        let ty = self.env.message_type(&message.name);
        let Some(Type::Object(object)) = &ty else {
            let text = match self.lookup(&message.name) {
                Some((Kind::Known(..), _)) => format!("'{}' is not a message type", message.name),
                Some((_, ty)) => format!("'{ty}' is not a type"),
                None => format!("undeclared reference to '{}' (in container '')", message.name),
            };
            self.fault(pos, text);
            return Type::Dyn;
        };
        let open = self.env.is_open(object.name());
        for field in &mut message.fields {
            self.check(&mut field.value);
            let wanted = match object.get(&field.name) {
                Some(known) => {
                    field.json_name = known.json_name.as_str().into();
                    known.ty.clone()
                }
                None if open => Type::Dyn,
                None => {
                    self.fault(field.pos, format!("undefined field '{}'", field.name));
                    Type::Dyn
                }
            };
            let found = self.element_type(&field.value, field.optional);
            if !self.types.assignable(&wanted, &found) {
                let found = self.types.resolve(&found, true);
                let text =
                    format!("expected type of field '{}' is '{wanted}' but provided type is '{found}'", field.name);
                self.fault(field.pos, text);
            }
        }
        ty.unwrap_or(Type::Dyn)
    }

    fn comprehension(&mut self, c: &mut Comprehension) -> Type {
        self.check(&mut c.range);
        self.check(&mut c.init);
        let range = self.types.resolve(&c.range.ty, false);
        let accumulator = c.init.ty.clone();
        let (first, second) = match &range {
            Type::List(l) if c.var2.is_some() => (Type::Int, l.element.clone()),
            Type::List(l) => (l.element.clone(), Type::Dyn),
            Type::Map(m) => (m.0.clone(), m.1.clone()),
            Type::Dyn => (Type::Dyn, Type::Dyn),
            Type::Param(_) => {
                self.types.assignable(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let text = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.fault(c.range.pos, text);
                (Type::Dyn, Type::Dyn)
            }
        };
        c.slot = self.enter(ACCUMULATOR.into(), accumulator.clone());
        self.enter(c.var.clone(), first);
        if let Some(var2) = &c.var2 {
            self.enter(var2.clone(), second);
        }
        self.check(&mut c.condition);
        self.expect(&c.condition, &Type::Bool);
        self.check(&mut c.step);
        self.expect(&c.step, &accumulator);
        mark_taken(&mut c.step, c.slot);
        self.scopes.truncate(c.slot as usize + 1);
        self.check(&mut c.result);
        self.scopes.pop();
        self.types.resolve(&c.result.ty, false)
    }

    /// Puts the found types in, works out what is known already, and refuses bad literals.
    fn finish(&mut self, e: &mut Expr) {
        e.ty = self.types.resolve(&e.ty, true);
        match &mut e.kind {
            Kind::Select(s) => self.finish(&mut s.operand),
            Kind::Call(call) => {
                let mixed = u32::from(&*call.name == "format");
                self.mixed_allowed += mixed;
                for part in call.target.iter_mut().chain(&mut call.args) {
                    self.finish(part);
                }
                self.mixed_allowed -= mixed;
                if let Some(known) = self.fold(call) {
                    let written = std::mem::replace(&mut e.kind, Kind::Literal(Val::Null));
                    let written = Expr { kind: written, pos: e.pos, depth: e.depth, ty: e.ty.clone() };
                    e.kind = Kind::Known(known, Box::new(written));
                }
            }
            Kind::Logic(_, terms) => terms.iter_mut().for_each(|t| self.finish(t)),
            Kind::Conditional(parts) => parts.iter_mut().for_each(|p| self.finish(p)),
            Kind::List(items) => {
                items.iter_mut().for_each(|i| self.finish(&mut i.value));
                self.alike(items.iter().map(|i| (&i.value, i.optional)));
                let values: Option<Vec<Val<'static>>> =
                    items.iter().map(|i| known(&i.value).filter(|_| !i.optional)).collect();
                if let Some(values) = values {
                    let written = Expr { kind: Kind::List(std::mem::take(items)), ..shell(e) };
                    e.kind = Kind::Known(Val::from(values), Box::new(written));
                }
            }
            Kind::Map(entries) => {
                for entry in entries.iter_mut() {
                    self.finish(&mut entry.key);
                    self.finish(&mut entry.value);
                }
                self.alike(entries.iter().map(|e| (&e.key, false)));
                self.alike(entries.iter().map(|e| (&e.value, e.optional)));
            }
            Kind::Struct(s) => s.fields.iter_mut().for_each(|f| self.finish(&mut f.value)),
            Kind::Comprehension(c) => {
                for part in [&mut c.range, &mut c.init, &mut c.condition, &mut c.step, &mut c.result] {
                    self.finish(part);
                }
            }
            Kind::Bind(b) => {
                self.finish(&mut b.init);
                self.finish(&mut b.body);
            }
            Kind::OptMap(o) => {
                self.finish(&mut o.target);
                self.finish(&mut o.body);
            }
            _ => {}
        }
    }

    /// Conversions of literals, patterns and members that can be worked out now.
    fn fold(&mut self, call: &mut Call) -> Option<Val<'static>> {
        if library::is_conversion(&call.name) && call.args.len() == 1 && call.target.is_none() {
            let literal = known(&call.args[0])?;
            let function = call.function?;
            return match (function.code)(&mut [literal], None) {
                Ok(value) => Some(value),
                Err(_) if matches!(&*call.name, "timestamp" | "duration") => {
                    self.fault(call.args[0].pos, format!("invalid {} argument", call.name));
                    None
                }
                Err(_) => None,
            };
        }
        let pattern = match &*call.name {
            "matches" | "find" | "findAll" => {
                if call.target.is_some() {
                    call.args.first()
                } else {
                    call.args.get(1)
                }
            }
            "@in" => {
                if let Some(Val::List(list)) = known(call.args.get(1)?) {
                    call.members = list.iter().map(|item| MapKey::of(&item.ok()?)).collect();
                }
                return None;
            }
            _ => None,
        }?;
        let pos = pattern.pos;
        if let Some(Val::String(text)) = known(pattern) {
            match library::compile_regex(&text) {
                Ok(regex) => call.regex = Some(regex),
                Err(_) => self.fault(pos, format!("invalid {} argument", call.name)),
            }
        }
        None
    }
}

/// A node to be filled: place and type of another.
fn shell(e: &Expr) -> Expr {
    Expr { kind: Kind::Literal(Val::Null), pos: e.pos, depth: e.depth, ty: e.ty.clone() }
}

/// What a node is known to be.
fn known(e: &Expr) -> Option<Val<'static>> {
    match &e.kind {
        Kind::Literal(value) | Kind::Known(value, _) => Some(value.clone()),
        _ => None,
    }
}

/// Lets a step extend the accumulator in place.
fn mark_taken(step: &mut Expr, slot: u32) {
    match &mut step.kind {
        Kind::Conditional(parts) => mark_taken(&mut parts[1], slot),
        Kind::Call(call) if matches!(&*call.name, "_+_" | "cel.@mapInsert") => {
            if let Some(Expr { kind: kind @ Kind::Local(_), .. }) = call.args.first_mut()
                && matches!(kind, Kind::Local(s) if *s == slot)
            {
                *kind = Kind::TakeLocal(slot);
            }
        }
        _ => {}
    }
}

/// The type that a name stands for where it is used as a value.
fn named_type(name: &str) -> Option<Type> {
    const OPAQUES: &[Opaque] = &[
        Opaque::Quantity,
        Opaque::Url,
        Opaque::Ip,
        Opaque::Cidr,
        Opaque::Semver,
        Opaque::Format,
        Opaque::Authorizer,
        Opaque::PathCheck,
        Opaque::GroupCheck,
        Opaque::ResourceCheck,
        Opaque::Decision,
    ];
    Some(match name {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "null_type" => Type::Null,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "type" => Type::type_of(Type::Dyn),
        "dyn" => Type::Dyn,
        "optional_type" => Type::optional(Type::Dyn),
        "google.protobuf.Timestamp" => Type::Timestamp,
        "google.protobuf.Duration" => Type::Duration,
        other => Type::Opaque(OPAQUES.iter().copied().find(|o| o.name() == other)?),
    })
}
