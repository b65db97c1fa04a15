//! Places in a source, and the text of errors that point at them.

use std::fmt::Write as _;

use crate::error::{CompileError, Issue, Issues};

/// Longest line that is shown below a message, in bytes.
const MAX_SNIPPET_BYTES: usize = 16_384;
/// Errors that are reported of one expression.
pub(crate) const MAX_ISSUES: usize = 30;

/// An error at a byte of the source; `None`: of no place.
pub(crate) struct Fault {
    pub(crate) pos: Option<usize>,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn at(pos: usize, message: impl Into<String>) -> Self {
        Fault { pos: Some(pos), message: message.into() }
    }
}

/// Makes the text that cel-go would make of these errors.
pub(crate) fn issues(source: &str, mut faults: Vec<Fault>) -> CompileError {
    faults.sort_by_key(|f| f.pos);
    let mut out = Issues::default();
    for fault in faults.into_iter().take(MAX_ISSUES) {
        if !out.text.is_empty() {
            out.text.push('\n');
        }
        let Some(pos) = fault.pos else {
            // Writing to a String cannot fail.
            let _ = write!(out.text, "ERROR: <input>:-1:0: {}", fault.message);
            out.issues.push(Issue { line: 0, column: 0, message: fault.message });
            continue;
        };
        let before = source.get(..pos.min(source.len())).unwrap_or(source);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before[start..].chars().count();
        let text = source[start..].lines().next().unwrap_or_default();
        // The end of nothing has no column.
        let shown = if source.is_empty() { 0 } else { column + 1 };
        let _ = write!(out.text, "ERROR: <input>:{line}:{shown}: {}", fault.message);
        if text.len() <= MAX_SNIPPET_BYTES {
            let _ = write!(out.text, "\n | {}\n | ", text.replace('\t', " "));
            let mut chars = text.chars();
            for c in chars.by_ref().take(column) {
                out.text.push(if c.len_utf8() > 1 { '\u{ff0e}' } else { '.' });
            }
            out.text.push(if chars.next().is_some_and(|c| c.len_utf8() > 1) { '\u{ff3e}' } else { '^' });
        }
        out.issues.push(Issue { line, column: column + 1, message: fault.message });
    }
    CompileError::Issues(out)
}
