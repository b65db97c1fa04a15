//! Client configuration files for kubectl and the components.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

fn quoted(text: &str) -> String {
    // A JSON string is a YAML string.
    serde_json::Value::from(text).to_string()
}

fn document(server_url: &str, ca_pem: &str, user: &str) -> String {
    let server = quoted(server_url);
    let ca = STANDARD.encode(ca_pem);
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: ironkeel\n  cluster:\n    server: {server}\n    \
         certificate-authority-data: {ca}\nusers:\n- name: ironkeel\n  user:\n{user}contexts:\n- name: ironkeel\n  \
         context:\n    cluster: ironkeel\n    user: ironkeel\ncurrent-context: ironkeel\npreferences: {{}}\n"
    )
}

/// A kubeconfig with a client certificate. Write it with [`super::write_private`].
pub fn kubeconfig(server_url: &str, ca_pem: &str, cert_pem: &str, key_pem: &str) -> String {
    let (cert, key) = (STANDARD.encode(cert_pem), STANDARD.encode(key_pem));
    document(server_url, ca_pem, &format!("    client-certificate-data: {cert}\n    client-key-data: {key}\n"))
}

/// A kubeconfig with a bearer token.
pub fn kubeconfig_with_token(server_url: &str, ca_pem: &str, token: &str) -> String {
    document(server_url, ca_pem, &format!("    token: {}\n", quoted(token)))
}
