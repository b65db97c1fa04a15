//! The table of resourceVersion semantics, forms of answers, and what is refused.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use http::Method;
use serde_json::{Value, json};
use support::{Http, cluster};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MERGE: &str = "application/merge-patch+json";

async fn make(http: &Http, name: &str) -> u64 {
    let made = http.post(MAPS, &json!({"metadata": {"name": name}, "data": {"k": "v"}})).await.expect(201);
    revision(&made)
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn names(list: &Value) -> Vec<String> {
    list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn options_of_lists_and_watches_are_checked_together() {
    let c = cluster().await;
    let http = c.admin();
    let check = async |query: &str, code: u16, reason: &str, message: &str| {
        http.get(&format!("{MAPS}?{query}")).await.refused(code, reason, message);
    };
    let invalid = "ListOptions.meta.k8s.io \"\" is invalid: ";
    let forbidden = |why: &str| format!("{invalid}resourceVersionMatch: Forbidden: {why}");
    check(
        "resourceVersionMatch=Exact",
        422,
        "Invalid",
        &forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided"),
    )
    .await;
    check(
        "resourceVersionMatch=Exact&resourceVersion=0",
        422,
        "Invalid",
        &forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""),
    )
    .await;
    check(
        "resourceVersionMatch=Foo&resourceVersion=1",
        422,
        "Invalid",
        &format!("{invalid}resourceVersionMatch: Unsupported value: \"Foo\": supported values: \"Exact\", \"NotOlderThan\", \"\""),
    )
    .await;
    check(
        "sendInitialEvents=true",
        422,
        "Invalid",
        "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
    )
    .await;
    check(
        "watch=1&sendInitialEvents=true",
        422,
        "Invalid",
        &forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
    )
    .await;
    check(
        "watch=1&resourceVersionMatch=NotOlderThan&resourceVersion=1",
        422,
        "Invalid",
        &forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"),
    )
    .await;
    check("limit=x", 400, "BadRequest", "strconv.ParseInt: parsing \"x\": invalid syntax").await;
    check("watch=1&timeoutSeconds=99999999999999999999", 400, "BadRequest", "value out of range").await;
    check(
        "resourceVersion=x",
        400,
        "BadRequest",
        "Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax",
    )
    .await;
    check("continue=x&resourceVersion=5", 400, "BadRequest", "continue key is not valid").await;
    check(
        "fieldSelector=spec.x%3D1",
        400,
        "BadRequest",
        "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
    )
    .await;
    check("labelSelector=a%20in%20(b", 400, "BadRequest", "unable to parse requirement").await;
    http.get("/api/v1/pods?fieldSelector=spec.x%3D1").await.refused(
        400,
        "BadRequest",
        "field label not supported: spec.x",
    );
    let far = http.get(&format!("{MAPS}?resourceVersion=99999999")).await;
    let status = far.json();
    assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    assert_eq!(status["details"]["retryAfterSeconds"], 1);
    far.refused(504, "Timeout", "Too large resource version: 99999999, current: ");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cell_of_the_resource_version_table_answers() {
    let c = cluster().await;
    let http = c.admin();
    for name in ["a", "b", "c"] {
        make(&http, name).await;
    }
    let at = revision(&http.get(MAPS).await.expect(200));
    make(&http, "d").await;
    let list = async |query: &str| http.get(&format!("{MAPS}?{query}")).await.expect(200);
    assert_eq!(names(&list("").await).len(), 4);
    assert_eq!(names(&list("resourceVersion=0&limit=1").await).len(), 4, "any revision is served whole");
    assert_eq!(names(&list(&format!("resourceVersion={at}")).await).len(), 4);
    assert_eq!(names(&list(&format!("resourceVersion={at}&resourceVersionMatch=NotOlderThan")).await).len(), 4);
    let exact = list(&format!("resourceVersion={at}&resourceVersionMatch=Exact&limit=2")).await;
    assert_eq!((names(&exact), revision(&exact)), (vec!["a".to_owned(), "b".to_owned()], at));
    assert_eq!(exact["metadata"]["remainingItemCount"], 1);
    let token = exact["metadata"]["continue"].as_str().unwrap();
    let rest = list(&format!("limit=2&continue={token}")).await;
    assert_eq!((names(&rest), revision(&rest)), (vec!["c".to_owned()], at));
    let legacy = list(&format!("resourceVersion={at}&limit=2")).await;
    assert_eq!(revision(&legacy), at, "a limit with a revision means that very revision");
    let selected = list("limit=1&fieldSelector=metadata.name%21%3Da").await;
    assert!(selected["metadata"]["continue"].is_string() && selected["metadata"]["remainingItemCount"].is_null());

    // A token expires with the history even where nothing has changed since.
    let first = list("limit=1").await;
    let (token, then) = (first["metadata"]["continue"].as_str().unwrap(), revision(&first));
    http.post("/api/v1/namespaces/default/secrets", &json!({"metadata": {"name": "other"}})).await.expect(201);
    c.api.registry().store().compact(c.api.registry().revision()).await.unwrap();
    let gone = http.get(&format!("{MAPS}?limit=1&continue={token}")).await;
    let again = gone.json()["metadata"]["continue"].as_str().unwrap().to_owned();
    gone.refused(410, "Expired", "The provided continue parameter is too old");
    let second = list(&format!("limit=1&continue={again}")).await;
    assert_eq!(names(&second), ["b"]);
    assert!(revision(&second) > then);
    make(&http, "e").await;
    let next = second["metadata"]["continue"].as_str().unwrap();
    let third = list(&format!("limit=9&continue={next}")).await;
    assert_eq!((names(&third).len(), revision(&third)), (2, revision(&second)), "consistent from there on");
    let old = http.get(&format!("{MAPS}?resourceVersion=1&resourceVersionMatch=Exact")).await;
    old.refused(410, "Expired", "The resourceVersion for the provided list is too old");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_the_future_waits_for_it() {
    let c = cluster().await;
    let http = c.admin();
    let known = make(&http, "a").await + 3;
    let mut w = http.watch(&format!("{MAPS}?watch=1&resourceVersion={known}")).await;
    let mut expected = None;
    for i in 0..6 {
        let name = format!("m{i}");
        if make(&http, &name).await > known && expected.is_none() {
            expected = Some(name);
        }
    }
    let (kind, object) = w.event().await;
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    assert_eq!((kind.as_str(), Some(name)), ("ADDED", expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_one_node_sees_its_pods_come_and_go() {
    let c = cluster().await;
    let http = c.admin();
    http.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}})).await;
    let pods = "/api/v1/namespaces/default/pods";
    let from = revision(&http.get(pods).await.expect(200));
    let selector = "fieldSelector=spec.nodeName%3Dn1";
    let mut mine = http
        .watch(&format!("{pods}?watch=1&{selector}&resourceVersion={from}&allowWatchBookmarks=true&timeoutSeconds=9"))
        .await;
    let mut others = Vec::new();
    for _ in 0..40 {
        others.push(http.watch(&format!("{pods}?watch=1&resourceVersion={from}")).await);
    }
    for i in 0..30 {
        let node = if i % 10 == 0 { "n1" } else { "n2" };
        let pod = json!({"metadata": {"name": format!("p{i}")}, "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}});
        http.post(pods, &pod).await.expect(201);
    }
    for i in [0, 10, 20] {
        let (kind, object) = mine.event().await;
        assert_eq!((kind.as_str(), object["metadata"]["name"].as_str().unwrap()), ("ADDED", format!("p{i}").as_str()));
    }
    let (kind, mark) = mine.event().await;
    assert_eq!(kind, "BOOKMARK");
    assert!(revision(&mark) >= revision(&http.get(&format!("{pods}/p29")).await.expect(200)), "others' pods count");
    for w in &mut others {
        for i in 0..30 {
            let (_, object) = w.event().await;
            assert_eq!(object["metadata"]["name"], format!("p{i}"), "all, in order");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_of_answers_are_negotiated() {
    let c = cluster().await;
    let http = c.admin();
    let at = make(&http, "a").await;
    let one = format!("{MAPS}/a");
    let get = async |path: &str, accept: &str| http.send(Method::GET, path, &[("accept", accept)], "").await;
    let of = |kind: &str| format!("application/json;as={kind};v=v1;g=meta.k8s.io");
    let partial = get(&one, &of("PartialObjectMetadata")).await.expect(200);
    assert_eq!(
        (partial["kind"].as_str(), partial["apiVersion"].as_str()),
        (Some("PartialObjectMetadata"), Some("meta.k8s.io/v1"))
    );
    assert!(partial["data"].is_null());
    let list = get(MAPS, &of("PartialObjectMetadataList")).await.expect(200);
    assert_eq!((list["kind"].as_str(), names(&list).len()), (Some("PartialObjectMetadataList"), 1));
    get(MAPS, &of("PartialObjectMetadata")).await.refused(
        406,
        "NotAcceptable",
        "you requested PartialObjectMetadata, but the requested object is a list",
    );
    get(&one, &of("PartialObjectMetadataList")).await.refused(
        406,
        "NotAcceptable",
        "you requested PartialObjectMetadataList, but the requested object is not a list",
    );
    let types = "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";
    get(&one, "application/json;as=Foo;v=v1;g=meta.k8s.io").await.refused(406, "NotAcceptable", types);
    let available = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, \
                     application/vnd.kubernetes.protobuf";
    get(&one, "text/html").await.refused(406, "NotAcceptable", available);
    get(&one, "application/*").await.refused(406, "NotAcceptable", available);
    get("/api", "text/html").await.refused(406, "NotAcceptable", available);
    let table = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io";
    get(&one, table).await.refused(406, "NotAcceptable", types);
    assert_eq!(get(&one, &format!("{table}, {}", of("Table"))).await.expect(200)["kind"], "Table");
    let liked = get(&one, "application/json;q=0.1, application/yaml").await;
    assert_eq!(liked.headers["content-type"], "application/yaml");
    for (include, object) in
        [("None", Value::Null), ("Metadata", "PartialObjectMetadata".into()), ("Object", "ConfigMap".into())]
    {
        let rows = get(&format!("{MAPS}?includeObject={include}"), &of("Table")).await.expect(200);
        assert_eq!(rows["rows"][0]["object"]["kind"], object);
    }
    get(&format!("{MAPS}?includeObject=All"), &of("Table")).await.refused(
        400,
        "BadRequest",
        "Unable to convert to Table as requested: includeObject: Invalid value: \"All\": must be 'Metadata', 'Object', 'None', or empty",
    );
    let refused = get(&format!("{MAPS}?watch=1"), "application/yaml").await;
    assert_eq!(refused.status.as_u16(), 406);
    assert!(String::from_utf8_lossy(&refused.bytes).contains("application/json;stream=watch"));
    let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}).to_string();
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let headers = [("accept", of("Table")), ("content-type", "application/json".to_owned())];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
    http.send(Method::POST, path, &headers, review).await.refused(406, "NotAcceptable", types);

    // A table is watched row by row, and its mark travels in a row's object.
    let query =
        "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1";
    let events = get(&format!("{MAPS}?{query}"), &of("Table")).await;
    let lines: Vec<Value> = events
        .bytes
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    assert_eq!(
        (lines[0]["type"].as_str(), lines[0]["object"]["rows"][0]["object"]["metadata"]["name"].as_str()),
        (Some("ADDED"), Some("a"))
    );
    assert_eq!(lines[1]["type"], "BOOKMARK");
    let marked = &lines[1]["object"]["rows"][0]["object"]["metadata"];
    assert_eq!(marked["annotations"]["k8s.io/initial-events-end"], "true");
    assert!(revision(&lines[1]["object"]["rows"][0]["object"]) >= at);
    let proto = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let events = get(&format!("{MAPS}?watch=1&timeoutSeconds=1"), proto).await;
    assert_eq!(events.headers["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    assert!(events.bytes.windows(5).any(|w| w == b"ADDED"));
    let old = http.patch(&one, MERGE, &json!({"data": {"k": "w"}})).await.expect(200);
    assert!(revision(&old) > at);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pods_of_a_node_are_told_apart_whatever_becomes_of_them() {
    let c = cluster().await;
    let http = c.admin();
    const PODS: &str = "/api/v1/namespaces/default/pods";
    let make = async |namespace: &str, name: &str, node: &str| {
        let pod = json!({
            "metadata": { "name": name },
            "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "i" }] },
        });
        http.post(&format!("/api/v1/namespaces/{namespace}/pods"), &pod).await.expect(201)
    };
    let of = async |what: &str| names(&http.get(what).await.expect(200));
    for namespace in ["default", "kube-system"] {
        http.post(
            &format!("/api/v1/namespaces/{namespace}/serviceaccounts"),
            &json!({"metadata": {"name": "default"}}),
        )
        .await;
    }
    for (name, node) in [("p1", "n1"), ("p2", "n2"), ("p4", "n1"), ("p3", "n1"), ("free", "")] {
        make("default", name, node).await;
    }
    // The first list by the field builds what the others read.
    assert_eq!(of("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await, ["p1", "p3", "p4"]);
    make("kube-system", "p0", "n1").await;
    let bound = json!({ "metadata": { "name": "free" }, "target": { "kind": "Node", "name": "n1" } });
    http.post(&format!("{PODS}/free/binding"), &bound).await.expect(201);
    http.patch(&format!("{PODS}/p3"), MERGE, &json!({ "metadata": { "labels": { "a": "b" } } })).await.expect(200);
    http.delete(&format!("{PODS}/p4?gracePeriodSeconds=0")).await.expect(200);
    assert_eq!(of("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await, ["free", "p1", "p3", "p0"]);
    assert_eq!(of(&format!("{PODS}?fieldSelector=spec.nodeName%3Dn1")).await, ["free", "p1", "p3"]);
    assert_eq!(of("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&labelSelector=a%3Db").await, ["p3"]);
    assert_eq!(of("/api/v1/pods?fieldSelector=spec.nodeName%3Dn2,metadata.name!%3Dp2").await, [""; 0]);
    assert_eq!(of("/api/v1/pods?fieldSelector=spec.nodeName%3D").await, [""; 0]);
    assert_eq!(of("/api/v1/pods?fieldSelector=spec.nodeName!%3Dn1").await, ["p2"]);
    // Page by page, by the field and without.
    for (query, all, counted) in [
        ("fieldSelector=spec.nodeName%3Dn1", vec!["free", "p1", "p3", "p0"], false),
        ("labelSelector=!b", vec!["free", "p1", "p2", "p3", "p0"], false),
        ("", vec!["free", "p1", "p2", "p3", "p0"], true),
    ] {
        let (mut seen, mut more) = (Vec::new(), String::new());
        loop {
            let page = http.get(&format!("/api/v1/pods?{query}&limit=2&continue={more}")).await.expect(200);
            seen.extend(names(&page));
            more = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            let left = (all.len() - seen.len()) as u64;
            let told = (counted && left > 0).then_some(left);
            assert_eq!(page["metadata"]["remainingItemCount"].as_u64(), told, "{query}: {page}");
            if more.is_empty() {
                break;
            }
        }
        assert_eq!(seen, all, "{query}");
    }
}
