//! The user in a client certificate: CN is the name, each O a group, one UID attribute the uid.

use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;

use crate::{AuthError, UserInfo};

/// Attribute type of the UID (KEP-2799's arc of Kubernetes).
const UID_OID: &str = "1.3.6.1.4.1.57683.2";

/// The user that a verified client certificate stands for; `None` without a common name. Ask once a
/// connection and keep the answer.
///
/// # Errors
/// A certificate that cannot be read, or has several UIDs or an empty one.
pub fn identity_of_certificate(certificate: &CertificateDer<'_>) -> Result<Option<UserInfo>, AuthError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| AuthError::MalformedCertificate)?;
    let subject = parsed.subject();
    let Some(name) = subject.iter_common_name().last().and_then(|n| n.as_str().ok()).filter(|n| !n.is_empty()) else {
        return Ok(None);
    };
    let groups = subject.iter_organization().map(|o| o.as_str().map_err(|_| AuthError::MalformedCertificate));
    let mut user = UserInfo::new(name, groups.collect::<Result<Vec<_>, _>>()?);
    let mut uids = subject.iter_attributes().filter(|a| a.attr_type().to_id_string() == UID_OID);
    if let Some(uid) = uids.next() {
        let uid = uid.as_str().ok().filter(|u| !u.is_empty()).ok_or(AuthError::CertificateUid)?;
        if uids.next().is_some() {
            return Err(AuthError::CertificateUid);
        }
        user.uid = uid.to_owned();
    }
    let fingerprint: String = digest(&SHA256, certificate).as_ref().iter().map(|b| format!("{b:02x}")).collect();
    user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("X509SHA256={fingerprint}")]);
    Ok(Some(user))
}

/// When a certificate ends, in seconds since 1970; 0 where it cannot be read.
pub(super) fn end_of_certificate(certificate: &CertificateDer<'_>) -> i64 {
    x509_parser::parse_x509_certificate(certificate).map_or(0, |(_, parsed)| parsed.validity().not_after.timestamp())
}
