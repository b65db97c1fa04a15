//! What a metric is called and what it means.

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

impl Kind {
    /// As in a `# TYPE` line.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// How long a family is promised to stay (Kubernetes' metric stability levels).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// May go at any time.
    Alpha,
    /// Labels may be added.
    Beta,
    /// Stays as it is.
    Stable,
    /// Not Kubernetes' (`process_*`): no mark in the help text.
    Unmarked,
}

impl Stability {
    /// The mark before the help text.
    pub fn mark(self) -> &'static str {
        match self {
            Stability::Alpha => "[ALPHA] ",
            Stability::Beta => "[BETA] ",
            Stability::Stable => "[STABLE] ",
            Stability::Unmarked => "",
        }
    }
}

/// One family of series.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// `apiserver_request_total`.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its stability.
    pub stability: Stability,
    /// For people.
    pub help: &'static str,
    /// Names of the labels, in the order in which values are given.
    pub labels: &'static [&'static str],
}

impl Family {
    /// A counter.
    pub const fn counter(name: &'static str, stability: Stability, help: &'static str) -> Self {
        Family { name, kind: Kind::Counter, stability, help, labels: &[] }
    }

    /// A gauge.
    pub const fn gauge(name: &'static str, stability: Stability, help: &'static str) -> Self {
        Family { name, kind: Kind::Gauge, stability, help, labels: &[] }
    }

    /// A histogram.
    pub const fn histogram(name: &'static str, stability: Stability, help: &'static str) -> Self {
        Family { name, kind: Kind::Histogram, stability, help, labels: &[] }
    }

    /// The same with labels.
    pub const fn by(self, labels: &'static [&'static str]) -> Self {
        Family { labels, ..self }
    }
}
