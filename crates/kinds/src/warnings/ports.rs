//! Ports that are defined twice, in one container or in several.

use std::collections::HashMap;

use ironkeel_object::Value;

use super::list::Warnings;

fn text<'v>(port: &'v Value, field: &str) -> &'v str {
    port.str_at(&[field]).unwrap_or_default()
}

fn number(port: &Value, field: &str) -> i64 {
    port.i64_at(&[field]).unwrap_or(0)
}

/// The ports with one number and protocol, by where they are on the host: each is only compared with those that it is
/// in conflict with.
#[derive(Default)]
struct Twins<'v> {
    by_host: HashMap<(i64, &'v str), Vec<usize>>,
    /// Those with an address of their own, by the host's port.
    with_ip: HashMap<i64, Vec<usize>>,
    /// Those without a port on the host.
    without_port: Vec<usize>,
    all: Vec<usize>,
}

impl<'v> Twins<'v> {
    /// Adds a port; answers the earlier ones that it is in conflict with.
    fn add(&mut self, i: usize, ip: &'v str, port: i64) -> Vec<usize> {
        let mut met = Vec::new();
        if port == 0 {
            met.extend_from_slice(&self.all);
            self.without_port.push(i);
        } else {
            met.extend_from_slice(&self.without_port);
            met.extend(self.by_host.get(&(port, ip)).into_iter().flatten());
            if ip.is_empty() {
                met.extend(self.with_ip.get(&port).into_iter().flatten());
            } else {
                met.extend(self.by_host.get(&(port, "")).into_iter().flatten());
                self.with_ip.entry(port).or_default().push(i);
            }
            met.sort_unstable();
            self.by_host.entry((port, ip)).or_default().push(i);
        }
        self.all.push(i);
        met
    }
}

/// Of the containers of a pod, each with its path.
pub(super) fn of_containers(all: &[(String, &Value)], w: &mut Warnings) {
    let each: Vec<(String, &Value)> = all
        .iter()
        .flat_map(|(at, c)| {
            c.items_at(&["ports"]).iter().enumerate().map(move |(i, p)| (format!("{at}.ports[{i}]"), p))
        })
        .collect();
    let mut numbered: HashMap<(i64, &str), Twins<'_>> = HashMap::new();
    for (i, (at, p)) in each.iter().enumerate() {
        if w.is_full() {
            return;
        }
        let (ip, port) = (text(p, "hostIP"), number(p, "hostPort"));
        if !ip.is_empty() && port == 0 {
            w.push(format_args!(
                "{at}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{ip}}}",
                text(p, "name"),
                number(p, "containerPort"),
                text(p, "protocol"),
            ));
        }
        let twins = numbered.entry((number(p, "containerPort"), text(p, "protocol"))).or_default();
        for (other_at, other) in twins.add(i, ip, port).into_iter().map(|j| &each[j]) {
            let (other_ip, other_port) = (text(other, "hostIP"), number(other, "hostPort"));
            let what = if ip == other_ip && port == other_port {
                "duplicate"
            } else if port == 0 || other_port == 0 {
                "overlapping"
            } else {
                "dangerously ambiguous"
            };
            w.push(format_args!("{at}: {what} port definition with {other_at}"));
        }
    }
    let mut named: HashMap<&str, &str> = HashMap::new();
    for (at, p) in &each {
        let name = text(p, "name");
        if name.is_empty() {
            continue;
        }
        match named.get(name) {
            None => _ = named.insert(name, at),
            Some(other) => w.push(format_args!(
                "{at}: duplicate port name \"{name}\" with {other}, services and probes that select ports by name will \
                 use {other}"
            )),
        }
    }
}
