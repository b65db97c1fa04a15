//! Between the served versions of a kind nothing is lost: whatever way an object of `rules/*.txt`
//! goes through another version and back, it stays the same.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

use ironkeel_codec::{conform, parse_json};
use ironkeel_kinds::{Kind, kind, kinds};
use ironkeel_object::{ObjectMeta, Value, object};

/// Objects as they are created: kind and object.
fn objects() -> Vec<(&'static Kind, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules");
    let mut all = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let Some(rest) = line.strip_prefix("create ") else { continue };
            let [version, plural, _] = rest.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            let kind = kind(group, version, plural).unwrap();
            let mut object = parse_json(lines.next().unwrap().as_bytes()).unwrap();
            conform(&mut object, kind.resource.type_id, &mut Vec::new()).unwrap();
            kind.hooks.default(&mut object);
            kind.hooks.prepare_create(&mut object);
            kind.hooks.default(&mut object);
            all.push((kind, object));
        }
    }
    all
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn store(kind: &Kind, object: &Value) -> Value {
    let mut stored = object.clone();
    kind.hooks.to_stored(&mut stored);
    let (group, version) = kind.hooks.storage_version().unwrap();
    stored.set_gvk(&api_version(group, version), kind.resource.kind);
    stored
}

fn load(kind: &Kind, stored: &Value) -> Value {
    let mut object = stored.clone();
    kind.hooks.from_stored(&mut object);
    object.set_gvk(&api_version(kind.resource.group, kind.resource.version), kind.resource.kind);
    object
}

/// An autoscaler's metrics in one order: on its way through v1 the target of CPU becomes the last.
fn ordered(mut object: Value) -> Value {
    if let Some(metrics) = object.get_mut("spec").and_then(|s| s.get_mut("metrics")).and_then(Value::as_array_mut) {
        metrics.sort_by_key(|m| format!("{m:?}"));
    }
    object
}

#[test]
fn every_version_keeps_the_whole_object() {
    let mut seen = BTreeSet::new();
    for (written, object) in objects() {
        if written.hooks.storage_version().is_none() {
            continue;
        }
        let r = &written.resource;
        let stored = store(written, &object);
        assert_eq!(load(written, &stored), object, "{}/{} {} as it was written", r.group, r.version, r.plural);
        for read in kinds().iter().filter(|k| k.resource.group == r.group && k.resource.plural == r.plural) {
            let shown = load(read, &stored);
            let title = format!("{}/{} {} read as {}", r.group, r.version, r.plural, read.resource.version);
            assert_eq!(ordered(store(read, &shown)), ordered(stored.clone()), "{title}");
            seen.insert((r.group, r.plural, read.resource.version));
        }
    }
    assert!(seen.len() >= 20, "{seen:?}");
}

#[test]
fn kinds_of_several_versions_are_stored_in_one() {
    for k in kinds() {
        let r = &k.resource;
        let versions = kinds().iter().filter(|o| o.resource.group == r.group && o.resource.plural == r.plural).count();
        assert!(versions == 1 || k.hooks.storage_version().is_some(), "{}/{} {}", r.group, r.version, r.plural);
    }
}

#[test]
fn older_autoscalers_carry_the_newer_ones_members_in_annotations() {
    let newest = object!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": { "name": "h", "namespace": "n", "annotations": { "kept": "yes" } },
        "spec": {
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "d" },
            "minReplicas": 1, "maxReplicas": 3,
            "behavior": { "scaleDown": {
                "stabilizationWindowSeconds": 7, "selectPolicy": "Max", "tolerance": "100m",
                "policies": [{ "type": "Pods", "value": 4, "periodSeconds": 15 }],
            } },
            "metrics": [
                { "type": "Pods", "pods": { "metric": { "name": "m" },
                    "target": { "type": "AverageValue", "averageValue": "10" } } },
                { "type": "External", "external": {
                    "metric": { "name": "e", "selector": { "matchLabels": { "a": "<b>" } } },
                    "target": { "type": "Value", "value": "5" } } },
                { "type": "Resource", "resource": { "name": "cpu",
                    "target": { "type": "Utilization", "averageUtilization": 40 } } },
            ],
        },
        "status": {
            "currentReplicas": 2, "desiredReplicas": 2,
            "conditions": [{ "type": "AbleToScale", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z",
                "reason": "R", "message": "a & b" }],
            "currentMetrics": [{ "type": "Pods", "pods": { "metric": { "name": "m" },
                "current": { "averageValue": "8" } } }],
        },
    });
    let older = kind("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
    let shown = load(older, &newest);
    let note = |name: &str| shown.annotation(&format!("autoscaling.alpha.kubernetes.io/{name}")).unwrap_or_default();
    assert_eq!(
        note("metrics"),
        r#"[{"type":"Pods","pods":{"metricName":"m","targetAverageValue":"10"}},{"type":"External","external":{"metricName":"e","metricSelector":{"matchLabels":{"a":"\u003cb\u003e"}},"targetValue":"5"}}]"#
    );
    assert_eq!(
        note("behavior"),
        r#"{"ScaleUp":null,"ScaleDown":{"StabilizationWindowSeconds":7,"SelectPolicy":"Max","Policies":[{"Type":"Pods","Value":4,"PeriodSeconds":15}],"Tolerance":"100m"}}"#
    );
    assert_eq!(
        note("conditions"),
        r#"[{"type":"AbleToScale","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z","reason":"R","message":"a \u0026 b"}]"#
    );
    assert_eq!(note("current-metrics"), r#"[{"type":"Pods","pods":{"metricName":"m","currentAverageValue":"8"}}]"#);
    assert_eq!(shown.i64_at(&["spec", "targetCPUUtilizationPercentage"]), Some(40));
    assert!(shown.at(&["spec", "metrics"]).is_none() && shown.at(&["status", "conditions"]).is_none());
    let mut wanted = newest.clone();
    // What the newer version defaults.
    *wanted.slot(&["spec", "behavior", "scaleUp"]) = object!({
        "selectPolicy": "Max", "stabilizationWindowSeconds": 0,
        "policies": [
            { "type": "Pods", "value": 4, "periodSeconds": 15 }, { "type": "Percent", "value": 100, "periodSeconds": 15 },
        ],
    });
    assert_eq!(store(older, &shown), wanted);
}
