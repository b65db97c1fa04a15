//! Admission: plugins, webhooks, policies and the two steps around them.

use std::time::Duration;

use ironkeel_admission::{AdmissionObserver, PluginCall, PolicyCall, WebhookCall};
use ironkeel_metrics::Stability::{Alpha, Beta, Stable};
use ironkeel_metrics::{Counter, Family, Histogram, Labeled, Text};

const STEP_SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const WEBHOOK_SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
const POLICY_SECONDS: &[f64] = &[0.000_000_5, 0.001, 0.01, 0.1, 1.0];
/// The default buckets of Prometheus' clients.
const DEFAULT_SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

const NAMED: &[&str] = &["name", "type", "operation", "rejected"];
const STEPS: Family = Family::histogram(
    "apiserver_admission_step_admission_duration_seconds",
    Stable,
    "Admission sub-step latency histogram in seconds, by operation and step type (validate or admit).",
)
.by(&["type", "operation", "rejected"]);
const CONTROLLERS: Family = Family::histogram(
    "apiserver_admission_controller_admission_duration_seconds",
    Stable,
    "Admission controller latency histogram in seconds, by name, operation and type (validate or admit).",
)
.by(NAMED);
const WEBHOOKS: Family = Family::histogram(
    "apiserver_admission_webhook_admission_duration_seconds",
    Stable,
    "Admission webhook latency histogram in seconds, by name, operation and type (validating or admit).",
)
.by(NAMED);
const WEBHOOK_REQUESTS: Family =
    Family::counter("apiserver_admission_webhook_request_total", Alpha, "Calls of admission webhooks.").by(&[
        "name",
        "type",
        "operation",
        "code",
        "rejected",
    ]);
const WEBHOOK_REJECTIONS: Family = Family::counter(
    "apiserver_admission_webhook_rejection_count",
    Alpha,
    "Requests that ended at an admission webhook, by whose fault it was.",
)
.by(&["name", "type", "operation", "error_type", "rejection_code"]);
const WEBHOOK_FAIL_OPEN: Family = Family::counter(
    "apiserver_admission_webhook_fail_open_count",
    Alpha,
    "Admission webhooks that did not answer and were ignored.",
)
.by(&["name", "type"]);
const VALIDATING: &[&str] = &["policy", "policy_binding", "error_type", "enforcement_action"];
const VALIDATING_CHECKS: Family = Family::counter(
    "apiserver_validating_admission_policy_check_total",
    Beta,
    "Validation admission policy check total, by policy, binding and the enforcement action taken.",
)
.by(VALIDATING);
const VALIDATING_TIME: Family = Family::histogram(
    "apiserver_validating_admission_policy_check_duration_seconds",
    Beta,
    "Validation admission latency for individual validation expressions in seconds, by policy, binding and action.",
)
.by(VALIDATING);
const MUTATING: &[&str] = &["policy", "policy_binding", "error_type"];
const MUTATING_CHECKS: Family = Family::counter(
    "apiserver_mutating_admission_policy_check_total",
    Alpha,
    "Mutation admission policy check total, by policy and binding.",
)
.by(MUTATING);
const MUTATING_TIME: Family = Family::histogram(
    "apiserver_mutating_admission_policy_check_duration_seconds",
    Alpha,
    "Mutation admission latency for individual mutation expressions in seconds, by policy and binding.",
)
.by(MUTATING);
const CEL_COMPILATION: Family =
    Family::histogram("apiserver_cel_compilation_duration_seconds", Beta, "CEL compilation time in seconds.");
const CEL_EVALUATION: Family =
    Family::histogram("apiserver_cel_evaluation_duration_seconds", Beta, "CEL evaluation time in seconds.");

/// See [`super::families`].
pub(crate) const FAMILIES: &[Family] = &[
    STEPS,
    CONTROLLERS,
    WEBHOOKS,
    WEBHOOK_REQUESTS,
    WEBHOOK_REJECTIONS,
    WEBHOOK_FAIL_OPEN,
    VALIDATING_CHECKS,
    VALIDATING_TIME,
    MUTATING_CHECKS,
    MUTATING_TIME,
    CEL_COMPILATION,
    CEL_EVALUATION,
];

