//! Plugins that are off unless asked for, with settings from `--admission-control-config-file`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ironkeel_admission::{PluginSet, PluginSettings, chain_with};
use ironkeel_object::{ObjectMeta, ObjectSource, Value, object};
use ironkeel_registry::{ApiError, Attributes, Chain, KindRow, Operation, Reason, Row, User};
use ironkeel_schema::{Resource, resources};
use parking_lot::Mutex;

/// Resource, namespace and name.
type Key = (&'static str, String, String);

#[derive(Default)]
struct Memory(Mutex<BTreeMap<Key, Arc<Value>>>);

impl Memory {
    fn put(&self, object: Value) {
        let gvk = object.gvk();
        let row = resources().iter().find(|r| r.kind == gvk.kind && r.group == gvk.group).unwrap();
        self.0.lock().insert((row.plural, object.namespace().into(), object.name().into()), Arc::new(object));
    }
}

impl ObjectSource for Memory {
    fn get(&self, resource: &'static Resource, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.0.lock().get(&(resource.plural, namespace.into(), name.into())).cloned()
    }
    fn list(&self, _: &'static Resource, _: &str) -> Vec<Arc<Value>> {
        Vec::new()
    }
    fn version(&self, _: &'static Resource) -> u64 {
        0
    }
}

struct World {
    objects: Arc<Memory>,
    chain: Chain,
}

const DEFAULTS: &[&str] =
    &["ServiceAccount", "Priority", "DefaultTolerationSeconds", "LimitRanger", "PodTopologyLabels"];

fn world(plugins: &[&str], settings: PluginSettings) -> World {
    let objects = Arc::new(Memory::default());
    objects.put(object!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "n" } }));
    let set = PluginSet::default().with_flags(plugins, DEFAULTS).unwrap();
    World { chain: chain_with(objects.clone(), set, settings), objects }
}

/// Settings out of a file, as the flag names it.
fn settings(text: &str) -> Result<PluginSettings, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("admission.yaml");
    std::fs::write(&file, text).unwrap();
    PluginSettings::load(&file).map_err(|e| e.to_string().replace(&dir.path().display().to_string(), "DIR"))
}

fn plugin(name: &str, configuration: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n- name: {name}\n  configuration:\n{configuration}"
    )
}

impl World {
    fn annotate(&self, key: &str, value: &str) {
        let mut n = object!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "n" } });
        n.meta_mut().object("annotations").insert(key.to_owned(), value);
        self.objects.put(n);
    }

    async fn ask(
        &self,
        operation: Operation,
        mut object: Value,
        old: Option<&Value>,
        user: &str,
    ) -> Result<Value, ApiError> {
        let gvk = object.gvk();
        let row = Row {
            id: 0,
            kind: KindRow(ironkeel_kinds::kind_for_gvk(&gvk.group, &gvk.version, &gvk.kind).unwrap().clone()),
            api_version: gvk.api_version(),
            stored: None,
            converts: false,
            converter: None,
            structure: None,
        };
        let (namespace, name) = (object.namespace().to_owned(), object.name().to_owned());
        let user = User { name: user.into(), ..User::default() };
        let (options, warnings, annotations) = (Value::object(), Mutex::default(), Mutex::default());
        let a = Attributes {
            operation,
            row: &row,
            subresource: "",
            namespace: &namespace,
            name: &name,
            shown_name: &name,
            user: &user,
            verb: "update",
            dry_run: false,
            options: &options,
            warnings: &warnings,
            annotations: &annotations,
        };
        self.chain.mutate(&a, &mut object, old).await?;
        self.chain.validate(&a, Some(&object), old).await?;
        Ok(object)
    }

    async fn create(&self, object: Value) -> Result<Value, ApiError> {
        self.ask(Operation::Create, object, None, "someone").await
    }
}

fn pod(spec: Value) -> Value {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        *spec.slot(&["containers"]) = object!([{ "name": "c", "image": "i" }]);
    }
    object!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "namespace": "n" }, "spec": (spec) })
}

