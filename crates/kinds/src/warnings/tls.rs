//! Certificate and key of a TLS Secret, as far as their PEM tells: what Go's loader says of those that are none.
//! Whether the key belongs to the certificate is not looked at.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ironkeel_object::Value;
use x509_parser::pem::Pem;

fn labels(secret: &Value, key: &str) -> Vec<String> {
    let encoded = secret.str_at(&["data", key]).unwrap_or_default();
    let text = STANDARD.decode(encoded).unwrap_or_default();
    Pem::iter_from_buffer(&text).map_while(Result::ok).map(|block| block.label).collect()
}

fn is_key(label: &str) -> bool {
    label == "PRIVATE KEY" || label.ends_with(" PRIVATE KEY")
}

/// What is wrong with the pair.
pub(super) fn fault(secret: &Value) -> Option<String> {
    let certificate = labels(secret, "tls.crt");
    if !certificate.iter().any(|l| l == "CERTIFICATE") {
        return Some(match certificate.as_slice() {
            [] => "tls: failed to find any PEM data in certificate input".to_owned(),
            [one] if is_key(one) => "tls: failed to find certificate PEM data in certificate input, but did find a \
                                     private key; PEM inputs may have been switched"
                .to_owned(),
            skipped => format!(
                "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the \
                 following types: [{}]",
                skipped.join(" ")
            ),
        });
    }
    let key = labels(secret, "tls.key");
    if key.iter().any(|l| is_key(l)) {
        return None;
    }
    Some(match key.as_slice() {
        [] => "tls: failed to find any PEM data in key input".to_owned(),
        [one] if one == "CERTIFICATE" => {
            "tls: found a certificate rather than a key in the PEM for the private key".to_owned()
        }
        skipped => format!(
            "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks \
             of the following types: [{}]",
            skipped.join(" ")
        ),
    })
}
