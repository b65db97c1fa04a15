//! Events about objects, as `kubectl describe` shows them: counted, aggregated, and never in the way.
//!
//! Answers to client-go's EventBroadcaster and EventCorrelator over core/v1 Events. Recording never waits: when the
//! queue is full, the event is dropped, as upstream does.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt as _};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events that wait to be sent; more are dropped.
const QUEUED_EVENTS: usize = 1000;
/// Distinct events remembered for counting; beyond it the memory starts anew.
const REMEMBERED_EVENTS: usize = 4096;
/// Events about one object that pass at once.
const SPAM_BURST: f64 = 25.0;
/// After the burst, one event about an object passes in this time.
const SPAM_REFILL: Duration = Duration::from_secs(5 * 60);
/// So many events that differ in their message only are combined into one.
const SIMILAR_EVENTS: usize = 10;
/// Events further apart than this are not combined.
const SIMILAR_WINDOW: Duration = Duration::from_secs(10 * 60);
/// Characters of a message that the API accepts.
const MESSAGE_CHARACTERS: usize = 1024;

/// Whether an event is good news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// Type `Normal`.
    Normal,
    /// Type `Warning`.
    Warning,
}

impl EventKind {
    /// The value of the event's `type`.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Normal => "Normal",
            EventKind::Warning => "Warning",
        }
    }
}

/// A reference to `object` for an event.
pub fn reference_to<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: object.meta().name.clone(),
        namespace: object.namespace(),
        uid: object.uid(),
        resource_version: object.resource_version(),
        field_path: None,
    }
}

struct Record {
    about: ObjectReference,
    kind: EventKind,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Records events of one component. Cloning shares the queue.
#[derive(Clone)]
pub struct EventRecorder {
    sender: mpsc::Sender<Record>,
}

impl EventRecorder {
    /// Events of `component` (on `host`, empty for components of the control plane), sent until `shutdown`.
    pub fn new(client: Client, component: &str, host: &str, shutdown: CancellationToken) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUED_EVENTS);
        let source =
            EventSource { component: Some(component.to_owned()), host: (!host.is_empty()).then(|| host.to_owned()) };
        let correlator =
            Correlator { client, source, sent: HashMap::new(), similar: HashMap::new(), tokens: HashMap::new() };
        tokio::spawn(async move {
            shutdown.run_until_cancelled(correlator.run(receiver)).await;
        });
        Self { sender }
    }

    /// Records an event about `about`.
    pub fn event(&self, about: ObjectReference, kind: EventKind, reason: &str, message: impl Into<String>) {
        let mut message = message.into();
        if let Some((cut, _)) = message.char_indices().nth(MESSAGE_CHARACTERS - 1) {
            message.truncate(cut);
        }
        let record = Record { about, kind, reason: reason.to_owned(), message, at: Timestamp::now() };
        if self.sender.try_send(record).is_err() {
            tracing::debug!(reason, "event dropped: the queue is full");
        }
    }

    /// Records good news about `object`.
    pub fn normal<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, message: impl Into<String>) {
        self.event(reference_to(object), EventKind::Normal, reason, message);
    }

    /// Records a warning about `object`.
    pub fn warning<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, message: impl Into<String>) {
        self.event(reference_to(object), EventKind::Warning, reason, message);
    }
}

/// What makes two events the same, apart from the message.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Likeness {
    object: String,
    kind: EventKind,
    reason: String,
}

struct Sent {
    name: String,
    namespace: String,
    count: i32,
}

struct Similar {
    messages: HashSet<String>,
    last: Instant,
}

struct Tokens {
    left: f64,
    at: Instant,
}

struct Correlator {
    client: Client,
    source: EventSource,
    sent: HashMap<(Likeness, String), Sent>,
    similar: HashMap<Likeness, Similar>,
    tokens: HashMap<String, Tokens>,
}

impl Correlator {
    async fn run(mut self, mut receiver: mpsc::Receiver<Record>) {
        while let Some(record) = receiver.recv().await {
            let reason = record.reason.clone();
            if let Err(error) = self.send(record).await {
                tracing::debug!(reason, %error, "event not stored");
            }
        }
    }

    async fn send(&mut self, record: Record) -> kube::Result<()> {
        let object = object_key(&record.about);
        if !self.passes(&object) {
            return Ok(());
        }
        let likeness = Likeness { object, kind: record.kind, reason: record.reason.clone() };
        let (key_message, message) = self.combine(&likeness, record.message);
        let key = (likeness, key_message);
        let seconds = Timestamp::from_second(record.at.as_second()).unwrap_or(record.at);
        if let Some(sent) = self.sent.get_mut(&key) {
            sent.count += 1;
            let patch = json!({"count": sent.count, "message": message, "lastTimestamp": Time(seconds)});
            let api = Api::<Event>::namespaced(self.client.clone(), &sent.namespace);
            match api.patch(&sent.name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => return other.map(drop),
            }
            self.sent.remove(&key);
        }
        let namespace = record.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let name = format!("{}.{:x}", record.about.name.as_deref().unwrap_or_default(), record.at.as_nanosecond());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: record.about,
            reason: Some(record.reason),
            message: Some(message),
            type_: Some(record.kind.as_str().to_owned()),
            count: Some(1),
            first_timestamp: Some(Time(seconds)),
            last_timestamp: Some(Time(seconds)),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: Some(self.source.host.clone().unwrap_or_default()),
            ..Event::default()
        };
        Api::<Event>::namespaced(self.client.clone(), &namespace).create(&PostParams::default(), &event).await?;
        if self.sent.len() >= REMEMBERED_EVENTS {
            self.sent.clear();
        }
        self.sent.insert(key, Sent { name, namespace, count: 1 });
        Ok(())
    }

    /// Takes a token of the object's bucket.
    fn passes(&mut self, object: &str) -> bool {
        let now = Instant::now();
        if self.tokens.len() >= REMEMBERED_EVENTS {
            self.tokens.clear();
        }
        let tokens = self.tokens.entry(object.to_owned()).or_insert(Tokens { left: SPAM_BURST, at: now });
        let earned = now.duration_since(tokens.at).as_secs_f64() / SPAM_REFILL.as_secs_f64();
        tokens.left = (tokens.left + earned).min(SPAM_BURST);
        tokens.at = now;
        if tokens.left < 1.0 {
            return false;
        }
        tokens.left -= 1.0;
        true
    }

    /// The message under which the event is counted, and the message to store.
    fn combine(&mut self, likeness: &Likeness, message: String) -> (String, String) {
        let now = Instant::now();
        if self.similar.len() >= REMEMBERED_EVENTS {
            self.similar.clear();
        }
        let similar =
            self.similar.entry(likeness.clone()).or_insert_with(|| Similar { messages: HashSet::new(), last: now });
        if now.duration_since(similar.last) > SIMILAR_WINDOW {
            similar.messages.clear();
        }
        similar.last = now;
        if similar.messages.len() < SIMILAR_EVENTS {
            similar.messages.insert(message.clone());
        }
        if similar.messages.len() < SIMILAR_EVENTS {
            (message.clone(), message)
        } else {
            (String::new(), format!("(combined from similar events): {message}"))
        }
    }
}

fn object_key(about: &ObjectReference) -> String {
    let part = |value: &Option<String>| value.clone().unwrap_or_default();
    [part(&about.kind), part(&about.namespace), part(&about.name), part(&about.uid), part(&about.field_path)].join("/")
}
