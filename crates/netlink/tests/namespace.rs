//! Links, routes and nftables in network namespaces of the test's own.
#![allow(missing_docs, clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use ironkeel_netlink::nft::{
    ChainType, Compare, Element, ElementData, Expr, Family, Hook, Load, MapData, Nat, Reg, SetSpec, Transaction,
    Verdict, key_of, types,
};
use ironkeel_netlink::route::{Route, VethPeer};
use ironkeel_netlink::{Socket, in_namespace};

/// Runs `f` in a fresh network namespace; answers false (and says so) without root.
fn fresh(f: impl FnOnce() + Send + 'static) -> bool {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root");
        return false;
    }
    let run = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        Socket::route().unwrap().set_up("lo").unwrap();
        f();
    };
    std::thread::spawn(run).join().unwrap();
    true
}

/// A second namespace that lives as long as the returned thread is parked.
fn other_namespace() -> std::path::PathBuf {
    let (tx, rx) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        tx.send(nix::unistd::gettid()).unwrap();
        std::thread::park();
    });
    let tid = rx.recv().unwrap();
    format!("/proc/self/task/{tid}/ns/net").into()
}

const POD: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 5);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

/// Host side `veth0` with a route to the pod; pod side `eth0` with a default route.
fn connect(netns: &Path) {
    let mut host = Socket::route().unwrap();
    host.create_bridge("anchor0").unwrap();
    host.set_up("anchor0").unwrap();
    host.add_address("anchor0", format!("{GATEWAY}/32").parse().unwrap()).unwrap();
    let file = std::fs::File::open(netns).unwrap();
    host.create_veth("veth0", VethPeer { name: "eth0", netns: Some(file.as_raw_fd()) }, 1450).unwrap();
    host.set_up("veth0").unwrap();
    let link = host.link("veth0").unwrap().unwrap();
    assert_eq!((link.kind.as_str(), link.mtu), ("veth", 1450));
    let to_pod = Route {
        destination: format!("{POD}/32").parse().unwrap(),
        gateway: None,
        link: link.index,
        source: Some(GATEWAY.into()),
    };
    host.add_route(&to_pod).unwrap();
    host.add_route(&to_pod).unwrap();
    assert!(host.routes().unwrap().contains(&to_pod));
    let mut pod = Socket::route_in(netns).unwrap();
    pod.set_up("lo").unwrap();
    pod.set_up("eth0").unwrap();
    pod.add_address("eth0", format!("{POD}/32").parse().unwrap()).unwrap();
    let eth0 = pod.link("eth0").unwrap().unwrap().index;
    let gateway: IpAddr = GATEWAY.into();
    pod.add_route(&Route {
        destination: format!("{GATEWAY}/32").parse().unwrap(),
        gateway: None,
        link: eth0,
        source: None,
    })
    .unwrap();
    pod.add_route(&Route {
        destination: "0.0.0.0/0".parse().unwrap(),
        gateway: Some(gateway),
        link: eth0,
        source: None,
    })
    .unwrap();
}

