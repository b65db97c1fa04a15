//! CertificateApproval, CertificateSigning, CertificateSubjectRestriction and
//! ClusterTrustBundleAttest: who may speak for a signer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ironkeel_kinds::{FieldError, FieldErrorKind, Path};
use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{ApiError, Attributes, Operation};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::Cluster;
use crate::attributes::caller;
use crate::plugin_set::{Plugin, PluginSet};

const API_CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

fn authorized(c: &Cluster, a: &Attributes<'_>, verb: &str, signer: &str) -> bool {
    let Some(authorizer) = &c.authorizer else { return false };
    let user = caller(a);
    let may = |name: &str| {
        let ask = ironkeel_auth::Attributes::for_resource(&user, verb, "certificates.k8s.io", "*", "signers");
        authorizer.authorize(&ironkeel_auth::Attributes { name, ..ask }).is_allowed()
    };
    let domain = signer.split('/').next().unwrap_or_default();
    may(signer) || may(&format!("{domain}/*"))
}

fn signer(o: &Value) -> &str {
    o.str_at(&["spec", "signerName"]).unwrap_or_default()
}

pub(crate) fn validate(
    c: &Cluster,
    set: &PluginSet,
    a: &Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    if a.row.group() != "certificates.k8s.io" || !matches!(a.operation, Operation::Create | Operation::Update) {
        return Ok(());
    }
    match (a.row.plural(), a.subresource, old) {
        ("certificatesigningrequests", "approval", Some(old)) if set.has(Plugin::CertificateApproval) => {
            let name = signer(old);
            if !authorized(c, a, "approve", name) {
                return Err(a.forbidden(&format!("user not permitted to approve requests with signerName {name:?}")));
            }
        }
        ("certificatesigningrequests", "status", Some(old)) if set.has(Plugin::CertificateSigning) => {
            let same = |key: &str| old.at(&["status", key]) == object.at(&["status", key]);
            let name = signer(old);
            let unchanged = same("certificate") && same("conditions");
            if !unchanged && !authorized(c, a, "sign", name) {
                return Err(a.forbidden(&format!("user not permitted to sign requests with signerName {name:?}")));
            }
        }
        // Upstream's storage does this itself: no plugin turns it off.
        ("podcertificaterequests", "status", Some(old)) if old.get("status") != object.get("status") => {
            let name = signer(old);
            if !authorized(c, a, "sign", name) {
                let why = format!("User {:?} is not permitted to \"sign\" for signer {name:?}", a.user.name);
                let error = FieldError {
                    path: Path::new("spec").child("signerName"),
                    kind: FieldErrorKind::Forbidden,
                    message: format!("Forbidden: {why}"),
                };
                return Err(ApiError::invalid(a.row.group(), a.row.kind_name(), a.name, &[error]));
            }
        }
        ("certificatesigningrequests", "", None) if set.has(Plugin::CertificateSubjectRestriction) => {
            subject(a, object)?;
        }
        ("clustertrustbundles", _, old) if set.has(Plugin::ClusterTrustBundleAttest) => {
            let name = signer(object);
            if !name.is_empty() && !only_collector_fields(object, old) && !authorized(c, a, "attest", name) {
                return Err(a.forbidden(&format!("user not permitted to attest for signerName {name:?}")));
            }
        }
        _ => {}
    }
    Ok(())
}

/// A part of the subject of the request in `spec.request`; none where that is no request.
fn read<T>(object: &Value, part: impl FnOnce(&x509_parser::x509::X509Name<'_>) -> T) -> Option<T> {
    let pem = STANDARD.decode(object.str_at(&["spec", "request"])?).ok()?;
    let (_, block) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
    let (_, request) = X509CertificationRequest::from_der(&block.contents).ok()?;
    Some(part(&request.certification_request_info.subject))
}

/// The common names that are asked for.
pub(crate) fn common_names(object: &Value) -> Option<Vec<String>> {
    read(object, |subject| subject.iter_common_name().filter_map(|n| Some(n.as_str().ok()?.to_owned())).collect())
}

/// Nobody becomes `system:masters` by a request.
fn subject(a: &Attributes<'_>, object: &Value) -> Result<(), ApiError> {
    if signer(object) != API_CLIENT_SIGNER {
        return Ok(());
    }
    match read(object, |subject| subject.iter_organization().any(|o| o.as_str() == Ok("system:masters"))) {
        None => Err(a.forbidden("failed to parse CSR: PEM block type must be CERTIFICATE REQUEST")),
        Some(true) => {
            Err(a.forbidden(&format!("use of {API_CLIENT_SIGNER} signer with system:masters group is not allowed")))
        }
        Some(false) => Ok(()),
    }
}

/// Whether an update changes nothing but what the garbage collector does.
fn only_collector_fields(object: &Value, old: Option<&Value>) -> bool {
    let Some(old) = old else { return false };
    let bare = |o: &Value| {
        let mut bare = o.clone();
        for key in ["ownerReferences", "finalizers", "managedFields", "resourceVersion", "generation"] {
            bare.meta_mut().remove(key);
        }
        bare
    };
    bare(object) == bare(old)
}
