//! `pods/eviction`: a delete that asks the PodDisruptionBudgets first.

use std::sync::Arc;

use http::Response;
use ironkeel_codec::Format;
use ironkeel_object::{LabelSelector, Map, ObjectMeta, Value};
use ironkeel_registry::{
    AdmitAll, ApiError, Cause, Change, DeleteOptions, Reason, Registry, Row, WriteRequest, rfc3339,
};
use ironkeel_schema::type_by_name;

use crate::answer;
use crate::body::Body;
use crate::bootstrap;
use crate::context::Context;
use crate::decode;
use crate::negotiate::body_format;
use crate::sent;
use crate::write::detached;

/// How often a Pod that changes meanwhile is looked at again (upstream's `EvictionsRetry`).
const RETRIES: usize = 20;
/// Evictions that a budget's controller may leave unconfirmed.
const MAX_DISRUPTED_PODS: usize = 2000;

/// Takes one disruption from a budget.
struct TakeOne {
    pod: String,
    now: String,
}

fn exhausted(message: String, retry_after_seconds: i64) -> ApiError {
    let text = "Cannot evict pod as it would violate the pod's disruption budget.";
    let mut e = ApiError::too_many_requests(text, retry_after_seconds);
    if let Some(d) = &mut e.details {
        d.causes = vec![Cause { reason: "DisruptionBudget".to_owned(), message, field: String::new() }];
    }
    e
}

fn in_progress(budget: &str) -> ApiError {
    exhausted(format!("The disruption budget {budget} is still being processed by the server."), 10)
}

impl TakeOne {
    /// Why the budget allows nothing now.
    fn refusal(pdb: &Value) -> String {
        let status = |key: &str| pdb.i64_at(&["status", key]).unwrap_or(0);
        let text = |c: &Value, key: &str| c.str_at(&[key]).unwrap_or_default().to_owned();
        let condition = pdb.items_at(&["status", "conditions"]).iter().find(|c| {
            text(c, "type") == "DisruptionAllowed" && text(c, "status") == "False" && !text(c, "message").is_empty()
        });
        let lead = format!("The disruption budget {}", pdb.name());
        match condition {
            Some(c) if text(c, "reason") == "SyncFailed" => {
                let why = text(c, "message");
                format!("{lead} does not allow evicting pods currently because it failed sync: {why}")
            }
            _ if status("currentHealthy") <= status("desiredHealthy") => format!(
                "{lead} needs {} healthy pods and has {} currently",
                status("desiredHealthy"),
                status("currentHealthy")
            ),
            Some(c) => {
                let (reason, why) = (text(c, "reason"), text(c, "message"));
                format!("{lead} does not allow evicting pods currently ({reason}): {why}")
            }
            None => format!("{lead} does not allow evicting pods currently"),
        }
    }
}

impl Change for TakeOne {
    fn apply(&self, pdb: &Value) -> Result<Value, ApiError> {
        let status = |key: &str| pdb.i64_at(&["status", key]).unwrap_or(0);
        if status("observedGeneration") < pdb.generation() {
            return Err(in_progress(pdb.name()));
        }
        let refuse = |why: &str| Err(ApiError::forbidden("policy", "poddisruptionbudget", pdb.name(), why));
        if status("disruptionsAllowed") < 0 {
            return refuse("pdb disruptions allowed is negative");
        }
        let unconfirmed = pdb.at(&["status", "disruptedPods"]).and_then(Value::as_object).map_or(0, Map::len);
        if unconfirmed > MAX_DISRUPTED_PODS {
            return refuse("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
        }
        if status("disruptionsAllowed") == 0 {
            return Err(exhausted(TakeOne::refusal(pdb), 0));
        }
        let mut out = pdb.clone();
        *out.slot(&["status", "disruptionsAllowed"]) = (status("disruptionsAllowed") - 1).into();
        let disrupted = out.slot(&["status", "disruptedPods"]);
        if disrupted.as_object().is_none() {
            *disrupted = Value::object();
        }
        if let Some(m) = disrupted.as_object_mut() {
            m.insert(self.pod.clone(), self.now.as_str());
        }
        Ok(out)
    }
}

/// Notes on a Pod that it is about to be evicted, where it still is what the client meant.
struct Condemn<'a> {
    options: &'a DeleteOptions,
    now: String,
}

