//! Watching requests go by for the audit log: which stages are recorded, and what of a request and
//! its answer. Without a policy nothing of this runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName, USER_AGENT};
use http::request::Parts;
use ironkeel_audit::{
    Attributes, AuditError, Auditor, Config, Event, Level, ObjectReference, Sink, Stage, User, Verdict,
};
use ironkeel_auth::UserInfo;
use ironkeel_codec::Format;
use ironkeel_object::{Map, ObjectMeta, Value};
use ironkeel_registry::ApiError;
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::delegates::{Webhook, WebhookConfig};
use crate::forward::PeerAddress;
use crate::request_info::RequestInfo;
use crate::server::Server;

/// Names a request in the log; taken over from the client, and answered.
pub(crate) static AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// Longest user agent that is recorded, in bytes (upstream's limit).
const USER_AGENT_BYTES: usize = 1024;
/// How often a batch is sent to a webhook before it is given up.
const ATTEMPTS: u32 = 5;
/// By how much the wait between two attempts grows (upstream's).
const RETRY_FACTOR: f64 = 1.5;
/// How much longer a wait may be by chance.
const RETRY_JITTER: f64 = 0.2;
/// Most bytes of a streamed answer that are kept for its record.
const RESPONSE_BYTES: usize = 16 << 20;

/// A name for a request that comes without.
pub(crate) fn new_id() -> String {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string()
}

/// One request's records in the making.
#[derive(Debug)]
pub(crate) struct Recording {
    auditor: Arc<Auditor>,
    verdict: Verdict,
    event: Event,
}

/// What the way through the server has found out about a request.
#[derive(Debug, Default)]
pub(crate) struct Found<'a> {
    /// As whom, where somebody is impersonated, and what verb allowed it (unless by the old way).
    pub(crate) acting: Option<(&'a UserInfo, Option<&'a str>)>,
    /// Whether it was allowed, and why.
    pub(crate) decision: Option<&'a (bool, Arc<str>)>,
    /// The request's body and its media type.
    pub(crate) body: &'a [u8],
    pub(crate) body_type: &'a str,
    /// What admission has added.
    pub(crate) annotations: Option<&'a Mutex<Vec<(String, String)>>>,
}

fn user_of(user: &UserInfo) -> User {
    User { name: user.name.clone(), uid: user.uid.clone(), groups: user.groups.clone(), extra: user.extra.clone() }
}

/// The client's address first, then the proxies', then the peer's.
fn source_ips(parts: &Parts) -> Vec<String> {
    let header = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut all: Vec<String> = header("x-forwarded-for")
        .split(',')
        .filter_map(|a| a.trim().parse::<std::net::IpAddr>().ok())
        .map(|a| a.to_string())
        .collect();
    if all.is_empty()
        && let Ok(real) = header("x-real-ip").trim().parse::<std::net::IpAddr>()
    {
        all.push(real.to_string());
    }
    if let Some(PeerAddress(peer)) = parts.extensions.get::<PeerAddress>() {
        let peer = peer.ip().to_string();
        if all.last() != Some(&peer) {
            all.push(peer);
        }
    }
    all
}

impl Recording {
    /// Begins the records of a request whose user is known (or is nobody), and makes that of the
    /// stage RequestReceived. `None` where the policy wants none.
    ///
    /// # Errors
    /// A strict backend has not kept it.
    pub(crate) async fn begin(
        server: &Server,
        parts: &Parts,
        info: &RequestInfo,
        user: Option<&UserInfo>,
        received: Timestamp,
    ) -> Result<Option<Recording>, ApiError> {
        let Some(auditor) = &server.auditor else { return Ok(None) };
        let attributes = Attributes {
            user: user.map_or("", |u| u.name.as_str()),
            groups: user.map_or(&[], |u| u.groups.as_slice()),
            verb: info.verb,
            is_resource: info.is_resource,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: info.scope(),
            name: &info.name,
            path: &info.path,
        };
        let verdict = auditor.judge(&attributes);
        if verdict.level == Level::None {
            return Ok(None);
        }
        let text = |name: &HeaderName| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let mut user_agent = text(&USER_AGENT).to_owned();
        if user_agent.len() > USER_AGENT_BYTES {
            let end = (0..=USER_AGENT_BYTES).rev().find(|i| user_agent.is_char_boundary(*i)).unwrap_or(0);
            user_agent.truncate(end);
            user_agent.push_str("...TRUNCATED");
        }
        let event = Event {
            level: verdict.level,
            audit_id: text(&AUDIT_ID).to_owned(),
            stage: Stage::RequestReceived,
            request_uri: parts.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
            verb: info.verb.to_owned(),
            user: user.map(user_of).unwrap_or_default(),
            impersonated: None,
            impersonation_constraint: String::new(),
            source_ips: source_ips(parts),
            user_agent,
            object: info.is_resource.then(|| ObjectReference {
                resource: info.resource.clone(),
                namespace: info.scope().to_owned(),
                name: info.name.clone(),
                api_group: info.group.clone(),
                api_version: info.version.clone(),
                subresource: info.subresource.clone(),
                ..ObjectReference::default()
            }),
            response_status: None,
            request_object: None,
            response_object: None,
            received,
            at: received,
            annotations: BTreeMap::new(),
        };
        let recording = Recording { auditor: auditor.clone(), verdict, event };
        if user.is_some() && !recording.record(Stage::RequestReceived).await {
            return Err(ApiError::internal("failed to log the request to the audit backend"));
        }
        Ok(Some(recording))
    }

