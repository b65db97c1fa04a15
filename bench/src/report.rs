//! The table: ours, theirs, and the ratio between them.

use std::fmt;

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    /// A rate.
    More,
    /// A time or a size.
    Less,
}

struct Row {
    what: String,
    better: Better,
    ours: f64,
    theirs: Option<f64>,
    unit: &'static str,
}

/// Rows as they come.
#[derive(Default)]
pub(crate) struct Report(Vec<Row>);

impl Report {
    /// Adds a row, and tells it on stderr at once.
    pub(crate) fn row(&mut self, what: &str, better: Better, ours: f64, theirs: Option<f64>, unit: &'static str) {
        let row = Row { what: what.to_owned(), better, ours, theirs, unit };
        eprintln!("{}: {} ({})", row.what, number(row.ours, row.unit), row.ratio());
        self.0.push(row);
    }
}

impl Row {
    /// Above 1 we are better.
    fn ratio(&self) -> String {
        let Some(theirs) = self.theirs else { return "no reference".to_owned() };
        let ratio = if self.better == Better::More { self.ours / theirs } else { theirs / self.ours };
        if ratio.is_finite() { format!("{ratio:.1} ×") } else { "–".to_owned() }
    }
}

fn number(value: f64, unit: &str) -> String {
    let text = if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    if unit.is_empty() { text } else { format!("{text} {unit}") }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | ours | reference | better by |\n| --- | --- | --- | --- |")?;
        for row in &self.0 {
            let theirs = row.theirs.map_or("–".to_owned(), |t| number(t, row.unit));
            writeln!(f, "| {} | {} | {theirs} | {} |", row.what, number(row.ours, row.unit), row.ratio())?;
        }
        Ok(())
    }
}
