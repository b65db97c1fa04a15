//! What objects use of countable resources, for LimitRanges and quotas.

use std::collections::BTreeMap;

use ironkeel_object::{Map, Quantity, Value};

/// Amounts by resource name.
pub(crate) type Amounts = BTreeMap<String, Quantity>;

fn of(container: &Value, part: &str) -> Amounts {
    let members = container.at(&["resources", part]).and_then(Value::as_object);
    members
        .into_iter()
        .flat_map(Map::iter)
        .filter_map(|(k, v)| Some((k.to_string(), Quantity::parse(v.as_str()?).ok()?)))
        .collect()
}

pub(crate) fn add(into: &mut Amounts, more: &Amounts) {
    for (k, q) in more {
        let sum = match into.remove(k) {
            Some(have) => have + *q,
            None => *q,
        };
        into.insert(k.clone(), sum);
    }
}

/// Of each amount the larger one.
pub(crate) fn raise(into: &mut Amounts, other: &Amounts) {
    for (k, q) in other {
        if into.get(k).is_none_or(|have| have < q) {
            into.insert(k.clone(), *q);
        }
    }
}

/// Requests or limits of a whole Pod: the sum of its containers and restartable init containers,
/// or its largest init container, whichever is more; overhead on top.
pub(crate) fn pod_resources(pod: &Value, part: &str) -> Amounts {
    let mut total = Amounts::new();
    for container in pod.items_at(&["spec", "containers"]) {
        add(&mut total, &of(container, part));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in pod.items_at(&["spec", "initContainers"]) {
        let own = of(container, part);
        if container.str_at(&["restartPolicy"]) == Some("Always") {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            raise(&mut peak, &sidecars);
        } else {
            let mut here = sidecars.clone();
            add(&mut here, &own);
            raise(&mut peak, &here);
        }
    }
    raise(&mut total, &peak);
    // What the whole Pod is given goes before what its containers ask for.
    for (k, q) in of(pod.get("spec").unwrap_or(&Value::Null), part) {
        if matches!(k.as_str(), "cpu" | "memory") || k.starts_with("hugepages-") {
            total.insert(k, q);
        }
    }
    let overhead = pod.at(&["spec", "overhead"]).and_then(Value::as_object);
    for (k, v) in overhead.into_iter().flat_map(Map::iter) {
        if let Some(q) = v.as_str().and_then(|t| Quantity::parse(t).ok())
            && (part == "requests" || total.contains_key(k.as_ref()))
        {
            add(&mut total, &Amounts::from([(k.to_string(), q)]));
        }
    }
    total
}
