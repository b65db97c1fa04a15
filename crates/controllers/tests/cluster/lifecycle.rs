//! Starting and stopping the controllers.

use std::time::{Duration, Instant};

use ironkeel_controllers::Config;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_stop_even_if_the_api_never_answered() {
    // Connections are taken by the kernel, and never read from.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", silent.local_addr().unwrap()).parse().unwrap();
    let client = kube::Client::try_from(kube::Config::new(uri)).unwrap();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(ironkeel_controllers::run(Config::default(), client, shutdown.clone()));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let asked = Instant::now();
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), running).await.expect("the controllers end").unwrap().unwrap();
    println!("stopped after {:?}", asked.elapsed());
}
