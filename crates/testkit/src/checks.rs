//! A list of checks on one cluster: each has its name, a failure does not keep the others from
//! running, and the end tells how many of how many held.

use std::time::Instant;

use crate::Outcome;
use crate::tools::say;

/// Checks that were made.
#[derive(Debug)]
pub struct Checks {
    subject: &'static str,
    start: Instant,
    made: usize,
    failures: Vec<String>,
}

impl Checks {
    /// Starts a list about `subject`.
    pub fn new(subject: &'static str) -> Self {
        Checks { subject, start: Instant::now(), made: 0, failures: Vec::new() }
    }

    /// Makes one check, and tells its outcome and time.
    pub fn check(&mut self, name: &str, check: impl FnOnce() -> Outcome) {
        self.made += 1;
        let start = Instant::now();
        let outcome = check();
        let took = start.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => say(&format!("{}: {name} ... ok ({took:.2} s)", self.subject)),
            Err(error) => {
                say(&format!("{}: {name} ... FAILED ({took:.2} s)\n    {}", self.subject, indent(&error.to_string())));
                self.failures.push(format!("{name}: {error}"));
            }
        }
    }

    /// Tells the count.
    ///
    /// # Panics
    /// When a check failed.
    pub fn finish(self) {
        let (held, took) = (self.made - self.failures.len(), self.start.elapsed().as_secs_f64());
        say(&format!("{}: {held} of {} checks hold ({took:.1} s)", self.subject, self.made));
        let count = self.failures.len();
        assert!(count == 0, "{}: {count} of {} checks failed:\n{}", self.subject, self.made, self.failures.join("\n"));
    }
}

/// The subject's cluster, or the test's end with what went wrong.
///
/// # Panics
/// On an error.
pub fn must<T>(what: &str, outcome: Outcome<T>) -> T {
    match outcome {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error}"),
    }
}

fn indent(text: &str) -> String {
    text.replace('\n', "\n    ")
}
