//! Routes to the pods of other nodes: each Node's `spec.podCIDR` by way of its InternalIP.
//!
//! A next hop must be on a network of this host; a node that is further away is told in the log and
//! left without a route. Every route is in the journal before it is made, so that a route whose node
//! went while nobody looked is found and removed, and `reset` removes all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use ironkeel_informer::{Informer, WatchConfig};
use ironkeel_journal::{Entry, Journal};
use ironkeel_netlink::Socket;
use ironkeel_netlink::route::Route;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use tokio_util::sync::CancellationToken;

use crate::PodNetworkError;

/// How often the kernel's routes are compared with the wanted ones without a change of any Node: a
/// link that went down took its routes along.
const RESYNC: Duration = Duration::from_secs(30);
/// Pause after the kernel refused.
const RETRY: Duration = Duration::from_secs(1);

/// Settings of [`follow_nodes`].
#[derive(Clone, Debug)]
pub struct NodeRoutesConfig {
    /// This node; it needs no route to itself.
    pub node_name: String,
    /// Where routes are recorded.
    pub journal: Journal,
}

/// Keeps routes to every other node's pods until `shutdown`. They stay afterwards, so that connections
/// outlive a restart.
///
/// # Errors
/// The blocking pool is gone.
pub fn follow_nodes(
    config: NodeRoutesConfig,
    client: kube::Client,
    shutdown: CancellationToken,
) -> Pin<Box<dyn Future<Output = Result<(), PodNetworkError>> + Send>> {
    // Boxed, so that the code of it all is made in this crate, not once more where it is awaited.
    Box::pin(follow(config, client, shutdown))
}

