//! The hub's task: one stream to one member at a time, and every watch's place in history.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ironkeel_store::{Event, Revision, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tonic::metadata::MetadataValue;

use super::{Buffer, Command};
use crate::Shared;
use crate::endpoints::Member;
use crate::error::{Failure, Request, failure};
use crate::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::etcdserverpb::watch_client::WatchClient;
use crate::etcdserverpb::watch_request::RequestUnion;
use crate::etcdserverpb::{
    StatusRequest, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use crate::keys::Keys;
use crate::mvccpb;
use crate::read::{EVERYTHING, MAX_ANSWER_BYTES, key_value, revision_of};
use crate::version::trusts_progress;

/// How long a member may take to say its release and to begin a stream.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often progress is asked for while somebody waits for it (upstream: as often).
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// A progress answer for all watches of a stream.
const ALL_WATCHES: i64 = -1;

/// One watch.
#[derive(Debug)]
pub(crate) struct Watcher {
    start: Bytes,
    end: Bytes,
    /// The first revision that its buffer has not seen.
    next: Revision,
    progress: bool,
    previous: bool,
    buffer: Arc<Buffer>,
    /// Told once, when etcd has the watch.
    begun: Option<oneshot::Sender<Result<Revision, StoreError>>>,
    /// Its number on the stream; none while it is not there.
    wire: Option<i64>,
    /// The store's revision when the stream had it; none until etcd has said so.
    placed: Option<Revision>,
    paused: bool,
    /// Events of an answer that came in pieces so far.
    pieces: Vec<mvccpb::Event>,
}

impl Watcher {
    pub(crate) fn new(
        start: Bytes,
        end: Bytes,
        from: Revision,
        progress: bool,
        previous: bool,
        buffer: Arc<Buffer>,
        begun: oneshot::Sender<Result<Revision, StoreError>>,
    ) -> Watcher {
        Watcher {
            start,
            end,
            next: from,
            progress,
            previous,
            buffer,
            begun: Some(begun),
            wire: None,
            placed: None,
            paused: false,
            pieces: Vec::new(),
        }
    }

    fn holds(&self, key: &[u8]) -> bool {
        match &self.end[..] {
            [] => key == &self.start[..],
            EVERYTHING => key >= &self.start[..],
            end => (&self.start[..]..end).contains(&key),
        }
    }

    /// etcd refuses ranges that hold nothing; a key that nobody writes stands for them.
    fn is_empty(&self) -> bool {
        !self.end.is_empty() && self.end != EVERYTHING && self.end <= self.start
    }

    fn create(&self, wire: i64, wide: bool) -> WatchRequest {
        let everything = Bytes::from_static(EVERYTHING);
        let (key, range_end) = match (wide && self.progress, self.is_empty()) {
            (true, _) => (everything.clone(), everything),
            (false, true) => (everything, Bytes::new()),
            (false, false) => (self.start.clone(), self.end.clone()),
        };
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision: self.next as i64,
            progress_notify: self.progress,
            prev_kv: self.previous,
            watch_id: wire,
            fragment: true,
            ..WatchCreateRequest::default()
        };
        WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
    }

    fn reached(&mut self, revision: Revision) {
        self.next = self.next.max(revision + 1);
        if self.progress {
            self.buffer.progress(revision);
        }
    }

    fn fail(mut self, error: StoreError) {
        match self.begun.take() {
            // Who has gone does not need the answer.
            Some(begun) => drop(begun.send(Err(error))),
            None => self.buffer.end(error),
        }
    }
}

/// Why a session ended.
enum Ended {
    /// The store was closed.
    Closed,
    /// The stream broke.
    Broken(String),
}

/// Runs until the store is closed.
pub(crate) async fn run(shared: Arc<Shared>, commands: mpsc::UnboundedReceiver<Command>) {
    let stop = shared.stop.clone();
    let mut session = Session::new(shared, commands);
    tokio::select! {
        () = session.serve() => {}
        () = stop.cancelled() => {}
    }
    session.commands.close();
    while let Ok(command) = session.commands.try_recv() {
        session.apply(command, None);
    }
    for (_, watcher) in session.watchers.drain() {
        watcher.fail(StoreError::Closed("the store was closed".to_owned()));
    }
}

