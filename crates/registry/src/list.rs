//! Lists: resourceVersion semantics, pages, continue tokens.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ironkeel_store::{Range, StoreError, prefix_end};
use serde_json::json;

use crate::cache::unreadable;
use crate::entry::Entry;
use crate::error::{ApiError, Reason};
use crate::feed::{read_stored, unread};
use crate::registry::Registry;
use crate::selector::Selection;
use crate::storage::Row;

/// `resourceVersionMatch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    /// At this very revision.
    Exact,
    /// At this revision or later.
    NotOlderThan,
}

/// What a list asks for.
#[derive(Clone, Debug, Default)]
pub struct ListRequest {
    /// Namespace and selectors.
    pub selection: Selection,
    /// At most so many; 0 for all.
    pub limit: usize,
    /// Where the last page ended.
    pub continue_token: String,
    /// `resourceVersion` as the client wrote it.
    pub resource_version: String,
    /// `resourceVersionMatch`.
    pub version_match: Option<VersionMatch>,
}

/// One page.
#[derive(Debug)]
pub struct ListAnswer {
    /// In key order.
    pub entries: Vec<Arc<Entry>>,
    /// Revision of the list.
    pub revision: u64,
    /// Where the next page begins; empty at the end.
    pub continue_token: String,
    /// How many are left, where that is known without selecting.
    pub remaining: Option<u64>,
    /// How many objects were looked at.
    pub fetched: usize,
    /// Whether they came from the watch cache.
    pub cached: bool,
}

impl ListAnswer {
    /// The first page of a list whose members were chosen after it was read whole.
    #[must_use]
    pub fn first(self, limit: usize) -> Self {
        let (fetched, cached) = (self.fetched, self.cached);
        ListAnswer { fetched, cached, ..page(self.entries, limit, self.revision, None) }
    }
}

/// Parses a `resourceVersion`; empty is 0. What is none is a 400, for watches too, where upstream answers 500.
pub fn parse_revision(text: &str) -> Result<u64, ApiError> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|e: std::num::ParseIntError| {
        let why = match e.kind() {
            std::num::IntErrorKind::PosOverflow => "value out of range",
            _ => "invalid syntax",
        };
        ApiError::bad_request(format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: {why}"
        ))
    })
}

/// A place in a paged list: the revision (`None`: whatever is newest) and the first key.
struct Place {
    revision: Option<u64>,
    start: String,
}

impl Place {
    fn encode(&self) -> String {
        let rv = self.revision.map_or(-1, |r| r as i64);
        URL_SAFE_NO_PAD.encode(json!({"v": "meta.k8s.io/v1", "rv": rv, "start": self.start}).to_string())
    }

    fn decode(token: &str) -> Result<Self, ApiError> {
        let bad =
            |why: &str| ApiError::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|e| {
            let at = match e {
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => token.len() / 4 * 4,
            };
            bad(&format!("illegal base64 data at input byte {at}"))
        })?;
        let token: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| {
            // As Go's reader says it of what most often comes: bytes that are no JSON at all.
            match bytes.first().filter(|b| !matches!(b, b'{' | b'[' | b'"' | b't' | b'f' | b'n' | b'0'..=b'9' | b'-')) {
                Some(first) => {
                    bad(&format!("invalid character '{}' looking for beginning of value", first.escape_ascii()))
                }
                None => bad(&e.to_string()),
            }
        })?;
        let version = token["v"].as_str().unwrap_or_default();
        if version != "meta.k8s.io/v1" {
            return Err(bad(&format!("server does not recognize this encoded version {version}")));
        }
        let revision = match token["rv"].as_i64() {
            Some(0) | None => {
                return Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
            }
            Some(r) => u64::try_from(r).ok(),
        };
        let start = token["start"].as_str().filter(|s| !s.is_empty());
        let start = start.ok_or_else(|| bad("encoded start key empty (version meta.k8s.io/v1)"))?;
        // A key cannot leave its resource.
        if start.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(bad(start));
        }
        Ok(Place { revision, start: start.to_owned() })
    }
}

impl Registry {
    /// Lists objects.
    pub async fn list(&self, row: &Row, request: &ListRequest) -> Result<ListAnswer, ApiError> {
        let home = row.home()?;
        let asked = parse_revision(&request.resource_version)
            .map_err(|e| ApiError::bad_request(format!("invalid resource version: {}", e.message)))?;
        if !request.continue_token.is_empty() {
            let place = Place::decode(&request.continue_token)?;
            if asked > 0 {
                return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
            }
            let Some(revision) = place.revision else {
                return Ok(self.list_cache(row, request, None, &place.start)?.0);
            };
            self.wait_for_revision(revision).await?;
            // A token lives as long as the history, whether or not this resource has changed since.
            if let Err(StoreError::Compacted { .. }) = self.store.get(home.prefix.as_bytes(), revision).await {
                return Err(self.expired(request, &place.start));
            }
            return self.list_at(row, request, revision, &place.start).await;
        }
        match request.version_match {
            Some(VersionMatch::Exact) => {
                // Nobody is told to come back for a state that is meant exactly.
                self.wait_for_revision(asked).await.map_err(|mut e| {
                    if let Some(details) = &mut e.details {
                        details.retry_after_seconds = 0;
                    }
                    e
                })?;
                self.list_at(row, request, asked, "").await
            }
            _ => {
                self.wait_for_revision(asked).await?;
                Ok(self.list_cache(row, request, None, "")?.0)
            }
        }
    }

