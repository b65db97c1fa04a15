//! `pods/binding`: the scheduler puts a Pod on a node.

use std::sync::Arc;

use http::Response;
use ironkeel_kinds::{FieldError, FieldErrorKind, Path};
use ironkeel_object::{Map, ObjectMeta, Value};
use ironkeel_registry::{AdmitAll, ApiError, Change, WriteRequest, rfc3339, storage_error};
use ironkeel_schema::type_by_name;

use crate::answer;
use crate::body::Body;
use crate::context::Context;
use crate::decode;
use crate::sent;
use crate::write::detached;

struct Bind {
    request: WriteRequest,
    node: String,
    uid: String,
    resource_version: String,
    labels: Option<Map>,
    annotations: Option<Map>,
    now: String,
}

fn refused(name: &str, why: &str) -> ApiError {
    ApiError::conflict("", "pods/binding", name, why)
}

impl Change for Bind {
    fn apply(&self, pod: &Value) -> Result<Value, ApiError> {
        let name = pod.name();
        for (what, meant, found) in
            [("UID", &self.uid, pod.uid()), ("ResourceVersion", &self.resource_version, pod.resource_version())]
        {
            if !meant.is_empty() && meant != found {
                let why =
                    format!("Precondition failed: {what} in precondition: {meant}, {what} in object meta: {found}");
                return Err(ApiError::conflict("", "pods", name, &storage_error(&self.request, &why)));
            }
        }
        if pod.deletion_timestamp().is_some() {
            return Err(refused(name, &format!("pod {name} is being deleted, cannot be assigned to a host")));
        }
        if let Some(node) = pod.str_at(&["spec", "nodeName"]).filter(|n| !n.is_empty()) {
            return Err(refused(name, &format!("pod {name} is already assigned to node \"{node}\"")));
        }
        if !pod.items_at(&["spec", "schedulingGates"]).is_empty() {
            return Err(refused(name, &format!("pod {name} has non-empty .spec.schedulingGates")));
        }
        let mut pod = pod.clone();
        pod.meta_mut().insert("resourceVersion", self.resource_version.as_str());
        *pod.slot(&["spec", "nodeName"]) = self.node.as_str().into();
        // The hint of where it might go has served.
        if let Some(status) = pod.get_mut("status").and_then(Value::as_object_mut) {
            status.remove("nominatedNodeName");
        }
        for (key, members) in [("labels", &self.labels), ("annotations", &self.annotations)] {
            for (k, v) in members.iter().flat_map(Map::iter) {
                pod.meta_mut().object(key).insert(k.clone(), v.clone());
            }
        }
        let mut condition = Map::new();
        condition.insert("type", "PodScheduled");
        condition.insert("status", "True");
        condition.insert("lastProbeTime", Value::Null);
        condition.insert("lastTransitionTime", self.now.as_str());
        let conditions = pod.slot(&["status", "conditions"]);
        if conditions.as_array().is_none() {
            *conditions = Value::Array(Vec::new());
        }
        if let Some(list) = conditions.as_array_mut() {
            match list.iter_mut().find(|x| x.str_at(&["type"]) == Some("PodScheduled")) {
                Some(slot) if slot.str_at(&["status"]) == Some("True") => {}
                Some(slot) => *slot = Value::Object(condition),
                None => list.push(Value::Object(condition)),
            }
        }
        Ok(pod)
    }

    // Upstream's binding leaves managedFields as they are.
    fn tracks_fields(&self) -> bool {
        true
    }
}

/// POST of `pods/<name>/binding`.
pub(crate) async fn create(c: Context) -> Result<Response<Body>, ApiError> {
    let binding_type = type_by_name("core/v1.Binding").ok_or_else(ApiError::no_such_resource)?;
    let binding = decode::object(&c, "v1", "Binding", binding_type)?;
    bind(c, binding).await
}

/// POST of `bindings`, which names the Pod in its body.
pub(crate) async fn legacy(mut c: Context) -> Result<Response<Body>, ApiError> {
    let binding_type = type_by_name("core/v1.Binding").ok_or_else(ApiError::no_such_resource)?;
    let binding = decode::object(&c, "v1", "Binding", binding_type)?;
    if binding.name().is_empty() {
        check(&binding)?;
        return Err(ApiError::bad_request("Name parameter required."));
    }
    Arc::make_mut(&mut c.info).name = binding.name().to_owned();
    bind(c, binding).await
}

/// What is wrong with a Binding.
fn check(binding: &Value) -> Result<(), ApiError> {
    let target = |key: &str| binding.str_at(&["target", key]).unwrap_or_default();
    let kind = target("kind");
    let mut errors = Vec::new();
    let mut wrong = |field: &str, kind, message| {
        errors.push(FieldError { path: Path::new("target").child(field), kind, message });
    };
    if !kind.is_empty() && kind != "Node" {
        let why = format!("Unsupported value: {kind:?}: supported values: \"Node\", \"<empty>\"");
        wrong("kind", FieldErrorKind::NotSupported, why);
    }
    if target("name").is_empty() {
        wrong("name", FieldErrorKind::Required, "Required value".to_owned());
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("", "Binding", binding.name(), &errors)) }
}

async fn bind(mut c: Context, mut binding: Value) -> Result<Response<Body>, ApiError> {
    let registry = c.server.registry.clone();
    let pods = registry.row("", "v1", "pods").ok_or_else(ApiError::no_such_resource)?.clone();
    Arc::make_mut(&mut c.info).subresource = "binding".to_owned();
    let mut request = c.write_request(&pods)?;
    sent::place(&request, &mut binding)?;
    detached(&c.server.tasks, async move {
        sent::mutate(&request, &mut binding).await?;
        if binding.name() != request.name {
            return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
        }
        check(&binding)?;
        sent::validate(&request, &binding).await?;
        let members = |key: &str| binding.at(&["metadata", key]).and_then(Value::as_object).cloned();
        let change = Bind {
            request: request.clone(),
            node: binding.str_at(&["target", "name"]).unwrap_or_default().to_owned(),
            uid: binding.uid().to_owned(),
            resource_version: binding.resource_version().to_owned(),
            labels: members("labels"),
            annotations: members("annotations"),
            now: rfc3339(registry.clock().now()),
        };
        request.admission = Arc::new(AdmitAll);
        registry.update(&request, &change).await
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
