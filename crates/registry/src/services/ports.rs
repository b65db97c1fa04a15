//! NodePorts of Services: which are wanted, and which are free. A book says who has which; on a shared
//! store every choice is claimed there besides (`claims`).

use std::collections::{BTreeMap, HashMap};

use ironkeel_kinds::{FieldError, FieldErrorKind, Path};
use ironkeel_object::{ObjectMeta, Value};

use super::{Allocation, ServiceAddresses};
use crate::error::ApiError;

/// The part for chosen ports: a thirty-second of the range, within these bounds.
const CHOSEN: (u32, u32) = (16, 128);

/// Who has which port.
pub(super) type Book = BTreeMap<u16, String>;

fn refused(service: &Value, at: Path, port: i64, why: &str) -> ApiError {
    let message = format!("Invalid value: {port}: {why}");
    ApiError::invalid("", "Service", service.name(), &[FieldError { path: at, kind: FieldErrorKind::Invalid, message }])
}

fn spec<'v>(service: &'v Value, field: &str) -> &'v str {
    service.str_at(&["spec", field]).unwrap_or_default()
}

impl ServiceAddresses {
    /// Fills in the ports of a Service, and reserves them.
    pub(super) fn fill_ports(
        &self,
        book: &mut Book,
        a: &mut Allocation<'_>,
        service: &mut Value,
    ) -> Result<(), ApiError> {
        let kind = spec(service, "type").to_owned();
        let wanted = matches!(kind.as_str(), "NodePort" | "LoadBalancer");
        let unasked = service.at(&["spec", "allocateLoadBalancerNodePorts"]).and_then(Value::as_bool) == Some(false);
        let chosen_only = kind == "LoadBalancer" && unasked;
        // Protocols of one port share its NodePort.
        let mut by_port: HashMap<i64, u16> = HashMap::new();
        for i in 0..service.items_at(&["spec", "ports"]).len() {
            let here = &service.items_at(&["spec", "ports"])[i];
            let (port, node_port) = (here.i64_at(&["port"]).unwrap_or(0), here.i64_at(&["nodePort"]).unwrap_or(0));
            if !wanted || (chosen_only && node_port == 0) {
                continue;
            }
            let asked = |p: &Value| p.i64_at(&["nodePort"]).filter(|n| *n != 0);
            let sibling = || {
                let all = service.items_at(&["spec", "ports"]).iter();
                all.filter(|p| p.i64_at(&["port"]) == Some(port)).find_map(asked)
            };
            let node_port = match (node_port, by_port.get(&port)) {
                (0, Some(shared)) => i64::from(*shared),
                (0, None) => sibling().unwrap_or(0),
                (own, _) => own,
            };
            let place = || Path::new("spec").child("ports").index(i).child("nodePort");
            let got = if node_port == 0 {
                self.free_port(book, a)
                    .ok_or_else(|| ApiError::internal("failed to allocate a nodePort: range is full"))?
            } else {
                self.take_port(book, a, node_port).map_err(|why| refused(service, place(), node_port, &why))?
            };
            by_port.entry(port).or_insert(got);
            if let Some(p) = service.slot(&["spec", "ports"]).as_array_mut().and_then(|p| p.get_mut(i)) {
                *p.slot(&["nodePort"]) = i64::from(got).into();
            }
        }
        if kind == "LoadBalancer" && spec(service, "externalTrafficPolicy") == "Local" {
            self.health_check(book, a, service)?;
        }
        Ok(())
    }

    fn health_check(&self, book: &mut Book, a: &mut Allocation<'_>, service: &mut Value) -> Result<(), ApiError> {
        let asked = service.i64_at(&["spec", "healthCheckNodePort"]).unwrap_or(0);
        let got = if asked == 0 {
            self.free_port(book, a)
                .ok_or_else(|| ApiError::internal("failed to allocate a HealthCheck NodePort: range is full"))?
        } else {
            self.take_port(book, a, asked).map_err(|why| {
                ApiError::internal(format!("failed to allocate requested HealthCheck NodePort {asked}: {why}"))
            })?
        };
        *service.slot(&["spec", "healthCheckNodePort"]) = i64::from(got).into();
        Ok(())
    }

    /// Reserves a port that was asked for.
    fn take_port(&self, book: &mut Book, a: &mut Allocation<'_>, port: i64) -> Result<u16, String> {
        let (first, last) = (*self.ports.start(), *self.ports.end());
        let known = u16::try_from(port).ok();
        let mine = |p: &u16| book.get(p).is_some_and(|owner| *owner == a.turn.key);
        let Some(p) = known.filter(|p| self.ports.contains(p) || mine(p)) else {
            return Err(format!("provided port is not in the valid range. The range of valid ports is {first}-{last}"));
        };
        if !mine(&p) {
            if book.contains_key(&p) {
                return Err("provided port is already allocated".to_owned());
            }
            book.insert(p, a.turn.key.clone());
            a.new_ports.push(p);
        }
        a.wanted_ports.insert(p);
        Ok(p)
    }

    /// Reserves a free port: in the upper part of the range while that has any, from a random place on.
    fn free_port(&self, book: &mut Book, a: &mut Allocation<'_>) -> Option<u16> {
        let (first, last) = (u32::from(*self.ports.start()), u32::from(*self.ports.end()));
        let size = last - first + 1;
        let lower = if size <= CHOSEN.0 { 0 } else { (size / 32).clamp(CHOSEN.0, CHOSEN.1) };
        let turn = |low: u32, high: u32| {
            let count = high.saturating_sub(low);
            let start = if count == 0 { 0 } else { rand::random_range(0..count) };
            (0..count).map(move |i| low + (start + i) % count)
        };
        let all = turn(first + lower, last + 1).chain(turn(first, first + lower));
        let port = all.filter_map(|p| u16::try_from(p).ok()).find(|p| !book.contains_key(p))?;
        book.insert(port, a.turn.key.clone());
        a.new_ports.push(port);
        a.wanted_ports.insert(port);
        Some(port)
    }
}