/// See the module.
#[derive(Debug)]
pub(crate) struct AdmissionMetrics {
    pub(crate) steps: Labeled<3, Histogram>,
    controllers: Labeled<4, Histogram>,
    webhooks: Labeled<4, Histogram>,
    webhook_requests: Labeled<5, Counter>,
    webhook_rejections: Labeled<5, Counter>,
    webhook_fail_open: Labeled<2, Counter>,
    /// Their counts are the numbers of checks.
    validating: Labeled<4, Histogram>,
    mutating: Labeled<3, Histogram>,
    compilation: Histogram,
    evaluation: Histogram,
}

impl Default for AdmissionMetrics {
    fn default() -> Self {
        AdmissionMetrics {
            steps: Labeled::new(|| Histogram::new(STEP_SECONDS)),
            controllers: Labeled::new(|| Histogram::new(STEP_SECONDS)),
            webhooks: Labeled::new(|| Histogram::new(WEBHOOK_SECONDS)),
            webhook_requests: Labeled::new(Counter::new),
            webhook_rejections: Labeled::new(Counter::new),
            webhook_fail_open: Labeled::new(Counter::new),
            validating: Labeled::new(|| Histogram::new(POLICY_SECONDS)),
            mutating: Labeled::new(|| Histogram::new(POLICY_SECONDS)),
            compilation: Histogram::new(DEFAULT_SECONDS),
            evaluation: Histogram::new(DEFAULT_SECONDS),
        }
    }
}

fn yes_or_no(rejected: bool) -> &'static str {
    if rejected { "true" } else { "false" }
}

impl AdmissionObserver for AdmissionMetrics {
    fn plugin(&self, call: &PluginCall) {
        let step = if call.validating { "validate" } else { "admit" };
        let labels = [call.name, step, call.operation.as_str(), yes_or_no(call.rejected)];
        self.controllers.with(labels).observe(call.took.as_secs_f64());
    }

    fn webhook(&self, call: &WebhookCall<'_>) {
        let step = if call.mutating { "admit" } else { "validating" };
        let operation = call.operation.as_str();
        let rejected = yes_or_no(call.rejection.is_some());
        let code = call.code.to_string();
        self.webhooks.with([call.name, step, operation, rejected]).observe(call.took.as_secs_f64());
        self.webhook_requests.with([call.name, step, operation, &code, rejected]).inc();
        if let Some(kind) = call.rejection {
            self.webhook_rejections.with([call.name, step, operation, kind, &code]).inc();
        }
        if call.failed_open {
            self.webhook_fail_open.with([call.name, step]).inc();
        }
    }

    fn policy(&self, call: &PolicyCall<'_>) {
        let seconds = call.took.as_secs_f64();
        self.evaluation.observe(seconds);
        if call.mutating {
            self.mutating.with([call.policy, call.binding, call.error]).observe(seconds);
        } else {
            self.validating.with([call.policy, call.binding, call.error, call.action]).observe(seconds);
        }
    }

    fn compiled(&self, took: Duration) {
        self.compilation.observe(took.as_secs_f64());
    }
}

fn counts<const N: usize>(text: &mut Text, family: &Family, table: &Labeled<N, Histogram>) {
    text.samples(family, table.iter().map(|s| (s.labels().to_vec(), s.count() as f64)));
}

impl AdmissionMetrics {
    pub(crate) fn render(&self, text: &mut Text) {
        text.histogram_table(&STEPS, &self.steps);
        text.histogram_table(&CONTROLLERS, &self.controllers);
        text.histogram_table(&WEBHOOKS, &self.webhooks);
        text.counters(&WEBHOOK_REQUESTS, &self.webhook_requests);
        text.counters(&WEBHOOK_REJECTIONS, &self.webhook_rejections);
        text.counters(&WEBHOOK_FAIL_OPEN, &self.webhook_fail_open);
        counts(text, &VALIDATING_CHECKS, &self.validating);
        text.histogram_table(&VALIDATING_TIME, &self.validating);
        counts(text, &MUTATING_CHECKS, &self.mutating);
        text.histogram_table(&MUTATING_TIME, &self.mutating);
        let none = || Vec::<&str>::new();
        text.histograms(&CEL_COMPILATION, [(none(), &self.compilation)]);
        text.histograms(&CEL_EVALUATION, [(none(), &self.evaluation)]);
    }
}
