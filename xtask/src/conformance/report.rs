//! What came of the specs, from ginkgo's JSON report to docs/conformance.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Area;

/// Upstream's parallel conformance specs on a machine of two cores, in six processes: how many, and
/// how long they took in seconds.
const UPSTREAM: (usize, u64) = (411, 1_230);

/// One spec that ran.
struct Ran {
    passed: bool,
    seconds: f64,
    words: String,
}

/// What the suite has told.
pub(crate) struct Outcome {
    specs: BTreeMap<String, Ran>,
    wall_seconds: f64,
}

impl Outcome {
    /// Reads ginkgo's report.
    pub(crate) fn read(path: &Path) -> Result<Outcome> {
        let report: Value = serde_json::from_slice(&std::fs::read(path)?)?;
        let suite = report.get(0).context("the report is empty")?;
        let seconds = |value: &Value| value["RunTime"].as_f64().unwrap_or_default() / 1e9;
        let mut specs = BTreeMap::new();
        for spec in suite["SpecReports"].as_array().into_iter().flatten() {
            let state = spec["State"].as_str().unwrap_or_default();
            if spec["LeafNodeType"] != "It" || matches!(state, "skipped" | "pending") {
                continue;
            }
            let containers = spec["ContainerHierarchyTexts"].as_array().into_iter().flatten();
            let name: Vec<_> = containers.chain([&spec["LeafNodeText"]]).filter_map(Value::as_str).collect();
            let words = spec["Failure"]["Message"].as_str().unwrap_or_default();
            let words = words.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect();
            specs.insert(name.join(" "), Ran { passed: state == "passed", seconds: seconds(spec), words });
        }
        Ok(Outcome { specs, wall_seconds: seconds(suite) })
    }
}

/// The page.
pub(crate) struct Report<'a> {
    areas: &'a [Area],
    outcome: Outcome,
    processes: u32,
    nodes: usize,
    on_etcd: bool,
}

impl<'a> Report<'a> {
    pub(crate) fn new(areas: &'a [Area], outcome: Outcome, processes: u32, nodes: usize, on_etcd: bool) -> Self {
        Report { areas, outcome, processes, nodes, on_etcd }
    }

    fn passed(&self, area: &Area) -> usize {
        area.specs.iter().filter(|spec| self.outcome.specs.get(*spec).is_some_and(|ran| ran.passed)).count()
    }

    /// One line for the terminal.
    pub(crate) fn summary(&self) -> String {
        let passed: usize = self.areas.iter().map(|area| self.passed(area)).sum();
        let all: usize = self.areas.iter().map(|area| area.specs.len()).sum();
        format!("{passed} of {all} specs passed in {:.0} s", self.outcome.wall_seconds)
    }

    /// docs/conformance.md.
    pub(crate) fn markdown(&self) -> String {
        let mut out = String::from("# Conformance\n\n");
        let _ = writeln!(
            out,
            "Upstream's own suite (v1.36.2, unmodified, protobuf) on {}: {}, {} processes, {} node{}, objects in {}.\n\
             Written by `cargo xtask conformance`. On the same kind of machine (two cores) upstream's own\n\
             components took {} s for its {} parallel specs.\n",
            today(),
            self.summary(),
            self.processes,
            self.nodes,
            if self.nodes == 1 { "" } else { "s" },
            if self.on_etcd { "a real etcd" } else { "the embedded store" },
            UPSTREAM.1,
            UPSTREAM.0,
        );
        let _ = writeln!(out, "| area | passed | of |\n| --- | --- | --- |");
        for area in self.areas {
            let _ = writeln!(out, "| {} | {} | {} |", area.name, self.passed(area), area.specs.len());
        }
        for area in self.areas {
            let _ = writeln!(out, "\n## {}\n\n| | spec | seconds |\n| --- | --- | --- |", area.name);
            for spec in &area.specs {
                let name = spec.replace('|', "\\|");
                let _ = match self.outcome.specs.get(spec) {
                    Some(ran) if ran.passed => writeln!(out, "| passed | {name} | {:.0} |", ran.seconds),
                    Some(ran) => {
                        writeln!(
                            out,
                            "| **failed** | {name}<br>{} | {:.0} |",
                            ran.words.replace('|', "\\|"),
                            ran.seconds
                        )
                    }
                    None => writeln!(out, "| did not run | {name} | |"),
                };
            }
        }
        out
    }
}

/// Today's date, UTC.
fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Days to a date of the proleptic Gregorian calendar, in eras of 400 years that begin in March.
    let days = seconds / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}
