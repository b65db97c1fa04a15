//! ClusterIPs: IPAddress and ServiceCIDR objects, several ranges, bands, families, repair.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use ironkeel_embedded::Options;
use serde_json::{Value, json};

use super::support::{Cluster, Http, cluster, start_tuned};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const MERGE: &str = "application/merge-patch+json";

fn service(name: &str, more: Value) -> Value {
    let mut spec = json!({ "ports": [{ "port": 80 }] });
    for (k, v) in more.as_object().unwrap() {
        spec[k] = v.clone();
    }
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": spec })
}

async fn tuned(range: (IpAddr, u8), second: Option<(IpAddr, u8)>) -> (Cluster, Http) {
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let cluster = start_tuned(dir, Options::default(), |c| {
        c.service_cidr = range;
        c.secondary_service_cidr = second;
    })
    .await;
    let http = cluster.admin();
    (cluster, http)
}

fn ip(service: &Value) -> String {
    service["spec"]["clusterIP"].as_str().unwrap().to_owned()
}

async fn names(http: &Http) -> HashSet<String> {
    let all = http.get(ADDRESSES).await.expect(200);
    all["items"].as_array().unwrap().iter().map(|a| a["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cluster_ip_is_an_object_that_comes_and_goes_with_its_service() {
    let cluster = cluster().await;
    let http = cluster.admin();
    let default = http.get(&format!("{RANGES}/kubernetes")).await.expect(200);
    assert_eq!(default["spec"]["cidrs"], json!(["10.96.0.0/12"]));
    assert_eq!(
        (&default["status"]["conditions"][0]["type"], &default["status"]["conditions"][0]["status"]),
        (&json!("Ready"), &json!("True"))
    );
    let own = http.get(&format!("{ADDRESSES}/10.96.0.1")).await.expect(200);
    assert_eq!(own["spec"]["parentRef"]["name"], "kubernetes");

    let made = http.post(SERVICES, &service("a", json!({}))).await.expect(201);
    let address = http.get(&format!("{ADDRESSES}/{}", ip(&made))).await.expect(200);
    assert_eq!(address["spec"]["parentRef"], json!({ "resource": "services", "namespace": "default", "name": "a" }));
    assert_eq!(
        address["metadata"]["labels"],
        json!({ "ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io" })
    );
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = http.send(http::Method::GET, ADDRESSES, &table, "").await.expect(200);
    let rows: Vec<&Value> = table["rows"].as_array().unwrap().iter().map(|r| &r["cells"][1]).collect();
    assert!(rows.contains(&&json!("services/default/a")), "{rows:?}");

    let why = format!(
        "spec.clusterIPs: Invalid value: [\"{0}\"]: failed to allocate IP {0}: provided IP is already allocated",
        ip(&made)
    );
    http.post(SERVICES, &service("b", json!({ "clusterIP": ip(&made) }))).await.refused(422, "Invalid", &why);
    let why = "failed to allocate IP 10.200.0.1: the provided network does not match the current range";
    http.post(SERVICES, &service("b", json!({ "clusterIP": "10.200.0.1" }))).await.refused(422, "Invalid", why);
    // A refused Service leaves nothing behind, whenever it was refused.
    let before = names(&http).await;
    http.post(SERVICES, &service("b", json!({ "clusterIP": "10.96.0.77", "sessionAffinity": "Odd" })))
        .await
        .expect(422);
    http.post(SERVICES, &service("a", json!({}))).await.expect(409);
    let dry = http
        .post(&format!("{SERVICES}?dryRun=All"), &service("b", json!({ "clusterIP": "10.96.0.77" })))
        .await
        .expect(201);
    assert_eq!(ip(&dry), "10.96.0.77");
    // What a refusal leaves is taken back behind its answer.
    let started = std::time::Instant::now();
    while names(&http).await != before {
        assert!(started.elapsed().as_secs() < 10, "{:?}", names(&http).await);
        tokio::task::yield_now().await;
    }
    http.post(SERVICES, &service("b", json!({ "clusterIP": "10.96.0.77" }))).await.expect(201);

    http.patch(
        &format!("{SERVICES}/b"),
        MERGE,
        &json!({ "spec": { "type": "ExternalName", "externalName": "x.y", "clusterIP": "", "clusterIPs": null } }),
    )
    .await
    .expect(200);
    http.get(&format!("{ADDRESSES}/10.96.0.77")).await.expect(404);
    http.patch(
        &format!("{SERVICES}/b"),
        MERGE,
        &json!({ "spec": { "type": "ClusterIP", "externalName": null, "clusterIP": "10.96.0.78" } }),
    )
    .await
    .expect(200);
    http.get(&format!("{ADDRESSES}/10.96.0.78")).await.expect(200);
    http.post(SERVICES, &service("headless", json!({ "clusterIP": "None" }))).await.expect(201);
    for name in ["a", "b"] {
        http.delete(&format!("{SERVICES}/{name}")).await.expect(200);
    }
    assert_eq!(names(&http).await, HashSet::from(["10.96.0.1".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_range_is_used_from_above_until_it_is_full_and_another_helps_out() {
    let (_cluster, http) = tuned(([10, 50, 0, 0].into(), 26), None).await;
    let chosen = |ip: &str| ip.parse::<Ipv4Addr>().unwrap().octets()[3] <= 16;
    let mut seen = HashSet::new();
    let mut creates = Vec::new();
    for i in 0..45 {
        let http = http.clone();
        creates.push(tokio::spawn(async move {
            http.post(SERVICES, &service(&format!("s{i}"), json!({}))).await.expect(201)
        }));
    }
    for create in creates {
        let made = create.await.unwrap();
        assert!(!chosen(&ip(&made)), "{}", ip(&made));
        assert!(seen.insert(ip(&made)), "{} twice", ip(&made));
    }
    for i in 45..61 {
        let made = http.post(SERVICES, &service(&format!("s{i}"), json!({}))).await.expect(201);
        assert!(seen.insert(ip(&made)), "{} twice", ip(&made));
        assert_eq!(chosen(&ip(&made)), i >= 46, "{i}: {}", ip(&made));
    }
    let why = "failed to allocate a serviceIP for Service \"more\": range is full";
    http.post(SERVICES, &service("more", json!({}))).await.refused(500, "InternalError", why);

    let range = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": { "name": "second" }, "spec": { "cidrs": ["10.60.0.0/29"] } });
    http.post(RANGES, &range).await.expect(201);
    http.post(SERVICES, &service("more", json!({}))).await.refused(500, "InternalError", why);
    let ready = |status: &str| json!({ "status": { "conditions": [{ "type": "Ready", "status": status, "reason": "", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" }] } });
    http.patch(&format!("{RANGES}/second/status"), MERGE, &ready("True")).await.expect(200);
    let made = http.post(SERVICES, &service("more", json!({}))).await.expect(201);
    assert!(ip(&made).starts_with("10.60.0."), "{}", ip(&made));
    // Any of the six may have been chosen.
    let asked = if ip(&made) == "10.60.0.6" { "10.60.0.5" } else { "10.60.0.6" };
    http.post(SERVICES, &service("asked", json!({ "clusterIP": asked }))).await.expect(201);
    // Nothing is taken from a range that goes; what was taken stays.
    http.patch(&format!("{RANGES}/second"), MERGE, &json!({ "metadata": { "finalizers": ["a.b/hold"] } }))
        .await
        .expect(200);
    http.delete(&format!("{RANGES}/second")).await.expect(200);
    http.post(SERVICES, &service("late", json!({ "clusterIP": "10.60.0.4" }))).await.expect(422);
    http.get(&format!("{ADDRESSES}/{asked}")).await.expect(200);
    http.delete(&format!("{SERVICES}/asked")).await.expect(200);
    http.get(&format!("{ADDRESSES}/{asked}")).await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_are_repaired_and_the_default_range_comes_back() {
    let cluster = cluster().await;
    let http = cluster.admin();
    let made = http.post(SERVICES, &service("a", json!({}))).await.expect(201);
    let path = format!("{ADDRESSES}/{}", ip(&made));
    http.delete(&path).await.expect(200);
    // Somebody else's object holds its address, whatever it is for; another one has lost its labels.
    let foreign = |name: &str, parent: Value| json!({ "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "metadata": { "name": name }, "spec": { "parentRef": parent } });
    http.post(ADDRESSES, &foreign("10.96.9.9", json!({ "resource": "gateways", "group": "x.io", "name": "g" })))
        .await
        .expect(201);
    http.post(SERVICES, &service("b", json!({ "clusterIP": "10.96.9.9" }))).await.refused(
        422,
        "Invalid",
        "provided IP is already allocated",
    );
    let mut leaked = foreign("10.96.9.8", json!({ "resource": "odd", "name": "g" }));
    leaked["metadata"]["labels"] = json!({ "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io", "ipaddress.kubernetes.io/ip-family": "IPv4" });
    http.post(ADDRESSES, &leaked).await.expect(201);
    cluster.api.registry().repair_addresses().await.unwrap();
    let mut watch = http.watch(&format!("{ADDRESSES}?watch=1&fieldSelector=metadata.name%3D{}", ip(&made))).await;
    assert_eq!(watch.next().await.unwrap()["object"]["spec"]["parentRef"]["name"], "a");
    http.get(&format!("{ADDRESSES}/10.96.9.9")).await.expect(200);
    drop(watch);
    let mut watch = http.watch(&format!("{RANGES}?watch=1")).await;
    watch.next().await.unwrap();
    http.get(&format!("{ADDRESSES}/10.96.9.8")).await.expect(404);

    http.delete(&format!("{RANGES}/kubernetes")).await.expect(200);
    assert_eq!(watch.next().await.unwrap()["type"], "DELETED");
    assert_eq!(watch.next().await.unwrap()["type"], "ADDED");
    // After a restart everything is found again.
    drop((http, watch));
    let cluster = cluster.restart().await;
    let http = cluster.admin();
    http.post(SERVICES, &service("c", json!({ "clusterIP": ip(&made) }))).await.expect(422);
    http.get(&path).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_of_two_families() {
    let six: IpAddr = "fd00:10::".parse().unwrap();
    let (_cluster, http) = tuned(([10, 50, 0, 0].into(), 24), Some((six, 112))).await;
    assert_eq!(
        http.get(&format!("{RANGES}/kubernetes")).await.expect(200)["spec"]["cidrs"],
        json!(["10.50.0.0/24", "fd00:10::/112"])
    );
    let families = |s: &Value| s["spec"]["ipFamilies"].clone();
    let single = http.post(SERVICES, &service("single", json!({}))).await.expect(201);
    assert_eq!((families(&single), &single["spec"]["ipFamilyPolicy"]), (json!(["IPv4"]), &json!("SingleStack")));
    let six = http.post(SERVICES, &service("six", json!({ "ipFamilies": ["IPv6"] }))).await.expect(201);
    assert!(ip(&six).starts_with("fd00:10::"));
    let both = http.post(SERVICES, &service("both", json!({ "ipFamilyPolicy": "RequireDualStack" }))).await.expect(201);
    assert_eq!(families(&both), json!(["IPv4", "IPv6"]));
    let second = both["spec"]["clusterIPs"][1].as_str().unwrap().to_owned();
    http.get(&format!("{ADDRESSES}/{second}")).await.expect(200);

    let path = format!("{SERVICES}/single");
    let up = http.patch(&path, MERGE, &json!({ "spec": { "ipFamilyPolicy": "PreferDualStack" } })).await.expect(200);
    assert_eq!((families(&up), ip(&up)), (json!(["IPv4", "IPv6"]), ip(&single)));
    let added = up["spec"]["clusterIPs"][1].as_str().unwrap().to_owned();
    http.get(&format!("{ADDRESSES}/{added}")).await.expect(200);
    let why = "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be 'SingleStack' to release the secondary cluster IP";
    http.patch(&path, MERGE, &json!({ "spec": { "clusterIPs": [ip(&single)] } })).await.refused(422, "Invalid", why);
    let down = http.patch(&path, MERGE, &json!({ "spec": { "ipFamilyPolicy": "SingleStack" } })).await.expect(200);
    assert_eq!((families(&down), &down["spec"]["clusterIPs"]), (json!(["IPv4"]), &json!([ip(&single)])));
    http.get(&format!("{ADDRESSES}/{added}")).await.expect(404);
    let headless = http.post(SERVICES, &service("headless", json!({ "clusterIP": "None" }))).await.expect(201);
    assert_eq!(
        (families(&headless), &headless["spec"]["ipFamilyPolicy"]),
        (json!(["IPv4", "IPv6"]), &json!("RequireDualStack"))
    );
    let why = "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified";
    http.post(SERVICES, &service("x", json!({ "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4", "IPv6"] })))
        .await
        .refused(422, "Invalid", why);

    let other = cluster().await;
    let http = other.admin();
    let why = "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services";
    http.post(SERVICES, &service("x", json!({ "ipFamilyPolicy": "RequireDualStack" })))
        .await
        .refused(422, "Invalid", why);
    http.post(SERVICES, &service("x", json!({ "ipFamilies": ["IPv6"] }))).await.refused(
        422,
        "Invalid",
        "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
    );
    let preferred =
        http.post(SERVICES, &service("p", json!({ "ipFamilyPolicy": "PreferDualStack" }))).await.expect(201);
    assert_eq!(preferred["spec"]["ipFamilies"], json!(["IPv4"]));
    let bad = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": { "name": "x" }, "spec": { "cidrs": ["10.0.0.0/24", "10.1.0.0/24"] } });
    http.post(RANGES, &bad).await.refused(422, "Invalid", "may specify no more than one IP for each IP family");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_ports_are_shared_by_protocols_and_leave_the_lower_part() {
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let cluster = start_tuned(dir, Options::default(), |c| c.node_ports = 30000..=30063).await;
    let http = cluster.admin();
    let dns = json!({ "type": "NodePort", "ports": [
        { "name": "u", "port": 53, "protocol": "UDP" }, { "name": "t", "port": 53 }, { "name": "m", "port": 9153 }] });
    let made = http.post(SERVICES, &service("dns", dns)).await.expect(201);
    let ports: Vec<i64> =
        made["spec"]["ports"].as_array().unwrap().iter().map(|p| p["nodePort"].as_i64().unwrap()).collect();
    assert!(ports[0] == ports[1] && ports[1] != ports[2] && ports.iter().all(|p| *p >= 30016), "{ports:?}");
    let lb = json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local" });
    let made = http.post(SERVICES, &service("lb", lb)).await.expect(201);
    let health = made["spec"]["healthCheckNodePort"].as_i64().unwrap();
    assert!(health >= 30016 && !ports.contains(&health), "{health}");
    let why = format!("spec.ports[0].nodePort: Invalid value: {health}: provided port is already allocated");
    let taken = json!({ "type": "NodePort", "ports": [{ "port": 1, "nodePort": health }] });
    http.post(SERVICES, &service("x", taken.clone())).await.refused(422, "Invalid", &why);
    http.patch(&format!("{SERVICES}/lb"), MERGE, &json!({ "spec": { "externalTrafficPolicy": "Cluster" } }))
        .await
        .expect(200);
    http.post(SERVICES, &service("x", taken)).await.expect(201);
}
