//! Admission webhooks: MutatingAdmissionWebhook and ValidatingAdmissionWebhook.
//!
//! Configurations are read from the watch cache and kept compiled; a write of one is seen by the next
//! request. [`hook`] is one webhook, [`review`] the AdmissionReview and its answer, [`mutating`] and
//! [`validating`] the order of calls. How bytes travel is the crate `webhook`'s.

mod hook;
mod mutating;
mod review;
mod validating;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{ApiError, Attributes, Operation, Reason};
use ironkeel_webhook::WebhookClient;
use parking_lot::Mutex;

use crate::Cluster;
use crate::cel::{self, Verdict};
use crate::matching::{View, exempt, shown};
use crate::observer::AdmissionObserver;

use hook::Hook;
use review::{Answer, Body};

/// Webhooks of one sort, compiled, and the version of the cache that they were made of.
#[derive(Default)]
struct Compiled(Mutex<Option<(u64, Arc<Vec<Hook>>)>>);

/// What came of asking one webhook, for whoever counts.
#[derive(Clone, Copy, Debug)]
pub struct WebhookCall<'a> {
    /// The webhook's name.
    pub name: &'a str,
    /// Whether it may change objects.
    pub mutating: bool,
    /// What is done to the object.
    pub operation: Operation,
    /// The HTTP status of its answer or refusal; 0 where there is none.
    pub code: u16,
    /// Why the request ends here: `no_error` (the webhook said no), `calling_webhook_error`,
    /// `apiserver_internal_error`; `None` where it goes on.
    pub rejection: Option<&'static str>,
    /// It did not answer, and may be ignored.
    pub failed_open: bool,
    /// How long it took.
    pub took: Duration,
}

/// Calls webhooks.
pub(crate) struct Webhooks {
    client: Arc<WebhookClient>,
    observer: Option<Arc<dyn AdmissionObserver>>,
    mutating: Compiled,
    validating: Compiled,
}

/// Why a webhook's answer is not a plain yes.
enum Failure {
    /// It was not reached, or made no sense; the failure policy decides.
    Calling(String),
    /// It said no, or cannot be asked; that is the answer.
    Refused(ApiError),
}

fn calling(hook: &Hook, why: impl std::fmt::Display) -> Failure {
    Failure::Calling(format!("failed calling webhook {:?}: {why}", hook.name))
}

impl Webhooks {
    pub(crate) fn new(client: Arc<WebhookClient>, observer: Option<Arc<dyn AdmissionObserver>>) -> Self {
        Webhooks { client, observer, mutating: Compiled::default(), validating: Compiled::default() }
    }

    /// The webhooks of `plural`, in order of the configurations' names.
    fn hooks(c: &Cluster, compiled: &Compiled, plural: &str) -> Arc<Vec<Hook>> {
        let Some(resource) = ironkeel_schema::resource("admissionregistration.k8s.io", "v1", plural) else {
            return Arc::default();
        };
        let version = c.source.version(resource);
        let mut kept = compiled.0.lock();
        if let Some((seen, hooks)) = &*kept
            && *seen == version
        {
            return hooks.clone();
        }
        let mut all = c.source.list(resource, "");
        all.sort_by(|a, b| a.name().cmp(b.name()));
        let hooks: Vec<Hook> = all.iter().flat_map(|o| Hook::parse_all(o)).collect();
        let hooks = Arc::new(hooks);
        *kept = Some((version, hooks.clone()));
        hooks
    }

