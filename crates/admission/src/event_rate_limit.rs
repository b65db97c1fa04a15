//! EventRateLimit: so many Events a second of the server, of a namespace, of a user, or of one source
//! about one object.

use std::collections::HashMap;

use ironkeel_object::Value;
use ironkeel_registry::{ApiError, Attributes, Operation, Reason};
use jiff::Timestamp;
use parking_lot::Mutex;

/// Buckets of one limit where its configuration names no number.
const CACHE_SIZE: usize = 4096;

/// What is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// All Events.
    Server,
    /// Those of a namespace.
    Namespace,
    /// Those of a user.
    User,
    /// Those of a source about an object.
    SourceAndObject,
}

/// One limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// What is counted together.
    pub kind: LimitKind,
    /// Events a second in the long run.
    pub qps: f64,
    /// Events at once.
    pub burst: f64,
    /// Buckets that are kept; the one that was longest unused goes first.
    pub cache_size: usize,
}

impl LimitKind {
    fn name(self) -> &'static str {
        match self {
            LimitKind::Server => "Server",
            LimitKind::Namespace => "Namespace",
            LimitKind::User => "User",
            LimitKind::SourceAndObject => "SourceAndObject",
        }
    }
}

impl Limit {
    /// Reads one; the error begins with the field.
    pub(crate) fn read(v: &Value) -> Result<Limit, String> {
        let kind = match v.str_at(&["type"]).unwrap_or_default() {
            "Server" => LimitKind::Server,
            "Namespace" => LimitKind::Namespace,
            "User" => LimitKind::User,
            "SourceAndObject" => LimitKind::SourceAndObject,
            other => {
                let known = "\"Namespace\", \"Server\", \"SourceAndObject\", \"User\"";
                return Err(format!("type: Unsupported value: {other:?}: supported values: {known}"));
            }
        };
        let number = |field: &str| v.i64_at(&[field]).unwrap_or(0);
        for field in ["burst", "qps"] {
            if number(field) <= 0 {
                return Err(format!("{field}: Invalid value: {}: must be positive", number(field)));
            }
        }
        if number("cacheSize") < 0 {
            return Err(format!("cacheSize: Invalid value: {}: must not be negative", number("cacheSize")));
        }
        let cache_size = usize::try_from(number("cacheSize")).ok().filter(|n| *n > 0).unwrap_or(CACHE_SIZE);
        Ok(Limit { kind, qps: number("qps") as f64, burst: number("burst") as f64, cache_size })
    }
}

/// What is left of one bucket.
struct Bucket {
    tokens: f64,
    since: Timestamp,
    /// Counts uses of all buckets.
    used: u64,
}

#[derive(Default)]
struct Buckets {
    by_key: HashMap<String, Bucket>,
    uses: u64,
}

/// The limits and what is left of them.
#[derive(Default)]
pub(crate) struct EventRateLimit(Vec<(Limit, Mutex<Buckets>)>);

impl EventRateLimit {
    pub(crate) fn new(limits: Vec<Limit>) -> Self {
        EventRateLimit(limits.into_iter().map(|l| (l, Mutex::default())).collect())
    }

    pub(crate) fn validate(&self, a: &Attributes<'_>, event: &Value, now: Timestamp) -> Result<(), ApiError> {
        let counted = matches!(a.operation, Operation::Create | Operation::Update) && !a.dry_run;
        if !counted || a.row.kind_name() != "Event" || !a.row.group().is_empty() {
            return Ok(());
        }
        let mut over = Vec::new();
        for (limit, buckets) in &self.0 {
            let key = key(limit.kind, a, event);
            if !buckets.lock().take(limit, &key, now) {
                over.push(format!("limit reached on type {} for key {key}", limit.kind.name()));
            }
        }
        match over.as_slice() {
            [] => Ok(()),
            [one] => Err(ApiError::new(Reason::TooManyRequests, one.clone())),
            all => Err(ApiError::new(Reason::TooManyRequests, format!("[{}]", all.join(", ")))),
        }
    }
}

fn key(kind: LimitKind, a: &Attributes<'_>, event: &Value) -> String {
    let text = |path: &[&str]| event.str_at(path).unwrap_or_default().to_owned();
    match kind {
        LimitKind::Server => String::new(),
        LimitKind::Namespace => a.namespace.to_owned(),
        LimitKind::User => a.user.name.clone(),
        LimitKind::SourceAndObject => {
            let object = ["kind", "namespace", "name", "uid", "apiVersion"].map(|f| text(&["involvedObject", f]));
            [text(&["source", "component"]), text(&["source", "host"])].concat() + &object.concat()
        }
    }
}

impl Buckets {
    fn take(&mut self, limit: &Limit, key: &str, now: Timestamp) -> bool {
        self.uses += 1;
        if !self.by_key.contains_key(key) && self.by_key.len() >= limit.cache_size {
            let oldest = self.by_key.iter().min_by_key(|(_, b)| b.used).map(|(k, _)| k.clone());
            oldest.into_iter().for_each(|k| _ = self.by_key.remove(&k));
        }
        let fresh = || Bucket { tokens: limit.burst, since: now, used: 0 };
        let bucket = self.by_key.entry(key.to_owned()).or_insert_with(fresh);
        let passed = now.duration_since(bucket.since).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + passed * limit.qps).min(limit.burst);
        (bucket.since, bucket.used) = (now, self.uses);
        let enough = bucket.tokens >= 1.0;
        if enough {
            bucket.tokens -= 1.0;
        }
        enough
    }
}
