//! ServiceCIDRs: protected while Services have addresses of theirs.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;

use crate::support::{Cluster, condition};

/// API servers may choose from a range for ten seconds after it was deleted.
const PATIENCE: Duration = Duration::from_secs(30);

async fn until(ranges: &Api<ServiceCIDR>, name: &str, holds: impl Fn(Option<&ServiceCIDR>) -> bool) {
    let begun = Instant::now();
    loop {
        let found = ranges.get_opt(name).await.unwrap();
        if holds(found.as_ref()) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{name} never as expected: {found:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_stays_until_no_service_has_an_address_of_it() {
    let cluster = Cluster::start().await;
    let ranges = Api::<ServiceCIDR>::all(cluster.client.clone());
    let make = async |name: &str, range: &str| {
        let range = json!({"metadata": {"name": name}, "spec": {"cidrs": [range]}});
        ranges.create(&PostParams::default(), &serde_json::from_value(range).unwrap()).await.unwrap();
        until(&ranges, name, |range| {
            range.is_some_and(|range| condition(range, "Ready").0 == "True" && range.finalizers().len() == 1)
        })
        .await;
    };
    make("more", "10.200.0.0/24").await;
    make("within", "10.200.0.0/28").await;
    cluster
        .make::<Service>(
            json!({"metadata": {"name": "held"}, "spec": {"clusterIP": "10.200.0.5", "ports": [{"port": 80}]}}),
        )
        .await;
    ranges.delete("more", &DeleteParams::default()).await.unwrap();
    // The smaller range has the address too.
    until(&ranges, "more", |range| range.is_none()).await;
    ranges.delete("within", &DeleteParams::default()).await.unwrap();
    let held = |range: Option<&ServiceCIDR>| {
        range.is_some_and(|range| condition(range, "Ready") == ("False".to_owned(), "Terminating".to_owned()))
    };
    until(&ranges, "within", held).await;
    cluster.api::<Service>("default").delete("held", &DeleteParams::default()).await.unwrap();
    until(&ranges, "within", |range| range.is_none()).await;
}
