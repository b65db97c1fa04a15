//! Proxies to Pods, Services and nodes: paths, bodies, redirects, links, and what is refused.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::net::{IpAddr, SocketAddr, UdpSocket};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::json;
use support::{Cluster, Http, cluster};
use tokio::net::TcpListener;

/// An address of this host that is not loopback; nothing is sent to find it.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

async fn answer(request: Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let path = request.uri().path().to_owned();
    let response = Response::builder();
    let done = |r: http::response::Builder, body: String| Ok(r.body(Full::new(Bytes::from(body))).unwrap());
    match path.as_str() {
        "/redirect" => done(response.status(302).header("location", "/elsewhere?x=1"), String::new()),
        "/page" => {
            let page = r#"<a href="/next">n</a><img src="http://example.com/i.png">"#;
            done(response.header("content-type", "text/html; charset=utf-8"), page.to_owned())
        }
        _ => {
            let (method, uri) = (request.method().clone(), request.uri().clone());
            let of = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("-").to_owned();
            let (forwarded, authorization) = (of("x-forwarded-uri"), of("authorization"));
            let length = request.into_body().collect().await.unwrap().to_bytes().len();
            let text = format!("{method} {uri} {forwarded} {authorization} {length}");
            done(response.header("access-control-allow-origin", "*"), text)
        }
    }
}

async fn backend(ip: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = hyper::service::service_fn(answer);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    });
    address
}

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn pod(http: &Http, name: &str, ip: &str, port: u16) {
    let body = json!({
        "metadata": { "name": name },
        "spec": { "nodeName": "n1", "containers": [{ "name": "c", "image": "i", "ports": [{ "containerPort": port }] }] },
    });
    http.post(PODS, &body).await.expect(201);
    let status = json!({ "status": { "podIP": ip, "podIPs": [{ "ip": ip }], "phase": "Running" } });
    http.patch(&format!("{PODS}/{name}/status"), "application/merge-patch+json", &status).await.expect(200);
}

async fn prepared() -> Option<(Cluster, Http, SocketAddr)> {
    let Some(ip) = own_address() else {
        println!("skipped: this host has no address besides loopback");
        return None;
    };
    let c = cluster().await;
    let http = c.admin();
    let account = json!({ "metadata": { "name": "default" } });
    http.post("/api/v1/namespaces/default/serviceaccounts", &account).await.expect(201);
    http.post("/api/v1/nodes", &json!({ "metadata": { "name": "n1" } })).await.expect(201);
    let address = backend(ip).await;
    pod(&http, "p", &ip.to_string(), address.port()).await;
    Some((c, http, address))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_reached_with_path_body_and_links_led_back() {
    let Some((_c, http, address)) = prepared().await else { return };
    let text = |answer: support::Answer| String::from_utf8_lossy(&answer.bytes).into_owned();
    let proxy = format!("{PODS}/p/proxy");
    let root = http.get(&format!("{proxy}?a=b")).await;
    assert_eq!((root.status.as_u16(), root.headers["location"].to_str().unwrap()), (301, &*format!("{proxy}/?a=b")));
    let got = http.get(&format!("{proxy}/x%2Fy/z/?q=%20")).await;
    assert!(!got.headers.contains_key("access-control-allow-origin"));
    assert_eq!(text(got), format!("GET /x%2Fy/z/?q=%20 {proxy}/x%2Fy/z/ - 0"));
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
        let headers = [("authorization", "Bearer secret"), ("content-type", "text/plain")];
        let sent = http.send(method.clone(), &format!("{PODS}/p:{}/proxy/u", address.port()), &headers, "12345").await;
        let prefix = format!("{PODS}/p:{}/proxy", address.port());
        assert_eq!(text(sent), format!("{method} /u {prefix}/u - 5"));
    }
    let large = http.send(Method::POST, &format!("{proxy}/u"), &[], vec![b'x'; 4 << 20]).await;
    assert!(text(large).ends_with(&format!(" {}", 4 << 20)), "a proxied body has no limit");
    let moved = http.get(&format!("{proxy}/redirect")).await;
    assert_eq!(moved.status.as_u16(), 302);
    assert_eq!(moved.headers["location"].to_str().unwrap(), format!("{proxy}/elsewhere?x=1"));
    let page = text(http.get(&format!("{proxy}/page")).await);
    assert_eq!(page, format!(r#"<a href="{proxy}/next">n</a><img src="http://example.com/i.png">"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_reached_by_the_name_or_number_of_its_port() {
    let Some((_c, http, address)) = prepared().await else { return };
    let service = json!({
        "metadata": { "name": "s" },
        "spec": { "ports": [{ "name": "web", "port": 80, "targetPort": address.port() }] },
    });
    http.post("/api/v1/namespaces/default/services", &service).await.expect(201);
    let services = "/api/v1/namespaces/default/services";
    let none = http.get(&format!("{services}/s:web/proxy/x")).await;
    none.refused(503, "ServiceUnavailable", "no endpoints available for service \"s:web\"");
    let slice = json!({
        "metadata": { "name": "s-1", "labels": { "kubernetes.io/service-name": "s" } },
        "addressType": "IPv4",
        "endpoints": [
            { "addresses": [address.ip().to_string()], "conditions": { "ready": true } },
            { "addresses": ["192.0.2.55"], "conditions": { "ready": false } },
        ],
        "ports": [{ "name": "web", "port": address.port(), "protocol": "TCP" }],
    });
    http.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice).await.expect(201);
    for name in ["s", "s:web", "s:80", "http:s:web"] {
        let answer = http.get(&format!("{services}/{name}/proxy/x")).await;
        let found = String::from_utf8_lossy(&answer.bytes).into_owned();
        let wanted = if name == "s" { 503 } else { 200 };
        assert_eq!(answer.status.as_u16(), wanted, "{name}: {found}");
    }
    http.get(&format!("{services}/ftp:s:web/proxy/x")).await.refused(400, "BadRequest", "invalid service request");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_be_reached_is_refused() {
    let Some((c, http, address)) = prepared().await else { return };
    pod(&http, "local", "127.0.0.1", address.port()).await;
    http.get(&format!("{PODS}/local/proxy/")).await.refused(400, "BadRequest", "address not allowed");
    pod(&http, "metadata", "169.254.169.254", 80).await;
    http.get(&format!("{PODS}/metadata/proxy/")).await.refused(400, "BadRequest", "address not allowed");
    let nodes = json!({ "status": { "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }] } });
    http.patch("/api/v1/nodes/n1/status", "application/merge-patch+json", &nodes).await.expect(200);
    http.get("/api/v1/nodes/n1:22/proxy/").await.refused(400, "BadRequest", "address not allowed");
    http.get(&format!("{PODS}/p/exec?command=sh&stdout=true")).await.refused(
        400,
        "BadRequest",
        "Upgrade request required",
    );
    let upgrade = [("connection", "Upgrade"), ("upgrade", "websocket")];
    let answer = http.send(Method::GET, &format!("{PODS}/p/proxy/plain"), &upgrade, "").await;
    answer.refused(500, "InternalError", "invalid upgrade response: status code 200");
    let eve = c.as_user("eve", &["system:authenticated"]);
    eve.get(&format!("{PODS}/p/proxy/")).await.refused(403, "Forbidden", "cannot get resource \"pods/proxy\"");
}
