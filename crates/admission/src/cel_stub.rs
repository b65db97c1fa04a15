//! Match conditions while no evaluator is linked: whoever has them fails, as its policy says.

use ironkeel_object::Value;
use ironkeel_registry::{Attributes, Row};

use crate::Cluster;

pub(crate) static WEBHOOK: () = ();

/// A condition that cannot be run.
pub(crate) struct Condition;

impl Condition {
    pub(crate) fn parse_all(list: &[Value], _: &()) -> Vec<Condition> {
        list.iter().map(|_| Condition).collect()
    }
}

/// What match conditions say.
pub(crate) enum Verdict {
    Skips,
    Fails(String),
}

pub(crate) fn match_conditions(
    _: &Cluster,
    _: &Attributes<'_>,
    _: &[Condition],
    fail: bool,
    _: &Row,
    _: (Option<&Value>, Option<&Value>),
) -> Verdict {
    if fail { Verdict::Fails("matchConditions are not evaluated here".into()) } else { Verdict::Skips }
}