impl Change for Condemn<'_> {
    fn apply(&self, pod: &Value) -> Result<Value, ApiError> {
        let changed = |what: &str, wanted: &str, have: &str, moral: &str| {
            let why = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({have}). The object might have been {moral}"
            );
            ApiError::conflict("", "Pod", pod.name(), &why)
        };
        if let Some(uid) = self.options.uid.as_deref().filter(|u| !u.is_empty() && *u != pod.uid()) {
            return Err(changed("UID", uid, pod.uid(), "deleted and then recreated"));
        }
        let version = self.options.resource_version.as_deref();
        if let Some(version) = version.filter(|v| !v.is_empty() && *v != pod.resource_version()) {
            return Err(changed("ResourceVersion", version, pod.resource_version(), "modified"));
        }
        let mut out = pod.clone();
        let mut condition = Map::new();
        condition.insert("type", "DisruptionTarget");
        condition.insert("status", "True");
        condition.insert("lastProbeTime", Value::Null);
        condition.insert("lastTransitionTime", self.now.as_str());
        condition.insert("reason", "EvictionByEvictionAPI");
        condition.insert("message", "Eviction API: evicting");
        let conditions = out.slot(&["status", "conditions"]);
        if conditions.as_array().is_none() {
            *conditions = Value::Array(Vec::new());
        }
        if let Some(list) = conditions.as_array_mut() {
            match list.iter_mut().find(|c| c.str_at(&["type"]) == Some("DisruptionTarget")) {
                Some(slot) => {
                    if slot.str_at(&["status"]) == Some("True")
                        && let Some(since) = slot.str_at(&["lastTransitionTime"])
                    {
                        condition.insert("lastTransitionTime", since.to_owned());
                    }
                    *slot = Value::Object(condition);
                }
                None => list.push(Value::Object(condition)),
            }
        }
        Ok(out)
    }

    // The server's own note belongs to nobody.
    fn tracks_fields(&self) -> bool {
        true
    }
}

/// One eviction, admitted.
struct Evicting {
    registry: Arc<Registry>,
    pods: Arc<Row>,
    pdbs: Arc<Row>,
    /// The delete of the Pod, and what comes before it.
    request: WriteRequest,
    options: DeleteOptions,
}

/// The body, in either version of `policy` that there has been of it.
fn decoded(c: &Context) -> Result<Value, ApiError> {
    let beta = body_format(&c.parts.headers, false)? != Format::Protobuf
        && ironkeel_codec::decode_yaml(&c.body, None).is_ok_and(|(v, _)| v.gvk().version == "v1beta1");
    let version = if beta { "policy/v1beta1" } else { "policy/v1" };
    let type_id = type_by_name("policy/v1.Eviction").ok_or_else(ApiError::no_such_resource)?;
    decode::object(c, version, "Eviction", type_id)
}

/// POST of `pods/<name>/eviction`.
pub(crate) async fn create(c: Context) -> Result<Response<Body>, ApiError> {
    let mut eviction = decoded(&c)?;
    let registry = c.server.registry.clone();
    let pods = registry.row("", "v1", "pods").ok_or_else(ApiError::no_such_resource)?.clone();
    let pdbs = registry.row("policy", "v1", "poddisruptionbudgets").ok_or_else(ApiError::no_such_resource)?.clone();
    let mut request = c.write_request(&pods)?;
    sent::wipe(&mut eviction);
    sent::place(&request, &mut eviction)?;
    detached(&c.server.tasks, async move {
        sent::mutate(&request, &mut eviction).await?;
        if eviction.name() != request.name {
            return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
        }
        let options = delete_options(&eviction, &mut request)?;
        sent::validate(&request, &eviction).await?;
        request.subresource = String::new();
        request.admission = Arc::new(AdmitAll);
        Evicting { registry, pods, pdbs, request, options }.run().await
    })
    .await?;
    let mut status = Map::new();
    status.insert("apiVersion", "v1");
    status.insert("kind", "Status");
    status.insert("metadata", Map::new());
    status.insert("status", "Success");
    status.insert("code", 201);
    Ok(answer::value(201, &Value::Object(status), &c.output))
}

/// `deleteOptions` of an Eviction. It is a dry run where either of them says so, and both say the same.
fn delete_options(eviction: &Value, request: &mut WriteRequest) -> Result<DeleteOptions, ApiError> {
    let breaking = "ignoreStoreReadErrorWithClusterBreakingPotential";
    if eviction.at(&["deleteOptions", breaking]).and_then(Value::as_bool) == Some(true) {
        let error = ironkeel_kinds::FieldError {
            path: ironkeel_kinds::Path::new("deleteOptions").child(breaking),
            kind: ironkeel_kinds::FieldErrorKind::Invalid,
            message: "Invalid value: true: can not be set for pod eviction, try after removing the option".to_owned(),
        };
        return Err(ApiError::invalid("policy", "Eviction", &request.name, &[error]));
    }
    let asked: Vec<&str> = eviction.items_at(&["deleteOptions", "dryRun"]).iter().filter_map(Value::as_str).collect();
    if request.dry_run && !asked.is_empty() && asked != ["All"] {
        let shown = asked.join(" ");
        return Err(ApiError::internal(format!(
            "Non-matching dry-run options in request and content: [All] and [{shown}]"
        )));
    }
    request.dry_run |= !asked.is_empty();
    let text = |key: &str| eviction.str_at(&["deleteOptions", "preconditions", key]).map(str::to_owned);
    Ok(DeleteOptions {
        grace_seconds: eviction.i64_at(&["deleteOptions", "gracePeriodSeconds"]),
        uid: text("uid"),
        resource_version: text("resourceVersion"),
        dry_run: request.dry_run,
        ..DeleteOptions::default()
    })
}

