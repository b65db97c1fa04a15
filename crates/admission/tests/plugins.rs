//! The plugins through the chain, over a plain map of objects.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::sync::Arc;

use ironkeel_admission::{PluginSet, chain_over};
use ironkeel_object::{ObjectMeta, ObjectSource, Value, object};
use ironkeel_registry::{ApiError, Attributes, Chain, KindRow, Operation, Row, User};
use ironkeel_schema::{Resource, resources};
use parking_lot::Mutex;

type Key = (&'static str, String, String);

#[derive(Default)]
struct Memory(Mutex<BTreeMap<Key, Arc<Value>>>);

impl Memory {
    fn put(&self, object: Value) {
        let gvk = object.gvk();
        let row = resources().iter().find(|r| r.kind == gvk.kind && r.group == gvk.group).unwrap();
        self.0.lock().insert((row.plural, object.namespace().into(), object.name().into()), Arc::new(object));
    }
    fn remove(&self, plural: &'static str, name: &str) {
        self.0.lock().remove(&(plural, "n".into(), name.into())).unwrap();
    }
}

impl ObjectSource for Memory {
    fn get(&self, resource: &'static Resource, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.0.lock().get(&(resource.plural, namespace.into(), name.into())).cloned()
    }
    fn list(&self, resource: &'static Resource, namespace: &str) -> Vec<Arc<Value>> {
        let objects = self.0.lock();
        let mine =
            objects.iter().filter(|((p, n, _), _)| *p == resource.plural && (namespace.is_empty() || n == namespace));
        mine.map(|(_, o)| o.clone()).collect()
    }
    fn version(&self, _: &'static Resource) -> u64 {
        0
    }
}

struct World {
    objects: Arc<Memory>,
    chain: Chain,
    warnings: Mutex<Vec<String>>,
    annotations: Mutex<Vec<(String, String)>>,
}

fn world() -> World {
    let objects = Arc::new(Memory::default());
    objects.put(object!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "n" } }));
    objects.put(
        object!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default", "namespace": "n" } }),
    );
    World {
        chain: chain_over(objects.clone(), PluginSet::recommended()),
        objects,
        warnings: Mutex::default(),
        annotations: Mutex::default(),
    }
}

impl World {
    /// Mutates and validates, as the write path does.
    async fn ask(
        &self,
        operation: Operation,
        subresource: &str,
        object: Option<Value>,
        old: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let about = object.as_ref().or(old).unwrap();
        let row = row_of(about);
        let (namespace, name) = (about.namespace().to_owned(), about.name().to_owned());
        let options = Value::object();
        let user = User { name: "someone".into(), ..User::default() };
        let a = Attributes {
            operation,
            row: &row,
            subresource,
            namespace: &namespace,
            name: &name,
            shown_name: &name,
            user: &user,
            verb: "update",
            dry_run: false,
            options: &options,
            warnings: &self.warnings,
            annotations: &self.annotations,
        };
        let mut object = object;
        if let Some(o) = &mut object {
            self.chain.mutate(&a, o, old).await?;
        }
        self.chain.validate(&a, object.as_ref(), old).await?;
        Ok(object.unwrap_or_default())
    }

    async fn create(&self, object: Value) -> Result<Value, ApiError> {
        self.ask(Operation::Create, "", Some(object), None).await
    }

    /// The write path says that the caches show what was created.
    fn written(&self, object: &Value) {
        let (row, user, options) = (row_of(object), User::default(), Value::object());
        let a = Attributes {
            operation: Operation::Create,
            row: &row,
            subresource: "",
            namespace: object.namespace(),
            name: object.name(),
            shown_name: object.name(),
            user: &user,
            verb: "update",
            dry_run: false,
            options: &options,
            warnings: &self.warnings,
            annotations: &self.annotations,
        };
        self.chain.rolled_back(&a, object);
    }
}

fn row_of(object: &Value) -> Row {
    let gvk = object.gvk();
    Row {
        id: 0,
        kind: KindRow(ironkeel_kinds::kind_for_gvk(&gvk.group, &gvk.version, &gvk.kind).unwrap().clone()),
        api_version: gvk.api_version(),
        stored: None,
        converts: false,
        converter: None,
        structure: None,
    }
}

