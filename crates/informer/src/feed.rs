//! Changes of objects' metadata without a cache of them: for who keeps what it needs itself.
//!
//! A cache of every object in the cluster costs a kilobyte an object; the garbage collector needs a tenth of
//! that. What is kept here is which objects are known, so that a new list tells which of them are gone.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PartialObjectMeta;
use kube::{Api, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::cache::WatchConfig;
use crate::reflector::{self, Sink, Source};

/// What a feed tells.
#[derive(Debug)]
pub enum MetadataChange {
    /// An object as it is now; the same state may be told twice.
    Applied(Box<ObjectMeta>),
    /// The object with this uid is gone.
    Deleted(String),
    /// Sent once: everything that the API server listed has been told.
    Synced,
}

/// Lists and watches the metadata of what `api` reaches, until `shutdown`. `tell` is called in the order of the
/// changes of each object, and must not block.
pub fn follow_metadata<D>(
    api: Api<D>,
    shutdown: &CancellationToken,
    tell: impl Fn(MetadataChange) + Send + Sync + 'static,
) -> MetadataFeed
where
    D: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    D::DynamicType: Clone + Send + Sync,
{
    follow(api, shutdown, HashSet::new(), tell)
}

/// A feed that was started. It goes on when this is dropped.
#[derive(Debug)]
pub struct MetadataFeed {
    stop: CancellationToken,
    /// What it knew last.
    ended: oneshot::Receiver<HashSet<Uid>>,
}

impl MetadataFeed {
    /// Ends it, though not at once.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Ends it, and begins another one of the same objects, in another version for example. What goes while
    /// nobody watches is told by that one.
    pub async fn succeeded_by<D>(
        self,
        api: Api<D>,
        shutdown: &CancellationToken,
        tell: impl Fn(MetadataChange) + Send + Sync + 'static,
    ) -> MetadataFeed
    where
        D: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
        D::DynamicType: Clone + Send + Sync,
    {
        self.stop.cancel();
        // Without a word it ended with the process.
        let known = self.ended.await.unwrap_or_default();
        follow(api, shutdown, known, tell)
    }
}

fn follow<D>(
    api: Api<D>,
    shutdown: &CancellationToken,
    uids: HashSet<Uid>,
    tell: impl Fn(MetadataChange) + Send + Sync + 'static,
) -> MetadataFeed
where
    D: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    D::DynamicType: Clone + Send + Sync,
{
    let (end, ended) = oneshot::channel();
    let known = Mutex::new(Known { uids, synced: false, end: Some(end) });
    let feed = Arc::new(Feed { known, tell });
    let stop = shutdown.child_token();
    tokio::spawn(reflector::run(Source::metadata(api), WatchConfig::default(), feed, stop.clone()));
    MetadataFeed { stop, ended }
}

/// A uid in sixteen bytes, where it is one of the API server's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Uid {
    Random(u128),
    Other(Box<str>),
}

impl Uid {
    fn of(uid: &str) -> Uid {
        let mut digits = 0;
        let mut number: u128 = 0;
        for (at, c) in uid.bytes().enumerate() {
            match ((c as char).to_digit(16), c) {
                (_, b'-') if matches!(at, 8 | 13 | 18 | 23) => {}
                // Upper case would not come back as it was.
                (Some(digit), b'0'..=b'9' | b'a'..=b'f') => {
                    number = number << 4 | u128::from(digit);
                    digits += 1;
                }
                _ => return Uid::Other(uid.into()),
            }
        }
        if digits == 32 && uid.len() == 36 { Uid::Random(number) } else { Uid::Other(uid.into()) }
    }

    fn text(&self) -> String {
        match self {
            Uid::Random(number) => {
                let digits = format!("{number:032x}");
                let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| digits.get(part).unwrap_or_default());
                parts.join("-")
            }
            Uid::Other(text) => text.to_string(),
        }
    }
}

struct Feed<F> {
    known: Mutex<Known>,
    tell: F,
}

struct Known {
    uids: HashSet<Uid>,
    synced: bool,
    end: Option<oneshot::Sender<HashSet<Uid>>>,
}

impl<D, F> Sink<PartialObjectMeta<D>> for Feed<F>
where
    D: Resource,
    F: Fn(MetadataChange) + Send + Sync + 'static,
{
    type List = HashSet<Uid>;

    fn page(&self, list: &mut Self::List, page: Vec<PartialObjectMeta<D>>) {
        list.extend(page.iter().map(|object| Uid::of(object.metadata.uid.as_deref().unwrap_or_default())));
        page.into_iter().for_each(|object| self.apply(object));
    }

    fn listed(&self, list: Self::List) {
        let mut known = self.known.lock();
        for gone in known.uids.difference(&list) {
            (self.tell)(MetadataChange::Deleted(gone.text()));
        }
        known.uids = list;
        if !std::mem::replace(&mut known.synced, true) {
            (self.tell)(MetadataChange::Synced);
        }
    }

    fn apply(&self, object: PartialObjectMeta<D>) {
        self.known.lock().uids.insert(Uid::of(object.metadata.uid.as_deref().unwrap_or_default()));
        (self.tell)(MetadataChange::Applied(Box::new(object.metadata)));
    }

    fn delete(&self, object: PartialObjectMeta<D>) {
        let uid = object.metadata.uid.unwrap_or_default();
        self.known.lock().uids.remove(&Uid::of(&uid));
        (self.tell)(MetadataChange::Deleted(uid));
    }

    fn close(&self) {
        let mut known = self.known.lock();
        if let Some(end) = known.end.take() {
            // Mostly nobody goes on from here.
            let _ = end.send(std::mem::take(&mut known.uids));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_comes_back_as_it_was() {
        let random = "0e7b8d3c-00aa-4b1c-9d2e-0f1e2d3c4b5a";
        assert!(matches!(Uid::of(random), Uid::Random(_)));
        for uid in
            [random, "0E7B8D3C-00aa-4b1c-9d2e-0f1e2d3c4b5a", "0e7b8d3c00aa4b1c9d2e0f1e2d3c4b5a", "owner", "", "é"]
        {
            assert_eq!(Uid::of(uid).text(), uid);
        }
    }
}
