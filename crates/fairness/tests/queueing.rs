//! Levels under load: who runs, who waits, who is refused. Order is counted, never timed.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use ironkeel_auth::UserInfo;
use ironkeel_fairness::{Controller, Digest, DumpKind, RefusalReason, Seat, Width, mandatory, suggested};
use ironkeel_object::{ObjectMeta, Value, object};

const WAIT: Duration = Duration::from_secs(5);

fn level(name: &str, shares: i64, response: Value) -> Value {
    object!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "PriorityLevelConfiguration",
        "metadata": { "name": name, "uid": (format!("uid-{name}")) },
        "spec": { "type": "Limited", "limited": { "nominalConcurrencyShares": shares, "borrowingLimitPercent": 0i64, "limitResponse": response } },
    })
}

fn queue(queues: i64, length: i64) -> Value {
    object!({ "type": "Queue", "queuing": { "queues": queues, "handSize": 1i64, "queueLengthLimit": length } })
}

fn schema(name: &str, level: &str, precedence: i64, users: &[&str]) -> Value {
    let subjects: Vec<Value> = users.iter().map(|u| object!({ "kind": "User", "user": { "name": (*u) } })).collect();
    object!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": { "name": name, "uid": (format!("uid-{name}")) },
        "spec": {
            "priorityLevelConfiguration": { "name": level },
            "matchingPrecedence": precedence,
            "distinguisherMethod": { "type": "ByUser" },
            "rules": [{ "subjects": subjects, "resourceRules": [{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true }] }],
        },
    })
}

fn request(user: &UserInfo) -> Digest<'_> {
    Digest {
        user,
        verb: "get",
        is_resource: true,
        group: "",
        resource: "pods",
        subresource: "",
        namespace: "default",
        name: "a",
        path: "/api/v1/namespaces/default/pods/a",
    }
}

/// One seat for `level`, whatever the others have.
fn one_seat(response: Value) -> Arc<Controller> {
    let controller = Arc::new(Controller::new(1));
    let levels = [Arc::new(level("small", 1, response))];
    let schemas = [Arc::new(schema("small", "small", 100, &["ann", "bob"]))];
    controller.digest(&schemas, &levels);
    controller
}

async fn enter(c: &Controller, user: &UserInfo, wait: Duration) -> Result<Seat, RefusalReason> {
    let digest = request(user);
    let classified = c.classify(&digest).unwrap();
    c.enter(&classified, &digest, Width::ONE, None, wait).await.map_err(|e| e.reason)
}

fn user(name: &str) -> UserInfo {
    UserInfo::new(name, Vec::<String>::new())
}

#[tokio::test]
async fn a_level_that_rejects_refuses_at_its_limit() {
    let c = one_seat(object!({ "type": "Reject" }));
    let ann = user("ann");
    let held = enter(&c, &ann, WAIT).await.unwrap();
    let digest = request(&ann);
    let refused = c.enter(&c.classify(&digest).unwrap(), &digest, Width::ONE, None, WAIT).await.unwrap_err();
    assert_eq!((refused.reason, refused.retry_after_seconds), (RefusalReason::ConcurrencyLimit, 1));
    drop(held);
    enter(&c, &ann, WAIT).await.unwrap();
}

#[tokio::test]
async fn queues_fill_time_out_and_empty() {
    let c = one_seat(queue(1, 2));
    let ann = user("ann");
    let held = enter(&c, &ann, WAIT).await.unwrap();
    let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(enter(&c, &ann, WAIT))).collect();
    for w in &mut waiting {
        assert!(w.now_or_never().is_none());
    }
    assert_eq!(enter(&c, &ann, WAIT).await.unwrap_err(), RefusalReason::QueueFull);
    // A client that goes away makes room; what waits too long is refused.
    waiting.pop();
    assert_eq!(enter(&c, &ann, Duration::from_millis(1)).await.unwrap_err(), RefusalReason::TimeOut);
    let table = c.dump(DumpKind::PriorityLevels);
    let row = table.lines().find(|l| l.starts_with("small,")).unwrap();
    let cells: Vec<&str> = row.split(',').map(str::trim).collect();
    assert_eq!(cells[1..], ["1", "false", "false", "1", "1", "1", "3", "1", "1"], "{table}");
    drop(held);
    let next = waiting.pop().unwrap().await.unwrap();
    assert!(next.waited() > Duration::ZERO);
    drop(next);
    assert!(c.dump(DumpKind::PriorityLevels).lines().any(|l| l.starts_with("small,") && l.contains("true")));
}

