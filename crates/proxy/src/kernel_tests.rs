//! The rules in a real kernel: Services built from API objects, real connections.
#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ironkeel_netlink::Socket;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;

use crate::model::rules_of;
use crate::{ServiceTable, TableConfig, service_key};

const NODE: &str = "here";

/// A host of its own: loopback up, an anchor link with a few addresses that stand for pods.
fn as_host(f: impl FnOnce(ServiceTable) + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let host = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let mut socket = Socket::route().unwrap();
        socket.set_up("lo").unwrap();
        socket.create_bridge("anchor0").unwrap();
        socket.set_up("anchor0").unwrap();
        for last in 1..6 {
            socket.add_address("anchor0", format!("10.7.0.{last}/32").parse().unwrap()).unwrap();
        }
        f(ServiceTable::new(TableConfig {
            table: "ironkeel-proxy".into(),
            service_cidr: Some("10.96.0.0/16".parse().unwrap()),
            cluster_cidr: Some("10.7.0.0/16".parse().unwrap()),
            anchor_link: Some("anchor0".into()),
        }));
    };
    std::thread::spawn(host).join().unwrap();
}

fn service(spec: serde_json::Value) -> Service {
    serde_json::from_value(json!({ "metadata": { "name": "web", "namespace": "default" }, "spec": spec })).unwrap()
}

fn slice(port: u16, protocol: &str, endpoints: &[(&str, serde_json::Value)]) -> Arc<EndpointSlice> {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(address, conditions)| json!({ "addresses": [address], "nodeName": NODE, "conditions": conditions }))
        .collect();
    Arc::new(
        serde_json::from_value(json!({
            "metadata": { "name": "web-1", "namespace": "default" },
            "addressType": "IPv4",
            "ports": [{ "name": "", "port": port, "protocol": protocol }],
            "endpoints": endpoints,
        }))
        .unwrap(),
    )
}

fn apply(table: &mut ServiceTable, first: bool, service: &Service, slices: &[Arc<EndpointSlice>]) {
    let wanted = vec![(service_key(service), Some(rules_of(service, slices, NODE)))];
    if first { table.replace_all(wanted) } else { table.update(wanted) }.unwrap();
}

fn connect(address: &str) -> std::io::Result<SocketAddr> {
    TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(3))?.peer_addr()
}

