//! Where a decoder stands, kept cheaply: text is made only when something is wrong.

use std::borrow::Cow;
use std::fmt::Write as _;

/// A step into a member or an element.
#[derive(Clone, Copy)]
pub(crate) enum Step<'a> {
    Member(&'a str),
    Element(usize),
}

/// A path as a chain of stack frames, from the innermost step to the root.
#[derive(Clone, Copy)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

impl<'a> Path<'a> {
    pub(crate) const ROOT: Path<'static> = Path { parent: None, step: Step::Element(0) };

    pub(crate) fn member(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Member(name) }
    }

    pub(crate) fn element(&'a self, index: usize) -> Path<'a> {
        Path { parent: Some(self), step: Step::Element(index) }
    }

    fn steps(&self) -> Vec<Step<'a>> {
        let mut steps = Vec::new();
        let mut here = *self;
        while let Some(parent) = here.parent {
            steps.push(here.step);
            here = *parent;
        }
        steps.reverse();
        steps
    }

    /// `spec.containers[0].image`, as strict decoding tells it.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        for step in self.steps() {
            match step {
                Step::Member(name) => {
                    if !out.is_empty() {
                        out.push('.');
                    }
                    out.push_str(name);
                }
                // Writing to a String cannot fail.
                Step::Element(i) => _ = write!(out, "[{i}]"),
            }
        }
        out
    }
}

/// A name read from text: borrowed where it had no escapes.
pub(crate) type Name<'a> = Cow<'a, str>;
