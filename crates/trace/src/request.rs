//! One request's steps, and what becomes of them at its end.

use std::borrow::Cow;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::context::{Context, span_id};
use crate::export::Tracer;
use crate::otlp::{self, KeyValue, Kind, SpanMessage};

/// Requests that take longer are told about in the log, in milliseconds (upstream's threshold).
pub const SLOW_MS: u64 = 500;
/// Most steps of one request that are kept; a deletion of a collection has as many writes as objects.
const STEPS_MAX: usize = 512;

tokio::task_local! {
    static CURRENT: Current;
}

/// The request that a task works for, and the span within it that its steps belong to.
#[derive(Clone)]
struct Current {
    trace: Arc<Trace>,
    within: u64,
}

#[derive(Clone, Debug)]
struct Step {
    name: Cow<'static, str>,
    /// Since the request began.
    from: Duration,
    took: Duration,
    /// Whether this is one of the stages that follow each other from the beginning to the end.
    stage: bool,
    /// The span's own id where somebody was told it; 0 otherwise.
    id: u64,
    /// 0 for the request itself.
    within: u64,
    kind: Kind,
    attributes: Vec<(&'static str, String)>,
}

/// Where the request stands in the traces of others, once that is known.
#[derive(Debug)]
struct Place {
    own: Context,
    parent: u64,
    /// A caller's trace that is not gone on with.
    link: Option<Context>,
    tracer: Option<Tracer>,
}

/// See the module.
#[derive(Debug)]
pub struct Trace {
    started: Instant,
    steps: Mutex<(Instant, Vec<Step>)>,
    place: OnceLock<Place>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// `GET`, …
    pub method: &'a str,
    /// `get`, `list`, …
    pub verb: &'a str,
    /// Path and query.
    pub uri: &'a str,
    /// The path's pattern, of a request for a resource: `/api/v1/namespaces/{:namespace}/pods`.
    pub route: &'a str,
    /// The answer's HTTP status.
    pub code: u16,
    /// The client's own words.
    pub agent: &'a str,
    /// The request's name in the audit log.
    pub audit_id: &'a str,
    /// The client's address.
    pub client: &'a str,
    /// Whether it may be told as slow: long-running requests take as long as they like.
    pub timed: bool,
}

impl Trace {
    /// The trace of a request that began at `started`.
    pub fn new(started: Instant) -> Arc<Self> {
        Arc::new(Trace { started, steps: Mutex::new((started, Vec::with_capacity(8))), place: OnceLock::new() })
    }

    /// Says where the request stands: `given` is the caller's `traceparent`, `trusted` whether the caller may have its
    /// trace gone on with. Others' requests begin a trace of their own with a link to the caller's.
    pub fn stands(&self, tracer: Option<&Tracer>, given: Option<&str>, trusted: bool) {
        let given = given.and_then(Context::parse);
        // Without tracing a trusted caller's trace is still passed on.
        if tracer.is_none() && !(trusted && given.is_some()) {
            return;
        }
        let place = match given {
            Some(parent) if trusted => {
                let own = Context { span: if tracer.is_some() { span_id() } else { parent.span }, ..parent };
                Place { own, parent: parent.span, link: None, tracer: None }
            }
            link => {
                let mut own = Context::new();
                own.sampled = tracer.is_some_and(|t| own.falls_under(t.rate_per_million()));
                Place { own, parent: 0, link, tracer: None }
            }
        };
        let tracer = tracer.filter(|_| place.own.sampled).cloned();
        let _ = self.place.set(Place { tracer, ..place });
    }

    /// Ends the stage that began with the end of the one before.
    pub fn done(&self, stage: &'static str) {
        let now = Instant::now();
        let mut steps = self.steps.lock();
        let from = steps.0;
        steps.0 = now;
        let step = Step {
            name: Cow::Borrowed(stage),
            from: from.saturating_duration_since(self.started),
            took: now.saturating_duration_since(from),
            stage: true,
            id: 0,
            within: 0,
            kind: Kind::Internal,
            attributes: Vec::new(),
        };
        push(&mut steps.1, step);
    }

