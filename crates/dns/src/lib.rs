//! Cluster DNS: names of Services and pods from the API, everything else from the host's resolvers.
//!
//! Follows the Kubernetes DNS specification 1.1.0. `records` answers from the caches, `forward` asks
//! upstream servers and remembers what they said, `server` speaks UDP and TCP. Not here: the Service
//! and its endpoints that lead pods here (the supervisor makes them).

mod forward;
mod records;
mod server;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use ironkeel_informer::{Informer, WatchConfig};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::PartialObjectMeta;
use tokio_util::sync::CancellationToken;

pub use forward::upstreams_of_host;
pub use server::Bound;

use records::{Answer, Records};

/// Longest chain of CNAMEs that is followed.
const MAX_CNAMES: usize = 8;

/// Settings of cluster DNS.
#[derive(Clone, Debug)]
pub struct Config {
    /// `cluster.local`.
    pub cluster_domain: String,
    /// Where names outside the cluster are asked for; empty refuses them.
    pub upstreams: Vec<SocketAddr>,
    /// Stub domains: names at or below the first are asked for at the second.
    pub stub_domains: Vec<(String, Vec<SocketAddr>)>,
}

/// Why cluster DNS could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket could not be opened.
    #[error("cluster DNS cannot listen on {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// The system's words.
        source: std::io::Error,
    },
    /// Not a domain name.
    #[error("{0:?} is not a domain name")]
    Domain(String),
}

/// Serves `sockets` until `shutdown`; answers from the moment that its caches are filled, and
/// says so through `ready`.
pub fn run(
    config: Config,
    sockets: Vec<Bound>,
    client: kube::Client,
    ready: Box<dyn FnOnce() + Send>,
    shutdown: CancellationToken,
) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> {
    // Boxed, so that the code of it all is made in this crate, not once more where it is awaited.
    Box::pin(answer(config, sockets, client, ready, shutdown))
}

async fn answer(
    config: Config,
    sockets: Vec<Bound>,
    client: kube::Client,
    ready: Box<dyn FnOnce() + Send>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let services = Informer::start(Api::<Service>::all(client.clone()), WatchConfig::default(), shutdown.clone());
    let slices = Informer::start(Api::<EndpointSlice>::all(client.clone()), WatchConfig::default(), shutdown.clone());
    let namespaces: Informer<PartialObjectMeta<Namespace>> =
        Informer::start_metadata(Api::all(client), WatchConfig::default(), shutdown.clone());
    let records = Records::new(&config.cluster_domain, services.clone(), slices.clone(), namespaces.clone())?;
    let resolver = Arc::new(Resolver { records, forward: forward::Forwarder::new(&config)? });
    tokio::select! {
        () = async { services.synced().await; slices.synced().await; namespaces.synced().await } => ready(),
        () = shutdown.cancelled() => return Ok(()),
    }
    server::serve(sockets, resolver, shutdown).await;
    Ok(())
}

/// Answers one query.
struct Resolver {
    records: Records,
    forward: forward::Forwarder,
}

impl Resolver {
    /// The answer to the bytes of a query; `None` for bytes that deserve none.
    async fn resolve(&self, bytes: &[u8]) -> Option<Message> {
        let query = match Message::from_vec(bytes) {
            Ok(query) if query.metadata.message_type == MessageType::Query => query,
            Ok(_) => return None,
            Err(_) => {
                let id = bytes.get(..2).map(|b| u16::from_be_bytes([b[0], b[1]]))?;
                return Some(Message::error_msg(id, OpCode::Query, ResponseCode::FormErr));
            }
        };
        let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
        reply.metadata.recursion_desired = query.metadata.recursion_desired;
        reply.metadata.recursion_available = true;
        reply.queries.clone_from(&query.queries);
        if let Some(edns) = &query.edns {
            let mut own = hickory_proto::op::Edns::new();
            own.set_max_payload(edns.max_payload().clamp(512, server::MAX_UDP_BYTES as u16));
            reply.edns = Some(own);
        }
        let [question] = query.queries.as_slice() else {
            reply.metadata.response_code = ResponseCode::FormErr;
            return Some(reply);
        };
        if query.metadata.op_code != OpCode::Query {
            reply.metadata.response_code = ResponseCode::NotImp;
            return Some(reply);
        }
        self.answer(&mut reply, question.name().clone(), question.query_type(), &query).await;
        Some(reply)
    }

    async fn answer(&self, reply: &mut Message, mut name: Name, kind: RecordType, query: &Message) {
        for _ in 0..MAX_CNAMES {
            match self.records.lookup(&name, kind) {
                Answer::Records(records, additional) => {
                    reply.metadata.authoritative = true;
                    let target = records.iter().find_map(|r| match &r.data {
                        RData::CNAME(target) if kind != RecordType::CNAME => Some(target.0.clone()),
                        _ => None,
                    });
                    reply.answers.extend(records);
                    reply.additionals.extend(additional);
                    match target {
                        Some(next) => name = next,
                        None => return,
                    }
                }
                Answer::Empty(soa) => {
                    reply.metadata.authoritative = true;
                    reply.authorities.push(soa);
                    return;
                }
                Answer::NoName(soa) => {
                    reply.metadata.authoritative = true;
                    reply.metadata.response_code = ResponseCode::NXDomain;
                    reply.authorities.push(soa);
                    return;
                }
                Answer::Elsewhere => {
                    let elsewhere = self.forward.ask(&name, kind, query).await;
                    reply.metadata.response_code = elsewhere.metadata.response_code;
                    reply.answers.extend(elsewhere.answers);
                    reply.authorities.extend(elsewhere.authorities);
                    return;
                }
            }
        }
        reply.metadata.response_code = ResponseCode::ServFail;
    }
}
