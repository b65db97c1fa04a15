//! Which types agree, and what type parameters are found to be.

use std::mem;

use crate::types::{ListType, Type};

/// What type parameters stand for so far; failed attempts leave no trace.
#[derive(Default)]
pub(crate) struct Unifier {
    bound: Vec<Option<Type>>,
    trail: Vec<(u32, Option<Type>)>,
}

impl Unifier {
    /// New parameters; answers the first one's number.
    pub(crate) fn fresh(&mut self, count: u32) -> u32 {
        let first = self.bound.len();
        self.bound.resize(first + count as usize, None);
        first as u32
    }

    fn find(&self, param: u32) -> Option<&Type> {
        self.bound.get(param as usize).and_then(Option::as_ref)
    }

    fn bind(&mut self, param: u32, ty: Type) {
        if let Some(slot) = self.bound.get_mut(param as usize) {
            let old = slot.replace(ty);
            self.trail.push((param, old));
        }
    }

    fn attempt(&mut self, f: impl FnOnce(&mut Self) -> bool) -> bool {
        let mark = self.trail.len();
        let agrees = f(self);
        if !agrees {
            while self.trail.len() > mark {
                if let Some((param, old)) = self.trail.pop() {
                    self.bound[param as usize] = old;
                }
            }
        }
        agrees
    }

    /// Whether a value of the second type may stand where the first is wanted.
    pub(crate) fn assignable(&mut self, a: &Type, b: &Type) -> bool {
        self.attempt(|u| u.agrees(a, b))
    }

    /// As [`Unifier::assignable`], for all arguments of a call at once.
    pub(crate) fn all_assignable(&mut self, args: &[Type], params: &[Type]) -> bool {
        args.len() == params.len() && self.attempt(|u| args.iter().zip(params).all(|(a, p)| u.agrees(a, p)))
    }

    fn agrees(&mut self, a: &Type, b: &Type) -> bool {
        if let Type::Param(param) = b {
            let (valid, known) = self.stands_for(a, *param);
            if valid {
                return true;
            }
            if known {
                return false;
            }
        }
        if let Type::Param(param) = a {
            return self.stands_for(b, *param).0;
        }
        match (a, b) {
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (Type::Null, other) | (other, Type::Null) => matches!(
                other,
                Type::Null | Type::Optional(_) | Type::Opaque(_) | Type::Object(_) | Type::Duration | Type::Timestamp
            ),
            (Type::List(a), Type::List(b)) => self.agrees(&a.element, &b.element),
            (Type::Map(a), Type::Map(b)) => self.agrees(&a.0, &b.0) && self.agrees(&a.1, &b.1),
            (Type::Optional(a), Type::Optional(b)) => self.agrees(a, b),
            (Type::Type(_), Type::Type(_)) => true,
            (a, b) => a == b,
        }
    }

    /// Whether a parameter may stand for a type, and whether it already stands for one.
    fn stands_for(&mut self, ty: &Type, param: u32) -> (bool, bool) {
        if matches!(ty, Type::Param(p) if *p == param) {
            return (true, true);
        }
        if let Some(known) = self.find(param).cloned() {
            if mem::discriminant(&known) == mem::discriminant(ty) && known == *ty {
                return (true, true);
            }
            if !self.agrees(ty, &known) {
                return (false, true);
            }
            let general = if less_specific(ty, &known) { ty.clone() } else { known };
            if self.absent(param, &general) {
                self.bind(param, general);
            }
            return (true, true);
        }
        if self.absent(param, ty) {
            self.bind(param, ty.clone());
            return (true, false);
        }
        (false, false)
    }

    /// Whether a parameter does not occur in a type.
    fn absent(&self, param: u32, ty: &Type) -> bool {
        match ty {
            Type::Param(p) if *p == param => false,
            Type::Param(p) => self.find(*p).is_none_or(|known| self.absent(param, known)),
            Type::List(l) => self.absent(param, &l.element),
            Type::Map(m) => self.absent(param, &m.0) && self.absent(param, &m.1),
            Type::Optional(t) | Type::Type(t) => self.absent(param, t),
            _ => true,
        }
    }

    /// The type with what is found put in; with `last`, what is not found is `dyn`.
    pub(crate) fn resolve(&self, ty: &Type, last: bool) -> Type {
        match ty {
            Type::Param(p) => match self.find(*p) {
                Some(known) => self.resolve(known, last),
                None if last => Type::Dyn,
                None => ty.clone(),
            },
            Type::List(l) => Type::List(std::sync::Arc::new(ListType {
                element: self.resolve(&l.element, last),
                kind: l.kind.clone(),
            })),
            Type::Map(m) => Type::map(self.resolve(&m.0, last), self.resolve(&m.1, last)),
            Type::Optional(t) => Type::optional(self.resolve(t, last)),
            Type::Type(t) => Type::type_of(self.resolve(t, last)),
            other => other.clone(),
        }
    }
}

/// An overload's type with its parameters numbered from `first`.
pub(crate) fn instantiate(ty: &Type, first: u32) -> Type {
    match ty {
        Type::Param(p) => Type::Param(first + p),
        Type::List(l) => Type::list(instantiate(&l.element, first)),
        Type::Map(m) => Type::map(instantiate(&m.0, first), instantiate(&m.1, first)),
        Type::Optional(t) => Type::optional(instantiate(t, first)),
        Type::Type(t) => Type::type_of(instantiate(t, first)),
        other => other.clone(),
    }
}

/// Whether the first says as much as the second, or less.
pub(crate) fn less_specific(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Param(_)) => false,
        (Type::List(a), Type::List(b)) => less_specific(&a.element, &b.element),
        (Type::Map(a), Type::Map(b)) => less_specific(&a.0, &b.0) && less_specific(&a.1, &b.1),
        (Type::Optional(a), Type::Optional(b)) => less_specific(a, b),
        (Type::Type(_), Type::Type(_)) => true,
        (a, b) => a == b,
    }
}
