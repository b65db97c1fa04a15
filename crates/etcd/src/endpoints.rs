//! The members: who answers, who is asked next, and how a call goes from one to another.
//!
//! Calls go round the members in turn. One that failed is left alone for a while that doubles with each
//! failure; when all failed lately, the one whose time comes first is asked. A read goes on to the next
//! member whatever happened; a write only when it cannot have been done.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::connect::{Address, channel, tls};
use crate::error::{Failure, Request, failure};
use crate::{Config, EtcdError};

/// How long a member that failed once is left alone, in milliseconds.
const BACKOFF_FIRST_MS: u64 = 50;
/// How long at most, in milliseconds.
const BACKOFF_MOST_MS: u64 = 5_000;
/// A member that has not answered by then is given up, in milliseconds; longer than etcd's own time
/// limit of a request (7 s), so that its words are heard.
const ATTEMPT_TIMEOUT_MS: u64 = 8_000;
/// The same for lists of everything, in milliseconds.
const LONG_ATTEMPT_TIMEOUT_MS: u64 = 60_000;

/// Whether a call may be made twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It changes nothing, or the same twice.
    Harmless,
    /// The same, and its answer may be large.
    HarmlessLong,
    /// Only if it surely was not done.
    OnlyUndone,
}

#[derive(Debug, Default)]
struct Health {
    failures: u32,
    leave_until: Option<Instant>,
}

/// One endpoint.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) address: String,
    pub(crate) channel: Channel,
    health: Mutex<Health>,
}

impl Member {
    pub(crate) fn answered(&self) {
        *self.health.lock() = Health::default();
    }

    pub(crate) fn failed(&self) {
        let mut health = self.health.lock();
        let most = (BACKOFF_FIRST_MS << health.failures.min(10)).min(BACKOFF_MOST_MS);
        let jittered = rand::rng().random_range(most / 2..=most);
        health.failures += 1;
        health.leave_until = Some(Instant::now() + Duration::from_millis(jittered));
    }
}

/// All members.
#[derive(Debug)]
pub(crate) struct Endpoints {
    members: Vec<Member>,
    next: AtomicUsize,
    patience: Duration,
}

impl Endpoints {
    pub(crate) fn new(config: &Config) -> Result<Endpoints, EtcdError> {
        if config.endpoints.is_empty() {
            return Err(EtcdError::NoEndpoints);
        }
        let addresses: Vec<Address> = config.endpoints.iter().map(|e| Address::parse(e)).collect::<Result<_, _>>()?;
        let tls = tls(config, &addresses)?;
        let mut members = Vec::new();
        for (address, endpoint) in addresses.into_iter().zip(&config.endpoints) {
            let channel = channel(address, tls.clone())?;
            members.push(Member { address: endpoint.clone(), channel, health: Mutex::default() });
        }
        // Servers that start together do not all begin with the same member.
        let first = rand::rng().random_range(0..members.len());
        Ok(Endpoints { members, next: AtomicUsize::new(first), patience: config.call_patience })
    }

    /// Who is asked next, and when.
    pub(crate) fn pick(&self) -> (&Member, Option<Instant>) {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut soonest: Option<(&Member, Instant)> = None;
        for offset in 0..self.members.len() {
            let member = &self.members[first.wrapping_add(offset) % self.members.len()];
            match member.health.lock().leave_until {
                Some(until) if until > now => {
                    if soonest.is_none_or(|(_, at)| until < at) {
                        soonest = Some((member, until));
                    }
                }
                _ => return (member, None),
            }
        }
        match soonest {
            Some((member, at)) => (member, Some(at)),
            None => (&self.members[0], None),
        }
    }

    /// Makes a call, at one member after the other until one answers or patience ends.
    pub(crate) async fn call<T, F, A>(&self, repeat: Repeat, request: Request, attempt: F) -> Result<T, Failure>
    where
        F: Fn(Channel) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.patience;
        let long = repeat == Repeat::HarmlessLong;
        let limit = Duration::from_millis(if long { LONG_ATTEMPT_TIMEOUT_MS } else { ATTEMPT_TIMEOUT_MS });
        loop {
            let (member, at) = self.pick();
            if let Some(at) = at {
                tokio::time::sleep_until(at.min(deadline)).await;
            }
            let failed = match tokio::time::timeout(limit, attempt(member.channel.clone())).await {
                Ok(Ok(response)) => {
                    member.answered();
                    return Ok(response.into_inner());
                }
                Ok(Err(status)) => failure(&member.address, &status, request),
                Err(_) => Failure::Unknown(format!("etcd at {} does not answer", member.address)),
            };
            if let Failure::Refused(_) = failed {
                member.answered();
                return Err(failed);
            }
            member.failed();
            let undone = matches!(failed, Failure::NotSent(_) | Failure::Busy(_));
            if !(undone || repeat != Repeat::OnlyUndone) || Instant::now() >= deadline {
                return Err(failed);
            }
            tracing::debug!(?failed, "another etcd endpoint is asked");
        }
    }
}