async fn follow(
    config: NodeRoutesConfig,
    client: kube::Client,
    shutdown: CancellationToken,
) -> Result<(), PodNetworkError> {
    let nodes = Informer::start(Api::<Node>::all(client), WatchConfig::default(), shutdown.clone());
    let mut deltas = nodes.subscribe();
    tokio::select! {
        () = nodes.synced() => {}
        () = shutdown.cancelled() => return Ok(()),
    }
    let mut unreachable = BTreeSet::new();
    loop {
        let wanted = wanted(&nodes.list(), &config.node_name);
        let (journal, known) = (config.journal.clone(), std::mem::take(&mut unreachable));
        let work = tokio::task::spawn_blocking(move || (reconcile(&wanted, &journal, &known), known));
        let lost =
            |e: tokio::task::JoinError| PodNetworkError::Host { step: "node routes".into(), reason: e.to_string() };
        let wait = match work.await.map_err(lost)? {
            (Ok(now), _) => {
                unreachable = now;
                RESYNC
            }
            (Err(error), known) => {
                tracing::warn!(%error, "routes to other nodes; trying again");
                unreachable = known;
                RETRY
            }
        };
        tokio::select! {
            delta = deltas.recv() => {
                if delta.is_none() {
                    return Ok(());
                }
                while deltas.try_recv().is_ok() {}
            }
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

/// Destination and next hop of every other node that has both.
fn wanted(nodes: &[Arc<Node>], own: &str) -> BTreeMap<Ipv4Net, Ipv4Addr> {
    let others = nodes.iter().filter(|n| n.metadata.name.as_deref() != Some(own));
    others
        .filter_map(|node| {
            let cidr: Ipv4Net = node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok()?;
            let addresses = node.status.as_ref()?.addresses.as_ref()?;
            let internal = addresses.iter().filter(|a| a.type_ == "InternalIP").find_map(|a| a.address.parse().ok())?;
            Some((cidr.trunc(), internal))
        })
        .collect()
}

fn entry(destination: Ipv4Net, gateway: Ipv4Addr) -> Entry {
    Entry::Route { destination: destination.to_string(), gateway: gateway.to_string() }
}

/// Makes the kernel's routes the wanted ones; answers the next hops that are on no network of this host,
/// of which those in `known` were told before.
fn reconcile(
    wanted: &BTreeMap<Ipv4Net, Ipv4Addr>,
    journal: &Journal,
    known: &BTreeSet<Ipv4Addr>,
) -> Result<BTreeSet<Ipv4Addr>, PodNetworkError> {
    let mut socket = Socket::route()?;
    let addresses = socket.addresses()?;
    let routes = socket.routes()?;
    let existing = |destination: Ipv4Net, gateway: Ipv4Addr| {
        let same = |r: &&Route| r.destination == IpNet::V4(destination) && r.gateway == Some(gateway.into());
        routes.iter().find(same)
    };
    for old in journal.entries() {
        let Entry::Route { destination, gateway } = &old else { continue };
        let parsed: Option<(Ipv4Net, Ipv4Addr)> = destination.parse().ok().zip(gateway.parse().ok());
        let Some((destination, gateway)) = parsed else { continue };
        if wanted.get(&destination) == Some(&gateway) {
            continue;
        }
        if let Some(route) = existing(destination, gateway) {
            socket.delete_route(route)?;
        }
        journal.strike(&old)?;
    }
    let mut unreachable = BTreeSet::new();
    for (destination, gateway) in wanted {
        // Another cluster of this host: its pods are reached without a next hop.
        if addresses.iter().any(|(_, net)| net.addr() == IpAddr::V4(*gateway)) {
            continue;
        }
        let near = |(_, net): &&(u32, IpNet)| net.prefix_len() < 32 && net.contains(&IpAddr::V4(*gateway));
        let Some((link, _)) = addresses.iter().find(near) else {
            if !known.contains(gateway) {
                tracing::warn!(
                    node_ip = %gateway, pods = %destination,
                    "this node is on no network of this host: its pods cannot be reached from here. \
                     Put both hosts on one network; tunnels between networks are not there yet"
                );
            }
            unreachable.insert(*gateway);
            continue;
        };
        if existing(*destination, *gateway).is_none() {
            journal.record(entry(*destination, *gateway))?;
            let (destination, gateway) = (IpNet::V4(*destination), Some(IpAddr::V4(*gateway)));
            socket.add_route(&Route { destination, gateway, link: *link, source: None })?;
        }
    }
    Ok(unreachable)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn node(name: &str, cidr: &str, address: &str) -> Arc<Node> {
        let value = serde_json::json!({
            "metadata": { "name": name }, "spec": { "podCIDR": cidr },
            "status": { "addresses": [
                { "type": "Hostname", "address": name }, { "type": "InternalIP", "address": address },
            ] },
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn every_other_node_with_a_range_and_an_address_is_wanted() {
        let nodes = [
            node("own", "10.1.0.0/24", "192.0.2.1"),
            node("b", "10.1.1.0/24", "192.0.2.2"),
            node("no-range", "", "192.0.2.3"),
            node("six", "fd00::/64", "192.0.2.4"),
        ];
        let found: Vec<_> = wanted(&nodes, "own").into_iter().map(|(d, g)| format!("{d} via {g}")).collect();
        assert_eq!(found, ["10.1.1.0/24 via 192.0.2.2"]);
    }

    #[test]
    fn routes_come_move_and_go_with_their_nodes_and_foreign_ones_stay() {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(&dir.path().join("journal")).unwrap();
        let work = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let mut socket = Socket::route().unwrap();
            socket.create_bridge("uplink").unwrap();
            socket.set_up("uplink").unwrap();
            socket.add_address("uplink", "192.0.2.1/24".parse().unwrap()).unwrap();
            let link = socket.link("uplink").unwrap().unwrap().index;
            let foreign = Route {
                destination: "10.9.0.0/24".parse().unwrap(),
                gateway: Some([192, 0, 2, 9].into()),
                link,
                source: None,
            };
            socket.add_route(&foreign).unwrap();
            let mut check = |pairs: &[(&str, &str)], far: usize, expected: &[&str]| {
                let wanted = pairs.iter().map(|(d, g)| (d.parse().unwrap(), g.parse().unwrap())).collect();
                assert_eq!(reconcile(&wanted, &journal, &BTreeSet::new()).unwrap().len(), far, "{pairs:?}");
                let routes = socket.routes().unwrap();
                let through = routes.iter().filter_map(|r| Some(format!("{} {}", r.destination, r.gateway?)));
                let mut found: Vec<_> = through.collect();
                found.sort();
                assert_eq!(found, [expected, &["10.9.0.0/24 192.0.2.9"]].concat(), "{pairs:?}");
                assert_eq!(journal.entries().len(), expected.len(), "{pairs:?}");
            };
            check(&[("10.1.1.0/24", "192.0.2.2")], 0, &["10.1.1.0/24 192.0.2.2"]);
            check(&[("10.1.1.0/24", "192.0.2.2")], 0, &["10.1.1.0/24 192.0.2.2"]);
            check(&[("10.1.1.0/24", "192.0.2.3")], 0, &["10.1.1.0/24 192.0.2.3"]);
            check(&[("10.1.1.0/24", "192.0.2.3"), ("10.1.2.0/24", "198.51.100.1")], 1, &["10.1.1.0/24 192.0.2.3"]);
            check(&[], 0, &[]);
        });
        work.join().unwrap();
    }
}
