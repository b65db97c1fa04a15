//! What Go writes of an object besides what somebody set. The answers are upstream's.
#![allow(clippy::unwrap_used)]

use ironkeel_codec::{complete, conform, parse_json};
use ironkeel_object::Value;
use ironkeel_schema::type_by_name;

fn parsed(json: &str) -> Value {
    parse_json(json.as_bytes()).unwrap()
}

fn check(type_name: &str, sent: &str, answered: &str) {
    let id = type_by_name(type_name).unwrap();
    let mut object = parsed(sent);
    conform(&mut object, id, &mut Vec::new()).unwrap();
    complete(&mut object, id);
    assert_eq!(object, parsed(answered), "{type_name}");
    let once = object.clone();
    complete(&mut object, id);
    assert_eq!(object, once, "{type_name} twice");
}

#[test]
fn structs_lists_and_texts_that_are_always_written() {
    check("core/v1.Pod", r#"{"spec":{}}"#, r#"{"metadata":{},"spec":{"containers":null},"status":{}}"#);
    check(
        "rbac/v1.ClusterRole",
        r#"{"metadata":{"name":"r"},"aggregationRule":{"clusterRoleSelectors":null}}"#,
        r#"{"metadata":{"name":"r"},"aggregationRule":{},"rules":null}"#,
    );
    check(
        "core/v1.Event",
        r#"{"reason":"","count":0}"#,
        r#"{"metadata":{},"involvedObject":{},"source":{},"firstTimestamp":null,"lastTimestamp":null,
            "eventTime":null,"reportingComponent":"","reportingInstance":""}"#,
    );
    check(
        "apps/v1.StatefulSetSpec",
        r#"{"template":{"metadata":{"labels":{"a":"b"}}}}"#,
        r#"{"selector":null,"serviceName":"","updateStrategy":{},
            "template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":null}}}"#,
    );
}

#[test]
fn elements_of_lists_and_maps_are_completed_too() {
    check(
        "core/v1.PodStatus",
        r#"{"conditions":[{"type":"Ready","status":"True"}],
            "containerStatuses":[{"name":"a","state":{"running":{}}}]}"#,
        r#"{"conditions":[{"type":"Ready","status":"True","lastProbeTime":null,"lastTransitionTime":null}],
            "containerStatuses":[{"name":"a","state":{"running":{"startedAt":null}},"lastState":{},"ready":false,
            "restartCount":0,"image":"","imageID":""}]}"#,
    );
    check(
        "resource/v1.ResourceSlice",
        r#"{"spec":{"driver":"d","devices":[{"name":"x","capacity":{"memory":{}}}]}}"#,
        r#"{"metadata":{},"spec":{"driver":"d","pool":{"name":"","generation":0,"resourceSliceCount":0},
            "devices":[{"name":"x","capacity":{"memory":{"value":"0"}}}]}}"#,
    );
}

#[test]
fn pointers_and_optional_members_stay_away() {
    check("core/v1.ConfigMap", "{}", r#"{"metadata":{}}"#);
    check("coordination/v1.Lease", r#"{"spec":{}}"#, r#"{"metadata":{},"spec":{}}"#);
    check(
        "core/v1.PersistentVolumeClaimSpec",
        r#"{"dataSource":{"kind":"PersistentVolumeClaim","name":"c"}}"#,
        r#"{"resources":{},"dataSource":{"kind":"PersistentVolumeClaim","name":"c","apiGroup":null}}"#,
    );
}