struct Session {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedReceiver<Command>,
    watchers: HashMap<u64, Watcher>,
    /// Whose number on the stream is whose.
    wires: HashMap<i64, u64>,
    last_wire: i64,
    wanted: Revision,
    /// Watches with progress are over all keys, because the member's progress cannot be trusted: every
    /// revision is then an event, and those of other keys tell progress.
    wide: bool,
    /// What was wanted when somebody was last seen waiting for it. Some revisions have no event (the
    /// first of all, and deletes that are compacted): who waits for two ticks is shown a later one.
    touched: Revision,
}

impl Session {
    fn new(shared: Arc<Shared>, commands: mpsc::UnboundedReceiver<Command>) -> Session {
        Session {
            shared,
            commands,
            watchers: HashMap::new(),
            wires: HashMap::new(),
            last_wire: 0,
            wanted: 0,
            wide: true,
            touched: 0,
        }
    }

    async fn serve(&mut self) {
        loop {
            while self.watchers.values().all(|w| w.paused) {
                let Some(command) = self.commands.recv().await else { return };
                self.apply(command, None);
            }
            let shared = self.shared.clone();
            let (member, at) = shared.endpoints.pick();
            if let Some(at) = at {
                tokio::time::sleep_until(at).await;
            }
            match self.stream(member).await {
                Ended::Closed => return,
                Ended::Broken(why) => {
                    member.failed();
                    tracing::info!(why, watches = self.watchers.len(), "the watches of etcd are resumed");
                }
            }
            self.wires.clear();
            for watcher in self.watchers.values_mut() {
                watcher.wire = None;
                watcher.pieces.clear();
            }
        }
    }

