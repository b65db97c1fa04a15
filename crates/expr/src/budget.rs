//! What expressions may cost, together and each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{EvalError, PER_CALL_LIMIT};

/// Cost units that several expressions share: all rules of one object in one request.
///
/// Units are cel-go's: 1 for a variable, a field or a plain operation, 0.1 for a character that is
/// looked at, 10 for a new list, 350,000 for an authorization check.
#[derive(Clone, Debug)]
pub struct Budget {
    remaining: u64,
    interrupt: Option<Arc<AtomicBool>>,
}

impl Budget {
    /// A budget; see [`crate::REQUEST_BUDGET`] and [`crate::MATCH_CONDITIONS_BUDGET`].
    pub fn new(limit: u64) -> Self {
        Budget { remaining: limit, interrupt: None }
    }

    /// Stops with [`EvalError::Interrupted`] soon after the flag is set.
    pub fn interruptible(mut self, interrupt: Arc<AtomicBool>) -> Self {
        self.interrupt = Some(interrupt);
        self
    }

    /// What is left.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Takes what an evaluation outside this crate cost, such as an estimate.
    pub fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        match self.remaining.checked_sub(cost) {
            Some(rest) => {
                self.remaining = rest;
                Ok(())
            }
            None => {
                self.remaining = 0;
                Err(EvalError::OutOfBudget)
            }
        }
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupt.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }
}

/// Iterations between two looks at the interrupt.
const INTERRUPT_CHECK_ITERATIONS: u32 = 100;

/// Counts what one run of one expression costs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    cost: u64,
    iterations: u32,
}

impl Meter {
    pub(crate) fn add(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > PER_CALL_LIMIT {
            return Err(EvalError::CostLimitExceeded);
        }
        Ok(())
    }

    pub(crate) fn iterate(&mut self, budget: &Budget) -> Result<(), EvalError> {
        self.iterations += 1;
        if self.iterations >= INTERRUPT_CHECK_ITERATIONS {
            self.iterations = 0;
            if budget.is_interrupted() {
                return Err(EvalError::Interrupted);
            }
        }
        Ok(())
    }

    pub(crate) fn cost(self) -> u64 {
        self.cost
    }
}
