//! The certificate that connections show: one that stays, one in files that are read again now and then, or what a
//! plugin gives. A connection shows what it began with, so a new certificate needs new connections.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::sign::CertifiedKey;

use crate::KubeconfigError;
use crate::tls::certificates;

/// How long a certificate from files is used before they are read again, as with client-go.
const CERTIFICATE_FILE_PERIOD: Duration = Duration::from_secs(5 * 60);

/// A client certificate and its key, PEM.
#[derive(PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

impl Identity {
    /// As the TLS stack takes it.
    ///
    /// # Errors
    /// The certificate or its key is malformed, or they do not belong together.
    fn certified(&self) -> Result<CertifiedKey, KubeconfigError> {
        let wrong = |source| KubeconfigError::Tls { member: "client-key", source };
        let chain = certificates("client-certificate", &self.certificate)?;
        let form = "a private key in PEM";
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| KubeconfigError::Form { member: "client-key", form })?;
        // Looks whether they belong together, where the key's kind tells.
        CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(wrong)
    }
}

/// A certificate and its key in files.
pub(crate) struct IdentityFiles {
    certificate: PathBuf,
    key: PathBuf,
    /// What was read, and when; no time where they are to be read again.
    last: Mutex<(Arc<Identity>, Option<Instant>)>,
}

impl IdentityFiles {
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn new(certificate: PathBuf, key: PathBuf) -> Result<Self, KubeconfigError> {
        let first = read(&certificate, &key)?;
        Ok(Self { certificate, key, last: Mutex::new((Arc::new(first), Some(Instant::now()))) })
    }

    /// What the files hold. While they cannot be read, or do not belong together, what they held before.
    pub(crate) fn current(&self) -> Arc<Identity> {
        let mut last = self.last.lock();
        if last.1.is_none_or(|read| read.elapsed() > CERTIFICATE_FILE_PERIOD) {
            let news = read(&self.certificate, &self.key).ok().filter(|found| *found != *last.0);
            if let Some(found) = news.filter(|found| found.certified().is_ok()) {
                last.0 = Arc::new(found);
            }
            last.1 = Some(Instant::now());
        }
        last.0.clone()
    }

    /// The server does not take the certificate: the files are read again before the next request.
    pub(crate) fn refused(&self) {
        self.last.lock().1 = None;
    }
}

fn read(certificate: &PathBuf, key: &PathBuf) -> Result<Identity, KubeconfigError> {
    let bytes =
        |path: &PathBuf| std::fs::read(path).map_err(|source| KubeconfigError::Read { path: path.clone(), source });
    Ok(Identity { certificate: bytes(certificate)?, key: bytes(key)? })
}

/// What the next connection shows.
#[derive(Debug, Default)]
pub(crate) struct Shown(ArcSwapOption<CertifiedKey>);

impl Shown {
    /// # Errors
    /// The certificate or its key is malformed, or they do not belong together.
    pub(crate) fn show(&self, identity: &Identity) -> Result<(), KubeconfigError> {
        self.0.store(Some(Arc::new(identity.certified()?)));
        Ok(())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }

    fn has_certs(&self) -> bool {
        self.0.load().is_some()
    }
}