#[test]
fn a_verdict_map_sends_a_service_address_to_its_endpoint() {
    fresh(|| {
        let netns = other_namespace();
        connect(&netns);
        let server = in_namespace(&netns, || TcpListener::bind((POD, 8080)).unwrap()).unwrap();
        let service = Ipv4Addr::new(10, 99, 0, 10);
        let mut nft = Socket::netfilter().unwrap();
        let mut t = Transaction::new(Family::Inet, "trial");
        let services = SetSpec {
            key: &[types::IPV4, types::PROTO, types::PORT],
            data: Some(MapData::Verdict),
            interval: false,
            timeout_ms: None,
        };
        let endpoints = SetSpec {
            key: &[types::MARK, types::IPV4, types::PORT],
            data: Some(MapData::Values(&[types::IPV4, types::PORT])),
            interval: false,
            timeout_ms: None,
        };
        t.create_table()
            .create_set("services", &services)
            .create_set("endpoints", &endpoints)
            .create_chain("lb-1")
            .create_base_chain("output", ChainType::Nat, Hook::Output, -100)
            .add_rule(
                "output",
                &[
                    Expr::Load(Load::NfProto, Reg(0)),
                    Expr::Compare(Reg(0), Compare::Eq, vec![2]),
                    Expr::Load(Load::Ip4Destination, Reg(0)),
                    Expr::Load(Load::L4Proto, Reg(1)),
                    Expr::Load(Load::DestinationPort, Reg(2)),
                    Expr::VerdictMap("services".into(), Reg(0)),
                ],
            )
            .add_rule(
                "lb-1",
                &[
                    Expr::Load(Load::Random(1), Reg(0)),
                    Expr::Load(Load::Ip4Destination, Reg(1)),
                    Expr::Load(Load::DestinationPort, Reg(2)),
                    Expr::Map("endpoints".into(), Reg(0), Reg(4)),
                    Expr::Translate(Nat::Destination, 2, Reg(4), Some(Reg(5))),
                ],
            )
            .add_elements(
                "services",
                &[Element {
                    key: key_of(&[&service.octets(), &[6], &80u16.to_be_bytes()]),
                    data: Some(ElementData::Verdict(Verdict::Goto("lb-1".into()))),
                    end: false,
                }],
            )
            .add_elements(
                "endpoints",
                &[Element {
                    key: key_of(&[&0u32.to_ne_bytes(), &service.octets(), &80u16.to_be_bytes()]),
                    data: Some(ElementData::Value(key_of(&[&POD.octets(), &8080u16.to_be_bytes()]))),
                    end: false,
                }],
            );
        t.commit(&mut nft).unwrap();
        // A route for the service address, so that the kernel gets as far as the output hook.
        let mut host = Socket::route().unwrap();
        let anchor = host.link("anchor0").unwrap().unwrap().index;
        host.add_route(&Route {
            destination: "10.99.0.0/16".parse().unwrap(),
            gateway: None,
            link: anchor,
            source: Some(GATEWAY.into()),
        })
        .unwrap();
        let client =
            TcpStream::connect_timeout(&SocketAddr::from((service, 80)), std::time::Duration::from_secs(5)).unwrap();
        let (accepted, peer) = server.accept().unwrap();
        assert_eq!(accepted.local_addr().unwrap(), SocketAddr::from((POD, 8080)));
        assert_eq!(peer, client.local_addr().unwrap());
        assert_eq!(nft.set_keys(Family::Inet, "trial", "services").unwrap().len(), 1);
        assert!(nft.delete_table(Family::Inet, "trial").unwrap());
        assert!(!nft.delete_table(Family::Inet, "trial").unwrap());
    });
}

#[test]
fn a_transaction_is_applied_whole_or_not_at_all_and_names_what_failed() {
    fresh(|| {
        let mut nft = Socket::netfilter().unwrap();
        let mut t = Transaction::new(Family::Inet, "trial");
        t.create_table().create_chain("good").delete_chain("absent");
        let error = t.commit(&mut nft).unwrap_err();
        assert_eq!(error.errno(), Some(nix::libc::ENOENT));
        assert!(error.to_string().contains("deleting chain absent"), "{error}");
        assert!(nft.tables(Family::Inet).unwrap().is_empty());
    });
}

#[test]
fn ten_thousand_elements_fit_in_one_transaction() {
    fresh(|| {
        let mut nft = Socket::netfilter().unwrap();
        let spec = SetSpec { key: &[types::IPV4, types::PORT], data: None, interval: false, timeout_ms: None };
        let elements: Vec<Element> = (0..10_000u32)
            .map(|i| Element {
                key: key_of(&[&(0x0a00_0000 + i).to_be_bytes(), &80u16.to_be_bytes()]),
                data: None,
                end: false,
            })
            .collect();
        let mut t = Transaction::new(Family::Inet, "trial");
        t.create_table().create_set("many", &spec).add_elements("many", &elements);
        t.commit(&mut nft).unwrap();
        assert_eq!(nft.set_keys(Family::Inet, "trial", "many").unwrap().len(), 10_000);
    });
}
