//! Pod: defaults, status on creation, graceful deletion, field selectors. The rules of the spec
//! stand in `pod_spec`, those of its change in `pod_update`, the row of the table in `pod_cells`.

use ironkeel_object::{Map, ObjectMeta, Value};

use crate::error::Errors;
use crate::structural::Depth;
use crate::{
    DeletePlan, Path, TableContext, core::pod_cells, core::pod_update, pod_spec, pod_template, resources, rules,
    strategy,
};

pub(crate) struct Rules;

impl rules::Rules for Rules {
    fn default(&self, o: &mut Value) {
        let Some(spec) = strategy::spec(o) else { return };
        pod_template::default_pod_spec(spec);
        let host_network = spec.get("hostNetwork").and_then(Value::as_bool).unwrap_or(false);
        for list in ["containers", "initContainers"] {
            for c in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                requests_from_limits(c);
                if host_network {
                    host_ports(c);
                }
            }
        }
        if let Some(own) = spec.get_mut("resources").filter(|r| !r.is_null()) {
            fill_requests(own, |name| matches!(name, "cpu" | "memory") || name.starts_with("hugepages-"));
        }
        if spec.get("enableServiceLinks").is_none_or(Value::is_null) {
            spec.insert("enableServiceLinks", true);
        }
    }

    fn prepare_create(&self, o: &mut Value) {
        o.meta_mut().insert("generation", 1_i64);
        pod_update::grace_of_one(o);
        let mut status = Map::new();
        status.insert("phase", "Pending");
        status.insert("qosClass", resources::qos_class(o));
        if !o.items_at(&["spec", "schedulingGates"]).is_empty() {
            let mut gated = Map::new();
            gated.insert("type", "PodScheduled");
            gated.insert("status", "False");
            gated.insert("reason", "SchedulingGated");
            gated.insert("message", "Scheduling is blocked due to non-empty scheduling gates");
            status.insert("conditions", vec![Value::Object(gated)]);
        }
        if let Some(m) = o.as_object_mut() {
            m.insert("status", status);
        }
    }

    fn owns_update(&self, _subresource: Option<&str>) -> bool {
        true
    }
    fn prepare_update(&self, o: &mut Value, old: &Value, subresource: Option<&str>) {
        pod_update::prepare(o, old, subresource);
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let path = Path::new("spec");
        let spec = o.get("spec").unwrap_or(&Value::Null);
        pod_spec::validate(spec, o.name(), &path, pod_spec::Place::Pod, e);
        if pod_spec::string(spec, "serviceAccountName").is_some() {
            return;
        }
        // A template may leave the account to whoever makes pods of it.
        for (i, v) in spec.items_at(&["volumes"]).iter().enumerate() {
            let at = path.child("volumes").index(i).child("projected");
            for (j, s) in v.items_at(&["projected", "sources"]).iter().enumerate() {
                if pod_spec::present(s, "serviceAccountToken").is_some() {
                    let at = at.child("sources").index(j).child("serviceAccountToken");
                    e.forbidden(&at, "must not be specified when serviceAccountName is not set");
                }
            }
        }
    }
    fn validate_create(&self, o: &Value, e: &mut Errors) {
        if !o.items_at(&["spec", "ephemeralContainers"]).is_empty() {
            e.forbidden(&Path::new("spec").child("ephemeralContainers"), "cannot be set on create");
        }
        let gated = !o.items_at(&["spec", "schedulingGates"]).is_empty();
        if gated && o.str_at(&["spec", "nodeName"]).is_some_and(|n| !n.is_empty()) {
            let text = "cannot be set until all schedulingGates have been cleared";
            e.forbidden(&Path::new("spec").child("nodeName"), text);
        }
    }
    fn revalidates(&self, subresource: Option<&str>) -> bool {
        !matches!(subresource, Some("status" | "ephemeralcontainers" | "binding"))
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        pod_update::validate(o, old, subresource, e);
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn columns(&self) -> &'static str {
        "pod"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        pod_cells::cells(o, c)
    }

    fn field(&self, o: &Value, path: &str) -> Option<String> {
        let text = |p: &[&str]| Some(o.str_at(p).unwrap_or_default().to_owned());
        match path {
            "spec.nodeName" => text(&["spec", "nodeName"]),
            "spec.restartPolicy" => text(&["spec", "restartPolicy"]),
            "spec.schedulerName" => text(&["spec", "schedulerName"]),
            "spec.serviceAccountName" => text(&["spec", "serviceAccountName"]),
            "spec.hostNetwork" => {
                let host = o.at(&["spec", "hostNetwork"]).and_then(Value::as_bool).unwrap_or(false);
                Some(host.to_string())
            }
            "status.phase" => text(&["status", "phase"]),
            "status.podIP" => {
                let first = o.items_at(&["status", "podIPs"]).first().and_then(|i| i.str_at(&["ip"]));
                Some(first.or_else(|| o.str_at(&["status", "podIP"])).unwrap_or_default().to_owned())
            }
            "status.podIPs" => {
                let all: Vec<&str> =
                    o.items_at(&["status", "podIPs"]).iter().filter_map(|i| i.str_at(&["ip"])).collect();
                Some(all.join(","))
            }
            "status.nominatedNodeName" => text(&["status", "nominatedNodeName"]),
            _ => None,
        }
    }

    fn plan_delete(&self, o: &Value, grace_seconds: Option<i64>) -> DeletePlan {
        let unscheduled = o.str_at(&["spec", "nodeName"]).unwrap_or_default().is_empty();
        let ended = matches!(o.str_at(&["status", "phase"]), Some("Succeeded" | "Failed"));
        if unscheduled || ended {
            return DeletePlan::Graceful { seconds: 0 };
        }
        let asked = grace_seconds.or_else(|| o.i64_at(&["spec", "terminationGracePeriodSeconds"])).unwrap_or(0);
        DeletePlan::Graceful { seconds: if asked < 0 { 1 } else { asked } }
    }
}

fn requests_from_limits(container: &mut Value) {
    if let Some(r) = container.get_mut("resources") {
        fill_requests(r, |_| true);
    }
}

fn fill_requests(r: &mut Value, wanted: impl Fn(&str) -> bool) {
    let Some(limits) = r.get("limits").and_then(Value::as_object).filter(|l| !l.is_empty()).cloned() else { return };
    let Some(map) = r.as_object_mut() else { return };
    let requests = map.object("requests");
    for (name, limit) in limits {
        if wanted(&name) && !requests.contains_key(&name) {
            requests.insert(name, limit);
        }
    }
}

fn host_ports(container: &mut Value) {
    for p in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(m) = p.as_object_mut() else { continue };
        if m.get("hostPort").and_then(Value::as_i64).unwrap_or(0) == 0
            && let Some(port) = m.get("containerPort").cloned()
        {
            m.insert("hostPort", port);
        }
    }
}
