//! The exposition formats: Prometheus' text (0.0.4) and OpenMetrics' (1.0.0).

use std::fmt::Write;

use crate::family::{Family, Kind};
use crate::labeled::Labeled;
use crate::value::{Counter, Gauge, Histogram};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `text/plain; version=0.0.4`.
    Prometheus,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
}

impl Form {
    /// What an `Accept` header asks for; Prometheus' text where it does not say.
    pub fn accepted(accept: &str) -> Self {
        let wants = |part: &str| part.split(';').next().is_some_and(|t| t.trim() == "application/openmetrics-text");
        if accept.split(',').any(wants) { Form::OpenMetrics } else { Form::Prometheus }
    }

    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Form::Prometheus => "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
            Form::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A page of metrics under construction. Families without a series are left out.
#[derive(Debug)]
pub struct Text {
    out: String,
    form: Form,
}

impl Text {
    /// An empty page.
    pub fn new(form: Form) -> Self {
        Text { out: String::with_capacity(64 << 10), form }
    }

    /// The page.
    pub fn finish(mut self) -> String {
        if self.form == Form::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }

    fn head(&mut self, family: &Family) {
        let name = match (self.form, family.kind) {
            (Form::OpenMetrics, Kind::Counter) => family.name.strip_suffix("_total").unwrap_or(family.name),
            _ => family.name,
        };
        let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.out, "# HELP {name} {}{help}", family.stability.mark());
        let _ = writeln!(self.out, "# TYPE {name} {}", family.kind.as_str());
    }

