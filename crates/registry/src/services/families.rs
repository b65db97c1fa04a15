//! `ipFamilies` and `ipFamilyPolicy` of a Service: what follows from what the client gave, from what the
//! Service was, and from the families of the cluster's ranges.

use ironkeel_kinds::{FieldError, FieldErrorKind, Path};
use ironkeel_object::{ObjectMeta, Value};

use super::range::family_of;
use crate::error::ApiError;

/// The addresses' fields of one Service.
pub(super) struct Fields {
    pub(super) addresses: Vec<String>,
    pub(super) families: Vec<String>,
    policy: Option<String>,
    headless: bool,
    selects: bool,
}

fn texts(o: &Value, field: &str) -> Vec<String> {
    o.items_at(&["spec", field]).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

pub(super) fn is_external(o: &Value) -> bool {
    o.str_at(&["spec", "type"]) == Some("ExternalName")
}

impl Fields {
    pub(super) fn of(o: &Value) -> Fields {
        let mut addresses = texts(o, "clusterIPs");
        let single = o.str_at(&["spec", "clusterIP"]).unwrap_or_default();
        if addresses.is_empty() && !single.is_empty() {
            addresses.push(single.to_owned());
        }
        Fields {
            headless: addresses.first().is_some_and(|a| a == "None"),
            addresses,
            families: texts(o, "ipFamilies"),
            policy: o.str_at(&["spec", "ipFamilyPolicy"]).filter(|p| !p.is_empty()).map(str::to_owned),
            selects: o.at(&["spec", "selector"]).is_some_and(|s| !s.is_empty()),
        }
    }

    fn is_single(&self) -> bool {
        self.policy.as_deref() == Some("SingleStack")
    }

    /// Fills in what is missing. `cluster` are the families of the cluster's ranges, the default first.
    pub(super) fn complete(&mut self, name: &str, old: Option<&Fields>, cluster: &[&str]) -> Result<(), ApiError> {
        let prefers = |f: &Fields| f.policy.as_deref() == Some("PreferDualStack");
        if let Some(old) = old
            && prefers(self)
            && prefers(old)
            && self.addresses == old.addresses
            && self.families == old.families
        {
            // Not carried along when the cluster gets or loses a family.
            return Ok(());
        }
        if self.policy.is_none() {
            let inherited = old.and_then(|o| o.policy.clone());
            let own = if self.headless && !self.selects { "RequireDualStack" } else { "SingleStack" };
            self.policy = inherited.or_else(|| Some(own.to_owned()));
        }
        let mut wrong = Vec::new();
        let spec = Path::new("spec");
        let at_policy = spec.child("ipFamilyPolicy");
        let policy = format!("{:?}", self.policy.as_deref().unwrap_or_default());
        let mut refuse = |at: Path, shown: &str, why: &str| {
            let message = format!("Invalid value: {shown}: {why}");
            wrong.push(FieldError { path: at, kind: FieldErrorKind::Invalid, message });
        };
        if let Some(old) = old {
            if self.is_single() {
                if self.addresses == old.addresses {
                    self.addresses.truncate(1);
                }
                if self.families == old.families {
                    self.families.truncate(1);
                }
            } else {
                if !self.addresses.is_empty() && self.addresses.len() < old.addresses.len() {
                    refuse(at_policy.clone(), &policy, "must be 'SingleStack' to release the secondary cluster IP");
                }
                if !self.families.is_empty() && self.families.len() < old.families.len() {
                    refuse(at_policy.clone(), &policy, "must be 'SingleStack' to release the secondary IP family");
                }
            }
        }
        if self.is_single() {
            for (count, what) in [(self.addresses.len(), "cluster IPs"), (self.families.len(), "IP families")] {
                if count == 2 {
                    let why =
                        format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
                    refuse(at_policy.clone(), &policy, &why);
                }
            }
        }
        for (i, address) in self.addresses.iter().enumerate().skip(self.families.len()) {
            let Ok(family) = address.parse().map(family_of) else { continue };
            if cluster.contains(&family) {
                self.families.push(family.to_owned());
            } else {
                let why = format!("{family} is not configured on this cluster");
                refuse(spec.child("clusterIPs").index(i), &format!("{:?}", self.addresses), &why);
            }
        }
        let other = |f: &str| if f == "IPv4" { "IPv6" } else { "IPv4" };
        if wrong.is_empty() && self.headless && !self.selects {
            // Its endpoints may be of families that the cluster does not have.
            if self.families.is_empty() {
                self.families.extend(cluster.first().map(|f| (*f).to_owned()));
            }
            if self.families.len() == 1 && !self.is_single() {
                self.families.push(other(&self.families[0]).to_owned());
            }
            return Ok(());
        }
        if wrong.is_empty() {
            let mut refuse = |at: Path, shown: &str, why: &str| {
                let message = format!("Invalid value: {shown}: {why}");
                wrong.push(FieldError { path: at, kind: FieldErrorKind::Invalid, message });
            };
            if self.policy.as_deref() == Some("RequireDualStack") && cluster.len() < 2 {
                refuse(at_policy, &policy, "this cluster is not configured for dual-stack services");
            }
            for (i, family) in self.families.iter().enumerate().filter(|(_, f)| !cluster.contains(&f.as_str())) {
                let at = spec.child("ipFamilies").index(i);
                refuse(at, &format!("{family:?}"), "not configured on this cluster");
            }
        }
        if !wrong.is_empty() {
            return Err(ApiError::invalid("", "Service", name, &wrong));
        }
        if self.families.is_empty() {
            self.families.extend(cluster.first().map(|f| (*f).to_owned()));
        }
        if !self.is_single() && self.families.len() == 1 && cluster.len() == 2 {
            self.families.push(other(&self.families[0]).to_owned());
        }
        Ok(())
    }

    pub(super) fn headless(&self) -> bool {
        self.headless
    }

    /// Writes the fields into the Service.
    pub(super) fn write(self, o: &mut Value) {
        let first = self.addresses.first().cloned().unwrap_or_default();
        if !first.is_empty() {
            *o.slot(&["spec", "clusterIP"]) = first.into();
            *o.slot(&["spec", "clusterIPs"]) = self.addresses.into();
        }
        if !self.families.is_empty() {
            *o.slot(&["spec", "ipFamilies"]) = self.families.into();
        }
        if let Some(policy) = self.policy {
            *o.slot(&["spec", "ipFamilyPolicy"]) = policy.into();
        }
    }
}

/// 422 about `spec.clusterIPs`.
pub(super) fn refused(o: &Value, addresses: &[String], why: &str) -> ApiError {
    let error = FieldError {
        path: Path::new("spec").child("clusterIPs"),
        kind: FieldErrorKind::Invalid,
        message: format!("Invalid value: {}: {why}", serde_json::Value::from(addresses.to_vec())),
    };
    ApiError::invalid("", "Service", o.name(), &[error])
}