    /// Whether the webhook is to be called, and with which version of the object.
    async fn wanted(
        &self,
        c: &Cluster,
        a: &Attributes<'_>,
        hook: &Hook,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<Option<Seen>, ApiError> {
        let Some(view) = hook.matcher.matches(c, a, object, old)? else { return Ok(None) };
        let seen = Seen { object: shown(c, a, &view, object).await?, old: shown(c, a, &view, old).await?, view };
        if hook.conditions.is_empty() {
            return Ok(Some(seen));
        }
        match cel::match_conditions(c, a, &hook.conditions, !hook.ignores, seen.view.row(a), seen.parts()) {
            Verdict::Matches => Ok(Some(seen)),
            Verdict::Skips => Ok(None),
            Verdict::Fails(why) => Err(a.forbidden(&why)),
        }
    }

    /// Asks one webhook.
    async fn ask(&self, a: &Attributes<'_>, hook: &Hook, seen: &Seen, mutating: bool) -> Result<Answer, Failure> {
        let started = Instant::now();
        let what = if mutating { "Call mutating webhook" } else { "Call validating webhook" };
        let mut span = ironkeel_trace::span(what).outgoing();
        span.attribute("webhook", hook.name.as_str());
        let answer = span.hold(self.talk(a, hook, seen, mutating)).await;
        drop(span);
        if let Some(observer) = &self.observer {
            let (code, rejection) = match &answer {
                Ok(_) => (200, None),
                Err(Failure::Refused(error)) => match error.chosen.as_deref() {
                    Some((code, _)) => (*code, Some("no_error")),
                    None => (0, Some("apiserver_internal_error")),
                },
                Err(Failure::Calling(_)) => (0, (!hook.ignores).then_some("calling_webhook_error")),
            };
            let failed_open = hook.ignores && matches!(answer, Err(Failure::Calling(_)));
            let (name, operation, took) = (hook.name.as_str(), a.operation, started.elapsed());
            observer.webhook(&WebhookCall { name, mutating, operation, code, rejection, failed_open, took });
        }
        answer
    }

    async fn talk(&self, a: &Attributes<'_>, hook: &Hook, seen: &Seen, mutating: bool) -> Result<Answer, Failure> {
        if a.dry_run && !hook.dry_runs {
            let why = format!("admission webhook {:?} does not support dry run", hook.name);
            return Err(Failure::Refused(ApiError::bad_request(why)));
        }
        let Some(version) = hook.review_version else {
            let why = "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)";
            return Err(calling(hook, why));
        };
        let target = hook.target.as_ref().map_err(|why| calling(hook, why))?;
        let body = Body { a, view: &seen.view, object: seen.object.as_ref(), old: seen.old.as_ref(), version };
        let (uid, bytes) = body.encode();
        let answer = self
            .client
            .post(target, Bytes::from(bytes), hook.timeout)
            .await
            .map_err(|e| calling(hook, format_args!("failed to call webhook: {e}")))?;
        let answer =
            Answer::decode(&answer, &uid, version, mutating).map_err(|why| calling(hook, format_args!("{why}")))?;
        for (key, value) in &answer.annotations {
            a.annotate(&format!("{}/{key}", hook.name), value);
        }
        for warning in &answer.warnings {
            a.warn(warning);
        }
        if !answer.allowed {
            return Err(Failure::Refused(refusal(&hook.name, answer.status.as_ref())));
        }
        Ok(answer)
    }
}

/// The object as one webhook sees it.
struct Seen {
    view: View,
    object: Option<Value>,
    old: Option<Value>,
}

impl Seen {
    fn parts(&self) -> (Option<&Value>, Option<&Value>) {
        (self.object.as_ref(), self.old.as_ref())
    }
}

/// Whether any webhook may apply at all.
fn applies(a: &Attributes<'_>) -> bool {
    !exempt(a)
}

/// What the client is told when a webhook says no: the webhook's own status, its message led in.
fn refusal(name: &str, status: Option<&Value>) -> ApiError {
    let denied = format!("admission webhook {name:?} denied the request");
    let text = |key: &str| status.and_then(|s| s.str_at(&[key])).unwrap_or_default();
    let message = match (text("message"), text("reason")) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let code = status.and_then(|s| s.i64_at(&["code"])).unwrap_or(0);
    let code = u16::try_from(code).ok().filter(|c| (400..600).contains(c)).unwrap_or(400);
    let mut error = ApiError::new(if code == 403 { Reason::Forbidden } else { Reason::BadRequest }, message);
    error.chosen = Some(Box::new((code, text("reason").to_owned())));
    error.details = status.and_then(|s| s.get("details")).and_then(review::details).map(Box::new);
    error
}