    /// Begins a stream with all watches, and follows it.
    async fn stream(&mut self, member: &Member) -> Ended {
        let broken = |failure: Failure| Ended::Broken(failure.into_store_error().to_string());
        let late = || Ended::Broken(format!("etcd at {} does not answer", member.address));
        let words = |status: &tonic::Status| failure(&member.address, status, Request::default());
        let mut maintenance = MaintenanceClient::new(member.channel.clone());
        match tokio::time::timeout(BEGIN_TIMEOUT, maintenance.status(StatusRequest {})).await {
            Ok(Ok(status)) => self.wide = !trusts_progress(&status.get_ref().version),
            Ok(Err(status)) => return broken(words(&status)),
            Err(_) => return late(),
        }
        let (requests, outgoing) = mpsc::unbounded_channel();
        let ids: Vec<u64> = self.watchers.iter().filter(|(_, w)| !w.paused).map(|(id, _)| *id).collect();
        for id in ids {
            self.create(id, &requests);
        }
        let mut request = tonic::Request::new(UnboundedReceiverStream::new(outgoing));
        // A member that has lost its leader ends the stream.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let mut client = WatchClient::new(member.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        // The stream's begin is answered with its first watch.
        let mut answers: Streaming<WatchResponse> =
            match tokio::time::timeout(BEGIN_TIMEOUT, client.watch(request)).await {
                Ok(Ok(response)) => response.into_inner(),
                Ok(Err(status)) => return broken(words(&status)),
                Err(_) => return late(),
            };
        member.answered();
        let mut progress = tokio::time::interval(PROGRESS_INTERVAL);
        progress.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        if let Err(why) = self.receive(answer, &requests) {
                            return Ended::Broken(format!("etcd at {}: {why}", member.address));
                        }
                    }
                    Ok(None) => return Ended::Broken(format!("etcd at {} ended the stream", member.address)),
                    Err(status) => return broken(words(&status)),
                },
                command = self.commands.recv() => match command {
                    Some(command) => self.apply(command, Some(&requests)),
                    None => return Ended::Closed,
                },
                _ = progress.tick(), if self.somebody_waits() => {
                    if !self.wide {
                        let request = RequestUnion::ProgressRequest(WatchProgressRequest {});
                        let _ = requests.send(WatchRequest { request_union: Some(request) });
                    }
                    if (self.wide || self.only_an_event_helps())
                        && std::mem::replace(&mut self.touched, self.wanted) == self.wanted
                    {
                        let shared = self.shared.clone();
                        tokio::spawn(async move { shared.touch().await });
                    }
                }
            }
        }
    }

    /// Whether a watch with progress is behind what somebody wants to see.
    fn somebody_waits(&self) -> bool {
        self.watchers.values().any(|w| w.progress && w.wire.is_some() && w.next <= self.wanted)
    }

    /// Whether who waits is behind a watch that was placed at the very revision that is wanted: progress
    /// up to there may have been said before.
    fn only_an_event_helps(&self) -> bool {
        let behind = |w: &Watcher| w.progress && w.wire.is_some() && w.next <= self.wanted;
        self.watchers.values().any(|w| behind(w) && w.placed.is_some_and(|at| at >= self.wanted))
    }

    /// A stream whose requests find no taker is broken, and tells so itself.
    fn create(&mut self, id: u64, requests: &mpsc::UnboundedSender<WatchRequest>) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        self.last_wire += 1;
        watcher.wire = Some(self.last_wire);
        watcher.placed = None;
        self.wires.insert(self.last_wire, id);
        let _ = requests.send(watcher.create(self.last_wire, self.wide));
    }

    fn cancel(&mut self, wire: Option<i64>, requests: Option<&mpsc::UnboundedSender<WatchRequest>>) {
        let Some(wire) = wire else { return };
        self.wires.remove(&wire);
        if let Some(requests) = requests {
            let cancel = RequestUnion::CancelRequest(WatchCancelRequest { watch_id: wire });
            let _ = requests.send(WatchRequest { request_union: Some(cancel) });
        }
    }

    fn apply(&mut self, command: Command, requests: Option<&mpsc::UnboundedSender<WatchRequest>>) {
        match command {
            Command::Start(id, watcher) => {
                self.watchers.insert(id, *watcher);
                if let Some(requests) = requests {
                    self.create(id, requests);
                }
            }
            Command::Resume(id) => {
                if let Some(watcher) = self.watchers.get_mut(&id).filter(|w| w.paused) {
                    watcher.paused = false;
                    if let Some(requests) = requests {
                        self.create(id, requests);
                    }
                }
            }
            Command::Stop(id) => {
                if let Some(watcher) = self.watchers.remove(&id) {
                    self.cancel(watcher.wire, requests);
                }
            }
            Command::Wanted(revision) => self.wanted = self.wanted.max(revision),
        }
    }

    /// Takes one answer; an error ends the stream.
    fn receive(
        &mut self,
        mut answer: WatchResponse,
        requests: &mpsc::UnboundedSender<WatchRequest>,
    ) -> Result<(), String> {
        let revision = revision_of(answer.header.as_ref());
        if answer.watch_id == ALL_WATCHES && !answer.created && !answer.canceled {
            // An answer from before a watch was placed may overtake the word that it was, and knows nothing of
            // its events: only what is newer than its place is about it.
            let concerned = |w: &&mut Watcher| w.wire.is_some() && w.placed.is_some_and(|at| revision > at);
            self.watchers.values_mut().filter(concerned).for_each(|w| w.reached(revision));
            return Ok(());
        }
        if answer.watch_id == ALL_WATCHES {
            // Refused at once, which newer releases tell without the number; they answer in order.
            let unplaced = |id: &u64| self.watchers.get(id).is_some_and(|w| w.placed.is_none());
            let oldest = self.wires.iter().filter(|(_, id)| unplaced(id)).map(|(wire, _)| *wire).min();
            let Some(oldest) = oldest else { return Ok(()) };
            answer.watch_id = oldest;
        }
        // Of a watch that was given up meanwhile.
        let Some(&id) = self.wires.get(&answer.watch_id) else { return Ok(()) };
        if answer.canceled {
            self.wires.remove(&answer.watch_id);
            let Some(watcher) = self.watchers.remove(&id) else { return Ok(()) };
            return self.canceled(id, watcher, &answer);
        }
        let Some(watcher) = self.watchers.get_mut(&id) else { return Ok(()) };
        if answer.created {
            watcher.placed = Some(revision);
            // Nothing up to here is to come, if the watch begins later; the first revision has no event.
            if revision < watcher.next || revision == 1 {
                watcher.reached(revision);
            }
            if let Some(begun) = watcher.begun.take() {
                // Who has gone meanwhile has stopped the watch too.
                let _ = begun.send(Ok(revision));
            }
            return Ok(());
        }
        watcher.pieces.append(&mut answer.events);
        if answer.fragment {
            return Ok(());
        }
        let events = std::mem::take(&mut watcher.pieces);
        let Some(last) = events.last().and_then(|e| e.kv.as_ref()).map(|kv| kv.mod_revision as Revision) else {
            watcher.reached(revision);
            return Ok(());
        };
        let mine: Vec<Event> = events.into_iter().filter_map(|e| event(&self.shared.keys, watcher, e)).collect();
        let told = mine.last().map_or(0, |event| event.kv.mod_revision);
        let full = !mine.is_empty() && watcher.buffer.events(mine);
        watcher.next = watcher.next.max(last + 1);
        if told < last && watcher.progress {
            watcher.buffer.progress(last);
        }
        if full {
            watcher.paused = true;
            let wire = watcher.wire.take();
            self.cancel(wire, Some(requests));
        }
        Ok(())
    }

    /// etcd has given a watch up.
    fn canceled(&mut self, id: u64, mut watcher: Watcher, answer: &WatchResponse) -> Result<(), String> {
        let compacted = answer.compact_revision as Revision;
        if compacted > 0 {
            self.shared.compacted(compacted);
            let requested = watcher.next;
            watcher.fail(StoreError::Compacted { requested, compacted });
            return Ok(());
        }
        if answer.created {
            let why = format!("etcd refuses the watch: {}", answer.cancel_reason);
            watcher.fail(StoreError::Unavailable(why));
            return Ok(());
        }
        watcher.wire = None;
        watcher.pieces.clear();
        self.watchers.insert(id, watcher);
        Err(format!("a watch was canceled: {}", answer.cancel_reason))
    }
}