fn pod(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        *spec.slot(&["containers"]) = object!([{ "name": "c", "image": "i" }]);
    }
    object!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "n", "uid": (format!("uid-{name}")) },
        "spec": spec,
    })
}

fn quota(hard: Value) -> Value {
    object!({
        "apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": { "name": "q", "namespace": "n" },
        "spec": { "hard": hard },
    })
}

fn enforcing(level: &str) -> Value {
    object!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": "n", "labels": { "pod-security.kubernetes.io/enforce": level } },
    })
}

#[tokio::test]
async fn a_deleted_object_gives_its_quota_back() {
    let w = world();
    w.objects.put(quota(object!({ "pods": "2" })));
    for round in 0..5 {
        let p = pod(&format!("p{round}"), Value::object());
        let made = w.create(p).await.unwrap();
        // Written and gone again before anyone asks the quota.
        w.objects.put(made.clone());
        w.written(&made);
        w.ask(Operation::Delete, "", None, Some(&made)).await.unwrap();
        w.objects.remove("pods", made.name());
    }
    w.create(pod("a", Value::object())).await.unwrap();
    w.create(pod("b", Value::object())).await.unwrap();
    let e = w.create(pod("c", Value::object())).await.unwrap_err();
    assert_eq!(
        e.message,
        "pods \"c\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"
    );
    assert_eq!(e.code(), 403);
}

#[tokio::test]
async fn a_charge_counts_only_in_the_scopes_that_see_it() {
    let w = world();
    let mut best = quota(object!({ "pods": "1" }));
    *best.slot(&["spec", "scopes"]) = object!(["BestEffort"]);
    w.objects.put(best);
    let busy = object!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": "1" } } }] });
    w.create(pod("a", busy)).await.unwrap();
    w.create(pod("b", Value::object())).await.unwrap();
    let e = w.create(pod("c", Value::object())).await.unwrap_err();
    assert!(e.message.contains("exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"), "{e}");
}

#[tokio::test]
async fn a_quota_of_computing_resources_asks_every_container() {
    let w = world();
    w.objects.put(quota(object!({ "requests.cpu": "1", "limits.memory": "1Gi" })));
    let spec = object!({ "containers": [
        { "name": "b" },
        { "name": "a", "resources": { "requests": { "cpu": "1" } } }
    ] });
    let e = w.create(pod("p", spec)).await.unwrap_err();
    let want = "pods \"p\" is forbidden: failed quota: q: must specify limits.memory for: a,b; requests.cpu for: b";
    assert_eq!(e.message, want);
}

#[tokio::test]
async fn foreign_addresses_of_services_are_denied() {
    let w = world();
    let service = |ips: Value| {
        object!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "s", "namespace": "n" },
            "spec": { "externalIPs": ips },
        })
    };
    let (none, one, two) = (object!([]), object!(["192.0.2.1"]), object!(["192.0.2.1", "192.0.2.2"]));
    w.create(service(none.clone())).await.unwrap();
    let e = w.create(service(one.clone())).await.unwrap_err();
    assert_eq!(e.message, "services \"s\" is forbidden: Use of external IPs is denied by admission control");
    let old = service(one.clone());
    w.ask(Operation::Update, "", Some(service(one)), Some(&old)).await.unwrap();
    w.ask(Operation::Update, "", Some(service(none)), Some(&old)).await.unwrap();
    assert_eq!(w.ask(Operation::Update, "", Some(service(two)), Some(&old)).await.unwrap_err().code(), 403);
}

/// Whoever replaces a Pod's tolerations leaves those that it was given: only additions are allowed.
#[tokio::test]
async fn a_changed_pod_keeps_the_tolerations_that_it_was_given() {
    let w = world();
    let made = w.create(pod("p", object!({}))).await.unwrap();
    let given = made.items_at(&["spec", "tolerations"]).to_vec();
    assert_eq!(given.len(), 2);
    let own = object!({ "key": "a", "operator": "Exists" });
    let mut changed = made.clone();
    *changed.slot(&["spec", "tolerations"]) = Value::Array(vec![own.clone()]);
    let updated = w.ask(Operation::Update, "", Some(changed.clone()), Some(&made)).await.unwrap();
    assert_eq!(updated.items_at(&["spec", "tolerations"]), [vec![own.clone()], given].concat());
    let status = w.ask(Operation::Update, "status", Some(changed), Some(&made)).await.unwrap();
    assert_eq!(status.items_at(&["spec", "tolerations"]), [own]);
}