fn listen(address: &str) -> TcpListener {
    let listener = TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

fn accepted(listener: &TcpListener) -> usize {
    std::iter::from_fn(|| listener.accept().ok()).count()
}

#[test]
fn connections_spread_over_ready_endpoints_and_follow_changes() {
    as_host(|mut table| {
        let (a, b) = (listen("10.7.0.2:8080"), listen("10.7.0.3:8080"));
        let web = service(
            json!({ "clusterIP": "10.96.0.7", "ports": [{ "port": 80, "nodePort": 30080 }], "type": "NodePort" }),
        );
        let ready = json!({ "ready": true });
        apply(
            &mut table,
            true,
            &web,
            &[slice(8080, "TCP", &[("10.7.0.2", ready.clone()), ("10.7.0.3", ready.clone())])],
        );
        for _ in 0..60 {
            connect("10.96.0.7:80").unwrap();
        }
        let (on_a, on_b) = (accepted(&a), accepted(&b));
        assert_eq!(on_a + on_b, 60);
        assert!(on_a > 5 && on_b > 5, "{on_a} and {on_b}");
        // One endpoint goes; all connections follow. The node port leads there too.
        let terminating = json!({ "ready": false, "serving": true, "terminating": true });
        apply(
            &mut table,
            false,
            &web,
            &[slice(8080, "TCP", &[("10.7.0.2", ready), ("10.7.0.3", terminating.clone())])],
        );
        for _ in 0..20 {
            connect("10.96.0.7:80").unwrap();
            connect("10.7.0.1:30080").unwrap();
        }
        assert_eq!((accepted(&a), accepted(&b)), (40, 0));
        // Nothing is ready: the one that still serves is used (KEP-1669).
        apply(&mut table, false, &web, &[slice(8080, "TCP", &[("10.7.0.3", terminating)])]);
        connect("10.96.0.7:80").unwrap();
        assert_eq!(accepted(&b), 1);
        // No endpoint, and no such port: refused at once.
        apply(&mut table, false, &web, &[]);
        for target in ["10.96.0.7:80", "10.96.0.7:81", "10.96.99.99:80"] {
            let start = Instant::now();
            assert_eq!(connect(target).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused, "{target}");
            assert!(start.elapsed() < Duration::from_secs(2));
        }
        // The Service goes, comes back in a new process, and works again.
        table.update(vec![(service_key(&web), None)]).unwrap();
        let config = TableConfig {
            table: "ironkeel-proxy".into(),
            service_cidr: Some("10.96.0.0/16".parse().unwrap()),
            cluster_cidr: Some("10.7.0.0/16".parse().unwrap()),
            anchor_link: Some("anchor0".into()),
        };
        let mut again = ServiceTable::new(config);
        apply(&mut again, true, &web, &[slice(8080, "TCP", &[("10.7.0.2", json!({}))])]);
        connect("10.96.0.7:80").unwrap();
        assert_eq!(accepted(&a), 1);
    });
}

#[test]
fn client_affinity_holds_until_the_endpoint_goes() {
    as_host(|mut table| {
        let listeners: Vec<TcpListener> = (2..6).map(|i| listen(&format!("10.7.0.{i}:8080"))).collect();
        let web = service(json!({
            "clusterIP": "10.96.0.8", "ports": [{ "port": 80 }], "sessionAffinity": "ClientIP",
        }));
        let ready = |last: u8| (format!("10.7.0.{last}"), json!({ "ready": true }));
        let of = |lasts: &[u8]| {
            let endpoints: Vec<_> = lasts.iter().map(|l| ready(*l)).collect();
            let endpoints: Vec<_> = endpoints.iter().map(|(a, c)| (a.as_str(), c.clone())).collect();
            slice(8080, "TCP", &endpoints)
        };
        apply(&mut table, true, &web, &[of(&[2, 3, 4, 5])]);
        for _ in 0..30 {
            connect("10.96.0.8:80").unwrap();
        }
        let counts: Vec<usize> = listeners.iter().map(accepted).collect();
        let chosen = counts.iter().position(|c| *c == 30).unwrap_or_else(|| panic!("{counts:?}"));
        let rest: Vec<u8> = (2..6).filter(|i| usize::from(*i) != chosen + 2).collect();
        apply(&mut table, false, &web, &[of(&rest)]);
        for _ in 0..10 {
            connect("10.96.0.8:80").unwrap();
        }
        let counts: Vec<usize> = listeners.iter().map(accepted).collect();
        assert_eq!(counts[chosen], 0);
        assert!(counts.contains(&10), "{counts:?}");
    });
}

#[test]
fn udp_services_and_load_balancer_source_ranges() {
    as_host(|mut table| {
        let server = UdpSocket::bind("10.7.0.2:5353").unwrap();
        let dns = service(json!({ "clusterIP": "10.96.0.10", "ports": [{ "port": 53, "protocol": "UDP" }] }));
        apply(&mut table, true, &dns, &[slice(5353, "UDP", &[("10.7.0.2", json!({}))])]);
        let client = UdpSocket::bind("0.0.0.0:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        client.send_to(b"question", "10.96.0.10:53").unwrap();
        let mut buffer = [0; 16];
        let (_, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to(b"answer", from).unwrap();
        let (n, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..n], from), (&b"answer"[..], "10.96.0.10:53".parse().unwrap()));

        let web = listen("10.7.0.3:8080");
        let balanced = |range: &str| {
            let mut s = service(json!({
                "clusterIP": "10.96.0.11", "ports": [{ "port": 80 }], "type": "LoadBalancer",
                "loadBalancerSourceRanges": [range],
            }));
            s.status =
                serde_json::from_value(json!({ "loadBalancer": { "ingress": [{ "ip": "10.96.200.1" }] } })).unwrap();
            s
        };
        let endpoints = [slice(8080, "TCP", &[("10.7.0.3", json!({}))])];
        apply(&mut table, false, &balanced("10.7.0.0/24"), &endpoints);
        connect("10.96.200.1:80").unwrap();
        apply(&mut table, false, &balanced("192.0.2.0/24"), &endpoints);
        let blocked =
            TcpStream::connect_timeout(&(Ipv4Addr::new(10, 96, 200, 1), 80).into(), Duration::from_millis(300));
        assert!(blocked.is_err());
        connect("10.96.0.11:80").unwrap();
        assert_eq!(accepted(&web), 2);
    });
}

#[test]
fn ten_thousand_services_are_written_at_once_and_one_change_touches_only_itself() {
    as_host(|mut table| {
        let name = |i: usize| ("default".to_owned(), format!("s{i}"));
        let rules = |i: usize, last: u8| {
            let ip = Ipv4Addr::from(0x0a60_0000 + i as u32 + 256);
            let s = service(json!({ "clusterIP": ip.to_string(), "ports": [{ "port": 80 }] }));
            let other = format!("10.7.0.{last}");
            rules_of(&s, &[slice(8080, "TCP", &[("10.7.0.2", json!({})), (other.as_str(), json!({}))])], NODE)
        };
        let all = (0..10_000).map(|i| (name(i), Some(rules(i, 3)))).collect();
        let start = Instant::now();
        table.replace_all(all).unwrap();
        let full = start.elapsed();
        let start = Instant::now();
        table.update(vec![(name(77), Some(rules(77, 4)))]).unwrap();
        println!("10,000 Services: full sync {full:?}, one change {:?}", start.elapsed());
        let web = listen("10.7.0.4:8080");
        let both = listen("10.7.0.2:8080");
        for _ in 0..40 {
            connect(&format!("{}:80", Ipv4Addr::from(0x0a60_0000u32 + 77 + 256))).unwrap();
        }
        assert!(accepted(&web) > 0);
        assert!(accepted(&both) > 0);
    });
}

#[test]
fn source_ranges_of_services_with_like_names_stay_apart() {
    as_host(|mut table| {
        let web = listen("10.7.0.3:8080");
        let endpoints = [slice(8080, "TCP", &[("10.7.0.3", json!({}))])];
        let balanced = |namespace: &str, name: &str, address: &str, range: &str| {
            let mut s = service(json!({
                "clusterIP": "10.96.0.99", "ports": [{ "port": 80 }], "type": "LoadBalancer", "loadBalancerSourceRanges": [range],
            }));
            s.metadata.namespace = Some(namespace.into());
            s.metadata.name = Some(name.into());
            s.status = serde_json::from_value(json!({ "loadBalancer": { "ingress": [{ "ip": address }] } })).unwrap();
            (service_key(&s), Some(rules_of(&s, &endpoints, NODE)))
        };
        let closed = balanced("a-b", "c", "10.96.200.1", "192.0.2.0/24");
        let open = balanced("a", "b-c", "10.96.200.2", "10.7.0.0/24");
        table.replace_all(vec![closed, open]).unwrap();
        let blocked =
            TcpStream::connect_timeout(&(Ipv4Addr::new(10, 96, 200, 1), 80).into(), Duration::from_millis(300));
        assert!(blocked.is_err());
        connect("10.96.200.2:80").unwrap();
        assert_eq!(accepted(&web), 1);
    });
}