#[tokio::test]
async fn a_namespace_chooses_nodes_for_its_pods() {
    let file = plugin(
        "PodNodeSelector",
        "    podNodeSelectorPluginConfig:\n      clusterDefaultNodeSelector: zone=a\n      n: zone=a,disk=ssd,team=x\n",
    );
    let w = world(&["PodNodeSelector"], settings(&file).unwrap());
    let made = w.create(pod(object!({ "nodeSelector": { "disk": "ssd" } }))).await.unwrap();
    assert_eq!(made["spec"]["nodeSelector"], object!({ "zone": "a", "disk": "ssd" }));
    let conflict = "pods \"p\" is forbidden: pod node label selector conflicts with its namespace node label selector";
    let e = w.create(pod(object!({ "nodeSelector": { "zone": "b" } }))).await.unwrap_err();
    assert_eq!((e.reason, e.message.as_str()), (Reason::Forbidden, conflict));
    let e = w.create(pod(object!({ "nodeSelector": { "other": "1" } }))).await.unwrap_err();
    assert_eq!(
        e.message,
        "pods \"p\" is forbidden: pod node label selector labels conflict with its namespace whitelist"
    );
    w.annotate("scheduler.alpha.kubernetes.io/node-selector", "team=x");
    let made = w.create(pod(object!({}))).await.unwrap();
    assert_eq!(made["spec"]["nodeSelector"], object!({ "team": "x" }));
}

#[tokio::test]
async fn tolerations_are_merged_and_held_to_a_list() {
    let file = plugin(
        "PodTolerationRestriction",
        "    apiVersion: podtolerationrestriction.admission.k8s.io/v1alpha1\n    kind: Configuration\n    default:\n    - {key: cluster, operator: Exists}\n    whitelist:\n    - {key: cluster, operator: Exists}\n    - {key: own, operator: Equal, value: v}\n    - {key: node.kubernetes.io/memory-pressure, operator: Exists}\n",
    );
    let w = world(&["PodTolerationRestriction"], settings(&file).unwrap());
    let made = w
        .create(pod(object!({ "tolerations": [{ "key": "cluster", "operator": "Exists", "effect": "NoSchedule" }] })))
        .await
        .unwrap();
    assert_eq!(
        made["spec"]["tolerations"],
        object!([{ "key": "cluster", "operator": "Exists" }]),
        "the wider one stays"
    );
    let busy = object!({ "containers": [{ "name": "c", "image": "i", "resources": { "requests": { "cpu": "1" } } }] });
    let made = w.create(pod(busy)).await.unwrap();
    let added = made.items_at(&["spec", "tolerations"])[1].str_at(&["key"]);
    assert_eq!(added, Some("node.kubernetes.io/memory-pressure"));
    let other = pod(object!({ "tolerations": [{ "key": "own", "operator": "Equal", "value": "w" }] }));
    let e = w.create(other.clone()).await.unwrap_err();
    assert_eq!(
        e.message,
        "pod tolerations (possibly merged with namespace default tolerations) conflict with its cluster whitelist"
    );
    w.annotate("scheduler.alpha.kubernetes.io/tolerationsWhitelist", "[{\"key\":\"own\",\"operator\":\"Exists\"}]");
    let e = w.create(other.clone()).await.unwrap_err();
    assert!(e.message.ends_with("its namespace whitelist"), "the cluster's default is not on it: {}", e.message);
    w.annotate("scheduler.alpha.kubernetes.io/tolerationsWhitelist", "");
    w.create(other).await.unwrap();
}

#[tokio::test]
async fn events_are_limited_by_what_they_have_in_common() {
    let file = plugin(
        "EventRateLimit",
        "    limits:\n    - {type: Namespace, qps: 1, burst: 3, cacheSize: 2}\n    - {type: User, qps: 1, burst: 4}\n",
    );
    let w = world(&["EventRateLimit"], settings(&file).unwrap());
    let event = |namespace: &str| object!({ "apiVersion": "v1", "kind": "Event", "metadata": { "name": "e", "namespace": (namespace) } });
    w.objects.put(object!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "m" } }));
    for _ in 0..3 {
        w.ask(Operation::Create, event("n"), None, "a").await.unwrap();
    }
    let e = w.ask(Operation::Create, event("n"), None, "b").await.unwrap_err();
    assert_eq!((e.reason, e.message.as_str()), (Reason::TooManyRequests, "limit reached on type Namespace for key n"));
    w.ask(Operation::Create, event("m"), None, "a").await.unwrap();
    let e = w.ask(Operation::Create, event("m"), None, "a").await.unwrap_err();
    assert_eq!(e.message, "limit reached on type User for key a");
    w.create(pod(object!({}))).await.unwrap();
}

