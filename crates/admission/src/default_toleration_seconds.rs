//! DefaultTolerationSeconds: a Pod stays five minutes on a node that is not ready or unreachable.

use ironkeel_object::{Value, object};

use crate::service_account::push;

/// How long, in seconds.
const SECONDS: i64 = 300;

pub(crate) fn mutate(pod: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = pod.items_at(&["spec", "tolerations"]).iter().any(|t| {
            let text = |k: &str| t.str_at(&[k]).unwrap_or_default();
            (text("key") == key || text("key").is_empty()) && matches!(text("effect"), "NoExecute" | "")
        });
        if !tolerated {
            push(
                pod.slot(&["spec", "tolerations"]),
                object!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS }),
            );
        }
    }
}
