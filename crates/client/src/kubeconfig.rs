//! A kubeconfig as client-go reads it: one context's server, authorities and credentials.
//!
//! The file is kept as a tree: few of its members are needed, and typed reading of all of them is half a megabyte of
//! code. Files that it names are relative to it. A proxy (`proxy-url`) and the providers that client-go has dropped are
//! refused by name; `HTTPS_PROXY` is not followed.

use std::fmt;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde_json::{Map, Value};

use crate::credentials::{Credential, basic, bearer};
use crate::exec::Exec;
use crate::identity::{Identity, IdentityFiles};
use crate::{Error, KubeconfigError};

/// A kubeconfig that was read.
pub struct Kubeconfig {
    path: PathBuf,
    tree: Value,
}

/// Its place alone: the rest is secrets.
impl fmt::Debug for Kubeconfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kubeconfig").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What one context says.
pub(crate) struct Access {
    pub(crate) server: Uri,
    pub(crate) namespace: String,
    pub(crate) authorities: Option<Vec<u8>>,
    pub(crate) server_name: Option<String>,
    pub(crate) insecure: bool,
    pub(crate) certificate: ClientCertificate,
    pub(crate) credential: Credential,
    pub(crate) impersonate: HeaderMap,
}

/// Where the client certificate comes from.
pub(crate) enum ClientCertificate {
    /// There is none, or a plugin gives it.
    None,
    /// It never changes.
    Fixed(Arc<Identity>),
    /// The files are read again now and then.
    Files(IdentityFiles),
}

impl ClientCertificate {
    /// What a connection that begins now shows; `plugged` where no certificate is named.
    pub(crate) fn current(&self, plugged: Option<Arc<Identity>>) -> Option<Arc<Identity>> {
        match self {
            ClientCertificate::None => plugged,
            ClientCertificate::Fixed(identity) => Some(identity.clone()),
            ClientCertificate::Files(files) => Some(files.current()),
        }
    }
}

type Result<T> = std::result::Result<T, KubeconfigError>;

impl Kubeconfig {
    /// Reads a file (YAML or JSON).
    ///
    /// # Errors
    /// It cannot be read, or is neither.
    pub fn read_from(path: &Path) -> std::result::Result<Self, Error> {
        let at = |source| Error::Kubeconfig { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path)
            .map_err(|source| at(KubeconfigError::Read { path: path.to_owned(), source }))?;
        let tree = serde_yaml_ng::from_str(&text).map_err(|e| at(e.into()))?;
        Ok(Self { path: path.to_owned(), tree })
    }

    /// The server of the first cluster that names one.
    pub fn server(&self) -> Option<&str> {
        self.clusters().find_map(|cluster| cluster.get("server")?.as_str())
    }

    /// The extension `name` of the first cluster that has it.
    pub fn extension(&self, name: &str) -> Option<&Value> {
        self.clusters().find_map(|cluster| extension(cluster, name))
    }

    fn clusters(&self) -> impl Iterator<Item = &Value> {
        list(&self.tree, "clusters").iter().filter_map(|c| c.get("cluster"))
    }

    /// What `context`, or the current one, says.
    pub(crate) fn access(&self, context: Option<&str>) -> std::result::Result<Access, Error> {
        self.read(context).map_err(|source| Error::Kubeconfig { path: self.path.clone(), source })
    }

    fn read(&self, context: Option<&str>) -> Result<Access> {
        let current = text(&self.tree, "current-context")?;
        let name = context.or(current).ok_or(KubeconfigError::NoContext)?;
        let context = named(&self.tree, "contexts", name, "context");
        let context = context.ok_or_else(|| KubeconfigError::Context(name.to_owned()))?;
        let cluster_name = text(context, "cluster")?.unwrap_or_default();
        let cluster = named(&self.tree, "clusters", cluster_name, "cluster");
        let cluster = cluster.ok_or_else(|| KubeconfigError::Cluster(cluster_name.to_owned()))?;
        // A user that is not there is nobody, as with client-go.
        let nobody = Value::Null;
        let user = text(context, "user")?.and_then(|name| named(&self.tree, "users", name, "user")).unwrap_or(&nobody);
        if text(cluster, "proxy-url")?.is_some() {
            let advice = "reach the server directly";
            return Err(KubeconfigError::Unsupported { member: "proxy-url", advice });
        }
        let server = text(cluster, "server")?.ok_or_else(|| KubeconfigError::Server(cluster_name.to_owned()))?;
        Ok(Access {
            server: address(server)?,
            namespace: text(context, "namespace")?.unwrap_or("default").to_owned(),
            authorities: self.pem(cluster, "certificate-authority", "certificate-authority-data")?,
            server_name: text(cluster, "tls-server-name")?.map(str::to_owned),
            insecure: truth(cluster, "insecure-skip-tls-verify")?,
            certificate: self.certificate(user)?,
            credential: self.credential(user, cluster)?,
            impersonate: impersonation(user)?,
        })
    }

