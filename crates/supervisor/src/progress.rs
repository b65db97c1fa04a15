//! What is told on stderr while the cluster starts: one line a step, with the time it took.

use std::time::Instant;

/// Prints steps as they are done.
#[derive(Debug)]
pub struct Progress {
    start: Instant,
    quiet: bool,
}

impl Progress {
    /// Starts the clock.
    pub fn start(quiet: bool) -> Self {
        Progress { start: Instant::now(), quiet }
    }

    /// Says that a step is done.
    pub fn done(&self, what: impl std::fmt::Display) {
        if !self.quiet {
            eprintln!("{:>6} ms  {what}", self.start.elapsed().as_millis());
        }
    }

    /// Says something without a time.
    pub fn say(&self, what: impl std::fmt::Display) {
        eprintln!("{what}");
    }

    /// Milliseconds since the start.
    pub fn elapsed_ms(&self) -> u128 {
        self.start.elapsed().as_millis()
    }
}
