//! Logs and upgrades reach the kubelet of the Pod's node, over TLS and in-process.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use ironkeel_auth::Identity;
use ironkeel_streaming::spdy::Connection;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams};
use serde_json::json;
use support::{Cluster, cluster};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Incoming = Request<hyper::body::Incoming>;

/// A kubelet that answers logs with its path, and echoes upgraded bytes.
async fn kubelet(c: &Cluster) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(c.pki.kubelet_tls().unwrap());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let stream = acceptor.accept(socket).await.unwrap();
                assert_eq!(
                    stream.get_ref().1.peer_certificates().unwrap().len(),
                    1,
                    "the server shows its certificate"
                );
                let service = hyper::service::service_fn(answer);
                let serving =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                let _ = serving.with_upgrades().await;
            });
        }
    });
    address
}

async fn answer(mut request: Incoming) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let path = request.uri().to_string();
    if !request.headers().contains_key("upgrade") {
        return Ok(Response::new(Full::new(path.into())));
    }
    if path.starts_with("/exec/default/old/") {
        return Ok(old_kubelet(request));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgrade.await.unwrap());
        io.write_all(format!("{path}\n").as_bytes()).await.unwrap();
        let (mut read, mut write) = tokio::io::split(io);
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    let response = Response::builder().status(101).header("connection", "Upgrade").header("upgrade", "SPDY/3.1");
    Ok(response.body(Full::default()).unwrap())
}

/// A kubelet that knows SPDY alone, and a command that says hello in both outputs.
fn old_kubelet(mut request: Incoming) -> Response<Full<Bytes>> {
    if request.headers()["upgrade"] != "SPDY/3.1" {
        return Response::builder().status(403).body(Full::default()).unwrap();
    }
    assert_eq!(request.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
    assert!(!request.headers().contains_key("sec-websocket-protocol"));
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut connection = Connection::server(TokioIo::new(upgrade.await.unwrap()));
        let mut streams = Vec::new();
        for kind in ["error", "stdout", "stderr"] {
            let stream = connection.next_stream().await.unwrap();
            assert_eq!(stream.header("streamtype"), Some(kind));
            stream.accept().await.unwrap();
            streams.push(stream.split());
        }
        for ((_, to), text) in streams.iter().rev().zip(["err", "out", r#"{"metadata":{},"status":"Success"}"#]) {
            to.send(text.as_bytes()).await;
            to.finish().await;
        }
        drop(streams);
        connection.close().await;
    });
    let response = Response::builder().status(101).header("connection", "Upgrade").header("upgrade", "SPDY/3.1");
    response.header("x-stream-protocol-version", "v4.channel.k8s.io").body(Full::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_translated_for_a_kubelet_that_speaks_only_spdy() {
    let c = prepared().await;
    let pods = Api::<Pod>::namespaced(c.kube_tls().await, "default");
    let mut process = pods.exec("old", ["sh"], &AttachParams::default().stdin(false)).await.unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    let (mut stdout, mut stderr) = (process.stdout().unwrap(), process.stderr().unwrap());
    let status = process.take_status().unwrap();
    tokio::try_join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err)).unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("out", "err"));
    assert_eq!(status.await.unwrap().status.as_deref(), Some("Success"));
}

async fn prepared() -> Cluster {
    let c = cluster().await;
    let address = kubelet(&c).await;
    let http = c.admin();
    http.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}}))
        .await
        .expect(201);
    http.post("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await.expect(201);
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": address.port()}},
    }});
    http.patch("/api/v1/nodes/n1/status", "application/merge-patch+json", &status).await.expect(200);
    for (name, node) in [("p", Some("n1")), ("old", Some("n1")), ("unbound", None)] {
        let mut body = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        if let Some(node) = node {
            body["spec"]["nodeName"] = node.into();
        }
        http.post("/api/v1/namespaces/default/pods", &body).await.expect(201);
    }
    c
}

