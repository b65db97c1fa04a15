//! Policies: which rule decides, and what is wrong with one.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use ironkeel_audit::{
    Attributes, AuditError, Auditor, BatchConfig, Config, Event, Level, LogConfig, Mode, Policy, Sink, Stage, User,
};

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: None
  users: [noisy]
- level: RequestResponse
  resources: [{group: "", resources: [pods, "*/status"]}]
  omitManagedFields: false
- level: Request
  namespaces: [kube-system]
  verbs: [create]
- level: Metadata
  resources: [{group: "", resources: [configmaps], resourceNames: [one]}, {group: apps}]
- level: Metadata
  userGroups: [auditors]
  nonResourceURLs: [/healthz*, /version]
  omitStages: [ResponseStarted]
"#;

fn pod<'a>() -> Attributes<'a> {
    Attributes {
        user: "ann",
        groups: &[],
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

#[test]
fn the_first_rule_that_matches_decides() {
    let policy = Policy::read(POLICY.as_bytes()).unwrap();
    let level = |a: Attributes<'_>| policy.judge(&a).level;
    let auditors = ["auditors".to_owned()];
    let path = |path, groups| Attributes { is_resource: false, path, groups, resource: "", ..pod() };
    assert_eq!(level(pod()), Level::RequestResponse);
    assert_eq!(level(Attributes { user: "noisy", ..pod() }), Level::None);
    assert_eq!(level(Attributes { resource: "nodes", subresource: "status", ..pod() }), Level::RequestResponse);
    assert_eq!(level(Attributes { subresource: "log", ..pod() }), Level::None);
    assert_eq!(
        level(Attributes { resource: "secrets", namespace: "kube-system", verb: "create", ..pod() }),
        Level::Request
    );
    assert_eq!(level(Attributes { resource: "secrets", namespace: "kube-system", ..pod() }), Level::None);
    assert_eq!(level(Attributes { resource: "configmaps", name: "one", ..pod() }), Level::Metadata);
    assert_eq!(level(Attributes { resource: "configmaps", name: "two", ..pod() }), Level::None);
    assert_eq!(level(Attributes { resource: "deployments", group: "apps", ..pod() }), Level::Metadata);
    assert_eq!(level(path("/healthz/ping", &auditors)), Level::Metadata);
    assert_eq!(level(path("/healthz/ping", &[])), Level::None);
    let verdict = policy.judge(&pod());
    assert!(
        !verdict.wants(Stage::RequestReceived) && verdict.wants(Stage::ResponseStarted) && !verdict.omit_managed_fields
    );
    let verdict = policy.judge(&path("/version", &auditors));
    assert!(
        !verdict.wants(Stage::ResponseStarted) && verdict.wants(Stage::ResponseComplete) && verdict.omit_managed_fields
    );
}

#[test]
fn wrong_policies_say_what_is_wrong() {
    let check = |text: &str, wanted: &str| {
        let error = Policy::read(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    };
    check("apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]", "unknown group version");
    check("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []", "0 rules");
    check(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Loud}]",
        "rules[0].level: Unsupported value: \"Loud\"",
    );
    check("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{verbs: [get]}]", "rules[0].level: Required value");
    let both =
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, namespaces: [a], nonResourceURLs: [/x]}]";
    check(both, "cannot apply to both");
    let stage = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [Never]\nrules: [{level: None}]";
    check(stage, "omitStages[0]: Invalid value: \"Never\"");
    assert!(matches!(Config::from_log_format("legacy"), Err(AuditError::Format(_))));
}

fn event(id: &str) -> Event {
    let now = "2026-01-02T03:04:05.678901Z".parse().unwrap();
    Event {
        level: Level::Metadata,
        audit_id: id.to_owned(),
        stage: Stage::RequestReceived,
        request_uri: "/version".into(),
        verb: "get".into(),
        user: User { name: "ann".into(), ..User::default() },
        impersonated: None,
        impersonation_constraint: String::new(),
        source_ips: vec!["192.0.2.1".into()],
        user_agent: String::new(),
        object: None,
        response_status: None,
        request_object: None,
        response_object: None,
        received: now,
        at: now,
        annotations: Default::default(),
    }
}

