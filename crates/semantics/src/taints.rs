//! Tolerations against taints.
//!
//! Answers to component-helpers' corev1 toleration rules, shared by scheduler, DaemonSet controller, taint eviction and
//! kubelet admission.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Effect: new pods without a toleration are not placed.
pub const NO_SCHEDULE: &str = "NoSchedule";
/// Effect: other nodes are preferred.
pub const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";
/// Effect: pods without a toleration are evicted.
pub const NO_EXECUTE: &str = "NoExecute";

/// Whether `toleration` tolerates `taint`.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let set = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    if set(&toleration.effect).is_some_and(|effect| effect != taint.effect) {
        return false;
    }
    let key = set(&toleration.key);
    if key.as_ref().is_some_and(|key| *key != taint.key) {
        return false;
    }
    let taint_value = taint.value.as_deref().unwrap_or_default();
    let value = toleration.value.as_deref().unwrap_or_default();
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => value == taint_value && key.is_some(),
        "Exists" => true,
        "Lt" => compare(taint_value, value, |taint, toleration| taint < toleration),
        "Gt" => compare(taint_value, value, |taint, toleration| taint > toleration),
        _ => false,
    }
}

fn compare(taint: &str, toleration: &str, holds: fn(i64, i64) -> bool) -> bool {
    match (taint.parse(), toleration.parse()) {
        (Ok(taint), Ok(toleration)) => holds(taint, toleration),
        _ => false,
    }
}

/// Whether any of `tolerations` tolerates `taint`.
pub fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

/// The first taint with one of `effects` that is not tolerated.
pub fn untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration], effects: &[&str]) -> Option<&'a Taint> {
    taints.iter().find(|taint| effects.contains(&taint.effect.as_str()) && !tolerated(tolerations, taint))
}

/// How long a pod may stay on a node with these NoExecute taints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// A taint is not tolerated.
    Leave,
    /// All are, this one for so long at most.
    For(Duration),
    /// All are, without end.
    Forever,
}

/// How long a pod with `tolerations` may stay under the NoExecute taints among `taints`.
pub fn stay(taints: &[Taint], tolerations: &[Toleration]) -> Stay {
    let mut shortest: Option<i64> = None;
    for taint in taints.iter().filter(|taint| taint.effect == NO_EXECUTE) {
        let mut any = false;
        for toleration in tolerations.iter().filter(|toleration| tolerates(toleration, taint)) {
            any = true;
            if let Some(seconds) = toleration.toleration_seconds {
                shortest = Some(shortest.map_or(seconds, |known| known.min(seconds)));
            }
        }
        if !any {
            return Stay::Leave;
        }
    }
    match shortest {
        Some(seconds) => Stay::For(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))),
        None => Stay::Forever,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str, value: &str, effect: &str) -> Taint {
        Taint { key: key.into(), value: Some(value.into()), effect: effect.into(), time_added: None }
    }

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        let some = |text: &str| Some(text.to_owned());
        Toleration {
            key: some(key),
            operator: some(operator),
            value: some(value),
            effect: some(effect),
            ..Default::default()
        }
    }

    #[test]
    fn tolerations_match_taints_as_the_api_says() {
        let a = taint("a", "1", NO_SCHEDULE);
        let check = |t: Toleration, expected| assert_eq!(tolerates(&t, &a), expected, "{t:?}");
        check(toleration("a", "Equal", "1", NO_SCHEDULE), true);
        check(toleration("a", "", "1", ""), true);
        check(toleration("a", "Equal", "2", ""), false);
        check(toleration("a", "Exists", "", NO_EXECUTE), false);
        check(toleration("", "Exists", "", ""), true);
        check(toleration("b", "Exists", "", ""), false);
    }

    #[test]
    fn a_pod_stays_as_long_as_its_shortest_toleration() {
        let taints = [taint("a", "", NO_EXECUTE), taint("b", "", NO_SCHEDULE)];
        assert_eq!(stay(&taints, &[]), Stay::Leave);
        let mut five = toleration("a", "Exists", "", NO_EXECUTE);
        assert_eq!(stay(&taints, std::slice::from_ref(&five)), Stay::Forever);
        five.toleration_seconds = Some(5);
        assert_eq!(stay(&taints, &[five]), Stay::For(Duration::from_secs(5)));
        assert_eq!(stay(&[], &[]), Stay::Forever);
    }
}
