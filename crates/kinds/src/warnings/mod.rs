//! Warnings of creates and updates: what is accepted, but is deprecated, without effect, or hardly as meant.
//!
//! One place for all kinds, because most of them are about things that several kinds hold (templates, node
//! labels, addresses). Errors do not live here.

mod addresses;
mod list;
mod paths;
mod pods;
mod ports;
mod tls;

use ironkeel_object::{ObjectMeta, Value};
use ironkeel_schema::Resource;

use crate::names;
use crate::pod_spec::present;
use addresses::{cidr, ip};
use list::Warnings;

/// A write as warnings look at it.
struct Write<'a> {
    object: &'a Value,
    old: Option<&'a Value>,
    warnings: Warnings,
}

/// Of a write to `object`, through a subresource where one is named.
pub(crate) fn of(resource: &Resource, object: &Value, old: Option<&Value>, subresource: Option<&str>) -> Vec<String> {
    let mut w = Write { object, old, warnings: Warnings::default() };
    match (resource.group, resource.plural, subresource) {
        ("", "services", Some("status")) | ("networking.k8s.io", "ingresses", Some("status")) => {
            w.load_balancer_addresses();
        }
        (_, _, Some(_)) => {}
        ("", "pods", _) if old.is_none() => {
            w.name_in("the Pod's hostname");
            pods::of_pod(object, &mut w.warnings);
        }
        ("", "podtemplates", _) => w.template(&["template"], "template", true),
        ("", "replicationcontrollers", _) | ("apps", "deployments" | "replicasets", _) | ("batch", "jobs", _) => {
            w.name_in_pods();
            if resource.group == "batch" {
                w.indexed_job(&["spec"], "spec");
            }
            w.template(&["spec", "template"], "spec.template", false);
        }
        ("batch", "cronjobs", _) => {
            w.name_in_pods();
            w.indexed_job(&["spec", "jobTemplate", "spec"], "spec.jobTemplate.spec");
            w.template(&["spec", "jobTemplate", "spec", "template"], "spec.jobTemplate.spec.template", true);
        }
        ("apps", "daemonsets", _) => w.template(&["spec", "template"], "spec.template", false),
        ("apps", "statefulsets", _) => w.stateful_set(),
        ("", "services", _) => w.service(),
        ("", "nodes", _) => w.node(),
        ("", "endpoints", _) => w.endpoints(),
        ("", "secrets", _) => {
            let of_tls = object.str_at(&["type"]) == Some("kubernetes.io/tls");
            if let Some(fault) = of_tls.then(|| tls::fault(object)).flatten() {
                w.say(fault);
            }
        }
        ("", "serviceaccounts", _) => w.service_account(),
        ("", "persistentvolumes", _) => w.volume(),
        ("", "persistentvolumeclaims", _) => w.claim(),
        ("networking.k8s.io", "ingresses", _) => w.ingress_class(),
        ("networking.k8s.io", "networkpolicies", _) => w.network_policy(),
        ("discovery.k8s.io", "endpointslices", _) => w.endpoint_slice(),
        ("node.k8s.io", "runtimeclasses", _) => {
            w.node_selector(&["scheduling", "nodeSelector"], "scheduling.nodeSelector");
        }
        ("storage.k8s.io", "storageclasses", _) => w.topologies(),
        ("storage.k8s.io", "csistoragecapacities", _) => w.node_topology(),
        ("storage.k8s.io", "csidrivers", _) => w.token_requests(),
        ("resource.k8s.io", "resourceslices", _) => w.driver_name(),
        _ => {}
    }
    w.warnings.into_vec()
}

/// What is said of a node label that is on its way out.
fn deprecated_label(key: &str) -> Option<&'static str> {
    Some(match key {
        "beta.kubernetes.io/arch" => "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "beta.kubernetes.io/os" => "deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "failure-domain.beta.kubernetes.io/region" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"
        }
        "beta.kubernetes.io/instance-type" => {
            "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"
        }
        "app.kubernetes.io/created-by" => "deprecated since v1.9",
        "scheduler.alpha.kubernetes.io/preferAvoidPods" => "deprecated since v1.22; use Taints and Tolerations instead",
        "node-role.kubernetes.io/master" => "use \"node-role.kubernetes.io/control-plane\" instead",
        _ => return None,
    })
}

