//! The row of a Service in `kubectl get services`.

use ironkeel_object::Value;

use crate::{TableContext, print, selector};

/// Cells after the name.
pub(crate) fn cells(o: &Value, context: &TableContext) -> Vec<Value> {
    let first = o.items_at(&["spec", "clusterIPs"]).first().and_then(Value::as_str);
    let ip = first.or_else(|| o.str_at(&["spec", "clusterIP"])).unwrap_or_default();
    let chosen = selector::map_text(o.at(&["spec", "selector"]));
    vec![
        print::text(o, &["spec", "type"], ""),
        print::non_empty(ip.to_owned(), "<none>"),
        external(o).into(),
        print::non_empty(ports(o), "<none>"),
        print::age(o, context),
        print::non_empty(chosen, "<none>"),
    ]
}

fn external(o: &Value) -> String {
    let listed = o.items_at(&["spec", "externalIPs"]).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
    let or_none = |s: String| if s.is_empty() { "<none>".to_owned() } else { s };
    match o.str_at(&["spec", "type"]).unwrap_or_default() {
        "ExternalName" => o.str_at(&["spec", "externalName"]).unwrap_or_default().to_owned(),
        "LoadBalancer" => {
            let mut all: Vec<&str> = o
                .items_at(&["status", "loadBalancer", "ingress"])
                .iter()
                .filter_map(|i| i.str_at(&["ip"]).filter(|s| !s.is_empty()).or_else(|| i.str_at(&["hostname"])))
                .collect();
            all.sort_unstable();
            all.dedup();
            match (all.is_empty(), listed.is_empty()) {
                (false, false) => format!("{},{listed}", all.join(",")),
                (false, true) => all.join(","),
                (true, false) => listed,
                (true, true) => "<pending>".into(),
            }
        }
        _ => or_none(listed),
    }
}

fn ports(o: &Value) -> String {
    let port = |p: &Value| {
        let (n, protocol) = (print::number(p, &["port"]), p.str_at(&["protocol"]).unwrap_or("TCP"));
        match print::number(p, &["nodePort"]) {
            0 => format!("{n}/{protocol}"),
            node => format!("{n}:{node}/{protocol}"),
        }
    };
    o.items_at(&["spec", "ports"]).iter().map(port).collect::<Vec<_>>().join(",")
}
