//! Priority: from a Pod's class to its number; one default class at most.

use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{ApiError, Attributes, Operation};

use crate::Cluster;

pub(crate) fn mutate(c: &Cluster, a: &Attributes<'_>, pod: &mut Value) -> Result<(), ApiError> {
    let name = pod.str_at(&["spec", "priorityClassName"]).unwrap_or_default().to_owned();
    let class = if name.is_empty() {
        let all = c.list("scheduling.k8s.io", "priorityclasses", "");
        let defaults = all.into_iter().filter(|p| p.get("globalDefault").and_then(Value::as_bool) == Some(true));
        defaults.min_by_key(|p| p.i64_at(&["value"]).unwrap_or(0))
    } else {
        let found = c.get("scheduling.k8s.io", "priorityclasses", "", &name);
        Some(found.ok_or_else(|| a.forbidden(&format!("no PriorityClass with name {name} was found")))?)
    };
    let value = class.as_ref().and_then(|p| p.i64_at(&["value"])).unwrap_or(0);
    let policy = class.as_ref().and_then(|p| p.str_at(&["preemptionPolicy"])).unwrap_or("PreemptLowerPriority");
    if let Some(class) = &class {
        *pod.slot(&["spec", "priorityClassName"]) = class.name().into();
    }
    if let Some(given) = pod.i64_at(&["spec", "priority"])
        && given != value
    {
        return Err(a.forbidden(&format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        )));
    }
    *pod.slot(&["spec", "priority"]) = value.into();
    match pod.str_at(&["spec", "preemptionPolicy"]) {
        Some(given) if given != policy => Err(a.forbidden(&format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        ))),
        _ => {
            *pod.slot(&["spec", "preemptionPolicy"]) = policy.into();
            Ok(())
        }
    }
}

pub(crate) fn validate(c: &Cluster, a: &Attributes<'_>, object: Option<&Value>) -> Result<(), ApiError> {
    let Some(class) = object.filter(|_| a.is("scheduling.k8s.io", "priorityclasses")) else { return Ok(()) };
    if !matches!(a.operation, Operation::Create | Operation::Update)
        || class.get("globalDefault").and_then(Value::as_bool) != Some(true)
    {
        return Ok(());
    }
    let others = c.list("scheduling.k8s.io", "priorityclasses", "");
    let taken = others
        .iter()
        .find(|p| p.get("globalDefault").and_then(Value::as_bool) == Some(true) && p.name() != class.name());
    match taken {
        Some(other) => Err(a.forbidden(&format!(
            "PriorityClass {} is already marked as default. Only one default can exist",
            other.name()
        ))),
        None => Ok(()),
    }
}
