//! A compiled expression.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::EvalError;
use crate::activation::Activation;
use crate::ast::{Expr, Kind, SelectMode, each_child};
use crate::budget::Budget;
use crate::check::Checked;
use crate::estimate::{self, CostEstimate};
use crate::eval;
use crate::schema::DeclType;
use crate::types::Type;
use crate::value::Val;

/// A compiled expression: cheap to clone, shared between threads.
#[derive(Clone, Debug)]
pub struct Program {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    source: String,
    checked: Tree,
}

/// What runs.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) expr: Expr,
    pub(crate) variables: Vec<(Arc<str>, Type)>,
    pub(crate) slots: usize,
}

impl Program {
    pub(crate) fn new(source: &str, checked: Checked) -> Self {
        let Checked { expr, variables, slots } = checked;
        let checked = Tree { expr, variables, slots: slots as usize };
        Program { inner: Arc::new(Inner { source: source.to_owned(), checked }) }
    }

    /// Runs it. The result may borrow from the data and from this program.
    ///
    /// Costs at most [`crate::PER_CALL_LIMIT`]; what it cost is taken off the budget, also when it fails.
    pub fn eval<'a>(&'a self, activation: &Activation<'a>, budget: &mut Budget) -> Result<Val<'a>, EvalError> {
        let (result, cost) = eval::run(&self.inner.checked, activation, budget);
        // Where both ran out, the expression's own limit is the better answer.
        match (result, budget.charge(cost)) {
            (Ok(_), Err(out)) => Err(out),
            (result, _) => result,
        }
    }

    /// The type of its results.
    pub fn output_type(&self) -> &Type {
        &self.inner.checked.expr.ty
    }

    /// What it was compiled from.
    pub fn source(&self) -> &str {
        &self.inner.source
    }

    /// The root variables that it reads, such as `oldSelf`.
    pub fn references(&self) -> BTreeSet<String> {
        self.inner.checked.variables.iter().map(|(name, _)| name.to_string()).collect()
    }

    /// The fields that it reads by name from a root variable, as dotted paths: `object.spec.replicas`.
    /// A path ends where an index, a function or a macro goes on.
    pub fn field_paths(&self) -> BTreeSet<String> {
        let mut out = BTreeSet::new();
        self.collect_paths(&self.inner.checked.expr, &mut out);
        out
    }

    fn collect_paths(&self, e: &Expr, out: &mut BTreeSet<String>) {
        match self.path(e) {
            Some(path) => {
                out.insert(path);
            }
            None => each_child(&e.kind, |child| self.collect_paths(child, out)),
        }
    }

    fn path(&self, e: &Expr) -> Option<String> {
        match &e.kind {
            Kind::Var(at) => Some(self.inner.checked.variables.get(*at as usize)?.0.to_string()),
            Kind::Select(s) if s.mode != SelectMode::Optional => {
                let mut path = self.path(&s.operand)?;
                path.push('.');
                path.push_str(&s.field);
                Some(path)
            }
            _ => None,
        }
    }

    /// What it may cost, when the variables are as large as their schemas allow. Variables without a
    /// schema here are taken to be unbounded.
    pub fn estimate(&self, schemas: &[(&str, &DeclType)]) -> CostEstimate {
        estimate::estimate(&self.inner.checked, schemas)
    }
}
