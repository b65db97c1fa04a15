//! What can go wrong. Texts name the thing refused, never a token or a key.

use std::path::PathBuf;

/// Why credentials were refused. Each becomes 401 Unauthorized; the reason is for the log.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The certificate cannot be read.
    #[error("the client certificate is malformed")]
    MalformedCertificate,
    /// Signed by no authority that is trusted here.
    #[error("the client certificate is signed by no trusted authority")]
    UntrustedCertificate,
    /// More than one UID attribute stands in the certificate's subject, or it is empty.
    #[error("the client certificate's subject must have at most one non-empty UID")]
    CertificateUid,
    /// No authenticator knows the bearer token.
    #[error("the bearer token is unknown")]
    UnknownToken,
    /// Not three base64url parts with JSON in them.
    #[error("the token is malformed")]
    MalformedToken,
    /// Larger than any token that is issued.
    #[error("the token is longer than {limit_bytes} bytes")]
    TokenTooLong {
        /// The limit.
        limit_bytes: usize,
    },
    /// Signed by no known key, or changed on the way.
    #[error("the token's signature does not verify")]
    InvalidSignature,
    /// A header with `crit`: whoever signed it wants extensions to be understood that nobody here knows.
    #[error("the token's header demands extensions that are not known")]
    CriticalHeader,
    /// Past its `exp`.
    #[error("the token has expired")]
    Expired,
    /// Before its `nbf`.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// Meant for others.
    #[error("the token's audiences {found:?} have nothing in common with {accepted:?}")]
    WrongAudience {
        /// In the token.
        found: Vec<String>,
        /// Of this server, or of the review.
        accepted: Vec<String>,
    },
    /// The ServiceAccount, or what the token is bound to, is gone or another of the same name.
    #[error("{kind} {namespace}/{name}, to which the token is bound, is gone or was replaced")]
    BoundObjectInvalid {
        /// `ServiceAccount`, `Pod`, `Secret` or `Node`.
        kind: &'static str,
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// A token in a Secret that the cleaner of unused ones has marked.
    #[error(
        "the token in secret {namespace}/{secret} has been marked invalid; use tokens from the TokenRequest API, or remove the label kubernetes.io/legacy-token-invalid-since from the secret to allow it again"
    )]
    Invalidated {
        /// Namespace.
        namespace: String,
        /// Name of the Secret.
        secret: String,
    },
    /// What an issuer's configuration says against an ID token.
    #[error("oidc: {0}")]
    IdToken(String),
    /// An ID token without a claim, or with another value than it must have.
    #[error("the ID token's claim {0:?} is absent or has another value than it must")]
    Claim(String),
    /// A bootstrap token that has expired, or is not for authentication.
    #[error("bootstrap token {id} cannot be used: {reason}")]
    BootstrapToken {
        /// The public half.
        id: String,
        /// Why.
        reason: &'static str,
    },
    /// A line of the static token file.
    #[error("the token file's line {line} needs a token, a user name and a UID")]
    TokenFileLine {
        /// Counted from 1.
        line: usize,
    },
    /// `expirationSeconds` outside of 600…2^32.
    #[error("may not specify a duration {0}")]
    ExpirationSeconds(&'static str),
    /// The signing key did not sign.
    #[error("signing the token failed")]
    Signing,
    /// Impersonation headers without `Impersonate-User`; what they ask for.
    #[error("requested {0} without impersonating a user name")]
    ImpersonationWithoutUser(String),
    /// An impersonation header that is not text.
    #[error("impersonation header {0} is not valid")]
    ImpersonationHeader(String),
}

/// Why the cluster's certificates cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// Reading or writing a file.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that is no PEM certificate or key.
    #[error("{path}: not a {what} in PEM; remove it to have a new one made")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// `certificate` or `key`.
        what: &'static str,
    },
    /// A bundle of authorities without a certificate, or with one that cannot be read.
    #[error("the bundle of certificate authorities cannot be read")]
    Bundle,
    /// The authority's key is gone while its certificate is there.
    #[error("{path} is missing beside its certificate; put it back, or remove both to begin anew")]
    KeyMissing {
        /// The key's file.
        path: PathBuf,
    },
    /// The authority has expired.
    #[error("{path}: the certificate authority has expired; remove it and its key to begin anew")]
    AuthorityExpired {
        /// The certificate's file.
        path: PathBuf,
    },
    /// A cipher suite that is not spoken.
    #[error("Cipher suite {0} not supported or doesn't exist")]
    CipherSuite(String),
    /// A name that cannot stand in a certificate.
    #[error("{0:?} cannot stand in a certificate")]
    Name(String),
    /// Making a certificate.
    #[error("making a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// Making a TLS configuration.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// Making a verifier of client certificates.
    #[error("TLS: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// A key that `ring` refuses.
    #[error("{path}: not a P-256 or RSA key in PEM")]
    KeyRejected {
        /// The key's file.
        path: PathBuf,
    },
}
