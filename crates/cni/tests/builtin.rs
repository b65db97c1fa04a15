//! The built-in pod network, in network namespaces of the test's own.
#![allow(missing_docs, clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ironkeel_cni::{BuiltinConfig, BuiltinNetwork, PodNetwork, PodNetworkRequest, PortMapping};
use ironkeel_journal::{Entry, Journal};
use ironkeel_netlink::{Socket, in_namespace};

/// A network namespace that lives until the test process ends.
fn pod_namespace() -> PathBuf {
    let (tx, rx) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        tx.send(nix::unistd::gettid()).unwrap();
        std::thread::park();
    });
    format!("/proc/self/task/{}/ns/net", rx.recv().unwrap()).into()
}

/// Runs `f` as a host of its own.
fn as_host(f: impl AsyncFnOnce(&Path) + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let host = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET | nix::sched::CloneFlags::CLONE_FS).unwrap();
        Socket::route().unwrap().set_up("lo").unwrap();
        let dir = tempfile::tempdir().unwrap();
        // Blocking threads of the runtime are born by this thread, and so in its namespace.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(f(dir.path()));
    };
    std::thread::spawn(host).join().unwrap();
}

fn start(dir: &Path) -> (std::sync::Arc<BuiltinNetwork>, Journal) {
    let journal = Journal::open(&dir.join("journal")).unwrap();
    let config = BuiltinConfig {
        tag: "abc123".into(),
        state_dir: dir.join("addresses"),
        pod_cidr: "10.8.0.0/24".parse().unwrap(),
        cluster_cidr: "10.8.0.0/16".parse().unwrap(),
        mtu: 1500,
        table: "ironkeel-abc123".into(),
        shared_dir: dir.join("shared"),
    };
    (BuiltinNetwork::start(config, journal.clone()).unwrap(), journal)
}

async fn attach(network: &std::sync::Arc<BuiltinNetwork>, id: &str, netns: &Path, ports: &[PortMapping]) -> IpAddr {
    let request =
        PodNetworkRequest { sandbox_id: id, namespace: "default", name: id, uid: id, netns, port_mappings: ports };
    network.set_up(request).await.unwrap()[0]
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&address, Duration::from_secs(5))
}

#[test]
fn pods_reach_each_other_the_host_reaches_them_and_host_ports_lead_in() {
    as_host(async |dir| {
        let (network, _) = start(dir);
        let (a, b) = (pod_namespace(), pod_namespace());
        let port = |host_ip: &str, host_port| PortMapping {
            protocol: "TCP".into(),
            container_port: 8080,
            host_port,
            host_ip: host_ip.into(),
        };
        let address_a = attach(&network, "a", &a, &[]).await;
        let address_b = attach(&network, "b", &b, &[port("", 9090), port("127.0.0.1", 9191)]).await;
        assert_eq!(attach(&network, "b", &b, &[]).await, address_b, "the second call answers the same address");
        let server = in_namespace(&b, || TcpListener::bind("0.0.0.0:8080").unwrap()).unwrap();
        let target = SocketAddr::new(address_b, 8080);
        // Pod to pod, with the pod's own address as the source.
        let client = in_namespace(&a, || connect(target)).unwrap().unwrap();
        assert_eq!(server.accept().unwrap().1.ip(), address_a);
        drop(client);
        // Host to pod.
        connect(target).unwrap();
        assert_eq!(server.accept().unwrap().1.ip(), IpAddr::from(network.gateway()));
        // Through host ports: from the host by its address and by loopback, and from another pod.
        connect((network.gateway(), 9090).into()).unwrap();
        server.accept().unwrap();
        connect((Ipv4Addr::LOCALHOST, 9191).into()).unwrap();
        server.accept().unwrap();
        let gateway = network.gateway();
        in_namespace(&a, || connect((gateway, 9090).into())).unwrap().unwrap();
        assert_eq!(server.accept().unwrap().1.ip(), address_a);
        // A pod cannot reach services on the host's loopback.
        let hidden = TcpListener::bind("127.0.0.1:0").unwrap();
        let hidden_port = hidden.local_addr().unwrap().port();
        assert!(in_namespace(&a, || connect((Ipv4Addr::LOCALHOST, hidden_port).into())).unwrap().is_err());
    });
}

#[test]
fn a_restart_keeps_addresses_and_host_ports_and_tear_down_leaves_nothing() {
    as_host(async |dir| {
        let (network, _) = start(dir);
        let pod = pod_namespace();
        let mapping =
            PortMapping { protocol: "TCP".into(), container_port: 80, host_port: 9292, host_ip: String::new() };
        let address = attach(&network, "a", &pod, std::slice::from_ref(&mapping)).await;
        drop(network);
        let (network, journal) = start(dir);
        assert_eq!(attach(&network, "a", &pod, &[mapping]).await, address);
        let server = in_namespace(&pod, || TcpListener::bind("0.0.0.0:80").unwrap()).unwrap();
        connect((network.gateway(), 9292).into()).unwrap();
        server.accept().unwrap();
        network.tear_down("a").await.unwrap();
        network.tear_down("a").await.unwrap();
        let links: Vec<String> = Socket::route().unwrap().links().unwrap().into_iter().map(|l| l.name).collect();
        assert!(links.contains(&"ikabc123".to_owned()));
        assert!(!links.iter().any(|l| l.starts_with("iv")), "{links:?}");
        assert!(connect((network.gateway(), 9292).into()).is_err());
        let left: Vec<Entry> = journal.entries();
        assert_eq!(left.iter().filter(|e| matches!(e, Entry::Link { .. })).count(), 1, "{left:?}");
    });
}

#[test]
fn every_cluster_knows_what_forwarding_was_before_the_first() {
    as_host(async |dir| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let sysctl = Entry::Sysctl { name: "net.ipv4.ip_forward".into(), previous: "0".into() };
        let (_first, journal) = start(dir);
        assert!(journal.entries().contains(&sysctl));
        std::fs::remove_file(dir.join("journal")).unwrap();
        // A second one, with a journal of its own, finds forwarding on.
        let (_second, journal) = start(dir);
        assert!(journal.entries().contains(&sysctl));
    });
}
