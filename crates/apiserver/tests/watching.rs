//! Lists and watches: paging, selectors, order, resuming, bookmarks, 410.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use serde_json::{Value, json};
use support::{Http, cluster};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn make(http: &Http, name: &str, label: &str) -> Value {
    http.post(MAPS, &json!({"metadata": {"name": name, "labels": {"l": label}}, "data": {"k": "v"}})).await.expect(201)
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn names(list: &Value) -> Vec<String> {
    list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_of_one_revision_whatever_is_written_between() {
    let c = cluster().await;
    let http = c.admin();
    for i in 0..7 {
        make(&http, &format!("m{i}"), "x").await;
    }
    let first = http.get(&format!("{MAPS}?limit=3")).await.expect(200);
    assert_eq!(names(&first), ["m0", "m1", "m2"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    http.delete(&format!("{MAPS}/m4")).await.expect(200);
    make(&http, "m3a", "x").await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = http.get(&format!("{MAPS}?limit=3&continue={token}")).await.expect(200);
    assert_eq!(names(&second), ["m3", "m4", "m5"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let last = http.get(&format!("{MAPS}?limit=3&continue={token}")).await.expect(200);
    assert_eq!(names(&last), ["m6"]);
    assert!(last["metadata"]["continue"].is_null());
    let store = c.api.registry().store().clone();
    store.compact(c.api.registry().revision()).await.unwrap();
    let a = http.get(&format!("{MAPS}?limit=3&continue={token}")).await;
    let again = a.json()["metadata"]["continue"].as_str().unwrap().to_owned();
    a.refused(410, "Expired", "The provided continue parameter is too old");
    let rest = http.get(&format!("{MAPS}?limit=9&continue={again}")).await.expect(200);
    assert_eq!(names(&rest), ["m6"]);
    http.get(&format!("{MAPS}?continue=nonsense")).await.refused(400, "BadRequest", "continue key is not valid");
}

#[tokio::test(flavor = "multi_thread")]
async fn selectors_select_and_watches_see_objects_enter_and_leave() {
    let c = cluster().await;
    let http = c.admin();
    make(&http, "a", "in").await;
    make(&http, "b", "out").await;
    let list = http.get(&format!("{MAPS}?labelSelector=l%3Din")).await.expect(200);
    assert_eq!(names(&list), ["a"]);
    let list2 = http.get(&format!("{MAPS}?fieldSelector=metadata.name%21%3Da")).await.expect(200);
    assert_eq!(names(&list2), ["b"]);
    http.get(&format!("{MAPS}?fieldSelector=spec.x%3D1")).await.refused(
        400,
        "BadRequest",
        "\"spec.x\" is not a known field selector",
    );
    let from = version(&list);
    let mut w = http.watch(&format!("{MAPS}?watch=1&labelSelector=l%3Din&resourceVersion={from}")).await;
    let relabel = |l: &str| json!({"metadata": {"labels": {"l": l}}});
    let merge = "application/merge-patch+json";
    http.patch(&format!("{MAPS}/b"), merge, &relabel("in")).await.expect(200);
    let left = http.patch(&format!("{MAPS}/a"), merge, &relabel("out")).await.expect(200);
    http.patch(&format!("{MAPS}/b"), merge, &json!({"data": {"k": "w"}})).await.expect(200);
    http.delete(&format!("{MAPS}/b")).await.expect(200);
    let mut seen = Vec::new();
    let mut last = from;
    for _ in 0..4 {
        let (kind, object) = w.event().await;
        assert!(version(&object) > last, "in order");
        last = version(&object);
        if kind == "DELETED" && object["metadata"]["name"] == "a" {
            assert_eq!(version(&object), version(&left), "leaving shows the old object under the new revision");
            assert_eq!(object["metadata"]["labels"]["l"], "in");
        }
        seen.push(format!("{kind} {}", object["metadata"]["name"].as_str().unwrap()));
    }
    assert_eq!(seen, ["ADDED b", "DELETED a", "MODIFIED b", "DELETED b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_resumes_without_loss_or_repetition() {
    let c = cluster().await;
    let http = c.admin();
    let start = http.get(MAPS).await.expect(200);
    let writer = tokio::spawn({
        let http = http.clone();
        async move {
            for i in 0..60 {
                make(&http, &format!("n{i:03}"), "x").await;
            }
        }
    });
    let mut from = version(&start);
    let mut seen = Vec::new();
    while seen.len() < 60 {
        let mut w = http.watch(&format!("{MAPS}?watch=1&resourceVersion={from}")).await;
        for _ in 0..7.min(60 - seen.len()) {
            let (kind, object) = w.event().await;
            assert_eq!(kind, "ADDED");
            from = version(&object);
            seen.push(object["metadata"]["name"].as_str().unwrap().to_owned());
        }
    }
    writer.await.unwrap();
    let wanted: Vec<String> = (0..60).map(|i| format!("n{i:03}")).collect();
    assert_eq!(seen, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_resumes_over_a_restart() {
    let c = cluster().await;
    let http = c.admin();
    let from = version(&make(&http, "a", "x").await);
    make(&http, "b", "x").await;
    http.delete(&format!("{MAPS}/a")).await.expect(200);
    drop(http);
    let c = c.restart().await;
    let http = c.admin();
    let mut w = http.watch(&format!("{MAPS}?watch=1&resourceVersion={from}")).await;
    make(&http, "c", "x").await;
    for wanted in ["ADDED b", "DELETED a", "ADDED c"] {
        let (kind, object) = w.event().await;
        assert_eq!(format!("{kind} {}", object["metadata"]["name"].as_str().unwrap()), wanted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streaming_lists_end_with_a_bookmark_and_timeouts_end_watches() {
    let c = cluster().await;
    let http = c.admin();
    let before = version(&make(&http, "a", "x").await);
    let path = format!(
        "{MAPS}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=5"
    );
    let mut w = http.watch(&path).await;
    assert_eq!(w.event().await.0, "ADDED");
    let (kind, mark) = w.event().await;
    assert_eq!(kind, "BOOKMARK");
    assert_eq!(mark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    // The server's own controllers write, too.
    assert!((before..=c.api.registry().revision()).contains(&version(&mark)), "{mark}");
    make(&http, "b", "x").await;
    assert_eq!(w.event().await.1["metadata"]["name"], "b");
    while let Some(event) = w.next().await {
        assert_eq!(event["type"], "BOOKMARK");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn places_in_history_that_are_gone_or_to_come_are_refused() {
    let c = cluster().await;
    // A server started on a compacted store knows nothing from before.
    c.api.registry().store().compact(c.api.registry().revision()).await.unwrap();
    let c = c.restart().await;
    let http = c.admin();
    let mut w = http.watch(&format!("{MAPS}?watch=1&resourceVersion=1")).await;
    let (kind, status) = w.event().await;
    assert_eq!((kind.as_str(), &status["code"]), ("ERROR", &json!(410)));
    assert_eq!(status["reason"], "Expired");
    http.get(&format!("{MAPS}?resourceVersion=999999")).await.refused(504, "Timeout", "Too large resource version");
    http.get(&format!("{MAPS}?resourceVersion=x")).await.refused(400, "BadRequest", "x");
    make(&http, "a", "x").await;
    let then = version(&make(&http, "b", "x").await);
    make(&http, "c", "x").await;
    let exact = http.get(&format!("{MAPS}?resourceVersion={then}&resourceVersionMatch=Exact")).await.expect(200);
    assert_eq!(names(&exact), ["a", "b"]);
    let newer = http.get(&format!("{MAPS}?resourceVersion={then}&resourceVersionMatch=NotOlderThan")).await.expect(200);
    assert_eq!(names(&newer), ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_list_streams_whole_and_compresses() {
    let c = cluster().await;
    let http = c.admin();
    let filler = "x".repeat(10_000);
    for i in 0..40 {
        http.post(MAPS, &json!({"metadata": {"name": format!("big{i:02}")}, "data": {"k": filler}})).await.expect(201);
    }
    let plain = http.get(MAPS).await;
    assert!(plain.bytes.len() > 400_000);
    let list = plain.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 40);
    let zipped = http.send(http::Method::GET, MAPS, &[("accept-encoding", "gzip")], "").await;
    assert_eq!(zipped.headers["content-encoding"], "gzip");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&zipped.bytes[..]), &mut text).unwrap();
    let unzipped: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(unzipped["items"], list["items"]);
}
