//! PodResizeValidator: a running Pod grows no larger than its node.

use ironkeel_object::{ObjectMeta, Quantity, Value};
use ironkeel_registry::{ApiError, Attributes, Cause, Operation};

use crate::Cluster;
use crate::usage::pod_resources;

pub(crate) fn validate(c: &Cluster, a: &Attributes<'_>, pod: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    let resizes = a.operation == Operation::Update
        && a.row.group().is_empty()
        && a.row.plural() == "pods"
        && a.subresource == "resize";
    let Some(name) = pod.str_at(&["spec", "nodeName"]).filter(|n| resizes && !n.is_empty()) else { return Ok(()) };
    if old.is_some_and(|o| o.generation() == pod.generation()) {
        return Ok(());
    }
    let node = c.get("", "nodes", "", name).ok_or_else(|| a.forbidden(&format!("node {name:?} not found")))?;
    let refused = |why: String, reason: &str| {
        let mut error = a.forbidden(&why);
        if let Some(details) = &mut error.details {
            details.causes.push(Cause { reason: reason.to_owned(), message: String::new(), field: String::new() });
        }
        error
    };
    if let Some(os) = node.label("kubernetes.io/os").filter(|os| *os != "linux") {
        let why = format!("pod resize is only supported on linux nodes, node {name:?} is {os:?}");
        return Err(refused(why, "UnsupportedPlatform"));
    }
    let requests = pod_resources(pod, "requests");
    let mut lacking = Vec::new();
    for (resource, unit) in [("cpu", 1_000.0), ("memory", 1.0)] {
        let allocatable = node.str_at(&["status", "allocatable", resource]).and_then(|q| Quantity::parse(q).ok());
        let allocatable = allocatable.unwrap_or_else(|| Quantity::from_value(0));
        if let Some(wanted) = requests.get(resource).filter(|w| **w > allocatable) {
            let shown = |q: &Quantity| (q.as_f64() * unit).ceil() as i64;
            let (wanted, there) = (shown(wanted), shown(&allocatable));
            lacking.push(format!("{resource}, requested: {wanted}, allocatable: {there}"));
        }
    }
    if lacking.is_empty() {
        return Ok(());
    }
    let why = format!("node didn't have enough allocatable resources: {}", lacking.join("; "));
    Err(refused(why, "NodeCapacity"))
}