#[tokio::test]
async fn running_pods_change_as_their_node_can() {
    let w = world(&[], PluginSettings::default());
    let node = |features: Value| object!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node" }, "status": { "declaredFeatures": (features) } });
    w.objects.put(node(object!([])));
    let running = |cpu: &str, generation: i64| {
        let mut p = pod(object!({ "nodeName": "node", "resources": { "requests": { "cpu": (cpu) } } }));
        p.meta_mut().insert("generation", generation);
        p
    };
    let (old, new) = (running("1", 1), running("2", 2));
    let e = w.ask(Operation::Update, new.clone(), Some(&old), "u").await.unwrap_err();
    let why = "pods \"p\" is forbidden: pod update requires features InPlacePodLevelResourcesVerticalScaling which are not available on node \"node\"";
    assert_eq!(e.message, why);
    w.ask(Operation::Update, running("1", 1), Some(&old), "u").await.unwrap();
    w.objects.put(node(object!(["InPlacePodLevelResourcesVerticalScaling"])));
    w.ask(Operation::Update, new, Some(&old), "u").await.unwrap();
}

#[test]
fn the_file_says_what_is_known_or_is_refused() {
    let check = |text: &str, why: &str| {
        let found = settings(text).unwrap_err();
        assert!(found.contains(why), "{found:?} lacks {why:?}");
    };
    check("kind: Other\napiVersion: v1\n", "must be an AdmissionConfiguration of apiserver.config.k8s.io/v1");
    check(&plugin("EventRateLimit", "    limits: []\n"), "limits: Invalid value: []: must not be empty");
    let bad = "    limits:\n    - {type: Odd, qps: 1, burst: 1}\n";
    check(&plugin("EventRateLimit", bad), "limits[0].type: Unsupported value: \"Odd\"");
    check(
        &plugin("EventRateLimit", "    limits:\n    - {type: User, qps: 0, burst: 1}\n"),
        "limits[0].qps: Invalid value: 0: must be positive",
    );
    check(&plugin("LimitRanger", "    a: b\n"), "LimitRanger: this plugin takes no configuration here");
    check(&plugin("PodSecurity", "    defaults: {enforce: odd}\n"), "defaults.enforce: Invalid value: \"odd\"");
    check(&plugin("ImagePolicyWebhook", "    imagePolicy: {}\n"), "imagePolicy.kubeConfigFile is missing");
    check(&plugin("PodNodeSelector", "    wrong: {}\n"), "unknown field \"wrong\"");
    let missing = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n- {name: PodSecurity, path: missing.yaml}\n";
    check(missing, "DIR/missing.yaml");
    let strict = settings(&plugin(
        "PodSecurity",
        "    defaults: {enforce: restricted, enforce-version: v1.30}\n    exemptions: {namespaces: [x]}\n",
    ))
    .unwrap();
    assert_eq!(strict.pod_security.unwrap().exempt.namespaces, ["x"]);
    assert!(PluginSettings::load(Path::new("/nonexistent/file")).is_err());
}

#[test]
fn every_plugin_of_upstreams_list_can_be_named() {
    for name in [
        "NamespaceAutoProvision",
        "PodNodeSelector",
        "PodTolerationRestriction",
        "EventRateLimit",
        "ImagePolicyWebhook",
    ] {
        let set = PluginSet::default();
        assert!(!set.names().any(|n| n == name), "{name} is off");
        let none: [&str; 0] = [];
        assert!(set.with_flags(&[name], &none).unwrap().names().any(|n| n == name), "{name} can be turned on");
    }
    assert!(PluginSet::default().names().any(|n| n == "NodeDeclaredFeatureValidator"));
}

#[tokio::test]
async fn images_are_always_pulled() {
    let w = world(&["AlwaysPullImages"], PluginSettings::default());
    let spec = object!({
        "initContainers": [{ "name": "i", "image": "i", "imagePullPolicy": "Never" }],
        "containers": [{ "name": "c", "image": "c", "imagePullPolicy": "IfNotPresent" }, { "name": "d", "image": "d" }],
        "volumes": [{ "name": "v", "image": { "reference": "v", "pullPolicy": "Never" } }, { "name": "e", "emptyDir": {} }],
    });
    let made = w.create(pod(spec.clone())).await.unwrap();
    assert_eq!(made["spec"]["initContainers"][0]["imagePullPolicy"], Value::from("Always"));
    for i in 0..2 {
        assert_eq!(made["spec"]["containers"][i]["imagePullPolicy"], Value::from("Always"));
    }
    assert_eq!(made["spec"]["volumes"][0]["image"]["pullPolicy"], Value::from("Always"));
    assert!(made["spec"]["volumes"][1]["image"].is_null());
    // An update that brings no image is left as it is.
    let old = pod(spec.clone());
    let same = w.ask(Operation::Update, pod(spec.clone()), Some(&old), "someone").await.unwrap();
    assert_eq!(same["spec"]["containers"][0]["imagePullPolicy"], Value::from("IfNotPresent"));
    let mut changed = pod(spec);
    *changed.slot(&["spec", "containers"]) = object!([{ "name": "c", "image": "new", "imagePullPolicy": "Never" }]);
    let changed = w.ask(Operation::Update, changed, Some(&old), "someone").await.unwrap();
    assert_eq!(changed["spec"]["containers"][0]["imagePullPolicy"], Value::from("Always"));
}