const EXEC: &str =
    "/api/v1/namespaces/default/pods/p/exec?command=sh&command=-c&command=a%20b&stdin=true&stdout=true&tty=true";
const FORWARDED: &str = "/exec/default/p/c?input=1&output=1&tty=1&command=sh&command=-c&command=a%20b";

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_node_proxy_come_from_the_kubelet() {
    let c = prepared().await;
    let http = c.admin();
    let pods = "/api/v1/namespaces/default/pods";
    let log = http.get(&format!("{pods}/p/log?follow=true&tailLines=5&pretty=1")).await;
    assert_eq!(&log.bytes[..], b"/containerLogs/default/p/c?follow=true&tailLines=5");
    http.get(&format!("{pods}/p/log?container=none")).await.refused(
        400,
        "BadRequest",
        "container none is not valid for pod p",
    );
    // There is no log before there is a node.
    let none = http.get(&format!("{pods}/unbound/log")).await;
    assert_eq!((none.status.as_u16(), none.bytes.len()), (204, 0));
    http.get(&format!("{pods}/unbound/exec?command=ls")).await.refused(
        400,
        "BadRequest",
        "pod unbound does not have a host assigned",
    );
    // Options are looked at before the pod is.
    for (options, code, reason, message) in [
        ("tailLines=-1", 422, "Invalid", "PodLogOptions \"none\" is invalid: tailLines: Invalid value: -1: must be"),
        ("tailLines=x", 400, "BadRequest", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("sinceTime=x", 400, "BadRequest", "parsing time \"x\" as \"2006-01-02T15:04:05Z07:00\": cannot parse"),
        ("stream=Stdout", 422, "Invalid", "stream: Forbidden: may not be specified"),
    ] {
        http.get(&format!("{pods}/none/log?{options}")).await.refused(code, reason, message);
    }
    let ports = http.get(&format!("{pods}/none/portforward?ports=x")).await;
    ports.refused(400, "BadRequest", "cannot convert to []int32: strconv.ParseUint: parsing \"x\": invalid syntax");
    http.get(&format!("{pods}/none/log")).await.refused(404, "NotFound", "pods \"none\" not found");
    let stats = http.get("/api/v1/nodes/n1/proxy/stats/summary?x=1").await;
    assert_eq!(&stats.bytes[..], b"/stats/summary?x=1");
    let eve = c.as_user("eve", &["system:authenticated"]);
    eve.get(&format!("{pods}/p/log")).await.refused(403, "Forbidden", "cannot get resource \"pods/log\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_tunnelled_in_process() {
    let c = prepared().await;
    let request = Request::builder()
        .method("POST")
        .uri(EXEC)
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .body(Full::default())
        .unwrap();
    let mut response = c.admin().raw(request).await;
    assert_eq!(response.status(), 101);
    let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    io.write_all(b"hello").await.unwrap();
    let mut found = vec![0; FORWARDED.len() + 1 + 5];
    io.read_exact(&mut found).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&found), format!("{FORWARDED}\nhello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_tunnelled_over_tls() {
    let c = prepared().await;
    let mut tls = (*c.pki.client_tls(Identity::Admin).unwrap()).clone();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let socket = TcpStream::connect(c.address).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let mut io = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, socket).await.unwrap();
    let head = format!(
        "POST {EXEC} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\ncontent-length: 0\r\n\r\n"
    );
    io.write_all(head.as_bytes()).await.unwrap();
    io.write_all(b"early").await.unwrap();
    let mut found = Vec::new();
    while !String::from_utf8_lossy(&found).ends_with("early") {
        let mut chunk = [0; 1024];
        let n = tokio::time::timeout(std::time::Duration::from_secs(10), io.read(&mut chunk)).await.unwrap().unwrap();
        assert!(n > 0, "{}", String::from_utf8_lossy(&found));
        found.extend_from_slice(&chunk[..n]);
    }
    let text = String::from_utf8_lossy(&found);
    assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
    assert!(text.ends_with(&format!("{FORWARDED}\nearly")), "{text}");
}
