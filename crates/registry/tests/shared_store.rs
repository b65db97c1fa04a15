//! Two servers on one etcd: what one writes the other reads, in upstream's stored form; addresses and
//! ports are given out once.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use ironkeel_etcd::Etcd;
use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{
    AdmitAll, ApiError, DeleteOptions, Entry, ListRequest, Reason, Registry, Replace, ServiceAddresses, SystemClock,
    User, WriteRequest,
};
use ironkeel_store::{Condition, Store};
use ironkeel_testkit::etcd::{Server, installed};
use serde_json::json;

/// A PersistentVolumeClaim as upstream 1.36.2 has stored it.
const UPSTREAMS_CLAIM: &[u8] = b"k8s\x00\n\x1b\n\x02v1\x12\x15PersistentVolumeClaim\x12\xbe\x01\
    \ne\n\x04pvc1\x12\x00\x1a\x07interop\"\x00*$1175fa40-d922-4e4b-b41e-4def4f56f6202\x008\x00B\x08\x08\x96\x88\x85\xd8\x06\x10\x00\
    r\x1ckubernetes.io/pvc-protection\
    \x12Q\n\rReadWriteOnce\x12\"\n\x0f\n\x07storage\x12\x04\n\x021M\x12\x0f\n\x07storage\x12\x04\n\x022M\x1a\x00\
    \"\x0e\n\x0c\n\x03pvc\x12\x05stuff2\nFilesystem\x1a\x02\n\x00\x1a\x00\"\x00";
/// A CustomResourceDefinition and an APIService as upstream stores them, abridged.
const UPSTREAMS_DEFINITION: &str = "{\"kind\":\"CustomResourceDefinition\",\"apiVersion\":\"apiextensions.k8s.io/v1beta1\",\
    \"metadata\":{\"name\":\"widgets.example.com\",\"uid\":\"e7ddba16-3e2b-4d8d-bebb-45d55993d65e\",\"generation\":1},\
    \"spec\":{\"group\":\"example.com\",\"version\":\"v1\",\"names\":{\"plural\":\"widgets\",\"singular\":\"widget\",\
    \"kind\":\"Widget\",\"listKind\":\"WidgetList\"},\"scope\":\"Namespaced\",\"validation\":{\"openAPIV3Schema\":\
    {\"type\":\"object\"}},\"versions\":[{\"name\":\"v1\",\"served\":true,\"storage\":true}],\
    \"preserveUnknownFields\":false}}\n";

async fn registry(store: Arc<Etcd>) -> Arc<Registry> {
    let services = ServiceAddresses::new([10, 0, 0, 0].into(), 24, 30000..=30199);
    Registry::start(store, Arc::new(SystemClock), ironkeel_kinds::kinds(), services).await.unwrap()
}

fn request(registry: &Registry, plural: &str, name: &str) -> WriteRequest {
    WriteRequest {
        row: registry.row("", "v1", plural).unwrap(),
        namespace: "default".into(),
        name: name.into(),
        subresource: String::new(),
        user: Arc::new(User { name: "somebody".into(), ..User::default() }),
        verb: "update",
        dry_run: false,
        field_manager: "test".into(),
        admission: Arc::new(AdmitAll),
        options: Arc::default(),
        warnings: Arc::default(),
        annotations: Arc::default(),
    }
}

async fn create(registry: &Registry, plural: &str, body: serde_json::Value) -> Result<Arc<Entry>, ApiError> {
    let request = request(registry, plural, "");
    let tree: Value = ironkeel_codec::parse_json(body.to_string().as_bytes()).unwrap();
    Ok(registry.create(&request, tree).await?.entry)
}

fn get(registry: &Registry, plural: &str, name: &str) -> Result<Arc<Entry>, ApiError> {
    registry.get(&registry.row("", "v1", plural).unwrap(), "default", name)
}

