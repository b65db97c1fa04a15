//! The trace of a request goes on in its calls to etcd.

use std::sync::Arc;

use http::{Request, Uri};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ironkeel_apiserver::TracingConfig;
use ironkeel_etcd::{Config, Etcd};
use ironkeel_testkit::etcd::{Server, installed};
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use crate::support::start_over;

/// Method and `traceparent` of each call.
type Calls = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// A way to etcd that writes down what passes.
async fn noted(etcd: &Server) -> (String, Calls) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let calls = Calls::default();
    let (kept, origin) = (calls.clone(), etcd.url.clone());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let there = TcpStream::connect(origin.trim_start_matches("http://")).await.unwrap();
            let (sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(there)).await.unwrap();
            tokio::spawn(connection);
            let (calls, origin) = (kept.clone(), origin.clone());
            let service = service_fn(move |mut request: Request<Incoming>| {
                let mut sender = sender.clone();
                let method = request.uri().path().to_owned();
                let parent = request.headers().get("traceparent").map(|v| v.to_str().unwrap().to_owned());
                *request.uri_mut() = format!("{origin}{method}").parse::<Uri>().unwrap();
                calls.lock().push((method, parent));
                async move { sender.send_request(request).await }
            });
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(serving.serve_connection(TokioIo::new(socket), service));
        }
    });
    (url, calls)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_to_etcd_carry_the_trace_of_their_request() {
    const GIVEN: &str = "0af7651916cd43dd8448eb211c80319c";
    const PARENT: &str = "b7ad6b7169203331";
    if !installed() {
        return;
    }
    let etcd = Server::start(&[]);
    // It listens from here on.
    etcd.connect().await.close();
    let (url, calls) = noted(&etcd).await;
    let store = Etcd::connect(Config { endpoints: vec![url], ..etcd.config() }).await.unwrap();
    // Nobody takes the spans; they are made all the same.
    let tracing = TracingConfig::new(Some("127.0.0.1:1"), Some(1_000_000), "me").unwrap();
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let c = start_over(dir, store, |c| c.tracing = Some(tracing)).await;
    let http = c.admin();
    let maps = "/api/v1/namespaces/default/configmaps";
    let parent = format!("00-{GIVEN}-{PARENT}-01");
    let headers = [("content-type", "application/json"), ("traceparent", parent.as_str())];
    let object = json!({ "metadata": { "name": "a" } }).to_string();
    let made = http.send(http::Method::POST, maps, &headers, object).await.expect(201);
    let then = made["metadata"]["resourceVersion"].as_str().unwrap();
    http.delete(&format!("{maps}/a")).await.expect(200);
    let exact = format!("{maps}?resourceVersion={then}&resourceVersionMatch=Exact");
    http.send(http::Method::GET, &exact, &headers[1..], "").await.expect(200);
    let of_request = |method: &str| -> Vec<String> {
        let calls = calls.lock();
        let of_method = calls.iter().filter(|(m, _)| m == method).filter_map(|(_, parent)| parent.clone());
        of_method.filter(|parent| parent.contains(GIVEN)).collect()
    };
    for method in ["/etcdserverpb.KV/Txn", "/etcdserverpb.KV/Range"] {
        let seen = of_request(method);
        assert!(!seen.is_empty(), "{method}: {:?}", calls.lock());
        for parent in seen {
            // Below the step that makes the call, not beside it.
            assert!(parent.starts_with(&format!("00-{GIVEN}-")) && parent.ends_with("-01"), "{parent}");
            assert!(!parent.contains(PARENT), "{parent}");
        }
    }
    // What the server does for itself has no part in it.
    let watches = calls.lock().iter().filter(|(m, _)| m == "/etcdserverpb.Watch/Watch").cloned().collect::<Vec<_>>();
    assert!(!watches.is_empty() && watches.iter().all(|(_, parent)| parent.is_none()), "{watches:?}");
    drop(http);
    c.shutdown.cancel();
    c.serving.await.unwrap();
}