#[test]
fn a_line_of_the_log_is_an_event() {
    let line = String::from_utf8(event("id-1").to_line()).unwrap();
    assert_eq!(
        line,
        "{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"auditID\":\"id-1\",\"level\":\"Metadata\",\
         \"requestReceivedTimestamp\":\"2026-01-02T03:04:05.678901Z\",\"requestURI\":\"/version\",\
         \"sourceIPs\":[\"192.0.2.1\"],\"stage\":\"RequestReceived\",\"stageTimestamp\":\"2026-01-02T03:04:05.678901Z\",\
         \"user\":{\"username\":\"ann\"},\"verb\":\"get\"}\n"
    );
}

fn policy() -> Policy {
    Policy::read(POLICY.as_bytes()).unwrap()
}

#[tokio::test]
async fn the_log_is_rotated_and_old_files_go() {
    let dir = tempfile::tempdir().unwrap();
    let policy_file = dir.path().join("policy.yaml");
    std::fs::write(&policy_file, POLICY).unwrap();
    let path = dir.path().join("logs/audit.log");
    let mut log = LogConfig::new(&path);
    (log.max_size_mib, log.max_backups, log.max_age_days) = (1, 2, 1);
    let outdated = dir.path().join("logs/audit-2001-01-01T00-00-00.000.log");
    std::fs::create_dir_all(dir.path().join("logs")).unwrap();
    std::fs::write(&outdated, "old").unwrap();
    let auditor = Auditor::from_config(&Config { policy_file: Some(policy_file), log: Some(log), webhook: None })
        .unwrap()
        .unwrap();
    for i in 0..5 {
        let mut event = event(&i.to_string());
        event.request_uri = "x".repeat(600 << 10);
        assert!(auditor.record(event).await);
    }
    auditor.stop().await;
    let names: Vec<_> = std::fs::read_dir(dir.path().join("logs")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(!outdated.exists());
    assert!(std::fs::read_to_string(path).unwrap().contains("\"auditID\":\"4\""));
    assert!(Auditor::from_config(&Config::default()).unwrap().is_none());
}

#[derive(Debug, Default)]
struct Broken;

#[async_trait::async_trait]
impl Sink for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }
    async fn deliver(&self, _: &[Arc<Event>]) -> Result<(), AuditError> {
        Err(AuditError::Backend { backend: "broken", reason: "never works".into() })
    }
}

#[tokio::test]
async fn only_a_strict_backend_refuses_requests() {
    let check = async |mode, wanted| {
        let auditor = Auditor::new(policy()).with_backend(Arc::new(Broken), mode, BatchConfig::log(), None);
        assert_eq!(auditor.record(event("a")).await, wanted, "{mode:?}");
        auditor.stop().await;
    };
    check(Mode::Batch, true).await;
    check(Mode::Blocking, true).await;
    check(Mode::BlockingStrict, false).await;
}

#[tokio::test]
async fn batches_are_delivered_when_the_auditor_stops() {
    let dir = tempfile::tempdir().unwrap();
    let (policy_file, path) = (dir.path().join("policy.yaml"), dir.path().join("audit.log"));
    std::fs::write(&policy_file, POLICY).unwrap();
    let mut log = LogConfig::new(&path);
    (log.mode, log.batch) = (
        Mode::Batch,
        BatchConfig { batch_events: 100, max_wait_ms: 60_000, buffer_events: 1_000, ..BatchConfig::log() },
    );
    let auditor = Auditor::from_config(&Config { policy_file: Some(policy_file), log: Some(log), webhook: None })
        .unwrap()
        .unwrap();
    for i in 0..250 {
        auditor.record(event(&i.to_string())).await;
    }
    auditor.stop().await;
    assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 250);
}
