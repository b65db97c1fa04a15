//! The data of one request, by the names of variables.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use ironkeel_object::Value;

use crate::value::OpaqueVal;
use crate::{AuthorizerHook, EvalError, Program, ResourceCheck, Val};

/// The values of an environment's variables.
///
/// Programs that never read a variable do not mind that it is unbound; one that reads it fails
/// with `no such attribute(s)`.
#[derive(Default)]
pub struct Activation<'a> {
    bindings: Vec<(&'a str, Binding<'a>)>,
    composed: Option<Composed<'a>>,
    depth: Cell<u32>,
}

#[derive(Clone)]
enum Binding<'a> {
    Tree(&'a Value),
    Optional(Option<&'a Value>),
    Val(Val<'a>),
}

/// What a root variable is, before its declared type is applied.
pub(crate) enum Root<'a> {
    Tree(&'a Value),
    Optional(Option<&'a Value>),
    Val(Val<'a>),
}

type Slot<'a> = Option<Result<Val<'a>, EvalError>>;

struct Composed<'a> {
    name: &'a str,
    programs: Vec<(&'a str, &'a Program)>,
    results: RefCell<Vec<Slot<'a>>>,
}

/// State of a composed variable when it is read.
pub(crate) enum ComposedState<'a> {
    Absent,
    Known(Result<Val<'a>, EvalError>),
    Unknown(usize, &'a Program),
}

impl<'a> Activation<'a> {
    /// No data yet.
    pub fn new() -> Self {
        Activation::default()
    }

    /// Binds a tree; the environment's declared type decides how it is read. A name bound before
    /// is bound anew.
    pub fn bind(&mut self, name: &'a str, value: &'a Value) -> &mut Self {
        self.set(name, Binding::Tree(value))
    }

    /// Binds a value that another expression made, or a plain one: `Val::Bool(true)`.
    pub fn bind_val(&mut self, name: &'a str, value: Val<'a>) -> &mut Self {
        self.set(name, Binding::Val(value))
    }

    /// Binds a variable of an optional type, such as `oldSelf` with `optionalOldSelf`.
    pub fn bind_optional(&mut self, name: &'a str, value: Option<&'a Value>) -> &mut Self {
        self.set(name, Binding::Optional(value))
    }

    /// Binds a variable of [`crate::Opaque::Authorizer`].
    pub fn bind_authorizer(&mut self, name: &'a str, hook: &'a dyn AuthorizerHook) -> &mut Self {
        self.bind_val(name, Val::Opaque(Arc::new(OpaqueVal::authorizer(hook))))
    }

    /// Binds a variable of [`crate::Opaque::ResourceCheck`]: `authorizer.requestResource`.
    pub fn bind_request_resource(
        &mut self,
        name: &'a str,
        hook: &'a dyn AuthorizerHook,
        check: ResourceCheck,
    ) -> &mut Self {
        self.bind_val(name, Val::Opaque(Arc::new(OpaqueVal::resource_check(hook, check))))
    }

    /// Binds the composed variable (`variables`). Each program runs when its field is first read,
    /// with this activation; its cost counts for the reader's [`crate::Budget`].
    pub fn compose(&mut self, name: &'a str, programs: impl IntoIterator<Item = (&'a str, &'a Program)>) -> &mut Self {
        let programs: Vec<_> = programs.into_iter().collect();
        let results = RefCell::new(vec![None; programs.len()]);
        self.composed = Some(Composed { name, programs, results });
        self
    }

    fn set(&mut self, name: &'a str, binding: Binding<'a>) -> &mut Self {
        if let Some(known) = self.bindings.iter_mut().find(|(n, _)| *n == name) {
            known.1 = binding;
        } else {
            self.bindings.push((name, binding));
        }
        self
    }

    pub(crate) fn root(&self, name: &str) -> Option<Root<'a>> {
        if self.composed.as_ref().is_some_and(|c| c.name == name) {
            return Some(Root::Val(Val::Variables));
        }
        self.bindings.iter().find(|(n, _)| *n == name).map(|(_, binding)| match binding {
            Binding::Tree(tree) => Root::Tree(tree),
            Binding::Optional(tree) => Root::Optional(*tree),
            Binding::Val(val) => Root::Val(val.clone()),
        })
    }

    pub(crate) fn composed(&self, field: &str) -> ComposedState<'a> {
        let Some(composed) = &self.composed else { return ComposedState::Absent };
        let Some(at) = composed.programs.iter().position(|(n, _)| *n == field) else { return ComposedState::Absent };
        match &composed.results.borrow()[at] {
            Some(known) => ComposedState::Known(known.clone()),
            None => ComposedState::Unknown(at, composed.programs[at].1),
        }
    }

    pub(crate) fn remember(&self, at: usize, result: Result<Val<'a>, EvalError>) {
        if let Some(composed) = &self.composed
            && let Some(slot) = composed.results.borrow_mut().get_mut(at)
        {
            *slot = Some(result);
        }
    }

    /// Depth of the evaluation that is going on; composed variables add to their reader's.
    pub(crate) fn depth(&self) -> &Cell<u32> {
        &self.depth
    }
}