    /// Takes over what was found out on the way.
    pub(crate) fn learn(&mut self, found: &Found<'_>) {
        self.event.impersonated = found.acting.map(|(user, _)| user_of(user));
        self.event.impersonation_constraint = found.acting.and_then(|(_, by)| by).unwrap_or_default().to_owned();
        if let Some((allowed, reason)) = found.decision {
            let mut add = |key: &str, value: &str| self.event.annotations.insert(key.to_owned(), value.to_owned());
            add("authorization.k8s.io/decision", if *allowed { "allow" } else { "forbid" });
            add("authorization.k8s.io/reason", reason);
        }
        for (key, value) in found.annotations.iter().flat_map(|a| a.lock().clone()) {
            self.event.annotations.entry(key).or_insert(value);
        }
        let creates = self.event.verb == "create";
        if found.body.is_empty() || self.event.object.is_none() || !(creates || self.verdict.level >= Level::Request) {
            return;
        }
        let Some(mut object) = decode(found.body, found.body_type) else { return };
        if let Some(reference) = &mut self.event.object {
            let take = |slot: &mut String, value: &str| {
                if slot.is_empty() {
                    value.clone_into(slot);
                }
            };
            if matches!(self.event.verb.as_str(), "create" | "update") {
                take(&mut reference.name, object.name());
                take(&mut reference.uid, object.uid());
                take(&mut reference.resource_version, object.resource_version());
            }
        }
        if self.verdict.level >= Level::Request {
            self.trim(&mut object);
            self.event.request_object = Some(object);
        }
    }

    fn trim(&self, object: &mut Value) {
        if !self.verdict.omit_managed_fields {
            return;
        }
        let strip = |o: &mut Value| {
            if let Some(meta) = o.get_mut("metadata").and_then(Value::as_object_mut) {
                meta.remove("managedFields");
            }
        };
        strip(object);
        for item in object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
            strip(item);
        }
    }

    /// Whether the answer's body is wanted.
    pub(crate) fn wants_body(&self) -> bool {
        self.verdict.level >= Level::RequestResponse && self.event.object.is_some() && self.event.verb != "watch"
    }

    /// Takes over the answer's code; an error's words follow with its body.
    pub(crate) fn answered(&mut self, code: u16) {
        let mut status = Map::new();
        status.insert("metadata", Map::new());
        status.insert("code", i64::from(code));
        self.event.response_status = Some(Value::Object(status));
    }

    /// Takes over the answer's body, where it is one of Kubernetes' types.
    pub(crate) fn body(&mut self, bytes: &[u8], media_type: &str) {
        let Some(mut object) = decode(bytes, media_type) else { return };
        if object["kind"].as_str() == Some("Status") {
            let mut status = Map::new();
            status.insert("metadata", Map::new());
            for key in ["status", "message", "reason", "details", "code"] {
                if let Some(value) = object.get(key) {
                    status.insert(key, value.clone());
                }
            }
            self.event.response_status = Some(Value::Object(status));
        } else if self.wants_body()
            && let Some(reference) = &mut self.event.object
            && reference.name.is_empty()
            && self.event.verb == "create"
        {
            object.name().clone_into(&mut reference.name);
        }
        if self.wants_body() {
            self.trim(&mut object);
            self.event.response_object = Some(object);
        }
    }

    /// Makes the record of a stage; false where the request must not go on.
    pub(crate) async fn record(&self, stage: Stage) -> bool {
        if !self.verdict.wants(stage) {
            return true;
        }
        let mut event = Event { stage, at: Timestamp::now(), ..self.event.clone() };
        if stage == Stage::ResponseStarted {
            event.response_object = None;
        }
        self.auditor.record(event).await
    }
}