/// Deprecated labels, and values that are none, in a term of a node selector.
fn node_selector_term(term: Option<&Value>, values_too: bool, at: &str, w: &mut Warnings) {
    let Some(term) = term else { return };
    for (i, x) in term.items_at(&["matchExpressions"]).iter().enumerate() {
        let key = x.str_at(&["key"]).unwrap_or_default();
        if let Some(text) = deprecated_label(key) {
            w.push(format_args!("{at}.matchExpressions[{i}].key: {key} is {text}"));
        }
        if !values_too {
            continue;
        }
        for (j, value) in x.items_at(&["values"]).iter().enumerate() {
            if w.is_full() {
                return;
            }
            let value = value.as_str().unwrap_or_default();
            for m in names::label_value(value) {
                w.push(format_args!("{at}.matchExpressions[{i}].values[{j}]: {value} is invalid, {m}"));
            }
        }
    }
}

/// A quantity of bytes that is no whole number of them.
fn fraction(list: Option<&Value>, name: &str, at: &str, w: &mut Warnings) {
    let q = crate::resources::quantity(list.and_then(|l| l.get(name)));
    if let Some(q) = q.filter(|q| q.milli_value() % 1000 != 0) {
        w.push(format_args!("{at}[{name}]: fractional byte value \"{q}\" is invalid, must be an integer"));
    }
}

/// Of a claim's spec.
fn claim_spec(spec: Option<&Value>, at: &str, w: &mut Warnings) {
    for kind in ["requests", "limits"] {
        let list = spec.and_then(|s| s.at(&["resources", kind]));
        fraction(list, "storage", &format!("{at}.resources.{kind}"), w);
    }
}

