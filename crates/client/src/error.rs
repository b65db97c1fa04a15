//! What can be wrong with a kubeconfig, or with what it leads to.

use std::path::PathBuf;

/// Why no client could be made, or why it cannot say who it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KubeconfigError,
    },
    /// The credential plugin gave no credentials.
    #[error("getting credentials: exec: {0}")]
    Exec(#[from] ExecError),
}

/// What is wrong with a kubeconfig.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// It, or a file that it names, cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// It is no YAML.
    #[error("{0}")]
    Yaml(#[from] serde_yaml_ng::Error),
    /// It names no current context, and none was asked for.
    #[error("no current context is set")]
    NoContext,
    /// The context is not there.
    #[error("context was not found for specified context: {0}")]
    Context(String),
    /// The context's cluster is not there.
    #[error("cluster {0:?} does not exist")]
    Cluster(String),
    /// The cluster has no server.
    #[error("invalid configuration: no server found for cluster {0:?}")]
    Server(String),
    /// A member has another form than it should.
    #[error("{member}: must be {form}")]
    Form {
        /// The member.
        member: &'static str,
        /// What it should be.
        form: &'static str,
    },
    /// A member that asks for something that is not here.
    #[error("{member} is not supported: {advice}")]
    Unsupported {
        /// The member.
        member: &'static str,
        /// What to do instead.
        advice: &'static str,
    },
    /// Certificate without key, or the other way round.
    #[error("a client certificate and its key must be given together")]
    HalfIdentity,
    /// The key or the certificates do not serve for TLS.
    #[error("{member}: {source}")]
    Tls {
        /// What was being used.
        member: &'static str,
        /// What the TLS stack said.
        source: rustls::Error,
    },
}

/// Why a credential plugin gave no credentials.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The plugin could not be started.
    #[error("{command}: {source}")]
    Start {
        /// The plugin.
        command: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The plugin failed. What it printed may hold secrets, and is not repeated.
    #[error("executable {command} failed with {status}")]
    Failed {
        /// The plugin.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// What it printed is no ExecCredential.
    #[error("decoding stdout: {0}")]
    Output(serde_yaml_ng::Error),
    /// It answered in another version than it was asked in.
    #[error("plugin returned version {0:?}, but was asked for {1:?}")]
    Version(String, String),
    /// The answer lacks what it must have.
    #[error("exec plugin didn't return a {0}")]
    Missing(&'static str),
    /// What it returned cannot be sent.
    #[error("the plugin's {0} is malformed")]
    Malformed(&'static str),
}
