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
    let mut session = Session {
        shared,
        commands,
        watchers: HashMap::new(),
        wires: HashMap::new(),
        last_wire: 0,
        wanted: 0,
        wide: true,
        touched: 0,
    };
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
                    } else if std::mem::replace(&mut self.touched, self.wanted) == self.wanted {
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

    /// A stream whose requests find no taker is broken, and tells so itself.
    fn create(&mut self, id: u64, requests: &mpsc::UnboundedSender<WatchRequest>) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        self.last_wire += 1;
        watcher.wire = Some(self.last_wire);
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
            for watcher in self.watchers.values_mut().filter(|w| w.wire.is_some() && w.begun.is_none()) {
                watcher.reached(revision);
            }
            return Ok(());
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
