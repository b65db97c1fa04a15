//! Names outside the cluster: asked for at the host's resolvers or stub domains, and remembered.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use crate::{Config, Error};

/// Wait for one upstream's answer before the next is asked, in milliseconds.
const UPSTREAM_TIMEOUT_MS: u64 = 2_000;
/// Remembered answers; the whole cache is dropped when it is full.
const CACHE_ENTRIES: usize = 10_000;
/// Answers are remembered at most so long, in seconds.
const MAX_TTL_SECONDS: u32 = 3_600;
/// Refusals without an SOA are remembered so long, in seconds.
const NEGATIVE_TTL_SECONDS: u32 = 5;
const UDP_BYTES: usize = 4_096;

type Key = (Name, RecordType);

/// Asks upstream servers.
pub(crate) struct Forwarder {
    upstreams: Vec<SocketAddr>,
    stubs: Vec<(Name, Vec<SocketAddr>)>,
    cache: Mutex<HashMap<Key, (Instant, Message)>>,
}

impl Forwarder {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let mut stubs = Vec::new();
        for (domain, servers) in &config.stub_domains {
            let mut name = Name::from_str_relaxed(domain).map_err(|_| Error::Domain(domain.clone()))?;
            name.set_fqdn(true);
            stubs.push((name.to_lowercase(), servers.clone()));
        }
        // The most specific stub domain comes first.
        stubs.sort_by_key(|(name, _)| std::cmp::Reverse(name.num_labels()));
        Ok(Forwarder { upstreams: config.upstreams.clone(), stubs, cache: Mutex::new(HashMap::new()) })
    }

    /// The answer of the first upstream that has one; SERVFAIL when none answers, REFUSED when there is none.
    pub(crate) async fn ask(&self, name: &Name, kind: RecordType, original: &Message) -> Message {
        let key = (name.to_lowercase(), kind);
        if let Some(known) = self.remembered(&key) {
            return known;
        }
        let stub = self.stubs.iter().find(|(domain, _)| domain.zone_of(name)).map(|(_, servers)| servers);
        let servers = stub.unwrap_or(&self.upstreams);
        let fail = |code| {
            let mut message = Message::response(0, OpCode::Query);
            message.metadata.response_code = code;
            message
        };
        if servers.is_empty() {
            return fail(ResponseCode::Refused);
        }
        let mut query = Message::query();
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(name.clone(), kind));
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_BYTES as u16);
        if let Some(theirs) = &original.edns {
            edns.set_dnssec_ok(theirs.flags().dnssec_ok);
        }
        query.set_edns(edns);
        let Ok(bytes) = query.to_vec() else { return fail(ResponseCode::FormErr) };
        for server in servers {
            let patience = Duration::from_millis(UPSTREAM_TIMEOUT_MS);
            match tokio::time::timeout(patience, exchange(*server, &bytes, query.metadata.id)).await {
                Ok(Ok(answer)) if answer.metadata.response_code != ResponseCode::ServFail => {
                    self.remember(key, &answer);
                    return answer;
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::debug!(%server, %error, "upstream DNS server"),
                Err(_) => tracing::debug!(%server, "upstream DNS server does not answer"),
            }
        }
        fail(ResponseCode::ServFail)
    }

    fn remembered(&self, key: &Key) -> Option<Message> {
        let cache = self.cache.lock();
        let (until, message) = cache.get(key)?;
        let left = until.checked_duration_since(Instant::now())?.as_secs() as u32;
        let mut message = message.clone();
        for record in message.answers.iter_mut().chain(&mut message.authorities) {
            record.ttl = record.ttl.min(left);
        }
        Some(message)
    }

    fn remember(&self, key: Key, message: &Message) {
        let soa = message.authorities.iter().find_map(|r| match &r.data {
            RData::SOA(soa) => Some(soa.minimum.min(r.ttl)),
            _ => None,
        });
        let ttl =
            message.answers.iter().map(|r| r.ttl).min().or(soa).unwrap_or(NEGATIVE_TTL_SECONDS).min(MAX_TTL_SECONDS);
        if ttl == 0 {
            return;
        }
        let mut cache = self.cache.lock();
        if cache.len() >= CACHE_ENTRIES {
            cache.clear();
        }
        cache.insert(key, (Instant::now() + Duration::from_secs(ttl.into()), message.clone()));
    }
}

async fn exchange(server: SocketAddr, query: &[u8], id: u16) -> std::io::Result<Message> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; UDP_BYTES];
    loop {
        let n = socket.recv(&mut buffer).await?;
        match Message::from_vec(&buffer[..n]) {
            Ok(answer) if answer.metadata.id == id && answer.metadata.truncation => break,
            Ok(answer) if answer.metadata.id == id => return Ok(answer),
            // Not an answer to this query: wait for the one that is.
            _ => {}
        }
    }
    let mut stream = TcpStream::connect(server).await?;
    stream.write_u16(query.len() as u16).await?;
    stream.write_all(query).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    Message::from_vec(&answer).map_err(std::io::Error::other)
}

/// The name servers of the host's resolv.conf, but those at `own` addresses (they would ask us).
pub fn upstreams_of_host(resolv_conf: &str, own: &[IpAddr]) -> Vec<SocketAddr> {
    let servers = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = servers.filter_map(|s| s.trim().split('%').next()?.parse::<IpAddr>().ok());
    addresses.filter(|a| !own.contains(a)).map(|a| SocketAddr::new(a, 53)).collect()
}
