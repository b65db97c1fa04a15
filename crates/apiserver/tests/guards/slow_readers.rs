//! Clients that ask for much and read nothing.

use std::time::{Duration, Instant};

use http::Request;
use http_body_util::{BodyExt, Full};
use ironkeel_embedded::Options;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Cluster, cluster, start_tuned};
use crate::wire::{http2, tls};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// How long a request may take here.
const LIMIT: Duration = Duration::from_secs(2);
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);
/// More than all buffers between server and client hold, in bytes.
const MUCH: usize = 24 << 20;

/// A server with a list of [`MUCH`], which was made while there was more time.
async fn full() -> Cluster {
    let c = cluster().await;
    let (admin, filler) = (c.admin(), "x".repeat(1_000_000));
    for i in 0..=MUCH / 1_000_000 {
        admin.post(MAPS, &json!({"metadata": {"name": format!("m{i}")}, "data": {"k": filler}})).await.expect(201);
    }
    drop(admin);
    c.shutdown.cancel();
    c.serving.await.unwrap();
    drop(c.api);
    start_tuned(c.dir, Options::default(), |config| config.request_timeout = LIMIT).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_list_is_not_read_is_reset() {
    let c = full().await;
    let admin = c.pki.issue_client("ann", Some("system:masters")).unwrap();
    let (mut sender, connection) = http2(&c, Some(&admin)).await;
    let get = |path: &str| Request::get(format!("https://api{path}")).body(Full::default()).unwrap();
    let asked = Instant::now();
    let mut slow = sender.send_request(get(MAPS)).await.unwrap();
    assert_eq!(slow.status(), 200);
    // In one piece, and larger than a stream's window.
    let mut whole = sender.send_request(get(&format!("{MAPS}?limit=6&pretty=true"))).await.unwrap();
    assert_eq!(whole.status(), 200);
    let size: usize = whole.headers()["content-length"].to_str().unwrap().parse().unwrap();
    tokio::time::sleep(LIMIT + LIMIT / 2).await;
    let (read, clean) = tokio::time::timeout(PATIENCE, rest(&mut whole)).await.expect("the end of the stream");
    assert!(!clean && read < size, "{read} bytes of {size} are still sent after {:?}", asked.elapsed());
    let (read, clean) = tokio::time::timeout(PATIENCE, rest(&mut slow)).await.expect("the end of the stream");
    assert!(!clean && read < MUCH, "{read} bytes are still sent after {:?}", asked.elapsed());
    // The connection and its other streams are not touched.
    let other = sender.send_request(get("/version")).await.unwrap();
    assert_eq!(other.status(), 200);
    // Who reads is served.
    let mut quick = sender.send_request(get(&format!("{MAPS}?limit=1"))).await.unwrap();
    let (bytes, clean) = tokio::time::timeout(PATIENCE, rest(&mut quick)).await.expect("the list");
    assert!(clean && bytes > 1_000_000, "{bytes}");
    drop(sender);
    connection.abort();
}

/// How much still comes, and whether it ends well.
async fn rest(response: &mut http::Response<hyper::body::Incoming>) -> (usize, bool) {
    let mut read = 0;
    loop {
        match response.body_mut().frame().await {
            Some(Ok(frame)) => read += frame.into_data().map_or(0, |data| data.len()),
            Some(Err(_)) => return (read, false),
            None => return (read, true),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_list_is_not_read_is_closed() {
    let c = full().await;
    let admin = c.pki.issue_client("ann", Some("system:masters")).unwrap();
    let mut io = tls(&c, Some(&admin), b"http/1.1").await;
    io.write_all(format!("GET {MAPS} HTTP/1.1\r\nhost: api\r\n\r\n").as_bytes()).await.unwrap();
    tokio::time::sleep(LIMIT + LIMIT / 2).await;
    let mut read = 0;
    let mut buffer = vec![0; 64 << 10];
    let reading = async {
        // A connection that stays open would have more.
        while let Ok(n @ 1..) = io.read(&mut buffer).await {
            read += n;
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the end of the connection");
    assert!(read < MUCH, "{read} bytes are still sent");
}
