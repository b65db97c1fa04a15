//! WATCH: frames out of the shared ring of changes, in the negotiated form.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use ironkeel_codec::Format;
use ironkeel_metrics::Series;
use ironkeel_object::{Map, Value};
use ironkeel_registry::{
    ApiError, Entry, EventType, FieldTerm, Format as Kept, Reason, Registry, Row, View, WatchStart, WatchedEvent,
    Watcher, json_frame, parse_revision,
};
use rand::Rng;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::answer::{self, IncludeObject};
use crate::body::Body;
use crate::context::Context;
use crate::metrics::WatchTraffic;
use crate::negotiate::{Output, Shape, not_acceptable};
use crate::server::Server;
use crate::{protobuf, read, table};

/// Time between two bookmarks, in seconds (upstream: about a minute).
const BOOKMARK_SECONDS: u64 = 60;
/// Longer timeouts are cut to this.
const LONGEST_TIMEOUT_SECONDS: u64 = 365 * 24 * 3600;

/// Room for what stands around an object in its frame, in bytes.
const FRAME_BYTES: usize = 32;

/// WATCH.
pub(crate) async fn watch(c: &Context, row: &Arc<Row>) -> Result<Response<Body>, ApiError> {
    if c.output.format == Format::Yaml {
        return Err(not_acceptable(true));
    }
    read::number(c, "limit")?;
    let timeout = read::number(c, "timeoutSeconds")?.unwrap_or(0);
    let matching = read::version_match(c, true)?;
    c.check_table_options()?;
    let initial = c.query.get("sendInitialEvents").map(|v| !matches!(v.as_ref(), "false" | "False" | "FALSE" | "0"));
    let bookmarks = c.query.flag("allowWatchBookmarks");
    let text = c.query.get("resourceVersion").unwrap_or_default().into_owned();
    let revision = parse_revision(&text)?;
    // Upstream's default: a watch from any revision begins with the present state.
    let initial = initial.or((revision == 0 && matching.is_none()).then_some(true));
    let (start, at_least) = match initial {
        Some(true) if bookmarks => (WatchStart::StateWithEnd, revision),
        Some(true) => (WatchStart::State, revision),
        Some(false) if revision == 0 => (WatchStart::Now, 0),
        _ => (WatchStart::After(revision), 0),
    };
    let scope = match (c.info.name.is_empty(), c.info.namespace.is_empty()) {
        (false, _) => "resource",
        (true, false) => "namespace",
        (true, true) => "cluster",
    };
    let mut selection = read::selection(c, row)?;
    let terms = selection.take_converted(row, &row.selectable());
    let registry = &c.server.registry;
    let watcher = match registry.watch(row, selection, start, at_least).await {
        Ok(watcher) => watcher,
        // Upstream answers 200 and an ERROR event for what a started watch finds out.
        Err(e) if e.reason == Reason::Expired || (e.reason == Reason::Timeout && at_least > 0) => {
            let frame = Encoder::new(c, row).error(&e);
            return Ok(response(&c.output, Body::whole(frame)));
        }
        Err(e) => return Err(e),
    };
    let timeout = match u64::try_from(timeout) {
        Ok(seconds) if seconds > 0 => Duration::from_secs(seconds.min(LONGEST_TIMEOUT_SECONDS)),
        // `--min-request-timeout`: that long, or up to twice as long.
        _ if c.server.min_request_timeout.is_zero() => Duration::from_secs(LONGEST_TIMEOUT_SECONDS),
        _ => c.server.min_request_timeout.mul_f64(rand::rng().random_range(1.0..2.0)),
    };
    let now = Instant::now();
    let lists = (initial == Some(true) && bookmarks && c.query.get("sendInitialEvents").is_some()).then(Instant::now);
    let streaming = Streaming {
        lists: lists.map(|since| (since, c.server.clone(), scope)),
        watcher,
        encoder: Encoder::new(c, row),
        terms,
        ends: now + timeout,
        bookmark_at: now + Duration::from_secs(BOOKMARK_SECONDS),
        bookmarks,
        last_bookmark: 0,
        ending: c.server.draining.clone(),
        draining: Box::pin(c.server.draining.clone().cancelled_owned()),
        wake: Box::pin(tokio::time::sleep_until(now + timeout)),
        traffic: c.server.metrics.watch_traffic(row),
        events: Vec::new(),
        over: false,
    };
    let chunks = stream::unfold(streaming, |mut s| async move { s.chunk().await.map(|bytes| (Ok(bytes), s)) });
    Ok(response(&c.output, Body::stream(chunks)))
}