    fn certificate(&self, user: &Value) -> Result<ClientCertificate> {
        let data = text(user, "client-certificate-data")?.is_some() || text(user, "client-key-data")?.is_some();
        let files = (text(user, "client-certificate")?, text(user, "client-key")?);
        if let ((Some(certificate), Some(key)), false) = (files, data) {
            let files = IdentityFiles::new(self.beside(certificate), self.beside(key))?;
            return Ok(ClientCertificate::Files(files));
        }
        let certificate = self.pem(user, "client-certificate", "client-certificate-data")?;
        match (certificate, self.pem(user, "client-key", "client-key-data")?) {
            (Some(certificate), Some(key)) => Ok(ClientCertificate::Fixed(Arc::new(Identity { certificate, key }))),
            (None, None) => Ok(ClientCertificate::None),
            _ => Err(KubeconfigError::HalfIdentity),
        }
    }

    fn credential(&self, user: &Value, cluster: &Value) -> Result<Credential> {
        if let Some(provider) = member(user, "auth-provider") {
            let token = provider.get("config").and_then(|c| c.get("id-token")?.as_str());
            return match (text(provider, "name")?, token) {
                (Some("oidc"), Some(token)) => token_of("auth-provider.config.id-token", token).map(Credential::Fixed),
                _ => {
                    let advice = "use an exec plugin";
                    Err(KubeconfigError::Unsupported { member: "auth-provider", advice })
                }
            };
        }
        if let (Some(name), Some(password)) = (text(user, "username")?, text(user, "password")?) {
            let form = "text that a header can carry";
            let header = basic(name, password).ok_or(KubeconfigError::Form { member: "password", form })?;
            return Ok(Credential::Fixed(header));
        }
        let token = text(user, "token")?.map(|token| token_of("token", token)).transpose()?;
        if let Some(file) = text(user, "tokenFile")? {
            return Credential::file(self.beside(file), token);
        }
        if let Some(token) = token {
            return Ok(Credential::Fixed(token));
        }
        match member(user, "exec") {
            Some(exec) => Ok(Credential::plugin(self.plugin(exec, cluster)?)),
            None => Ok(Credential::None),
        }
    }

    fn plugin(&self, exec: &Value, cluster: &Value) -> Result<Exec> {
        let required = |member| move |found: Option<&str>| found.map(str::to_owned).ok_or(needed(member));
        let version = required("exec.apiVersion")(text(exec, "apiVersion")?)?;
        if !matches!(version.as_str(), "client.authentication.k8s.io/v1" | "client.authentication.k8s.io/v1beta1") {
            let form = "client.authentication.k8s.io/v1 or v1beta1";
            return Err(KubeconfigError::Form { member: "exec.apiVersion", form });
        }
        let command = required("exec.command")(text(exec, "command")?)?;
        // A bare name is looked up in PATH.
        let command =
            if command.contains('/') { self.beside(&command).to_string_lossy().into_owned() } else { command };
        let mut arguments = Vec::new();
        for argument in list(exec, "args") {
            let form = "a list of texts";
            let text = argument.as_str().ok_or(KubeconfigError::Form { member: "exec.args", form })?;
            arguments.push(text.to_owned());
        }
        let mut environment = Vec::new();
        for variable in list(exec, "env") {
            let value = text(variable, "value")?.unwrap_or_default().to_owned();
            environment.push((required("exec.env.name")(text(variable, "name")?)?, value));
        }
        let terminal = std::io::stdin().is_terminal();
        let interactive = match text(exec, "interactiveMode")? {
            Some("Never") => false,
            Some("IfAvailable") => terminal,
            None if version.ends_with("/v1beta1") => terminal,
            Some("Always") if terminal => true,
            _ => {
                let form = "Never, IfAvailable, or Always where standard input is a terminal";
                return Err(KubeconfigError::Form { member: "exec.interactiveMode", form });
            }
        };
        let mut spec = Map::new();
        spec.insert("interactive".to_owned(), interactive.into());
        if truth(exec, "provideClusterInfo")? {
            spec.insert("cluster".to_owned(), self.cluster_info(cluster)?);
        }
        Ok(Exec { version, command, arguments, environment, interactive, spec: Value::Object(spec) })
    }

