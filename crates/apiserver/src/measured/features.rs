//! What the server says of itself: features that are on, versions, and the metrics that it has.

use std::collections::BTreeMap;

use ironkeel_metrics::Stability::{Alpha, Beta, Stable, Unmarked};
use ironkeel_metrics::{Counter, Family, Text};

/// A feature gate, as it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// `ALPHA`, `BETA`, `DEPRECATED`, or nothing for what is generally available.
    pub stage: &'static str,
    /// Whether it is on.
    pub enabled: bool,
}

const ENABLED: Family =
    Family::gauge("kubernetes_feature_enabled", Beta, "The stage and enablement of a Kubernetes feature.")
        .by(&["name", "stage"]);
const REGISTERED: Family =
    Family::counter("registered_metrics_total", Beta, "Registered metrics by stability and version of deprecation.")
        .by(&["stability_level", "deprecated_version"]);
const HIDDEN: Family = Family::counter("hidden_metrics_total", Beta, "The count of hidden metrics.");
const DISABLED: Family = Family::counter("disabled_metrics_total", Beta, "The count of disabled metrics.");
const VERSION: Family = Family::gauge("version_info", Alpha, "The compatibility versions of the component; always 1.")
    .by(&["component", "binary", "emulation", "min_compat"]);
const MISMATCHES: Family = Family::counter(
    "apiserver_validation_declarative_validation_mismatch_total",
    Beta,
    "Times that declarative and handwritten validation differed; there is one validation here.",
);
const PANICS: Family = Family::counter(
    "apiserver_validation_declarative_validation_panic_total",
    Beta,
    "Times that validation has panicked.",
);

/// See [`super::families`].
pub(crate) const FAMILIES: &[Family] = &[ENABLED, REGISTERED, HIDDEN, DISABLED, VERSION, MISMATCHES, PANICS];

/// Writes all of it; `panics` counts writes that broke down.
pub(crate) fn render(text: &mut Text, features: &[Feature], panics: &Counter) {
    text.samples(&ENABLED, features.iter().map(|f| (vec![f.name, f.stage], f64::from(u8::from(f.enabled)))));
    let mut levels: BTreeMap<&str, u32> = BTreeMap::new();
    for family in super::families() {
        let level = match family.stability {
            Alpha => "ALPHA",
            Beta => "BETA",
            Stable => "STABLE",
            Unmarked => continue,
        };
        *levels.entry(level).or_default() += 1;
    }
    text.samples(&REGISTERED, levels.into_iter().map(|(level, n)| (vec![level, ""], f64::from(n))));
    text.single(&HIDDEN, 0.0);
    text.single(&DISABLED, 0.0);
    let version = ironkeel_openapi::version("", "");
    let said = |key: &str| version[key].as_str().unwrap_or_default().to_owned();
    let plain = |v: String| v.trim_start_matches('v').split(['+', '-']).next().unwrap_or_default().to_owned();
    let minor = |back: u32| {
        let digits: String = said("minor").chars().take_while(char::is_ascii_digit).collect();
        format!("{}.{}", said("major"), digits.parse::<u32>().unwrap_or(0).saturating_sub(back))
    };
    text.samples(&VERSION, [(vec!["kube".to_owned(), plain(said("gitVersion")), minor(0), minor(1)], 1.0)]);
    text.single(&MISMATCHES, 0.0);
    text.single(&PANICS, panics.get() as f64);
}
