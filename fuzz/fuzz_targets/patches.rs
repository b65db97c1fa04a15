//! JSON patch, merge patch and strategic merge patch on a Pod.
#![no_main]

use ironkeel_codec::parse_json;
use ironkeel_patch::{json_patch, merge_patch, strategic_merge};
use ironkeel_schema::type_by_name;
use libfuzzer_sys::fuzz_target;

const POD: &[u8] = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","labels":{"a":"b"},"finalizers":["x","y"]},
"spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}],"env":[{"name":"A","value":"1"}]},{"name":"d"}],
"volumes":[{"name":"v","emptyDir":{}}],"nodeSelector":{"k":"v"}}}"#;

fuzz_target!(|data: &[u8]| {
    let Ok(patch) = parse_json(data) else { return };
    let pod = parse_json(POD).expect("the Pod is JSON");
    let mut target = pod.clone();
    let _ = json_patch(&mut target, &patch);
    let mut target = pod.clone();
    merge_patch(&mut target, &patch);
    let merged = target.clone();
    merge_patch(&mut target, &patch);
    assert_eq!(target, merged, "a merge patch twice is the patch once");
    let mut target = pod;
    let _ = strategic_merge(&mut target, &patch, type_by_name("core/v1.Pod").expect("Pods have a type"));
});
