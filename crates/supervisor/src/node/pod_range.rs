//! The range of this node's pods: recorded, or told by the Node once the cluster has given it one.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::Ipv4Net;
use ironkeel_cni::BuiltinNetwork;
use ironkeel_informer::Informer;
use ironkeel_journal::Journal;
use k8s_openapi::api::core::v1::Node;
use tokio_util::sync::CancellationToken;

use super::record::{self, NodeRecord};
use crate::{Error, Instance, host};

/// The range and where it is recorded.
pub(crate) struct PodRange {
    instance: Instance,
    record: NodeRecord,
}

fn range_of(node: &Node) -> Option<Ipv4Net> {
    node.spec.as_ref()?.pod_cidr.as_ref()?.parse::<Ipv4Net>().ok().map(|net| net.trunc())
}

impl PodRange {
    /// Reads what is recorded; another node's directory is refused.
    pub(crate) fn open(instance: &Instance, node_name: &str) -> Result<PodRange, Error> {
        let record = match record::read(instance)? {
            Some(record) if record.node_name != node_name => {
                return Err(Error::OtherNode { dir: instance.dir.clone(), name: record.node_name });
            }
            Some(record) => record,
            None => {
                let fresh = NodeRecord { node_name: node_name.to_owned(), pod_cidr: None };
                record::write(instance, &fresh)?;
                fresh
            }
        };
        Ok(PodRange { instance: instance.clone(), record })
    }

    /// A range that the command line says; it is not asked for then.
    pub(crate) fn given(&mut self, range: Option<Ipv4Net>) -> Result<(), Error> {
        match (range.map(|r| r.trunc()), self.record.pod_cidr) {
            (Some(given), Some(known)) if given != known => Err(self.changed(known, given)),
            (Some(given), None) => self.remember(given),
            _ => Ok(()),
        }
    }

    /// Starts the pod network as soon as there is a range; `None` when `stop` came first. Without a
    /// cluster's range, pods of other nodes see this node's address.
    pub(crate) async fn start_network(
        &mut self,
        nodes: &Informer<Node>,
        journal: &Journal,
        cluster_cidr: Option<Ipv4Net>,
        node_ip: IpAddr,
        stop: &CancellationToken,
    ) -> Result<Option<Arc<BuiltinNetwork>>, Error> {
        let range = match self.record.pod_cidr {
            Some(known) => known,
            None => {
                let told = tokio::select! {
                    told = first_range(nodes) => told,
                    () = stop.cancelled() => None,
                };
                let Some(told) = told else { return Ok(None) };
                self.remember(told)?;
                told
            }
        };
        let config = host::network_config(&self.instance, range, cluster_cidr.unwrap_or(range), node_ip)?;
        Ok(Some(BuiltinNetwork::start(config, journal.clone())?))
    }

    /// Ends with an error when the Node gets another range: pods have addresses of the old one.
    pub(crate) async fn watch(&self, nodes: &Informer<Node>, stop: &CancellationToken) -> Result<(), Error> {
        let mut deltas = nodes.subscribe();
        loop {
            let delta = tokio::select! {
                delta = deltas.recv() => delta,
                () = stop.cancelled() => return Ok(()),
            };
            let Some(delta) = delta else { return Ok(()) };
            let told = delta.object().and_then(|node| range_of(node));
            if let (Some(told), Some(known)) = (told, self.record.pod_cidr)
                && told != known
            {
                return Err(self.changed(known, told));
            }
        }
    }

    fn remember(&mut self, range: Ipv4Net) -> Result<(), Error> {
        self.record.pod_cidr = Some(range);
        record::write(&self.instance, &self.record)
    }

    fn changed(&self, known: Ipv4Net, told: Ipv4Net) -> Error {
        Error::RangeChanged { dir: self.instance.dir.clone(), known, told }
    }
}

async fn first_range(nodes: &Informer<Node>) -> Option<Ipv4Net> {
    let mut deltas = nodes.subscribe();
    while let Some(delta) = deltas.recv().await {
        if let Some(range) = delta.object().and_then(|node| range_of(node)) {
            return Some(range);
        }
    }
    None
}