fn response(output: &Output, body: Body) -> Response<Body> {
    let content_type = match (output.format, output.shape) {
        (Format::Protobuf, _) => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => "application/json",
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

struct Streaming {
    /// Since when the initial events are sent, until they are.
    lists: Option<(Instant, Arc<Server>, &'static str)>,
    watcher: Watcher,
    encoder: Encoder,
    /// What selects objects only when they are converted.
    terms: Vec<FieldTerm>,
    ends: Instant,
    bookmark_at: Instant,
    bookmarks: bool,
    last_bookmark: u64,
    ending: CancellationToken,
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
    /// The next time that something is due. Held, as `draining` is, so that an event costs no new timer.
    wake: Pin<Box<Sleep>>,
    traffic: Arc<Series<3, WatchTraffic>>,
    events: Vec<WatchedEvent>,
    over: bool,
}

impl Streaming {
    /// The next piece of the body; `None` at its end.
    async fn chunk(&mut self) -> Option<Bytes> {
        // Of a resource that changes all the time something is always there to be told.
        if self.over || self.ending.is_cancelled() || Instant::now() >= self.ends {
            return None;
        }
        loop {
            self.events.clear();
            let wake = if self.bookmarks { self.ends.min(self.bookmark_at) } else { self.ends };
            if self.wake.deadline() != wake {
                self.wake.as_mut().reset(wake);
            }
            let waited = tokio::select! {
                biased;
                done = self.watcher.next(&mut self.events) => Some(done),
                () = self.draining.as_mut() => return None,
                () = self.wake.as_mut() => None,
            };
            match waited {
                Some(Ok(())) if self.events.is_empty() => return None,
                Some(Ok(())) => return Some(self.prepared().await),
                Some(Err(e)) => {
                    tracing::info!(resource = self.encoder.row.plural(), reason = %e, "a watch was ended: its client is too slow");
                    self.traffic.terminated.inc();
                    self.over = true;
                    return Some(self.encoder.error(&e));
                }
                None => {}
            }
            let now = Instant::now();
            self.over = now >= self.ends;
            let mark = if self.bookmarks {
                match self.watcher.bookmark(&mut self.events) {
                    Ok(mark) => mark.filter(|r| *r > self.last_bookmark),
                    Err(e) => {
                        self.over = true;
                        return Some(self.encoder.error(&e));
                    }
                }
            } else {
                None
            };
            if !self.events.is_empty() {
                return Some(self.prepared().await);
            }
            self.bookmark_at = now + Duration::from_secs(BOOKMARK_SECONDS);
            if let Some(revision) = mark {
                self.last_bookmark = revision;
                return Some(self.encoder.bookmark(revision, false));
            }
            if self.over {
                return None;
            }
        }
    }

    /// The events' frames; objects of another version are converted before.
    async fn prepared(&mut self) -> Bytes {
        if self.encoder.row.converter.is_some() {
            let entries: Vec<Arc<Entry>> = self.events.iter().filter_map(|e| e.object().map(|o| o.1)).collect();
            if let Err(e) = self.encoder.registry.prepare(&self.encoder.row, &entries).await {
                self.over = true;
                return self.encoder.error(&e);
            }
            if !self.terms.is_empty()
                && let Err(e) = self.select_converted().await
            {
                self.over = true;
                return self.encoder.error(&e);
            }
        }
        let bytes = self.encode();
        if self.lists.is_some()
            && self.events.iter().any(|e| matches!(e, WatchedEvent::InitialEnd(_)))
            && let Some((since, server, scope)) = self.lists.take()
        {
            let r = &self.encoder.row.kind.resource;
            server.metrics.caches.watch_list([r.group, r.version, r.plural, scope], since.elapsed());
        }
        let events = self.events.len().max(1);
        self.traffic.events.add(events as u64);
        self.traffic.sizes.observe((bytes.len() / events) as f64);
        bytes
    }

    /// Leaves the events that the converted objects' fields select: entering is ADDED, leaving DELETED.
    async fn select_converted(&mut self) -> Result<(), ApiError> {
        let (registry, row) = (self.encoder.registry.clone(), self.encoder.row.clone());
        let mut out = Vec::with_capacity(self.events.len());
        for event in self.events.drain(..) {
            match event {
                WatchedEvent::Initial(entry) => {
                    if FieldTerm::holds(&self.terms, &registry, &row, &entry) {
                        out.push(WatchedEvent::Initial(entry));
                    }
                }
                WatchedEvent::InitialEnd(revision) => out.push(WatchedEvent::InitialEnd(revision)),
                WatchedEvent::Change(change, kind) => {
                    let previous: Vec<Arc<Entry>> = change.previous.iter().cloned().collect();
                    registry.prepare(&row, &previous).await?;
                    let held = previous.first().filter(|_| kind != EventType::Added);
                    let before = held.is_some_and(|p| FieldTerm::holds(&self.terms, &registry, &row, p));
                    let after =
                        kind != EventType::Deleted && FieldTerm::holds(&self.terms, &registry, &row, &change.entry);
                    let seen = match (before, after) {
                        (false, true) => EventType::Added,
                        (true, true) => EventType::Modified,
                        (true, false) => EventType::Deleted,
                        (false, false) => continue,
                    };
                    if seen == EventType::Deleted {
                        registry.prepare(&row, &[change.departed()]).await?;
                    }
                    out.push(WatchedEvent::Change(change, seen));
                }
            }
        }
        self.events = out;
        Ok(())
    }

    fn encode(&mut self) -> Bytes {
        if let [one] = self.events.as_slice() {
            return self.encoder.event(one).unwrap_or_else(|e| self.encoder.error(&e));
        }
        let bytes = self.events.iter().filter_map(|e| e.object().map(|(_, o)| o.json_len() + FRAME_BYTES)).sum();
        let mut out = BytesMut::with_capacity(bytes);
        for event in &self.events {
            match self.encoder.event(event) {
                Ok(frame) => out.extend_from_slice(&frame),
                Err(e) => {
                    out.extend_from_slice(&self.encoder.error(&e));
                    self.over = true;
                    break;
                }
            }
        }
        out.freeze()
    }
}

struct Encoder {
    registry: Arc<Registry>,
    row: Arc<Row>,
    output: Output,
    include: IncludeObject,
    columns_told: bool,
}

impl Encoder {
    fn new(c: &Context, row: &Arc<Row>) -> Self {
        Encoder {
            registry: c.server.registry.clone(),
            row: row.clone(),
            output: c.output,
            include: c.include_object(),
            columns_told: false,
        }
    }

    fn event(&mut self, event: &WatchedEvent) -> Result<Bytes, ApiError> {
        let Some((kind, entry)) = event.object() else {
            let WatchedEvent::InitialEnd(revision) = event else { return Ok(Bytes::new()) };
            return Ok(self.bookmark(*revision, true));
        };
        let plain = self.output.shape == Shape::Objects && self.output.format != Format::Protobuf;
        match (event, self.shared_form()) {
            (WatchedEvent::Change(change, kind), _) if plain && !self.row.converts_entry(&entry) => {
                Ok(change.json_frame(*kind))
            }
            (WatchedEvent::Change(change, kind), Some(view)) => {
                change.frame(view, *kind, || self.frame(kind.as_str(), &entry))
            }
            (_, Some(_)) => self.frame(kind.as_str(), &entry),
            (_, None) => {
                let beta = matches!(self.output.shape, Shape::Table(true));
                Ok(json_frame(kind.as_str(), &self.table(&entry, beta)?))
            }
        }
    }

    /// What tells the frames of this form from others'; tables depend on the watcher.
    fn shared_form(&self) -> Option<View> {
        let protobuf = self.output.format == Format::Protobuf;
        match self.output.shape {
            Shape::Objects => {
                Some(View { row: self.row.id, format: if protobuf { Kept::Protobuf } else { Kept::Json } })
            }
            Shape::Metadata(beta) => {
                let form = usize::from(beta) + if protobuf { 2 } else { 0 };
                Some(View { row: usize::MAX - form, format: Kept::Metadata })
            }
            Shape::Table(_) => None,
        }
    }

    /// The frame of an object in any form but a table's.
    fn frame(&self, kind: &str, entry: &Entry) -> Result<Bytes, ApiError> {
        match (self.output.shape, self.output.format) {
            (Shape::Metadata(beta), Format::Protobuf) => {
                Ok(protobuf_frame(kind, &answer::entry_metadata_protobuf(entry, beta)?))
            }
            (Shape::Metadata(beta), _) => Ok(json_frame(kind, &answer::entry_metadata(entry, beta)?)),
            (_, Format::Protobuf) => {
                let message = answer::entry_protobuf(&self.registry, &self.row, entry)?;
                let object = protobuf::envelope(&self.row.api_version, self.row.kind_name(), &message);
                Ok(protobuf_frame(kind, &object))
            }
            _ => Ok(json_frame(kind, &answer::entry_json(&self.registry, &self.row, entry)?)),
        }
    }

    fn table(&mut self, entry: &Entry, beta: bool) -> Result<Vec<u8>, ApiError> {
        let now = self.registry.clock().now().as_second();
        let tree = self.registry.tree(&self.row, entry)?;
        let mut out = table::begin(&self.row, beta, !std::mem::replace(&mut self.columns_told, true));
        *out.slot(&["metadata", "resourceVersion"]) = entry.revision.to_string().into();
        table::push(&mut out, &self.row, &tree, self.include, beta, now);
        let mut bytes = Vec::with_capacity(512);
        ironkeel_codec::encode_json(&out, &mut bytes);
        Ok(bytes)
    }

    fn bookmark(&mut self, revision: u64, initial_end: bool) -> Bytes {
        let mut meta = Map::new();
        meta.insert("resourceVersion", revision.to_string());
        if initial_end {
            let mut annotations = Map::new();
            annotations.insert("k8s.io/initial-events-end", "true");
            meta.insert("annotations", annotations);
        }
        let mut object = Map::new();
        let beta = matches!(self.output.shape, Shape::Metadata(true) | Shape::Table(true));
        let partial = if beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" };
        let (api_version, kind) = match self.output.shape {
            Shape::Objects => (self.row.api_version.as_str(), self.row.kind_name()),
            _ => (partial, "PartialObjectMetadata"),
        };
        object.insert("apiVersion", api_version.to_owned());
        object.insert("kind", kind);
        object.insert("metadata", meta);
        let object = Value::Object(object);
        if self.output.format == Format::Protobuf {
            return match self.output.shape {
                Shape::Objects => {
                    let bytes = ironkeel_codec::encode_protobuf(&object, self.row.kind.resource.type_id);
                    protobuf_frame("BOOKMARK", &bytes)
                }
                _ => protobuf_frame("BOOKMARK", &answer::encode(&object, &Output { pretty: false, ..self.output }).0),
            };
        }
        let mut bytes = Vec::with_capacity(128);
        if let Shape::Table(beta) = self.output.shape {
            // The mark travels in the one row's object, as upstream sends it.
            let mut out = table::begin(&self.row, beta, !std::mem::replace(&mut self.columns_told, true));
            *out.slot(&["metadata", "resourceVersion"]) = revision.to_string().into();
            let mut row = Map::new();
            let empty = self.row.kind.hooks.columns().iter().map(|_| Value::Null).collect();
            row.insert("cells", Value::Array(empty));
            row.insert("object", object);
            *out.slot(&["rows"]) = Value::Array(vec![Value::Object(row)]);
            ironkeel_codec::encode_json(&out, &mut bytes);
        } else {
            ironkeel_codec::encode_json(&object, &mut bytes);
        }
        json_frame("BOOKMARK", &bytes)
    }

    fn error(&self, e: &ApiError) -> Bytes {
        let status = e.to_status();
        if self.output.format == Format::Protobuf {
            return protobuf_frame("ERROR", &answer::encode(&status, &Output { pretty: false, ..self.output }).0);
        }
        let mut bytes = Vec::with_capacity(256);
        ironkeel_codec::encode_json(&status, &mut bytes);
        json_frame("ERROR", &bytes)
    }
}

fn protobuf_frame(kind: &str, envelope: &[u8]) -> Bytes {
    ironkeel_codec::frame_protobuf(&ironkeel_codec::encode_watch_event_protobuf(kind, envelope)).into()
}
