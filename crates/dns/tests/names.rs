//! Cluster DNS over real sockets, from a real API server's objects.
#![allow(missing_docs, clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use ironkeel_auth::Identity;
use ironkeel_dns::{Bound, Config};
use ironkeel_testkit::api::Api as Server;
use kube::api::{DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

async fn create(client: &kube::Client, object: Value) {
    let (group, version) = match object["apiVersion"].as_str().unwrap().split_once('/') {
        Some((g, v)) => (g.to_owned(), v.to_owned()),
        None => (String::new(), object["apiVersion"].as_str().unwrap().to_owned()),
    };
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(&group, &version, object["kind"].as_str().unwrap()));
    let api: kube::Api<DynamicObject> = kube::Api::namespaced_with(client.clone(), "default", &resource);
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

fn service(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": spec })
}

fn slice(service: &str, ports: Value, endpoints: Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": format!("{service}-1"), "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    })
}

/// A server of another zone, as a host's resolver would be: it knows one name.
async fn upstream() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((n, from)) = socket.recv_from(&mut buffer).await {
            let query = Message::from_vec(&buffer[..n]).unwrap();
            let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
            reply.queries.clone_from(&query.queries);
            let name = query.queries[0].name().clone();
            if name.to_ascii() == "www.example.org." {
                let data = RData::A(hickory_proto::rr::rdata::A(Ipv4Addr::new(192, 0, 2, 80)));
                reply.add_answer(hickory_proto::rr::Record::from_rdata(name, 60, data));
            } else {
                reply.metadata.response_code = ResponseCode::NXDomain;
            }
            socket.send_to(&reply.to_vec().unwrap(), from).await.unwrap();
        }
    });
    address
}

async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(&question(name, kind)).await.unwrap();
    let mut buffer = [0; 4096];
    let n = tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut buffer)).await.unwrap().unwrap();
    Message::from_vec(&buffer[..n]).unwrap()
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    query.to_vec().unwrap()
}

/// Answers as text, sorted.
fn answers(message: &Message) -> Vec<String> {
    let mut all: Vec<String> = message.answers.iter().map(|r| r.data.to_string()).collect();
    all.sort();
    all
}

#[tokio::test]
async fn names_of_services_pods_and_the_outside() {
    let api = Server::start().await;
    let client = api.client(Identity::Admin);
    create(&client, service("web", json!({ "clusterIP": "10.96.0.80", "ports": [{ "name": "http", "port": 80 }] })))
        .await;
    create(&client, service("db", json!({ "clusterIP": "None", "ports": [{ "name": "sql", "port": 5432 }] }))).await;
    create(&client, service("out", json!({ "type": "ExternalName", "externalName": "www.example.org" }))).await;
    let endpoints = json!([
        { "addresses": ["10.1.0.4"], "hostname": "db-0", "conditions": { "ready": true } },
        { "addresses": ["10.1.0.5"], "conditions": { "ready": true } },
        { "addresses": ["10.1.0.6"], "conditions": { "ready": false } },
    ]);
    create(&client, slice("db", json!([{ "name": "sql", "port": 5432, "protocol": "TCP" }]), endpoints)).await;
    let bound = Bound::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let server = bound.address().unwrap();
    let stop = CancellationToken::new();
    let config =
        Config { cluster_domain: "cluster.local".into(), upstreams: vec![upstream().await], stub_domains: vec![] };
    let (sender, ready) = tokio::sync::oneshot::channel();
    let running = tokio::spawn(ironkeel_dns::run(
        config,
        vec![bound],
        api.client(Identity::Dns),
        Box::new(move || sender.send(()).expect("the test waits")),
        stop.clone(),
    ));
    ready.await.unwrap();

    let a = |name: &'static str| async move { answers(&ask(server, name, RecordType::A).await) };
    assert_eq!(a("web.default.svc.cluster.local.").await, ["10.96.0.80"]);
    assert_eq!(a("WEB.Default.svc.Cluster.Local.").await, ["10.96.0.80"]);
    assert_eq!(a("kubernetes.default.svc.cluster.local.").await, ["10.96.0.1"]);
    assert_eq!(a("db.default.svc.cluster.local.").await, ["10.1.0.4", "10.1.0.5"]);
    assert_eq!(a("db-0.db.default.svc.cluster.local.").await, ["10.1.0.4"]);
    assert_eq!(a("10-1-0-5.db.default.svc.cluster.local.").await, ["10.1.0.5"]);
    assert_eq!(a("10-1-0-9.default.pod.cluster.local.").await, ["10.1.0.9"]);
    assert_eq!(a("out.default.svc.cluster.local.").await, ["192.0.2.80", "www.example.org."]);
    assert_eq!(a("www.example.org.").await, ["192.0.2.80"]);

    let srv = ask(server, "_http._tcp.web.default.svc.cluster.local.", RecordType::SRV).await;
    assert_eq!(answers(&srv), ["0 100 80 web.default.svc.cluster.local."]);
    let srv = ask(server, "_sql._tcp.db.default.svc.cluster.local.", RecordType::SRV).await;
    assert_eq!(
        answers(&srv),
        ["0 50 5432 10-1-0-5.db.default.svc.cluster.local.", "0 50 5432 db-0.db.default.svc.cluster.local."]
    );
    assert_eq!(srv.additionals.len(), 2);
    let ptr = ask(server, "80.0.96.10.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(answers(&ptr), ["web.default.svc.cluster.local."]);
    let ptr = ask(server, "4.0.1.10.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(answers(&ptr), ["db-0.db.default.svc.cluster.local."]);

    // A name that exists without that type is not an unknown name; the first has its SOA too.
    for (name, kind, code) in [
        ("web.default.svc.cluster.local.", RecordType::AAAA, ResponseCode::NoError),
        ("default.svc.cluster.local.", RecordType::A, ResponseCode::NoError),
        ("absent.default.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain),
        ("web.absent.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain),
        ("_other._tcp.web.default.svc.cluster.local.", RecordType::SRV, ResponseCode::NXDomain),
    ] {
        let reply = ask(server, name, kind).await;
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (code, 0), "{name}");
        assert!(matches!(reply.authorities[0].data, RData::SOA(_)), "{name}");
    }
    assert_eq!(ask(server, "absent.example.org.", RecordType::A).await.metadata.response_code, ResponseCode::NXDomain);

    // A Service made now is known at once, over TCP as well.
    create(&client, service("late", json!({ "clusterIP": "10.96.0.81", "ports": [{ "port": 1 }] }))).await;
    let mut stream = TcpStream::connect(server).await.unwrap();
    loop {
        let bytes = question("late.default.svc.cluster.local.", RecordType::A);
        stream.write_u16(bytes.len() as u16).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut reply = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut reply).await.unwrap();
        let reply = Message::from_vec(&reply).unwrap();
        if !reply.answers.is_empty() {
            assert_eq!(answers(&reply), ["10.96.0.81"]);
            break;
        }
    }
    // Bytes that are no query do not end the server.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for junk in [&b""[..], b"x", &[0xff; 40], &question("web.default.svc.cluster.local.", RecordType::A)[..20]] {
        socket.send_to(junk, server).await.unwrap();
    }
    assert_eq!(a("web.default.svc.cluster.local.").await, ["10.96.0.80"]);
    stop.cancel();
    running.await.unwrap().unwrap();
}