/// The webhook backend: batches go out as an EventList.
struct AuditWebhook {
    webhook: Webhook,
    /// Wait before the second attempt.
    initial_backoff: Duration,
}

impl std::fmt::Debug for AuditWebhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuditWebhook")
    }
}

#[async_trait]
impl Sink for AuditWebhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    async fn deliver(&self, events: &[Arc<Event>]) -> Result<(), AuditError> {
        let mut list = Map::new();
        list.insert("kind", "EventList");
        list.insert("apiVersion", "audit.k8s.io/v1");
        list.insert("metadata", Map::new());
        list.insert("items", events.iter().map(|e| e.to_value()).collect::<Vec<Value>>());
        let mut text = Vec::new();
        ironkeel_codec::encode_json(&Value::Object(list), &mut text);
        let text = String::from_utf8(text).unwrap_or_default();
        let mut wait = self.initial_backoff;
        let mut failed = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(wait.mul_f64(1.0 + RETRY_JITTER * rand::random::<f64>())).await;
                wait = wait.mul_f64(RETRY_FACTOR);
            }
            match self.webhook.post(text.clone()).await {
                Ok(()) => return Ok(()),
                Err(reason) => failed = reason,
            }
        }
        Err(AuditError::Backend { backend: "webhook", reason: failed })
    }
}

/// The auditor that the flags ask for; `None` where they name no policy.
pub(crate) fn start(config: &Config) -> Result<Option<Arc<Auditor>>, AuditError> {
    let Some(mut auditor) = Auditor::from_config(config)? else { return Ok(None) };
    if let Some(webhook) = &config.webhook {
        let fault = |reason| AuditError::Backend { backend: "webhook", reason };
        let target = WebhookConfig::from_kubeconfig(&webhook.kubeconfig).map_err(fault)?;
        let sink =
            AuditWebhook { webhook: Webhook::new(target).map_err(fault)?, initial_backoff: webhook.initial_backoff };
        auditor = auditor.with_backend(Arc::new(sink), webhook.mode, webhook.batch, webhook.truncate);
    }
    Ok(Some(Arc::new(auditor)))
}

/// The tree of a body; `None` for what is none of Kubernetes' forms.
fn decode(bytes: &[u8], media_type: &str) -> Option<Value> {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let resolve = |api_version: &str, kind: &str| {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        crate::answer::type_of(group, version, kind)
    };
    match Format::from_media_type(essence) {
        Some(Format::Protobuf) => ironkeel_codec::decode_protobuf(bytes, &resolve).ok(),
        Some(Format::Yaml) => ironkeel_codec::decode_yaml(bytes, None).ok().map(|(v, _)| v),
        Some(Format::Json) => ironkeel_codec::parse_json(bytes).ok(),
        _ if essence.ends_with("+json") || essence.is_empty() => ironkeel_codec::parse_json(bytes).ok(),
        _ if essence.ends_with("+yaml") => ironkeel_codec::decode_yaml(bytes, None).ok().map(|(v, _)| v),
        _ => None,
    }
}

/// The media type of a body.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// The end of an answer that is streamed: its last record is made when the stream is dropped.
#[derive(Debug)]
pub(crate) struct Ending {
    recording: Option<Recording>,
    media_type: String,
    body: BytesMut,
}

impl Ending {
    pub(crate) fn new(recording: Recording, media_type: &str) -> Self {
        Ending { recording: Some(recording), media_type: media_type.to_owned(), body: BytesMut::new() }
    }

    /// A piece of the answer goes out.
    pub(crate) fn chunk(&mut self, bytes: &Bytes) {
        let wanted = self.recording.as_ref().is_some_and(Recording::wants_body);
        if wanted && self.body.len() + bytes.len() <= RESPONSE_BYTES {
            self.body.extend_from_slice(bytes);
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let Some(mut recording) = self.recording.take() else { return };
        if !self.body.is_empty() {
            recording.body(&self.body, &self.media_type);
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { recording.record(Stage::ResponseComplete).await });
        }
    }
}