#[tokio::test(start_paused = true)]
async fn a_flow_with_few_requests_is_not_drowned_by_one_with_many() {
    let c = one_seat(queue(64, 100));
    let (ann, bob) = (Arc::new(user("ann")), Arc::new(user("bob")));
    let held = enter(&c, &ann, WAIT).await.unwrap();
    let turn = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    let spawn = |who: &Arc<UserInfo>| {
        let (c, who, turn) = (c.clone(), who.clone(), turn.clone());
        tokio::spawn(async move {
            let seat = enter(&c, &who, WAIT).await.unwrap();
            let order = turn.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(seat);
            (who.name.clone(), order)
        })
    };
    tasks.extend((0..60).map(|_| spawn(&ann)));
    while !c.dump(DumpKind::PriorityLevels).lines().any(|l| l.starts_with("small,") && l.contains(" 60,")) {
        tokio::task::yield_now().await;
    }
    tasks.extend((0..5).map(|_| spawn(&bob)));
    while !c.dump(DumpKind::PriorityLevels).lines().any(|l| l.starts_with("small,") && l.contains(" 65,")) {
        tokio::task::yield_now().await;
    }
    drop(held);
    let mut last_of_bob = 0;
    for task in tasks {
        let (name, order) = task.await.unwrap();
        if name == "bob" {
            last_of_bob = last_of_bob.max(order);
        }
    }
    assert_eq!(turn.load(Ordering::SeqCst), 65);
    // Ten or so by turns.
    assert!(last_of_bob < 20, "bob's last request of 5 came {last_of_bob}th of 65");
}

#[tokio::test]
async fn exempt_requests_run_whatever_others_do() {
    let c = one_seat(queue(1, 1));
    let admin = UserInfo::new("admin", ["system:masters"]);
    let mut seats = Vec::new();
    for _ in 0..1_000 {
        seats.push(enter(&c, &admin, WAIT).await.unwrap());
    }
    assert!(c.dump(DumpKind::Requests { details: true }).lines().count() > 1_000);
}

#[tokio::test]
async fn schemas_match_by_precedence_and_the_bootstrap_objects_cover_everybody() {
    let c = Controller::new(600);
    let all: Vec<Arc<Value>> = mandatory().into_iter().chain(suggested()).map(Arc::new).collect();
    let (levels, mut schemas): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|o| o["kind"].as_str() == Some("PriorityLevelConfiguration"));
    schemas.push(Arc::new(schema("dangling", "nowhere", 1, &["*"])));
    let updates = c.digest(&schemas, &levels);
    let bad: Vec<&str> = updates.iter().filter(|u| u.dangling).map(|u| u.name.as_str()).collect();
    assert_eq!(bad, ["dangling"]);
    assert_eq!(updates.len(), schemas.len());
    let check = |user: &UserInfo, change: &dyn Fn(&mut Digest<'_>), wanted: (&str, &str)| {
        let mut digest = request(user);
        change(&mut digest);
        let found = c.classify(&digest).unwrap();
        assert_eq!((found.flow_schema(), found.priority_level()), wanted, "{digest:?}");
    };
    let same = |_: &mut Digest<'_>| {};
    check(&UserInfo::new("x", ["system:masters"]), &same, ("exempt", "exempt"));
    check(&UserInfo::new("system:node:a", ["system:nodes"]), &same, ("system-nodes", "system"));
    let node_status =
        |d: &mut Digest<'_>| (d.resource, d.subresource, d.namespace, d.verb) = ("nodes", "status", "", "patch");
    check(&UserInfo::new("system:node:a", ["system:nodes"]), &node_status, ("system-node-high", "node-high"));
    let lease = |d: &mut Digest<'_>| (d.group, d.resource) = ("coordination.k8s.io", "leases");
    check(&user("system:kube-scheduler"), &lease, ("system-leader-election", "leader-election"));
    check(&user("system:kube-scheduler"), &same, ("kube-scheduler", "workload-high"));
    check(&UserInfo::for_service_account("kube-system", "x"), &same, ("kube-system-service-accounts", "workload-high"));
    check(&UserInfo::for_service_account("default", "x"), &same, ("service-accounts", "workload-low"));
    check(&user("somebody"), &same, ("global-default", "global-default"));
    let probe = |d: &mut Digest<'_>| (d.is_resource, d.path) = (false, "/readyz/etcd");
    check(&user("somebody"), &probe, ("probes", "exempt"));
    check(&UserInfo::default(), &same, ("catch-all", "catch-all"));
}

