//! The row of a Pod in `kubectl get pods`.

use ironkeel_object::{ObjectMeta, Value};

use crate::{TableContext, print};

fn is_sidecar(pod: &Value, name: &str) -> bool {
    pod.items_at(&["spec", "initContainers"])
        .iter()
        .any(|c| c.str_at(&["name"]) == Some(name) && c.str_at(&["restartPolicy"]) == Some("Always"))
}

fn ended_reason(terminated: &Value) -> String {
    match terminated.str_at(&["reason"]).filter(|r| !r.is_empty()) {
        Some(r) => r.to_owned(),
        None => match terminated.i64_at(&["signal"]).unwrap_or(0) {
            0 => format!("ExitCode:{}", print::number(terminated, &["exitCode"])),
            signal => format!("Signal:{signal}"),
        },
    }
}

/// What was counted on the way through the containers' statuses.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<i64>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += print::number(status, &["restartCount"]);
        let ended = status.str_at(&["lastState", "terminated", "finishedAt"]).and_then(print::unix);
        self.last = self.last.max(ended);
    }
}

/// Cells after the name.
pub(crate) fn cells(pod: &Value, context: &TableContext) -> Vec<Value> {
    let mut reason = pod.str_at(&["status", "reason"]).unwrap_or_default().to_owned();
    if reason.is_empty() {
        reason = pod.str_at(&["status", "phase"]).unwrap_or_default().to_owned();
    }
    let condition =
        |kind: &str| pod.items_at(&["status", "conditions"]).iter().find(|c| c.str_at(&["type"]) == Some(kind));
    if condition("PodScheduled").and_then(|c| c.str_at(&["reason"])) == Some("SchedulingGated") {
        reason = "SchedulingGated".into();
    }
    let mut total = pod.items_at(&["spec", "containers"]).len();
    let mut ready = 0;
    let (mut restarts, mut sidecar_restarts) = (Restarts::default(), Restarts::default());

    let init_total = pod.items_at(&["spec", "initContainers"]).len();
    total += pod
        .items_at(&["spec", "initContainers"])
        .iter()
        .filter(|c| c.str_at(&["restartPolicy"]) == Some("Always"))
        .count();
    let mut initializing = false;
    for (i, s) in pod.items_at(&["status", "initContainerStatuses"]).iter().enumerate() {
        restarts.add(s);
        let sidecar = is_sidecar(pod, s.str_at(&["name"]).unwrap_or_default());
        if sidecar {
            sidecar_restarts.add(s);
        }
        let terminated = s.at(&["state", "terminated"]).filter(|t| !t.is_null());
        let waiting = s.str_at(&["state", "waiting", "reason"]).unwrap_or_default();
        let flag = |f: &str| s.get(f).and_then(Value::as_bool).unwrap_or(false);
        reason = match terminated {
            Some(t) if t.i64_at(&["exitCode"]).unwrap_or(0) == 0 => continue,
            _ if sidecar && flag("started") => {
                ready += usize::from(flag("ready"));
                continue;
            }
            Some(t) => format!("Init:{}", ended_reason(t)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{i}/{init_total}"),
        };
        initializing = true;
        break;
    }

    let initialized = condition("Initialized").and_then(|c| c.str_at(&["status"])) == Some("True");
    if !initializing || initialized {
        restarts = sidecar_restarts;
        let mut running = false;
        for s in pod.items_at(&["status", "containerStatuses"]).iter().rev() {
            restarts.add(s);
            let waiting = s.str_at(&["state", "waiting", "reason"]).unwrap_or_default();
            let terminated = s.at(&["state", "terminated"]).filter(|t| !t.is_null());
            if !waiting.is_empty() {
                reason = waiting.to_owned();
            } else if let Some(t) = terminated {
                reason = ended_reason(t);
            } else if s.get("ready").and_then(Value::as_bool) == Some(true) && s.at(&["state", "running"]).is_some() {
                running = true;
                ready += 1;
            }
        }
        if reason == "Completed" && running {
            let is_ready = condition("Ready").and_then(|c| c.str_at(&["status"])) == Some("True");
            reason = if is_ready { "Running" } else { "NotReady" }.into();
        }
    }

    if pod.deletion_timestamp().is_some() {
        let lost = pod.str_at(&["status", "reason"]) == Some("NodeLost");
        let ended = matches!(pod.str_at(&["status", "phase"]), Some("Failed" | "Succeeded"));
        if lost {
            reason = "Unknown".into();
        } else if !ended {
            reason = "Terminating".into();
        }
    }

    let restarted = match restarts.last.filter(|_| restarts.count != 0) {
        Some(t) => format!("{} ({} ago)", restarts.count, print::human_duration(context.now_unix - t)),
        None => restarts.count.to_string(),
    };
    let first_ip = pod.items_at(&["status", "podIPs"]).first().and_then(|i| i.str_at(&["ip"]));
    let ip = first_ip.or_else(|| pod.str_at(&["status", "podIP"])).unwrap_or_default();
    vec![
        format!("{ready}/{total}").into(),
        reason.into(),
        restarted.into(),
        print::age(pod, context),
        print::non_empty(ip.to_owned(), "<none>"),
        print::text(pod, &["spec", "nodeName"], "<none>"),
        print::text(pod, &["status", "nominatedNodeName"], "<none>"),
        readiness_gates(pod).into(),
    ]
}

fn readiness_gates(pod: &Value) -> String {
    let gates = pod.items_at(&["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".into();
    }
    let met = gates
        .iter()
        .filter(|g| {
            let kind = g.str_at(&["conditionType"]);
            let of_kind = pod.items_at(&["status", "conditions"]).iter().find(|c| c.str_at(&["type"]) == kind);
            of_kind.is_some_and(|c| c.str_at(&["status"]) == Some("True"))
        })
        .count();
    format!("{met}/{}", gates.len())
}