/// An event that a watch has asked for and not seen yet.
fn event(keys: &Keys, watcher: &Watcher, event: mvccpb::Event) -> Option<Event> {
    let deleted = event.r#type() == mvccpb::event::EventType::Delete;
    let kv = event.kv?;
    if (kv.mod_revision as Revision) < watcher.next || !watcher.holds(&kv.key) {
        return None;
    }
    let previous = event.prev_kv.map(|kv| key_value(keys, kv));
    Some(Event { kv: key_value(keys, kv), deleted, previous })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ironkeel_store::{WatchItem, WatchStream};

    use super::*;
    use crate::etcdserverpb::ResponseHeader;
    use crate::watch::Reader;
    use crate::{Config, Endpoints, Freshness};

    const LATER: &[u8] = b"/registry/pods/later";

    /// A session with one stream, on which etcd says what a test says.
    struct Wired {
        session: Session,
        requests: mpsc::UnboundedSender<WatchRequest>,
        sent: mpsc::UnboundedReceiver<WatchRequest>,
        commands: mpsc::UnboundedSender<Command>,
    }

    fn wired() -> Wired {
        let config = Config { endpoints: vec!["127.0.0.1:1".to_owned()], ..Config::default() };
        let shared = Arc::new(Shared {
            endpoints: Endpoints::new(&config).unwrap(),
            keys: Keys::new(&config.prefix).unwrap(),
            compacted: 0.into(),
            freshness: Freshness::default(),
            stop: tokio_util::sync::CancellationToken::new(),
            config,
        });
        let (commands, received) = mpsc::unbounded_channel();
        let (requests, sent) = mpsc::unbounded_channel();
        let mut session = Session::new(shared, received);
        session.wide = false;
        Wired { session, requests, sent, commands }
    }

    impl Wired {
        fn watch(
            &mut self,
            id: u64,
            from: Revision,
            limit: usize,
        ) -> (WatchStream, oneshot::Receiver<Result<Revision, StoreError>>) {
            let buffer = Arc::new(Buffer::new(limit));
            let (begun, beginning) = oneshot::channel();
            let (start, end) = (Bytes::from_static(b"/registry/pods/"), Bytes::from_static(b"/registry/pods0"));
            let watcher = Watcher::new(start, end, from, true, false, buffer.clone(), begun);
            self.session.apply(Command::Start(id, Box::new(watcher)), Some(&self.requests));
            (Box::pin(Reader::new(id, buffer, self.commands.clone())), beginning)
        }

        /// The number of the watch that was asked for last.
        fn wire(&self) -> i64 {
            self.session.last_wire
        }

        fn say(&mut self, revision: i64, answer: WatchResponse) {
            let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
            self.session.receive(WatchResponse { header, ..answer }, &self.requests).unwrap();
        }

        fn created(&mut self, revision: i64) {
            let watch_id = self.wire();
            self.say(revision, WatchResponse { watch_id, created: true, ..WatchResponse::default() });
        }

        fn progress(&mut self, revision: i64) {
            self.say(revision, WatchResponse { watch_id: ALL_WATCHES, ..WatchResponse::default() });
        }

        fn put(&mut self, revision: i64) {
            let kv = mvccpb::KeyValue { key: LATER.into(), mod_revision: revision, ..mvccpb::KeyValue::default() };
            let events = vec![mvccpb::Event { kv: Some(kv), ..mvccpb::Event::default() }];
            let watch_id = self.wire();
            self.say(revision, WatchResponse { watch_id, events, ..WatchResponse::default() });
        }
    }

    async fn revisions(stream: &mut WatchStream) -> Vec<Revision> {
        use futures::{FutureExt, StreamExt};
        let mut all = Vec::new();
        while let Some(item) = stream.next().now_or_never().flatten() {
            match item.unwrap() {
                WatchItem::Events(events) => all.extend(events.iter().map(|e| e.kv.mod_revision)),
                WatchItem::Progress(_) => {}
            }
        }
        all
    }

    /// An answer to what was asked before the watch was there says nothing of its events.
    #[tokio::test]
    async fn progress_from_before_a_watch_began_skips_no_event() {
        let mut w = wired();
        let (mut stream, _begun) = w.watch(1, 5, 100);
        w.created(9);
        // Asked for by another watch, and on its way when this one was made.
        w.progress(9);
        w.put(7);
        assert_eq!(revisions(&mut stream).await, [7]);
        w.progress(10);
        w.put(11);
        assert_eq!(revisions(&mut stream).await, [11]);
    }

    #[tokio::test]
    async fn progress_from_before_a_watch_was_resumed_skips_no_event() {
        let mut w = wired();
        let (mut stream, _begun) = w.watch(1, 5, 1);
        w.created(4);
        w.put(5);
        assert_eq!(revisions(&mut stream).await, [5], "the buffer was full");
        let resume = w.session.commands.try_recv().unwrap();
        w.session.apply(resume, Some(&w.requests));
        w.progress(9);
        w.created(9);
        w.put(7);
        assert_eq!(revisions(&mut stream).await, [7]);
    }

    /// Newer releases refuse a watch without its number.
    #[tokio::test]
    async fn a_watch_that_is_refused_without_its_number_fails() {
        let mut w = wired();
        let (_first, mut begun) = w.watch(1, 5, 100);
        let (_second, mut other) = w.watch(2, 5, 100);
        let refusal = "etcdserver: permission denied".to_owned();
        let (created, canceled) = (true, true);
        w.say(9, WatchResponse { watch_id: -1, created, canceled, cancel_reason: refusal, ..Default::default() });
        let error = begun.try_recv().unwrap().unwrap_err();
        assert!(error.to_string().contains("permission denied"), "{error}");
        assert!(other.try_recv().is_err(), "the other one still waits");
        w.created(9);
        assert_eq!(other.try_recv().unwrap().unwrap(), 9);
        assert!(w.sent.try_recv().is_ok());
    }
}