fn service(name: &str, kind: &str, ip: Option<&str>) -> serde_json::Value {
    json!({"metadata": {"name": name}, "spec": {"type": kind, "clusterIP": ip, "ports": [{"port": 80}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_server_writes_the_other_reads() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    let etcd = server.connect().await;
    let (one, two) = (registry(etcd.clone()).await, registry(server.connect().await).await);
    for number in 0..20 {
        let name = format!("m{number}");
        let written =
            create(&one, "configmaps", json!({"metadata": {"name": name}, "data": {"a": "1"}})).await.unwrap();
        two.fresh().await.unwrap();
        let seen = get(&two, "configmaps", &name).unwrap();
        assert_eq!((seen.revision, seen.json()), (written.revision, written.json()));
        let mut tree = seen.tree().map(Arc::unwrap_or_clone).unwrap();
        *tree.slot(&["data", "b"]) = "2".into();
        let updated = two.update(&request(&two, "configmaps", &name), &Replace(tree)).await.unwrap().entry;
        one.fresh().await.unwrap();
        assert_eq!(get(&one, "configmaps", &name).unwrap().json(), updated.json());
    }
    let stored = etcd.get(b"/registry/configmaps/default/m0", 0).await.unwrap().0.unwrap();
    assert!(stored.value.starts_with(b"k8s\0\n"), "{:?}", stored.value);
    assert!(!stored.value.windows(15).any(|w| w == b"resourceVersion"), "{:?}", stored.value);
    let first = get(&one, "configmaps", "m0").unwrap().revision;
    let row = one.row("", "v1", "configmaps").unwrap();
    one.delete(&request(&one, "configmaps", "m0"), &DeleteOptions::default()).await.unwrap();
    two.fresh().await.unwrap();
    assert_eq!(get(&two, "configmaps", "m0").unwrap_err().reason, Reason::NotFound);
    let exact = ListRequest {
        resource_version: first.to_string(),
        version_match: Some(ironkeel_registry::VersionMatch::Exact),
        ..ListRequest::default()
    };
    let listed = two.list(&row, &exact).await.unwrap();
    assert!(listed.entries.iter().any(|e| e.name() == "m0"), "a list of history does not read protobuf");
    for registry in [one, two] {
        registry.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_upstream_has_stored_is_served() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    let etcd = server.connect().await;
    let raw = async |key: &str, value: Bytes| {
        etcd.put(key.to_owned().into(), value, Condition::Always, 0).await.unwrap();
    };
    let claim = Bytes::from_static(UPSTREAMS_CLAIM);
    raw("/registry/persistentvolumeclaims/default/before", claim.clone()).await;
    let definitions = "/registry/apiextensions.k8s.io/customresourcedefinitions/widgets.example.com";
    raw(definitions, UPSTREAMS_DEFINITION.into()).await;
    raw("/registry/configmaps/default/broken", Bytes::from_static(b"k8s\0\xff\xff")).await;
    let registry = registry(server.connect().await).await;
    raw("/registry/persistentvolumeclaims/default/after", claim).await;
    registry.fresh().await.unwrap();
    for name in ["before", "after"] {
        let entry = get(&registry, "persistentvolumeclaims", name).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&entry.json()).unwrap();
        assert_eq!(json["metadata"]["resourceVersion"], entry.revision.to_string());
        assert_eq!(json["metadata"]["finalizers"][0], "kubernetes.io/pvc-protection");
        assert_eq!(json["spec"]["resources"]["limits"]["storage"], "1M");
        assert_eq!(json["spec"]["volumeMode"], "Filesystem");
        assert!(entry.json().ends_with(b"}"));
    }
    let row = registry.row("apiextensions.k8s.io", "v1", "customresourcedefinitions").unwrap();
    let entry = registry.get(&row, "", "widgets.example.com").unwrap();
    let json: serde_json::Value = serde_json::from_slice(&entry.json()).unwrap();
    assert_eq!(json["apiVersion"], "apiextensions.k8s.io/v1");
    assert_eq!(json["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["type"], "object");
    assert!(entry.json().ends_with(b"}"), "a line feed would cut a watch's lines in half");
    let broken = get(&registry, "configmaps", "broken").unwrap_err();
    assert_eq!(broken.reason, Reason::InternalError, "it is there");
    assert!(broken.message.contains("default/broken cannot be read from the store"), "{broken}");
    let configmaps = registry.row("", "v1", "configmaps").unwrap();
    let list = async || registry.list(&configmaps, &ListRequest::default()).await.map(|answer| answer.entries.len());
    assert_eq!(list().await.unwrap_err().reason, Reason::InternalError, "a list without it would say that it is gone");
    // Somebody repairs it beneath.
    let whole = Bytes::from_static(br#"{"kind":"ConfigMap","apiVersion":"v1"}"#);
    raw("/registry/configmaps/default/broken", whole).await;
    registry.fresh().await.unwrap();
    assert!(get(&registry, "configmaps", "broken").is_ok());
    assert_eq!(list().await.unwrap(), 1);
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_and_ports_are_given_out_once() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    let etcd = server.connect().await;
    let (one, two) = (registry(server.connect().await).await, registry(server.connect().await).await);
    let creates = (0..40).map(|number| {
        let registry = if number % 2 == 0 { one.clone() } else { two.clone() };
        tokio::spawn(
            async move { create(&registry, "services", service(&format!("s{number}"), "NodePort", None)).await },
        )
    });
    let (mut addresses, mut ports) = (HashSet::new(), HashSet::new());
    for created in creates.collect::<Vec<_>>() {
        let tree = created.await.unwrap().unwrap().tree().unwrap();
        assert!(addresses.insert(tree.str_at(&["spec", "clusterIP"]).unwrap().to_owned()), "an address twice");
        assert!(ports.insert(tree.items_at(&["spec", "ports"])[0].i64_at(&["nodePort"]).unwrap()), "a port twice");
    }
    let (address, port) = {
        let tree = get(&one, "services", "s0").unwrap().tree().unwrap();
        let port = tree.items_at(&["spec", "ports"])[0].i64_at(&["nodePort"]).unwrap();
        (tree.str_at(&["spec", "clusterIP"]).unwrap().to_owned(), port)
    };
    let claimed = etcd.get(format!("/registry/ipaddresses/{address}").as_bytes(), 0).await.unwrap().0;
    assert!(claimed.unwrap().value.starts_with(b"k8s\0"), "the address is claimed by an IPAddress");

    // What another server has given out is refused in upstream's words, whether this one has seen it or not.
    let error = create(&two, "services", service("thief", "ClusterIP", Some(&address))).await.unwrap_err();
    assert!(error.message.contains("provided IP is already allocated"), "{}", error.message);
    let mut ported = service("thief", "NodePort", None);
    ported["spec"]["ports"][0]["nodePort"] = port.into();
    let error = create(&two, "services", ported.clone()).await.unwrap_err();
    assert!(error.message.contains("provided port is already allocated"), "{}", error.message);

    // What a Service lets go is free for all, at once.
    two.fresh().await.unwrap();
    two.delete(&request(&two, "services", "s0"), &DeleteOptions::default()).await.unwrap();
    assert!(etcd.get(format!("/registry/ipaddresses/{address}").as_bytes(), 0).await.unwrap().0.is_none());
    one.fresh().await.unwrap();
    ported["spec"]["clusterIP"] = address.as_str().into();
    let heir = retry(|| create(&one, "services", ported.clone())).await.tree().unwrap();
    assert_eq!(heir.str_at(&["spec", "clusterIP"]), Some(address.as_str()));
    assert_eq!(heir.name(), "thief");
    for registry in [one, two] {
        registry.stop().await;
    }
}

/// The book of a server follows the other's deletes; its next word counts.
async fn retry<F: Future<Output = Result<Arc<Entry>, ApiError>>>(attempt: impl Fn() -> F) -> Arc<Entry> {
    let started = std::time::Instant::now();
    loop {
        match attempt().await {
            Ok(entry) => return entry,
            Err(error) => assert!(started.elapsed().as_secs() < 10, "{}", error.message),
        }
        tokio::task::yield_now().await;
    }
}