#[tokio::test]
async fn a_bound_pod_carries_its_nodes_zone() {
    let w = world();
    let labels = object!({ "topology.kubernetes.io/zone": "z1", "kubernetes.io/hostname": "h" });
    w.objects.put(object!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "h", "labels": labels } }));
    let bound = w.create(pod("p", object!({ "nodeName": "h" }))).await.unwrap();
    assert_eq!(bound["metadata"]["labels"], object!({ "topology.kubernetes.io/zone": "z1" }));
}

#[tokio::test]
async fn mirror_pods_are_left_alone_and_name_no_secrets() {
    let w = world();
    let mirror = |spec: Value| {
        let mut p = pod("m", spec);
        p.meta_mut().object("annotations").insert("kubernetes.io/config.mirror", "x");
        p
    };
    let made = w.create(mirror(Value::object())).await.unwrap();
    assert!(made["spec"]["serviceAccountName"].is_null() && made["spec"]["volumes"].is_null());
    let why = "a mirror pod may not reference secrets";
    let token = "a mirror pod may not use ServiceAccountToken volume projections";
    let by_env = object!({ "containers": [
        { "name": "c", "env": [{ "name": "E", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } }] }
    ] });
    for (spec, why) in [
        (object!({ "serviceAccountName": "builder" }), "a mirror pod may not reference service accounts"),
        (object!({ "volumes": [{ "name": "v", "secret": { "secretName": "s" } }] }), why),
        (by_env, why),
        (object!({ "imagePullSecrets": [{ "name": "s" }] }), why),
        (object!({ "volumes": [{ "name": "v", "projected": { "sources": [{ "serviceAccountToken": {} }] } }] }), token),
    ] {
        let e = w.create(mirror(spec)).await.unwrap_err();
        assert_eq!(e.message, format!("pods \"m\" is forbidden: {why}"));
    }
}

#[tokio::test]
async fn a_missing_service_account_is_named() {
    let w = world();
    let e = w.create(pod("p", object!({ "serviceAccountName": "x" }))).await.unwrap_err();
    let want = "pods \"p\" is forbidden: error looking up service account n/x: serviceaccount \"x\" not found";
    assert_eq!(e.message, want);
}

