//! Warnings of creates, against upstream's for the same objects (`warnings.txt`).
#![allow(clippy::unwrap_used)]

mod upstream;

use ironkeel_codec::{complete, parse_json};
use ironkeel_kinds::{deprecation, kind};
use ironkeel_object::Value;

fn texts(all: Vec<String>) -> Value {
    all.into_iter().map(Value::from).collect::<Vec<_>>().into()
}

#[test]
fn creates_warn_as_upstream_does() {
    let (mut faults, mut seen) = (Vec::new(), 0);
    for (head, kind, body) in upstream::entries(include_str!("warnings.txt"), 2) {
        let (sent, wanted) = (body[0], body[1]);
        let mut object = upstream::object(kind, sent);
        kind.hooks.default(&mut object);
        kind.hooks.prepare_create(&mut object);
        complete(&mut object, kind.resource.type_id);
        let mut all: Vec<String> = deprecation(&kind.resource).into_iter().collect();
        all.extend(kind.hooks.warnings(&object, None, None));
        let wanted = parse_json(wanted.as_bytes()).unwrap();
        if texts(all.clone()) != wanted {
            faults.push(format!("{head} {sent}:\n  {all:?}, not\n  {wanted:?}"));
        }
        seen += 1;
    }
    assert!(seen > 25, "{seen}");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn updates_warn_of_templates_that_change_and_not_of_status() {
    let kind = kind("apps", "v1", "deployments").unwrap();
    let spec = r#""spec":{"template":{"spec":{"nodeSelector":{"beta.kubernetes.io/os":"linux"},"containers":[]}}}"#;
    let at = |generation: u64| {
        let text = format!(r#"{{"metadata":{{"name":"d","generation":{generation}}},{spec}}}"#);
        parse_json(text.as_bytes()).unwrap()
    };
    assert_eq!(kind.hooks.warnings(&at(2), Some(&at(1)), None).len(), 1);
    assert_eq!(kind.hooks.warnings(&at(1), Some(&at(1)), None).len(), 0);
    assert_eq!(kind.hooks.warnings(&at(2), Some(&at(1)), Some("status")).len(), 0);
}

/// What is said of a pod.
fn of_pod(pod: &str) -> Vec<String> {
    kind("", "v1", "pods").unwrap().hooks.warnings(&parse_json(pod.as_bytes()).unwrap(), None, None)
}

/// As many texts, in one.
fn many(n: usize, text: impl Fn(usize) -> String) -> String {
    (0..n).map(text).collect::<Vec<_>>().join(",")
}

#[test]
fn warnings_take_less_than_what_they_are_about() {
    let check = |what: &str, pod: &str, first: &str| {
        let all = of_pod(pod);
        let bytes: usize = all.iter().map(String::len).sum();
        assert!(bytes < 2 << 20, "{what}: {} warnings of {bytes} bytes", all.len());
        // An answer shows 4,096 characters, and 256 of each where there are more.
        assert!(all.iter().map(|w| w.chars().take(256).count()).sum::<usize>() > 4096, "{what}: {}", all.len());
        assert!(all[0].starts_with(first), "{what}: {}", &all[0][..200]);
    };
    let term = format!(
        r#"{{"preference":{{"matchExpressions":[{{"key":"a","operator":"In","values":[{}]}}]}},"weight":1}}"#,
        many(50_000, |_| r#""-""#.to_owned())
    );
    let preferred = format!(
        r#"{{"spec":{{"affinity":{{"nodeAffinity":{{"preferredDuringSchedulingIgnoredDuringExecution":[{term}]}}}}}}}}"#
    );
    check("values that are none", &preferred, "spec.affinity.nodeAffinity.preferred");
    let servers = many(100_000, |_| r#""010.0.0.1""#.to_owned());
    check("addresses", &format!(r#"{{"spec":{{"dnsConfig":{{"nameservers":[{servers}]}}}}}}"#), "spec.dnsConfig");
    let ports = many(20_000, |_| r#"{"containerPort":80}"#.to_owned());
    let pod = format!(r#"{{"spec":{{"containers":[{{"name":"c","ports":[{ports}]}}]}}}}"#);
    check("ports", &pod, "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]");
    let items = |path: &str, n| {
        let items = many(n, |_| format!(r#"{{"key":"a","path":"{path}"}}"#));
        format!(r#"{{"spec":{{"volumes":[{{"name":"v","configMap":{{"name":"m","items":[{items}]}}}}]}}}}"#)
    };
    let first = "volume \"v\" (ConfigMap \"m\"): overlapping paths: \"ééé";
    check("paths", &items(&"é".repeat(50), 20_000), first);
    check("long paths", &items(&"é".repeat(50_000), 15), first);
}

#[test]
fn ports_that_differ_on_the_host_are_not_compared() {
    let port = |i: usize| format!(r#"{{"containerPort":80,"hostPort":{}}}"#, i + 1);
    let ip = |i: usize| format!(r#"{{"containerPort":80,"hostPort":70000,"hostIP":"10.{}.{}.1"}}"#, i / 250, i % 250);
    let pod = |last: &str| {
        let (ports, ips) = (many(15_000, port), many(15_000, ip));
        of_pod(&format!(r#"{{"spec":{{"containers":[{{"name":"c","ports":[{ports},{ips},{last}]}}]}}}}"#))
    };
    let said = |what: &str, i: usize| {
        format!("spec.containers[0].ports[30000]: {what} port definition with spec.containers[0].ports[{i}]")
    };
    assert_eq!(
        pod(r#"{"containerPort":80,"hostPort":70000,"hostIP":"10.0.3.1"}"#),
        [said("duplicate", 15_003)],
        "the same address"
    );
    assert_eq!(
        pod(r#"{"containerPort":80,"hostPort":9,"hostIP":"10.0.3.1"}"#),
        [said("dangerously ambiguous", 8)],
        "all addresses before"
    );
    let all = pod(r#"{"containerPort":80,"hostPort":70000}"#);
    assert_eq!(all[..2], [said("dangerously ambiguous", 15_000), said("dangerously ambiguous", 15_001)]);
    let all = pod(r#"{"containerPort":80}"#);
    assert_eq!(all[..2], [said("overlapping", 0), said("overlapping", 1)]);
}

#[test]
fn paths_that_hide_each_other_are_told_by_pairs() {
    let check = |paths: &[&str], wanted: &[(usize, usize)]| {
        let items = many(paths.len(), |i| format!(r#"{{"path":"{}"}}"#, paths[i]));
        let all = of_pod(&format!(r#"{{"spec":{{"volumes":[{{"name":"v","secret":{{"items":[{items}]}}}}]}}}}"#));
        let bare = |i: usize| paths[i].trim_end_matches('/');
        let told = |(i, j): &(usize, usize)| {
            format!("volume \"v\" (Secret \"\"): overlapping paths: \"{}\" with \"{}\"", bare(*i), bare(*j))
        };
        assert_eq!(all, wanted.iter().map(told).collect::<Vec<_>>(), "{paths:?}");
    };
    check(&["a", "b", "ab", "a.b", "a-b/c"], &[]);
    check(&["a/b", "a.b", "a", "a-b", "a/c", "a"], &[(2, 0), (4, 2), (5, 0), (5, 2), (5, 4)]);
    check(&["a/b/c/d", "a/b", "a/b/c", "a/bc", "a/b/e"], &[(1, 0), (2, 0), (2, 1), (4, 1)]);
    check(&["", "/", "a/", "a//", "/a", "a//b"], &[(3, 2), (5, 2), (5, 3)]);
}
