//! The serving certificates: given by flags, by server name, or generated.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ironkeel_auth::pki::{self, ServingCertificates};

use crate::flags::{FlagError, Given, invalid};

/// Upstream's `--cert-dir` where none is given.
const CERT_DIR: &str = "/var/run/kubernetes";

fn read(flag: &'static str, path: &Path) -> Result<String, FlagError> {
    std::fs::read_to_string(path).map_err(|e| invalid(flag, &path.display().to_string(), e.to_string()))
}

/// TLS as the flags say.
pub(super) fn tls(
    given: &Given,
    advertise: IpAddr,
    service: IpAddr,
    notes: &mut Vec<String>,
) -> Result<Arc<rustls::ServerConfig>, FlagError> {
    const CERT: &str = "tls-cert-file";
    const KEY: &str = "tls-private-key-file";
    let (certificate, key) = match (given.text(CERT), given.text(KEY)) {
        (Some(certificate), Some(key)) => (PathBuf::from(certificate), PathBuf::from(key)),
        (Some(_), None) => return Err(FlagError::Required(KEY)),
        (None, Some(_)) => return Err(FlagError::Required(CERT)),
        (None, None) => generated(given, advertise, service, notes)?,
    };
    let wrong = |e: ironkeel_auth::PkiError| invalid(CERT, &certificate.display().to_string(), e.to_string());
    let mut all = ServingCertificates::new(&read(CERT, &certificate)?, &read(KEY, &key)?).map_err(wrong)?;
    for pair in given.all("tls-sni-cert-key") {
        const SNI: &str = "tls-sni-cert-key";
        let (files, names) = match pair.rsplit_once(':') {
            Some((files, names)) => (files, names.split(',').map(str::to_owned).collect()),
            None => (pair.as_str(), Vec::new()),
        };
        let (certificate, key) =
            files.split_once(',').ok_or_else(|| invalid(SNI, pair, "must be cert,key or cert,key:names"))?;
        all.add(&read(SNI, Path::new(certificate))?, &read(SNI, Path::new(key))?, names)
            .map_err(|e| invalid(SNI, pair, e.to_string()))?;
    }
    let versions: &[&'static rustls::SupportedProtocolVersion] = match given.text("tls-min-version") {
        None | Some("VersionTLS12") => rustls::ALL_VERSIONS,
        Some("VersionTLS13") => &[&rustls::version::TLS13],
        Some(old @ ("VersionTLS10" | "VersionTLS11")) => {
            return Err(invalid("tls-min-version", old, "TLS below 1.2 is not spoken"));
        }
        Some(other) => return Err(invalid("tls-min-version", other, "must be VersionTLS12 or VersionTLS13")),
    };
    let suites = given.all("tls-cipher-suites");
    pki::api_server_tls_with(Arc::new(all), versions, suites)
        .map_err(|e| invalid("tls-cipher-suites", &suites.join(","), e.to_string()))
}

/// A certificate of our own, signed by itself and kept in `--cert-dir` (or `--data-dir`).
fn generated(
    given: &Given,
    advertise: IpAddr,
    service: IpAddr,
    notes: &mut Vec<String>,
) -> Result<(PathBuf, PathBuf), FlagError> {
    let dir = match (given.text("cert-dir"), given.text("data-dir")) {
        (Some(dir), _) => PathBuf::from(dir),
        (None, Some(dir)) => Path::new(dir).join("certs"),
        (None, None) => PathBuf::from(CERT_DIR),
    };
    let mut names: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"].map(str::to_owned).into();
    names.extend([advertise.to_string(), service.to_string(), "127.0.0.1".to_owned()]);
    names.extend(given.text("external-hostname").map(str::to_owned));
    let made = pki::self_signed(&dir, "apiserver", names)
        .map_err(|e| invalid("cert-dir", &dir.display().to_string(), e.to_string()))?;
    notes.push(format!("without --tls-cert-file, {} is served", made.0.display()));
    Ok(made)
}