#[tokio::test]
async fn the_restricted_level_says_each_violation_once() {
    let w = world();
    w.objects.put(enforcing("restricted"));
    let fine = object!({
        "allowPrivilegeEscalation": false,
        "runAsNonRoot": true,
        "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] },
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    let with = |context: Value| object!({ "containers": [{ "name": "c", "securityContext": context }] });
    w.create(pod("p", with(fine.clone()))).await.unwrap();
    let change = |path: &[&'static str], value: Value| {
        let mut context = fine.clone();
        *context.slot(path) = value;
        with(context)
    };
    let with_volume = {
        let mut spec = with(fine.clone());
        *spec.slot(&["volumes"]) = object!([{ "name": "v", "nfs": { "server": "s", "path": "/" } }]);
        spec
    };
    let cases = [
        (
            change(&["capabilities", "add"], object!(["SYS_TIME"])),
            "unrestricted capabilities (container \"c\" must not include \"SYS_TIME\" in securityContext.capabilities.add)",
        ),
        (
            change(&["capabilities"], object!({ "add": ["CHOWN"] })),
            "unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]; container \"c\" must not include \"CHOWN\" in securityContext.capabilities.add)",
        ),
        (
            change(&["seccompProfile", "type"], "Unconfined".into()),
            "seccompProfile (container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            change(&["allowPrivilegeEscalation"], Value::Null),
            "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false)",
        ),
        (with_volume, "restricted volume types (volume \"v\" uses restricted volume type \"nfs\")"),
    ];
    for (spec, want) in cases {
        let e = w.create(pod("p", spec)).await.unwrap_err();
        assert_eq!(e.message, format!("pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": {want}"));
    }
}

fn claim(namespace: &str, version: &str, request: Value) -> Value {
    object!({
        "apiVersion": (format!("resource.k8s.io/{version}")), "kind": "ResourceClaim",
        "metadata": { "name": "c", "namespace": namespace },
        "spec": { "devices": { "requests": [{ "name": "r", "exactly": { "deviceClassName": "gpu" } }, request] } },
    })
}

#[tokio::test]
async fn admin_access_to_devices_is_for_labelled_namespaces() {
    let w = world();
    let with = object!({ "name": "a", "exactly": { "deviceClassName": "gpu", "adminAccess": true } });
    let beta = object!({ "name": "a", "deviceClassName": "gpu", "adminAccess": true });
    let why = "spec.devices.requests[1].adminAccess: Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace";
    let template = |version: &str, request: &Value| {
        let spec = claim("n", version, request.clone())["spec"].clone();
        object!({
            "apiVersion": (format!("resource.k8s.io/{version}")), "kind": "ResourceClaimTemplate",
            "metadata": { "name": "c", "namespace": "n" }, "spec": { "spec": spec },
        })
    };
    let asking = [claim("n", "v1", with.clone()), claim("n", "v1beta1", beta), template("v1", &with)];
    for object in &asking {
        let e = w.create(object.clone()).await.unwrap_err();
        let (kind, code) = (object.gvk().kind, e.code());
        assert_eq!((code, e.reason), (422, ironkeel_registry::Reason::Invalid));
        assert_eq!(e.message, format!("{kind}.resource.k8s.io \"c\" is invalid: {why}"));
    }
    let plain = object!({ "name": "a", "exactly": { "deviceClassName": "gpu", "adminAccess": false } });
    w.create(claim("n", "v1", plain)).await.unwrap();
    let labels = object!({ "resource.kubernetes.io/admin-access": "true" });
    let namespace = object!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "n", "labels": labels } });
    w.objects.put(namespace);
    for object in asking {
        w.create(object).await.unwrap();
    }
}

#[tokio::test]
async fn devices_of_claims_are_charged_by_class() {
    let w = world();
    w.objects.put(quota(object!({ "gpu.deviceclass.resource.k8s.io/devices": "3" })));
    let of = |mode: &str, count: i64| {
        let any = object!([
            { "name": "x", "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1 },
            { "name": "y", "deviceClassName": "gpu", "allocationMode": mode, "count": count }
        ]);
        claim("n", "v1", object!({ "name": "a", "firstAvailable": any }))
    };
    let e = w.create(of("All", 0)).await.unwrap_err();
    let want = "resourceclaims.resource.k8s.io \"c\" is forbidden: exceeded quota: q, requested: gpu.deviceclass.resource.k8s.io/devices=32, used: gpu.deviceclass.resource.k8s.io/devices=0, limited: gpu.deviceclass.resource.k8s.io/devices=3";
    assert_eq!(e.message, want);
    w.create(of("ExactCount", 3)).await.unwrap();
}

#[tokio::test]
async fn what_pods_ask_for_of_devices_is_told_apart_from_what_claims_do() {
    const OF_PODS: &str = "requests.deviceclass.resource.kubernetes.io/gpu";
    let w = world();
    let mut hard = object!({ "gpu.deviceclass.resource.k8s.io/devices": "2" });
    *hard.slot(&[OF_PODS]) = "2".into();
    w.objects.put(quota(hard));
    let two =
        object!({ "name": "a", "exactly": { "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2 } });
    let asking = |name: &str| {
        let mut requests = Value::object();
        *requests.slot(&["deviceclass.resource.kubernetes.io/gpu"]) = "2".into();
        let resources = object!({ "requests": (requests.clone()), "limits": requests });
        pod(name, object!({ "containers": [{ "name": "c", "image": "i", "resources": resources }] }))
    };
    w.create(claim("n", "v1", two.clone())).await.unwrap();
    w.create(asking("p")).await.unwrap();
    let e = w.create(asking("q")).await.unwrap_err();
    assert!(e.message.contains(&format!("requested: {OF_PODS}=2, used: {OF_PODS}=2, limited: {OF_PODS}=2")), "{e}");
    let mut other = claim("n", "v1", two);
    other.meta_mut().insert("name", "d");
    let e = w.create(other).await.unwrap_err();
    let devices = "gpu.deviceclass.resource.k8s.io/devices";
    assert!(e.message.contains(&format!("requested: {devices}=2, used: {devices}=2, limited: {devices}=2")), "{e}");
}
