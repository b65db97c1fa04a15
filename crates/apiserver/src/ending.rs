//! What goes on as long as an answer is streamed: gauges, counted watches, the audit log's last record, and what
//! is told of the request when it is over.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Uri};
use ironkeel_fairness::Watched;
use ironkeel_trace::{Outcome, Trace};

use crate::audit;
use crate::forward::PeerAddress;
use crate::metrics::LongRunning;
use crate::request_info::RequestInfo;

/// Held by the stream of an answer; dropping it is the end of the request.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// The gauge of long-running requests.
    pub(crate) long: Option<LongRunning>,
    /// The watch, as writes count it.
    pub(crate) watched: Option<Watched>,
    /// The audit log.
    pub(crate) audit: Option<audit::Ending>,
    /// The request's trace.
    pub(crate) told: Option<Finished>,
}

impl Ending {
    /// Whether nothing has to be held.
    pub(crate) fn is_empty(&self) -> bool {
        self.long.is_none() && self.watched.is_none() && self.audit.is_none() && self.told.is_none()
    }

    /// A piece goes out.
    pub(crate) fn chunk(&mut self, bytes: &Bytes) {
        if let Some(audit) = &mut self.audit {
            audit.chunk(bytes);
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(told) = self.told.take() {
            told.trace.done("write");
            told.finish();
        }
    }
}

/// What the log and the trace say of a request, whatever becomes of it.
#[derive(Debug)]
pub(crate) struct Told {
    method: Method,
    pub(crate) uri: Uri,
    agent: Option<HeaderValue>,
    audit_id: Option<HeaderValue>,
    client: Option<PeerAddress>,
}

fn text(header: Option<&HeaderValue>) -> &str {
    header.and_then(|v| v.to_str().ok()).unwrap_or_default()
}

impl Told {
    pub(crate) fn new(parts: &Parts) -> Self {
        Told {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            agent: parts.headers.get(http::header::USER_AGENT).cloned(),
            audit_id: parts.headers.get(&audit::AUDIT_ID).cloned(),
            client: parts.extensions.get().copied(),
        }
    }

    pub(crate) fn agent(&self) -> &str {
        text(self.agent.as_ref())
    }

    pub(crate) fn audit_id(&self) -> &str {
        text(self.audit_id.as_ref())
    }

    /// With what has come of the request.
    pub(crate) fn with(self, trace: Arc<Trace>, info: Arc<RequestInfo>, code: u16) -> Finished {
        Finished { told: self, trace, info, code }
    }
}

/// A request whose answer is known.
#[derive(Debug)]
pub(crate) struct Finished {
    told: Told,
    trace: Arc<Trace>,
    info: Arc<RequestInfo>,
    code: u16,
}

impl Finished {
    /// Tells of it: in the log where it took long, and to the collector of traces.
    pub(crate) fn finish(&self) {
        let timed = !self.info.is_long_running();
        if !self.trace.is_told(timed) {
            return;
        }
        let uri = self.told.uri.path_and_query().map_or("/", |p| p.as_str());
        let client = self.told.client.map(|PeerAddress(address)| address.ip().to_string()).unwrap_or_default();
        self.trace.finish(&Outcome {
            method: self.told.method.as_str(),
            verb: self.info.verb,
            uri,
            route: &route(&self.info),
            code: self.code,
            agent: self.told.agent(),
            audit_id: self.told.audit_id(),
            client: &client,
            timed,
        });
    }
}

/// The path's pattern: upstream's names of spans.
fn route(info: &RequestInfo) -> String {
    if !info.is_resource {
        return String::new();
    }
    let mut out = if info.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", info.group) };
    out.push_str(&format!("/{}", info.version));
    if !info.scope().is_empty() {
        out.push_str("/namespaces/{:namespace}");
    }
    out.push_str(&format!("/{}", info.resource));
    if !info.name.is_empty() {
        out.push_str("/{:name}");
    }
    if !info.subresource.is_empty() {
        out.push_str(&format!("/{}", info.subresource));
    }
    out
}