#[tokio::test(start_paused = true)]
async fn seats_are_lent_and_borrowed_by_demand() {
    let c = Controller::new(100);
    let mut lender = level("lender", 95, queue(1, 1_000));
    *lender.slot(&["spec", "limited", "lendablePercent"]) = 50i64.into();
    let mut borrower = level("borrower", 5, queue(1, 1_000));
    borrower["spec"]["limited"].as_object().unwrap();
    borrower
        .get_mut("spec")
        .unwrap()
        .get_mut("limited")
        .unwrap()
        .as_object_mut()
        .unwrap()
        .remove("borrowingLimitPercent");
    let c = Arc::new(c);
    c.digest(&[Arc::new(schema("b", "borrower", 1, &["ann"]))], &[Arc::new(lender), Arc::new(borrower)]);
    let limit_of = |c: &Controller| {
        let mut text = ironkeel_metrics::Text::new(ironkeel_metrics::Form::Prometheus);
        c.render(&mut text);
        let page = text.finish();
        let key = "apiserver_flowcontrol_current_limit_seats{priority_level=\"borrower\"} ";
        page.lines().find_map(|l| l.strip_prefix(key)?.parse::<f64>().ok()).unwrap()
    };
    let ann = Arc::new(user("ann"));
    let before = limit_of(&c);
    let tasks: Vec<_> = (0..60)
        .map(|_| {
            let (c, ann) = (c.clone(), ann.clone());
            tokio::spawn(async move {
                let seat = enter(&c, &ann, Duration::from_secs(600)).await.unwrap();
                tokio::time::sleep(Duration::from_secs(100)).await;
                drop(seat);
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(10)).await;
    c.adjust();
    tokio::time::sleep(Duration::from_secs(10)).await;
    c.adjust();
    let after = limit_of(&c);
    assert!(after > before * 2.0 && after <= 60.0, "{before} → {after}");
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn seats_of_a_write_stay_while_watchers_are_told() {
    let c = one_seat(queue(1, 10));
    let ann = user("ann");
    let digest = request(&ann);
    let classified = c.classify(&digest).unwrap();
    let width = Width::write(100, 1);
    assert!(width.extra > Duration::ZERO);
    drop(c.enter(&classified, &digest, width, None, WAIT).await.unwrap());
    let started = tokio::time::Instant::now();
    let next = enter(&c, &ann, WAIT).await.unwrap();
    assert!(started.elapsed() >= width.extra, "{:?}", started.elapsed());
    drop(next);
}

#[test]
fn every_mandatory_object_is_mended_and_operators_keep_their_changes() {
    let wanted = mandatory().remove(0);
    let mut changed = wanted.clone();
    *changed.slot(&["spec", "limited", "nominalConcurrencyShares"]) = 77i64.into();
    let mended = ironkeel_fairness::reconcile(&changed, &wanted, true).unwrap();
    assert_eq!(mended["spec"], wanted["spec"]);
    let suggestion = suggested().remove(0);
    let mut changed = suggestion.clone();
    *changed.slot(&["spec", "limited", "nominalConcurrencyShares"]) = 77i64.into();
    changed.meta_mut().object("annotations").insert(ironkeel_fairness::AUTO_UPDATE, "false");
    assert_eq!(ironkeel_fairness::reconcile(&changed, &suggestion, false), None);
}