    /// Runs a request with its trace at hand.
    pub async fn follow<T>(self: &Arc<Self>, request: impl Future<Output = T>) -> T {
        CURRENT.scope(Current { trace: self.clone(), within: 0 }, request).await
    }

    /// Whether [`Trace::finish`] would tell anybody.
    pub fn is_told(&self, timed: bool) -> bool {
        self.place.get().is_some_and(|p| p.tracer.is_some())
            || (timed && self.started.elapsed() >= Duration::from_millis(SLOW_MS))
    }

    /// The end: tells of the request in the log where it took long, and hands its spans to the exporter.
    pub fn finish(&self, outcome: &Outcome<'_>) {
        let took = self.started.elapsed();
        if let Some(place) = self.place.get()
            && let Some(tracer) = &place.tracer
        {
            tracer.send(self.spans(place, outcome, took));
        }
        if outcome.timed && took >= Duration::from_millis(SLOW_MS) {
            self.tell(outcome, took);
        }
    }

    fn tell(&self, outcome: &Outcome<'_>, took: Duration) {
        let steps = self.steps.lock();
        let told = |s: &Step| {
            let more: String = s.attributes.iter().map(|(key, value)| format!(" {key}={value}")).collect();
            format!("{}{more} {}ms", s.name, s.took.as_millis())
        };
        let told: Vec<String> = steps.1.iter().map(told).collect();
        // A stage that holds others says less than the one of them that took most of it.
        let longest = |stages: bool| {
            let found = steps.1.iter().filter(|s| s.stage == stages).max_by_key(|s| s.took);
            found.map_or(("", Duration::ZERO), |s| (s.name.as_ref(), s.took))
        };
        let (stage, inner) = (longest(true), longest(false));
        let slowest = if inner.1 * 2 >= stage.1 { inner.0 } else { stage.0 };
        tracing::info!(
            verb = outcome.verb,
            uri = outcome.uri,
            code = outcome.code,
            agent = outcome.agent,
            client = outcome.client,
            audit_id = outcome.audit_id,
            total_ms = took.as_millis() as u64,
            slowest,
            steps = told.join(", "),
            "slow request"
        );
    }

    fn spans(&self, place: &Place, outcome: &Outcome<'_>, took: Duration) -> Vec<SpanMessage> {
        let began = SystemTime::now().checked_sub(self.started.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH);
        let began = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let trace_id = place.own.trace.to_be_bytes().to_vec();
        let id = |id: u64| if id == 0 { Vec::new() } else { id.to_be_bytes().to_vec() };
        let span = |name: String, own: u64, parent: u64, kind: Kind, from: Duration, took: Duration| SpanMessage {
            trace_id: trace_id.clone(),
            span_id: id(own),
            parent_span_id: id(parent),
            name,
            kind: kind as i32,
            start_nanos: (began + from).as_nanos() as u64,
            end_nanos: (began + from + took).as_nanos() as u64,
            ..SpanMessage::default()
        };
        let name = if outcome.route.is_empty() {
            outcome.method.to_owned()
        } else {
            [outcome.method, outcome.route].join(" ")
        };
        let mut root = span(name, place.own.span, place.parent, Kind::Server, Duration::ZERO, took);
        root.attributes = vec![
            otlp::text("http.method", outcome.method),
            otlp::text("http.target", outcome.uri),
            otlp::text("http.scheme", "https"),
            otlp::text("user_agent.original", outcome.agent),
            otlp::number("http.status_code", outcome.code.into()),
            otlp::text("audit-id", outcome.audit_id),
            otlp::text("client.address", outcome.client),
        ];
        let link = |l: &Context| otlp::Link { trace_id: l.trace.to_be_bytes().to_vec(), span_id: id(l.span) };
        root.links = place.link.iter().map(link).collect();
        if outcome.code >= 500 {
            root.status = Some(otlp::Status { code: otlp::ERROR });
        }
        let mut out = vec![root];
        for step in &self.steps.lock().1 {
            let own = if step.id == 0 { span_id() } else { step.id };
            let parent = if step.within == 0 { place.own.span } else { step.within };
            let mut made = span(step.name.to_string(), own, parent, step.kind, step.from, step.took);
            made.attributes = step.attributes.iter().map(|(k, v)| otlp::text(k, v.as_str())).collect::<Vec<KeyValue>>();
            out.push(made);
        }
        out
    }
}

fn push(steps: &mut Vec<Step>, step: Step) {
    if steps.len() < STEPS_MAX {
        steps.push(step);
    }
}

/// Work of the present request that goes on in a task of its own keeps its trace.
pub fn carried<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let current = CURRENT.try_with(Clone::clone).ok();
    async move {
        match current {
            Some(current) => CURRENT.scope(current, work).await,
            None => work.await,
        }
    }
}