impl Evicting {
    async fn run(&self) -> Result<(), ApiError> {
        let mut lost = None;
        for _ in 0..RETRIES {
            let pod = self.pod()?;
            if !unprotected(&pod) {
                return self.with_budget(&pod).await;
            }
            let mut options = self.options.clone();
            let phase = pod.str_at(&["status", "phase"]);
            let over = matches!(phase, Some("Succeeded" | "Failed")) || pod.deletion_timestamp().is_some();
            if !over && options.resource_version.is_none() {
                // It must not become ready meanwhile: then a budget would have had its say.
                options.resource_version = Some(pod.resource_version().to_owned());
            }
            match self.delete(options).await {
                Err(e) if e.reason == Reason::Conflict && self.options.resource_version.is_none() => lost = Some(e),
                done => return done,
            }
        }
        Err(lost.unwrap_or_else(|| ApiError::internal("the pod changes too often")))
    }

    fn pod(&self) -> Result<Value, ApiError> {
        let entry = self.registry.get(&self.pods, &self.request.namespace, &self.request.name)?;
        self.registry.tree(&self.pods, &entry)
    }

    async fn with_budget(&self, pod: &Value) -> Result<(), ApiError> {
        let free = ask_budgets(&self.registry, &self.pdbs, &self.request, pod).await?;
        let mut options = self.options.clone();
        let Some(budget) = free else { return self.delete(options).await };
        options.resource_version = Some(pod.resource_version().to_owned());
        match self.delete(options).await {
            Err(e) if e.reason == Reason::Conflict && self.options.resource_version.is_none() => {
                Err(in_progress(&budget))
            }
            done => done,
        }
    }

    async fn delete(&self, mut options: DeleteOptions) -> Result<(), ApiError> {
        if !self.request.dry_run {
            let request = WriteRequest { subresource: "status".to_owned(), ..self.request.clone() };
            let change = Condemn { options: &options, now: rfc3339(self.registry.clock().now()) };
            let written = self.registry.update(&request, &change).await?;
            if options.resource_version.is_some() {
                options.resource_version = Some(written.entry.revision.to_string());
            }
        }
        self.registry.delete(&self.request, &options).await.map(drop)
    }
}

/// Finished, pending and leaving Pods need no budget.
fn unprotected(pod: &Value) -> bool {
    pod.deletion_timestamp().is_some()
        || matches!(pod.str_at(&["status", "phase"]), Some("Succeeded" | "Failed" | "Pending"))
}

/// Takes a disruption from the Pod's budget. Answers the budget's name where an unready Pod needed
/// none, as long as it stays unready.
async fn ask_budgets(
    registry: &Arc<Registry>,
    pdbs: &Arc<Row>,
    request: &WriteRequest,
    pod: &Value,
) -> Result<Option<String>, ApiError> {
    let home = pdbs.home()?;
    let mut matching = Vec::new();
    for entry in home.cache.snapshot(&request.namespace, "", |_| true).entries {
        let pdb = entry.tree()?;
        let Some(selector) = pdb.at(&["spec", "selector"]) else { continue };
        // A selector that is invalid selects nothing.
        if LabelSelector::from_value(selector).is_ok_and(|s| s.matches_object(pod)) {
            matching.push((entry.name().to_owned(), pdb));
        }
    }
    let (name, pdb) = match matching.as_slice() {
        [] => return Ok(None),
        [(name, pdb)] => (name.clone(), pdb),
        _ => {
            return Err(ApiError::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    let ready = pod
        .items_at(&["status", "conditions"])
        .iter()
        .any(|c| c.str_at(&["type"]) == Some("Ready") && c.str_at(&["status"]) == Some("True"));
    let policy = pdb.str_at(&["spec", "unhealthyPodEvictionPolicy"]);
    let healthy = pdb.i64_at(&["status", "currentHealthy"]).unwrap_or(0);
    let desired = pdb.i64_at(&["status", "desiredHealthy"]).unwrap_or(0);
    if !ready && (policy == Some("AlwaysAllow") || (desired > 0 && healthy >= desired)) {
        return Ok(Some(name));
    }
    let take = TakeOne { pod: pod.name().to_owned(), now: rfc3339(registry.clock().now()) };
    let update = WriteRequest {
        subresource: "status".to_owned(),
        dry_run: request.dry_run,
        admission: request.admission.clone(),
        ..bootstrap::request(pdbs, pdb)
    };
    registry.update(&update, &take).await.map(|_| None)
}