#[tokio::test]
async fn pods_keep_others_off_a_node_only() {
    let w = world(&["LimitPodHardAntiAffinityTopology"], PluginSettings::default());
    let apart = |kind: &'static str, keys: &[&str]| {
        let terms: Vec<Value> = keys.iter().map(|k| object!({ "topologyKey": (*k) })).collect();
        let mut spec = Value::object();
        *spec.slot(&["affinity", kind, "requiredDuringSchedulingIgnoredDuringExecution"]) = Value::from(terms);
        pod(spec)
    };
    let (host, zone) = ("kubernetes.io/hostname", "topology.kubernetes.io/zone");
    w.create(apart("podAntiAffinity", &[host])).await.unwrap();
    w.create(apart("podAffinity", &[zone])).await.unwrap();
    let e = w.create(apart("podAntiAffinity", &[host, zone])).await.unwrap_err();
    let want = "pods \"p\" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey topology.kubernetes.io/zone but only key kubernetes.io/hostname is allowed";
    assert_eq!((e.code(), e.message.as_str()), (403, want));
}

#[tokio::test]
async fn who_asks_for_a_device_tolerates_its_nodes() {
    let w = world(&["ExtendedResourceToleration"], PluginSettings::default());
    let asking = |names: &[&str]| {
        let mut container = object!({ "name": "c", "image": "i" });
        for name in names {
            let requests = container.slot(&["resources", "requests"]);
            if requests.is_null() {
                *requests = Value::object();
            }
            requests.as_object_mut().unwrap().insert((*name).to_owned(), "1");
        }
        pod(object!({ "containers": [container] }))
    };
    let exists = |key: &str| object!({ "key": key, "operator": "Exists", "effect": "NoSchedule" });
    let made = w.create(asking(&["cpu", "example.com/b", "example.com/a", "kubernetes.io/x"])).await.unwrap();
    assert_eq!(made["spec"]["tolerations"], object!([(exists("example.com/a")), (exists("example.com/b"))]));
    let again = w.create(made.clone()).await.unwrap();
    assert_eq!(again["spec"]["tolerations"], made["spec"]["tolerations"]);
    assert!(w.create(asking(&["cpu", "hugepages-2Mi"])).await.unwrap()["spec"]["tolerations"].is_null());
}

#[tokio::test]
async fn claims_grow_where_their_class_allows_it() {
    let w = world(&["PersistentVolumeClaimResize"], PluginSettings::default());
    let claim = |class: &str, size: &str| {
        object!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "c", "namespace": "n" },
            "spec": { "storageClassName": class, "resources": { "requests": { "storage": size } } },
            "status": { "phase": "Bound" },
        })
    };
    for (name, expands) in [("grows", true), ("fixed", false)] {
        w.objects.put(object!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": name },
            "provisioner": "p", "allowVolumeExpansion": expands,
        }));
    }
    let why = "persistentvolumeclaims \"c\" is forbidden: only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
    for (class, from, to, fine) in [
        ("grows", "1Gi", "2Gi", true),
        ("fixed", "1Gi", "2Gi", false),
        ("fixed", "2Gi", "1Gi", true),
        ("fixed", "1Gi", "1024Mi", true),
        ("absent", "1Gi", "2Gi", false),
        ("", "1Gi", "2Gi", false),
    ] {
        let asked = w.ask(Operation::Update, claim(class, to), Some(&claim(class, from)), "someone").await;
        match fine {
            true => assert!(asked.is_ok(), "{class} {from} {to}"),
            false => assert_eq!(asked.unwrap_err().message, why, "{class} {from} {to}"),
        }
    }
}

#[tokio::test]
async fn nothing_is_done_in_a_namespace_that_is_not_there() {
    let w = world(&["NamespaceExists"], PluginSettings::default());
    let map = |namespace: &str| object!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "m", "namespace": namespace } });
    let old = map("gone");
    let e = w.ask(Operation::Update, map("gone"), Some(&old), "someone").await.unwrap_err();
    assert_eq!((e.code(), e.message.as_str()), (404, "namespaces \"gone\" not found"));
    let here = map("n");
    w.ask(Operation::Update, map("n"), Some(&here), "someone").await.unwrap();
}
