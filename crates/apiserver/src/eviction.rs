//! `pods/eviction`: a delete that asks the PodDisruptionBudgets first.

use std::sync::Arc;

use http::Response;
use ironkeel_object::{LabelSelector, Map, ObjectMeta, Value};
use ironkeel_registry::{ApiError, Cause, Change, DeleteOptions, Registry, Row, WriteRequest, rfc3339};
use ironkeel_schema::type_by_name;

use crate::answer;
use crate::body::Body;
use crate::context::Context;
use crate::decode;
use crate::write::detached;

/// Takes one disruption from a budget.
struct TakeOne {
    pod: String,
    now: String,
}

fn exhausted(pdb: &Value, why: String) -> ApiError {
    let mut e = ApiError::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", 0);
    if let Some(d) = &mut e.details {
        d.causes = vec![Cause {
            reason: "DisruptionBudget".to_owned(),
            message: format!("The disruption budget {} {why}", pdb.name()),
            field: String::new(),
        }];
    }
    e
}

impl Change for TakeOne {
    fn apply(&self, pdb: &Value) -> Result<Value, ApiError> {
        let status = |key: &str| pdb.i64_at(&["status", key]).unwrap_or(0);
        if status("observedGeneration") < pdb.generation() {
            let mut e = exhausted(pdb, "is still being processed by the server.".to_owned());
            if let Some(d) = &mut e.details {
                d.retry_after_seconds = 10;
            }
            return Err(e);
        }
        if status("disruptionsAllowed") <= 0 {
            let why = format!(
                "needs {} healthy pods and has {} currently",
                status("desiredHealthy"),
                status("currentHealthy")
            );
            return Err(exhausted(pdb, why));
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

/// POST of `pods/<name>/eviction`.
pub(crate) async fn create(c: Context) -> Result<Response<Body>, ApiError> {
    let eviction_type = type_by_name("policy/v1.Eviction").ok_or_else(ApiError::no_such_resource)?;
    let eviction = decode::object(&c, "policy/v1", "Eviction", eviction_type)?;
    if !eviction.name().is_empty() && eviction.name() != c.info.name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let registry = c.server.registry.clone();
    let pods = registry.row("", "v1", "pods").ok_or_else(ApiError::no_such_resource)?.clone();
    let pdbs = registry.row("policy", "v1", "poddisruptionbudgets").ok_or_else(ApiError::no_such_resource)?.clone();
    let options = DeleteOptions {
        grace_seconds: eviction.i64_at(&["deleteOptions", "gracePeriodSeconds"]),
        uid: eviction.str_at(&["deleteOptions", "preconditions", "uid"]).map(str::to_owned),
        resource_version: eviction.str_at(&["deleteOptions", "preconditions", "resourceVersion"]).map(str::to_owned),
        propagation: None,
        dry_run: false,
    };
    let mut request = c.write_request(&pods)?;
    request.subresource = String::new();
    detached(&c.server.tasks, async move {
        let entry = registry.get(&pods, &request.namespace, &request.name)?;
        let pod = registry.tree(&pods, &entry)?;
        if !unprotected(&pod) {
            ask_budgets(&registry, &pdbs, &request, &pod).await?;
        }
        registry.delete(&request, &options).await
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

/// Finished, pending and leaving Pods need no budget.
fn unprotected(pod: &Value) -> bool {
    pod.deletion_timestamp().is_some()
        || matches!(pod.str_at(&["status", "phase"]), Some("Succeeded" | "Failed" | "Pending"))
}

async fn ask_budgets(
    registry: &Arc<Registry>,
    pdbs: &Arc<Row>,
    request: &WriteRequest,
    pod: &Value,
) -> Result<(), ApiError> {
    let home = pdbs.home()?;
    let mut matching = Vec::new();
    for entry in home.cache.snapshot(&request.namespace, "", |_| true).entries {
        let pdb = entry.tree()?;
        let Some(selector) = pdb.at(&["spec", "selector"]) else { continue };
        if LabelSelector::from_value(selector).map_err(ApiError::from)?.matches_object(pod) {
            matching.push((entry.name().to_owned(), pdb));
        }
    }
    let (name, pdb) = match matching.as_slice() {
        [] => return Ok(()),
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
        return Ok(());
    }
    let update = WriteRequest { row: pdbs.clone(), name, subresource: "status".to_owned(), ..request.clone() };
    let take = TakeOne { pod: pod.name().to_owned(), now: rfc3339(registry.clock().now()) };
    registry.update(&update, &take).await.map(drop)
}