/// Notes a step that is over. Nothing happens outside a request.
pub fn step(name: impl Into<Cow<'static, str>>, took: Duration) {
    let _ = CURRENT.try_with(|current| {
        let trace = &current.trace;
        let from = trace.started.elapsed().saturating_sub(took);
        let step = Step {
            name: name.into(),
            from,
            took,
            stage: false,
            id: 0,
            within: current.within,
            kind: Kind::Internal,
            attributes: Vec::new(),
        };
        push(&mut trace.steps.lock().1, step);
    });
}

/// The header for whoever is asked on behalf of the present request; `None` where there is nothing to pass on.
pub fn traceparent() -> Option<String> {
    CURRENT.try_with(|c| c.trace.place.get().map(|p| within(p, c.within).header())).ok().flatten()
}

fn within(place: &Place, span: u64) -> Context {
    // Only spans that are recorded can be somebody's parent.
    if span == 0 || place.tracer.is_none() { place.own } else { Context { span, ..place.own } }
}

/// Begins a step that others are asked in; it ends when it is dropped.
pub fn span(name: impl Into<Cow<'static, str>>) -> Span {
    Span(CURRENT.try_with(Clone::clone).ok().map(|current| Running {
        id: if current.trace.place.get().is_some_and(|p| p.tracer.is_some()) { span_id() } else { 0 },
        began: Instant::now(),
        name: name.into(),
        kind: Kind::Internal,
        attributes: Vec::new(),
        current,
    }))
}

struct Running {
    current: Current,
    name: Cow<'static, str>,
    began: Instant,
    id: u64,
    kind: Kind,
    attributes: Vec<(&'static str, String)>,
}

/// A step that goes on. See [`span`].
#[must_use = "the step ends when this is dropped"]
pub struct Span(Option<Running>);

impl std::fmt::Debug for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Span").field(&self.0.as_ref().map(|r| &r.name)).finish()
    }
}

impl Span {
    /// Somebody else does the work of this step.
    pub fn outgoing(mut self) -> Self {
        if let Some(running) = &mut self.0 {
            running.kind = Kind::Client;
        }
        self
    }

    /// Says more of the step, in the log too.
    pub fn attribute(&mut self, key: &'static str, value: impl Into<String>) {
        if let Some(running) = &mut self.0 {
            running.attributes.push((key, value.into()));
        }
    }

    /// The header for whoever is asked in this step.
    pub fn traceparent(&self) -> Option<String> {
        let running = self.0.as_ref()?;
        Some(within(running.current.trace.place.get()?, running.id).header())
    }

    /// Runs work whose own steps belong to this one.
    pub async fn hold<T>(&self, work: impl Future<Output = T>) -> T {
        match &self.0 {
            Some(running) if running.id != 0 => {
                let current = Current { trace: running.current.trace.clone(), within: running.id };
                CURRENT.scope(current, work).await
            }
            _ => work.await,
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(running) = self.0.take() else { return };
        let trace = &running.current.trace;
        let step = Step {
            from: running.began.saturating_duration_since(trace.started),
            took: running.began.elapsed(),
            name: running.name,
            stage: false,
            id: running.id,
            within: running.current.within,
            kind: running.kind,
            attributes: running.attributes,
        };
        push(&mut trace.steps.lock().1, step);
    }
}