impl Write<'_> {
    fn say(&mut self, text: impl std::fmt::Display) {
        self.warnings.push(text);
    }

    /// A name that pods take over makes a poor hostname unless it is a DNS label.
    fn name_in(&mut self, what: &str) {
        let messages = names::label(self.object.name());
        if self.old.is_none() && !self.object.name().is_empty() && !messages.is_empty() {
            self.say(format_args!(
                "metadata.name: this is used in {what}, which can result in surprising behavior; a DNS label is \
                 recommended: [{}]",
                messages.join(" ")
            ));
        }
    }

    fn name_in_pods(&mut self) {
        self.name_in("Pod names and hostnames");
    }

    /// Of a template; on an update only where the spec has changed, unless `always`.
    fn template(&mut self, path: &[&str], at: &str, always: bool) {
        if always || self.old.is_none_or(|old| old.generation() != self.object.generation()) {
            pods::of_template(self.object.at(path), at, &mut self.warnings);
        }
    }

    /// More completions and more at once than the record of finished ones may hold.
    fn indexed_job(&mut self, path: &[&str], at: &str) {
        const COMPLETIONS: i64 = 100_000;
        const PARALLELISM: i64 = 10_000;
        let Some(spec) = self.object.at(path) else { return };
        let number = |f: &str| spec.i64_at(&[f]).unwrap_or(0);
        let changed = self.old.is_none_or(|old| old.generation() != self.object.generation());
        if changed
            && spec.str_at(&["completionMode"]) == Some("Indexed")
            && number("completions") > COMPLETIONS
            && number("parallelism") > PARALLELISM
        {
            self.say(format_args!(
                "{at}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than \
                 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
            ));
        }
    }

    fn stateful_set(&mut self) {
        self.template(&["spec", "template"], "spec.template", false);
        let below = if self.old.is_some() { ".Spec" } else { "" };
        for (i, claim) in self.object.items_at(&["spec", "volumeClaimTemplates"]).iter().enumerate() {
            claim_spec(claim.get("spec"), &format!("spec.volumeClaimTemplates[{i}]{below}"), &mut self.warnings);
        }
        if self.object.i64_at(&["spec", "revisionHistoryLimit"]).is_some_and(|n| n < 0) {
            self.say(
                "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is \
                 recommended",
            );
        }
    }

    fn service(&mut self) {
        let o = self.object;
        let text = |f: &str| o.str_at(&["spec", f]).unwrap_or_default();
        let kind = text("type");
        let headless = kind == "ClusterIP" && text("clusterIP") == "None";
        let external = o.items_at(&["spec", "externalIPs"]);
        if o.annotation("service.kubernetes.io/topology-aware-hints").is_some() {
            self.say(
                "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use \
                 service.kubernetes.io/topology-mode instead",
            );
        }
        if !matches!(text("clusterIP"), "" | "None") {
            self.addresses(o.items_at(&["spec", "clusterIPs"]), "spec.clusterIPs");
        }
        if headless {
            if !text("loadBalancerIP").is_empty() {
                self.say("spec.loadBalancerIP is ignored for headless services");
            }
            if !external.is_empty() {
                self.say("spec.externalIPs is ignored for headless services");
            }
            if text("sessionAffinity") != "None" {
                self.say("spec.SessionAffinity is ignored for headless services");
            }
        }
        self.addresses(external, "spec.externalIPs");
        if !external.is_empty() && !headless && kind != "ExternalName" {
            self.say("spec.externalIPs is deprecated and may no longer be implemented in some clusters");
        }
        if !text("loadBalancerIP").is_empty() {
            ip("spec.loadBalancerIP", text("loadBalancerIP"), &mut self.warnings);
        }
        self.ranges(o.items_at(&["spec", "loadBalancerSourceRanges"]), "spec.loadBalancerSourceRanges");
        if kind == "ExternalName" && !external.is_empty() {
            self.say("spec.externalIPs is ignored when spec.type is \"ExternalName\"");
        }
        if kind != "ExternalName" && !text("externalName").is_empty() {
            self.say("spec.externalName is ignored when spec.type is not \"ExternalName\"");
        }
        if text("trafficDistribution") == "PreferClose" {
            self.say("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"");
        }
    }

    fn addresses(&mut self, all: &[Value], at: &str) {
        for (i, address) in all.iter().enumerate() {
            ip(&format!("{at}[{i}]"), address.as_str().unwrap_or_default(), &mut self.warnings);
        }
    }

    fn ranges(&mut self, all: &[Value], at: &str) {
        for (i, range) in all.iter().enumerate() {
            cidr(&format!("{at}[{i}]"), range.as_str().unwrap_or_default(), &mut self.warnings);
        }
    }

    fn load_balancer_addresses(&mut self) {
        for (i, ingress) in self.object.items_at(&["status", "loadBalancer", "ingress"]).iter().enumerate() {
            let address = ingress.str_at(&["ip"]).unwrap_or_default();
            if !address.is_empty() {
                ip(&format!("status.loadBalancer.ingress[{i}]"), address, &mut self.warnings);
            }
        }
    }

    fn node(&mut self) {
        if present(&self.object["spec"], "configSource").is_some() {
            self.say("spec.configSource: the feature is removed");
        }
        if self.object.str_at(&["spec", "externalID"]).is_some_and(|v| !v.is_empty()) {
            self.say("spec.externalID: this field is deprecated, and is unused by Kubernetes");
        }
        self.ranges(self.object.items_at(&["spec", "podCIDRs"]), "spec.podCIDRs");
    }

    fn endpoints(&mut self) {
        if self.object.label("endpoints.kubernetes.io/managed-by") == Some("endpoint-controller") {
            return;
        }
        for (i, subset) in self.object.items_at(&["subsets"]).iter().enumerate() {
            for list in ["addresses", "notReadyAddresses"] {
                for (j, address) in subset.items_at(&[list]).iter().enumerate() {
                    let text = address.str_at(&["ip"]).unwrap_or_default();
                    ip(&format!("subsets[{i}].{list}[{j}].ip"), text, &mut self.warnings);
                }
            }
        }
    }

    fn endpoint_slice(&mut self) {
        if self.old.is_none() && self.object.str_at(&["addressType"]) == Some("FQDN") {
            self.say("spec.addressType: FQDN endpoints are deprecated");
        }
        let by = self.object.label("endpointslice.kubernetes.io/managed-by").unwrap_or_default();
        let ours = matches!(by, "endpointslice-controller.k8s.io" | "endpointslicemirroring-controller.k8s.io");
        if ours || self.object.str_at(&["addressType"]) == Some("FQDN") {
            return;
        }
        for (i, endpoint) in self.object.items_at(&["endpoints"]).iter().enumerate() {
            self.addresses(endpoint.items_at(&["addresses"]), &format!("endpoints[{i}].addresses"));
        }
    }

    fn service_account(&mut self) {
        const KEY: &str = "kubernetes.io/enforce-mountable-secrets";
        let had = self.old.is_some_and(|old| old.annotation(KEY).is_some());
        if self.object.annotation(KEY).is_some() && !had {
            self.say(format_args!(
                "metadata.annotations[{KEY}]: deprecated in v1.32+; prefer separate namespaces to isolate access to \
                 mounted secrets"
            ));
        }
    }

    fn volume(&mut self) {
        const ANNOTATIONS: [(&str, &str); 2] = [
            (
                "volume.beta.kubernetes.io/storage-class",
                "deprecated since v1.8; use \"storageClassName\" attribute instead",
            ),
            (
                "volume.beta.kubernetes.io/mount-options",
                "deprecated since v1.31; use \"mountOptions\" attribute instead",
            ),
        ];
        const GONE: [(&str, &str, &str); 6] = [
            ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
            ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
            ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
            ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
            ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
            ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
        ];
        for (key, text) in ANNOTATIONS {
            if self.object.annotation(key).is_some() {
                self.say(format_args!("metadata.annotations[{key}]: {text}"));
            }
        }
        let spec = &self.object["spec"];
        if spec.str_at(&["persistentVolumeReclaimPolicy"]) == Some("Recycle") {
            self.say(
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the \
                 recommended approach is to use dynamic provisioning.",
            );
        }
        let terms = spec.items_at(&["nodeAffinity", "required", "nodeSelectorTerms"]);
        for (i, term) in terms.iter().enumerate() {
            let at = format!("spec.nodeAffinity.required.nodeSelectorTerms[{i}]");
            node_selector_term(Some(term), false, &at, &mut self.warnings);
        }
        for (field, shown, text) in GONE {
            if present(spec, field).is_some() {
                self.say(format_args!("spec.{shown}: {text}"));
            }
        }
    }

    fn claim(&mut self) {
        const KEY: &str = "volume.beta.kubernetes.io/storage-class";
        if self.object.annotation(KEY).is_some() {
            self.say(format_args!(
                "metadata.annotations[{KEY}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
            ));
        }
        claim_spec(self.object.get("spec"), "spec", &mut self.warnings);
    }

    fn ingress_class(&mut self) {
        const KEY: &str = "kubernetes.io/ingress.class";
        if self.old.is_none() && self.object.annotation(KEY).is_some() {
            self.say(format_args!("annotation \"{KEY}\" is deprecated, please use 'spec.ingressClassName' instead"));
        }
    }

    fn network_policy(&mut self) {
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            for (i, rule) in self.object.items_at(&["spec", direction]).iter().enumerate() {
                for (j, peer) in rule.items_at(&[peers]).iter().enumerate() {
                    let Some(block) = present(peer, "ipBlock") else { continue };
                    let at = format!("spec.{direction}[{i}].{peers}[{j}].ipBlock");
                    let range = block.str_at(&["cidr"]).unwrap_or_default();
                    cidr(&format!("{at}.cidr"), range, &mut self.warnings);
                    self.ranges(block.items_at(&["except"]), &format!("{at}.except"));
                }
            }
        }
    }

    fn node_selector(&mut self, path: &[&str], at: &str) {
        let labels = self.object.at(path).and_then(Value::as_object);
        for text in labels.into_iter().flat_map(|m| m.keys()).filter_map(|key| deprecated_label(key)) {
            self.say(format_args!("{at}: {text}"));
        }
    }

    fn topologies(&mut self) {
        for (i, topology) in self.object.items_at(&["allowedTopologies"]).iter().enumerate() {
            for (j, x) in topology.items_at(&["matchLabelExpressions"]).iter().enumerate() {
                if let Some(text) = deprecated_label(x.str_at(&["key"]).unwrap_or_default()) {
                    self.say(format_args!("allowedTopologies[{i}].matchLabelExpressions[{j}].key: {text}"));
                }
            }
        }
    }

    fn node_topology(&mut self) {
        node_selector_term(self.object.get("nodeTopology"), false, "nodeTopology", &mut self.warnings);
        let labels = self.object.at(&["nodeTopology", "matchLabels"]).and_then(Value::as_object);
        for key in labels.into_iter().flat_map(|m| m.keys()) {
            if let Some(text) = deprecated_label(key) {
                self.say(format_args!("nodeTopology.matchLabels.{key}: {text}"));
            }
        }
    }

    fn token_requests(&mut self) {
        let requests = self.object.items_at(&["spec", "tokenRequests"]);
        let before = self.old.map(|old| old.items_at(&["spec", "tokenRequests"]));
        let unset = present(&self.object["spec"], "serviceAccountTokenInSecrets").is_none();
        if !requests.is_empty() && unset && before != Some(requests) {
            self.say(
                "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent \
                 possible logging of tokens in volume attributes",
            );
        }
    }

    fn driver_name(&mut self) {
        let driver = self.object.str_at(&["spec", "driver"]).unwrap_or_default();
        if driver.chars().any(char::is_uppercase) {
            self.say(format_args!(
                "spec.driver: driver names should be lowercase; \"{driver}\" contains uppercase characters"
            ));
        }
    }
}
