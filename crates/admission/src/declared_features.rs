//! NodeDeclaredFeatureValidator: a Pod that runs changes only in ways that its node says it can do.

use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{ApiError, Attributes, Operation};

use crate::Cluster;

const POD_LEVEL_RESIZE: &str = "InPlacePodLevelResourcesVerticalScaling";
const INIT_RESIZE: &str = "InPlacePodVerticalScalingInitContainers";

/// What an update needs of the node, by name.
fn needed(pod: &Value, old: &Value) -> Vec<&'static str> {
    let mut out = Vec::new();
    let whole = |p: &Value| p.at(&["spec", "resources"]).filter(|r| !r.is_empty()).cloned();
    if whole(pod) != whole(old) {
        out.push(POD_LEVEL_RESIZE);
    }
    let new = pod.items_at(&["spec", "initContainers"]);
    let resized = |(i, container): (usize, &Value)| {
        let sidecar = container.str_at(&["restartPolicy"]) == Some("Always");
        !sidecar && new.get(i).and_then(|n| n.get("resources")) != container.get("resources")
    };
    if old.items_at(&["spec", "initContainers"]).iter().enumerate().any(resized) {
        out.push(INIT_RESIZE);
    }
    out
}

pub(crate) fn validate(c: &Cluster, a: &Attributes<'_>, pod: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    let about = a.operation == Operation::Update && a.row.plural() == "pods" && a.row.group().is_empty();
    let Some(old) = old.filter(|_| about && matches!(a.subresource, "" | "resize")) else { return Ok(()) };
    let node = pod.str_at(&["spec", "nodeName"]).unwrap_or_default();
    if node.is_empty() || pod.generation() == old.generation() {
        return Ok(());
    }
    let needed = needed(pod, old);
    if needed.is_empty() {
        return Ok(());
    }
    let Some(found) = c.get("", "nodes", "", node) else {
        return Err(a.forbidden(&format!("node {node:?} not found")));
    };
    let declared = found.items_at(&["status", "declaredFeatures"]);
    let lacks: Vec<&str> = needed.into_iter().filter(|f| !declared.iter().any(|d| d.as_str() == Some(f))).collect();
    if lacks.is_empty() {
        return Ok(());
    }
    let lacks = lacks.join(", ");
    Err(a.forbidden(&format!("pod update requires features {lacks} which are not available on node {node:?}")))
}