    /// The list as of a revision: the cache's, unless something has changed since.
    async fn list_at(
        &self,
        row: &Row,
        request: &ListRequest,
        revision: u64,
        start: &str,
    ) -> Result<ListAnswer, ApiError> {
        if row.home()?.cache.last() <= revision {
            let (answer, last) = self.list_cache(row, request, Some(revision), start)?;
            // A change may have come before the cache was read.
            if last <= revision {
                return Ok(answer);
            }
        }
        self.list_history(row, request, revision, start).await
    }

    /// The present list, and the revision of its last change.
    fn list_cache(
        &self,
        row: &Row,
        request: &ListRequest,
        at: Option<u64>,
        start: &str,
    ) -> Result<(ListAnswer, u64), ApiError> {
        let selection = &request.selection;
        let applied = self.feed.revision();
        let Some(home) = &row.stored else {
            let nothing = page(Vec::new(), 0, applied, None);
            return Ok((nothing, applied));
        };
        home.cache.selected_readable(selection)?;
        // One more tells whether there is another page.
        let most = if request.limit == 0 { usize::MAX } else { request.limit.saturating_add(1) };
        let snapshot = match (&selection.name, selection.namespace.is_empty() && row.namespaced()) {
            (Some(name), false) if start.is_empty() => {
                let key = crate::storage::object_key(&selection.namespace, name);
                let (entry, last) = home.cache.get_at(&key);
                let entries = entry.into_iter().filter(|e| selection.matches(e)).collect();
                crate::cache::Snapshot { entries, last, cursor: 0, scanned: 1, left_out: 0 }
            }
            _ => home.cache.select(selection, home.target_field(), start, most),
        };
        // One may have become unreadable meanwhile.
        home.cache.selected_readable(selection)?;
        let revision = at.unwrap_or_else(|| applied.max(snapshot.last));
        let fetched = snapshot.scanned;
        let rest = selection.is_whole_namespace().then_some(snapshot.left_out);
        let answer = ListAnswer { fetched, cached: true, ..page(snapshot.entries, request.limit, revision, rest) };
        Ok((answer, snapshot.last))
    }

    /// A list as of a revision that the cache has moved past: from the store's history.
    async fn list_history(
        &self,
        row: &Row,
        request: &ListRequest,
        revision: u64,
        start: &str,
    ) -> Result<ListAnswer, ApiError> {
        let home = row.home()?;
        let selection = &request.selection;
        let prefix = if selection.namespace.is_empty() {
            home.prefix.clone()
        } else {
            format!("{}{}/", home.prefix, selection.namespace)
        };
        let first = [home.prefix.as_str(), start].concat().max(prefix.clone());
        let range = Range { start: first.into(), end: prefix_end(prefix.as_bytes()), revision, ..Range::default() };
        let answer = match self.store.range(range).await {
            Err(StoreError::Compacted { .. }) => return Err(self.expired(request, start)),
            other => other?,
        };
        let mut entries = Vec::new();
        for kv in answer.kvs {
            let Some(key) = kv.key.strip_prefix(home.prefix.as_bytes()).and_then(|k| std::str::from_utf8(k).ok())
            else {
                continue;
            };
            if selection.name.as_deref().is_some_and(|name| key.rsplit('/').next() != Some(name)) {
                continue;
            }
            let (extract, changed) =
                read_stored(home, &kv.value).map_err(|error| unreadable(key, &unread(home, key, &error)))?;
            let entry = Entry::new(key, kv.mod_revision, changed.unwrap_or(kv.value), extract);
            if selection.matches(&entry) {
                entries.push(Arc::new(entry));
            }
        }
        let rest = selection.is_whole_namespace().then_some(0);
        Ok(page(entries, request.limit, revision, rest))
    }

    fn expired(&self, request: &ListRequest, start: &str) -> ApiError {
        if request.continue_token.is_empty() {
            return ApiError::new(Reason::Expired, "The resourceVersion for the provided list is too old.");
        }
        let mut error = ApiError::new(
            Reason::Expired,
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter, or use the continue token in this response to retrieve the remainder of \
             the results. Continuing with the provided token results in an inconsistent list - objects that were \
             created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
        );
        error.continue_token = Some(Place { revision: None, start: start.to_owned() }.encode());
        error
    }
}

/// The first page; `rest` objects follow the last one, where that is known.
fn page(mut entries: Vec<Arc<Entry>>, limit: usize, revision: u64, rest: Option<usize>) -> ListAnswer {
    if limit == 0 || entries.len() <= limit {
        let fetched = entries.len();
        return ListAnswer {
            entries,
            revision,
            continue_token: String::new(),
            remaining: None,
            fetched,
            cached: false,
        };
    }
    let fetched = entries.len();
    let remaining = rest.map(|rest| (fetched - limit + rest) as u64);
    entries.truncate(limit);
    // The next page begins behind the last key of this one.
    let start = entries.last().map(|e| format!("{}\0", e.key())).unwrap_or_default();
    let place = Place { revision: Some(revision), start };
    ListAnswer { entries, revision, continue_token: place.encode(), remaining, fetched, cached: false }
}