    /// What a plugin may know of the cluster.
    fn cluster_info(&self, cluster: &Value) -> Result<Value> {
        let mut info = Map::new();
        for name in ["server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url"] {
            if let Some(value) = member(cluster, name) {
                info.insert(name.to_owned(), value.clone());
            }
        }
        if let Some(pem) = self.pem(cluster, "certificate-authority", "certificate-authority-data")? {
            info.insert("certificate-authority-data".to_owned(), STANDARD.encode(pem).into());
        }
        if let Some(config) = extension(cluster, "client.authentication.k8s.io/exec") {
            info.insert("config".to_owned(), config.clone());
        }
        Ok(Value::Object(info))
    }

    /// Data stands above a file, as with client-go.
    fn pem(&self, value: &Value, file: &'static str, data: &'static str) -> Result<Option<Vec<u8>>> {
        if let Some(encoded) = text(value, data)? {
            let compact: String = encoded.split_ascii_whitespace().collect();
            let wrong = |_| KubeconfigError::Form { member: data, form: "base64" };
            return STANDARD.decode(compact).map(Some).map_err(wrong);
        }
        let path = text(value, file)?.map(|file| self.beside(file));
        path.map(|path| std::fs::read(&path).map_err(|source| KubeconfigError::Read { path, source })).transpose()
    }

    fn beside(&self, file: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(file)
    }
}

fn needed(member: &'static str) -> KubeconfigError {
    KubeconfigError::Form { member, form: "given" }
}

fn token_of(member: &'static str, token: &str) -> Result<HeaderValue> {
    bearer(token).ok_or(KubeconfigError::Form { member, form: "text that a header can carry" })
}

/// An address without a scheme means HTTP, as with client-go.
fn address(server: &str) -> Result<Uri> {
    let wrong = KubeconfigError::Form { member: "server", form: "an URL" };
    let whole = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
    let uri: Uri = whole.parse().map_err(|_| KubeconfigError::Form { member: "server", form: "an URL" })?;
    if matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|h| !h.is_empty()) {
        Ok(uri)
    } else {
        Err(wrong)
    }
}

fn impersonation(user: &Value) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let mut add = |name: HeaderName, value: &str, member| -> Result<()> {
        let form = "text that a header can carry";
        let value = HeaderValue::from_str(value).map_err(|_| KubeconfigError::Form { member, form })?;
        headers.append(name, value);
        Ok(())
    };
    if let Some(name) = text(user, "as")? {
        add(HeaderName::from_static("impersonate-user"), name, "as")?;
    }
    if let Some(uid) = text(user, "as-uid")? {
        add(HeaderName::from_static("impersonate-uid"), uid, "as-uid")?;
    }
    for group in texts(list(user, "as-groups"), "as-groups")? {
        add(HeaderName::from_static("impersonate-group"), group, "as-groups")?;
    }
    for (key, values) in member(user, "as-user-extra").and_then(Value::as_object).into_iter().flatten() {
        let name = HeaderName::from_bytes(extra_name(key).as_bytes()).map_err(|_| needed("as-user-extra"))?;
        for value in texts(values.as_array().map_or(&[], Vec::as_slice), "as-user-extra")? {
            add(name.clone(), value, "as-user-extra")?;
        }
    }
    Ok(headers)
}

/// What a header's name cannot carry is escaped, and `%` itself.
fn extra_name(key: &str) -> String {
    let mut name = "impersonate-extra-".to_owned();
    for byte in key.to_lowercase().bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => name.push(byte as char),
            b'!' | b'#' | b'$' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~' => {
                name.push(byte as char);
            }
            other => name.push_str(&format!("%{other:02x}")),
        }
    }
    name
}

fn extension<'a>(cluster: &'a Value, name: &str) -> Option<&'a Value> {
    named(cluster, "extensions", name, "extension")
}

fn named<'a>(tree: &'a Value, lists: &str, name: &str, body: &str) -> Option<&'a Value> {
    let found = list(tree, lists).iter().find(|item| item.get("name").and_then(Value::as_str) == Some(name))?;
    member(found, body)
}

fn member<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.get(name).filter(|v| !v.is_null())
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn texts<'a>(values: &'a [Value], member: &'static str) -> Result<Vec<&'a str>> {
    let form = "a list of texts";
    values.iter().map(|v| v.as_str().ok_or(KubeconfigError::Form { member, form })).collect()
}

/// Text, where there is some: an empty one is none.
fn text<'a>(value: &'a Value, name: &'static str) -> Result<Option<&'a str>> {
    match member(value, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|t| !t.is_empty())),
        Some(_) => Err(KubeconfigError::Form { member: name, form: "text" }),
    }
}

fn truth(value: &Value, name: &'static str) -> Result<bool> {
    match member(value, name) {
        None => Ok(false),
        Some(value) => value.as_bool().ok_or(KubeconfigError::Form { member: name, form: "true or false" }),
    }
}
