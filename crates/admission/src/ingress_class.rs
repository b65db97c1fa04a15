//! DefaultIngressClass: an Ingress without a class gets the default one.

use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{ApiError, Attributes, Operation};

use crate::Cluster;

const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";

pub(crate) fn mutate(c: &Cluster, a: &Attributes<'_>, ingress: &mut Value) -> Result<(), ApiError> {
    if a.operation != Operation::Create
        || !a.is("networking.k8s.io", "ingresses")
        || ingress.at(&["spec", "ingressClassName"]).is_some_and(|n| !n.is_null())
        || ingress.annotation("kubernetes.io/ingress.class").is_some()
    {
        return Ok(());
    }
    let classes = c.list("networking.k8s.io", "ingressclasses", "");
    let defaults: Vec<_> = classes.iter().filter(|i| i.annotation(DEFAULT_CLASS) == Some("true")).collect();
    match defaults.as_slice() {
        [] => Ok(()),
        [one] => {
            *ingress.slot(&["spec", "ingressClassName"]) = one.name().into();
            Ok(())
        }
        many => Err(ApiError::internal(format!("{} default IngressClasses were found", many.len()))),
    }
}