    fn sample(&mut self, family: &Family, suffix: &str, values: &[&str], bound: Option<&str>, value: f64) {
        self.out.push_str(family.name);
        self.out.push_str(suffix);
        if self.form == Form::OpenMetrics && family.kind == Kind::Counter && !family.name.ends_with("_total") {
            self.out.push_str("_total");
        }
        let mut open = '{';
        for (name, value) in family.labels.iter().zip(values) {
            self.out.push(open);
            open = ',';
            self.out.push_str(name);
            self.out.push_str("=\"");
            for c in value.chars() {
                match c {
                    '"' => self.out.push_str("\\\""),
                    '\\' => self.out.push_str("\\\\"),
                    '\n' => self.out.push_str("\\n"),
                    c => self.out.push(c),
                }
            }
            self.out.push('"');
        }
        if let Some(bound) = bound {
            self.out.push(open);
            open = ',';
            let _ = write!(self.out, "le=\"{bound}\"");
        }
        if open == ',' {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {}", number(value));
    }

    fn buckets(&mut self, family: &Family, values: &[&str], h: &Histogram) {
        let counts = h.cumulative();
        let total = counts.last().copied().unwrap_or(0);
        self.distribution(family, values, h.bounds(), &counts, h.sum(), total);
    }

    fn distribution(&mut self, f: &Family, values: &[&str], bounds: &[f64], below: &[u64], sum: f64, total: u64) {
        for (bound, n) in bounds.iter().zip(below) {
            self.sample(f, "_bucket", values, Some(&number(*bound)), *n as f64);
        }
        self.sample(f, "_bucket", values, Some("+Inf"), total as f64);
        self.sample(f, "_sum", values, None, sum);
        self.sample(f, "_count", values, None, total as f64);
    }

    /// Samples that somebody else holds: label values and number.
    pub fn samples<S: AsRef<str>>(&mut self, family: &Family, samples: impl IntoIterator<Item = (Vec<S>, f64)>) {
        let mut first = true;
        for (labels, value) in samples {
            if std::mem::take(&mut first) {
                self.head(family);
            }
            let labels: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
            self.sample(family, "", &labels, None, value);
        }
    }

    /// One sample without labels.
    pub fn single(&mut self, family: &Family, value: f64) {
        self.head(family);
        self.sample(family, "", &[], None, value);
    }

    /// Histograms that somebody else holds: label values and histogram.
    pub fn histograms<'a, S: AsRef<str>>(
        &mut self,
        family: &Family,
        series: impl IntoIterator<Item = (Vec<S>, &'a Histogram)>,
    ) {
        let mut first = true;
        for (labels, h) in series {
            if std::mem::take(&mut first) {
                self.head(family);
            }
            let labels: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
            self.buckets(family, &labels, h);
        }
    }

    /// Histograms by their parts: label values, bounds, counts at or below each bound, sum, count.
    pub fn distributions<'a, S: AsRef<str>>(
        &mut self,
        family: &Family,
        series: impl IntoIterator<Item = (Vec<S>, &'a [f64], Vec<u64>, f64, u64)>,
    ) {
        let mut first = true;
        for (labels, bounds, below, sum, total) in series {
            if std::mem::take(&mut first) {
                self.head(family);
            }
            let labels: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
            self.distribution(family, &labels, bounds, &below, sum, total);
        }
    }

    /// A table of counters.
    pub fn counters<const N: usize>(&mut self, family: &Family, table: &Labeled<N, Counter>) {
        self.samples(family, table.iter().map(|s| (s.labels().to_vec(), s.get() as f64)));
    }

    /// A table of gauges.
    pub fn gauges<const N: usize>(&mut self, family: &Family, table: &Labeled<N, Gauge>) {
        self.samples(family, table.iter().map(|s| (s.labels().to_vec(), s.get() as f64)));
    }

    /// A table of histograms.
    pub fn histogram_table<const N: usize>(&mut self, family: &Family, table: &Labeled<N, Histogram>) {
        self.histograms(family, table.iter().map(|s| (s.labels().to_vec(), &***s)));
    }
}

/// As Go's client writes floats: the shortest form, with an exponent below 1e-04 and from 1e+06 on.
fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e6).contains(&magnitude) {
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |d| ('-', d));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    format!("{value}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stability;

    #[test]
    fn both_forms_are_written() {
        const REQUESTS: Family = Family::counter("requests_total", Stability::Stable, "Requests.").by(&["verb"]);
        const TOOK: Family = Family::histogram("took_seconds", Stability::Alpha, "Time.");
        const NONE: Family = Family::gauge("nothing", Stability::Beta, "Never.").by(&["a"]);
        let table = Labeled::new(Counter::new);
        table.with(["GE\"T"]).add(3);
        let h = Histogram::new(&[0.00005, 0.5, 1.0]);
        [0.0, 0.25, 0.75, 9.0].into_iter().for_each(|v| h.observe(v));
        let page = |form| {
            let mut text = Text::new(form);
            text.counters(&REQUESTS, &table);
            text.gauges(&NONE, &Labeled::<1, Gauge>::new(Gauge::new));
            text.histograms(&TOOK, [(Vec::<&str>::new(), &h)]);
            text.finish()
        };
        assert_eq!(
            page(Form::Prometheus),
            "# HELP requests_total [STABLE] Requests.\n# TYPE requests_total counter\n\
             requests_total{verb=\"GE\\\"T\"} 3\n\
             # HELP took_seconds [ALPHA] Time.\n# TYPE took_seconds histogram\n\
             took_seconds_bucket{le=\"5e-05\"} 1\ntook_seconds_bucket{le=\"0.5\"} 2\n\
             took_seconds_bucket{le=\"1\"} 3\ntook_seconds_bucket{le=\"+Inf\"} 4\n\
             took_seconds_sum 10\ntook_seconds_count 4\n"
        );
        let open = page(Form::OpenMetrics);
        assert!(open.contains("# TYPE requests counter\nrequests_total{"), "{open}");
        assert!(open.ends_with("# EOF\n"), "{open}");
        assert_eq!(Form::accepted("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"), Form::OpenMetrics);
        assert_eq!(Form::accepted("*/*"), Form::Prometheus);
    }
}
