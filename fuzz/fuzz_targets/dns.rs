//! Cluster DNS over its own socket: whatever arrives, it answers the next query.
#![no_main]

use std::cell::RefCell;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Bytes;
use ironkeel_dns::{Bound, Config};
use libfuzzer_sys::fuzz_target;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(5);

/// `kubernetes.default.svc.cluster.local`, type A.
const KNOWN: &[u8] =
    b"\xab\xcd\x01\0\0\x01\0\0\0\0\0\0\x0akubernetes\x07default\x03svc\x07cluster\x05local\0\0\x01\0\x01";

struct Fixture {
    runtime: tokio::runtime::Runtime,
    socket: UdpSocket,
}

thread_local! {
    static FIXTURE: RefCell<Option<Fixture>> = const { RefCell::new(None) };
}

/// An API of one Service, and watches that say nothing.
async fn api(request: Request<kube::client::Body>) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let query = request.uri().query().unwrap_or_default();
    if query.contains("watch=true") || query.contains("watch=1") {
        std::future::pending::<()>().await;
    }
    let items = match request.uri().path() {
        "/api/v1/services" => {
            r#"{"metadata":{"name":"kubernetes","namespace":"default","uid":"1","resourceVersion":"1"},
            "spec":{"clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1"],"ports":[{"name":"https","port":443,"protocol":"TCP"}]}}"#
        }
        "/api/v1/namespaces" => r#"{"metadata":{"name":"default","uid":"2","resourceVersion":"1"}}"#,
        _ => "",
    };
    let body = format!(r#"{{"kind":"List","apiVersion":"v1","metadata":{{"resourceVersion":"1"}},"items":[{items}]}}"#);
    Ok(Response::new(Full::new(body.into())))
}

fn fixture() -> Fixture {
    let runtime = ironkeel_fuzz::runtime();
    let socket = runtime.block_on(async {
        let bound = Bound::bind(([127, 0, 0, 1], 0).into()).await.expect("a socket");
        let server = bound.address().expect("an address");
        let config = Config { cluster_domain: "cluster.local".into(), upstreams: Vec::new(), stub_domains: Vec::new() };
        let client = kube::Client::new(tower::service_fn(api), "default");
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let say = Box::new(move || _ = ready.send(()));
        tokio::spawn(ironkeel_dns::run(config, vec![bound], client, say, CancellationToken::new()));
        tokio::time::timeout(PATIENCE, is_ready).await.expect("DNS is ready in time").expect("DNS is ready");
        let socket = UdpSocket::bind(("127.0.0.1", 0)).await.expect("a socket");
        socket.connect(server).await.expect("a server");
        socket
    });
    Fixture { runtime, socket }
}

fuzz_target!(|data: &[u8]| {
    FIXTURE.with_borrow_mut(|slot| {
        let Fixture { runtime, socket } = slot.get_or_insert_with(fixture);
        runtime.block_on(async {
            if data.get(..2) == Some(&KNOWN[..2]) || data.len() > 4_096 {
                return;
            }
            socket.send(data).await.expect("sent");
            socket.send(KNOWN).await.expect("sent");
            let mut answer = [0; 65_535];
            loop {
                let received = tokio::time::timeout(PATIENCE, socket.recv(&mut answer)).await;
                let n = received.expect("an answer in time").expect("an answer");
                assert!(n >= 12, "an answer has a head");
                if answer[..2] == KNOWN[..2] {
                    assert_eq!(answer[3] & 0x0f, 0, "the Service is found");
                    assert!(answer[..n].ends_with(&[10, 0, 0, 1]));
                    break;
                }
                assert!(n <= 1_232, "an answer fits into a packet");
            }
        });
    });
});
