//! The serving certificates: given by flags, by server name, or generated.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ironkeel_auth::pki::{self, ReplaceableCertificates, ServingCertificates};

use super::reload::Reload;
use crate::flags::{FlagError, Given, invalid};

/// Upstream's `--cert-dir` where none is given.
const CERT_DIR: &str = "/var/run/kubernetes";
const CERT: &str = "tls-cert-file";
const KEY: &str = "tls-private-key-file";
const SNI: &str = "tls-sni-cert-key";

fn read(flag: &'static str, path: &Path) -> Result<String, FlagError> {
    std::fs::read_to_string(path).map_err(|e| invalid(flag, &path.display().to_string(), e.to_string()))
}

/// Certificate and key of one `--tls-sni-cert-key`, and the names that it is for (its own where none).
#[derive(Clone)]
struct Named {
    pair: String,
    certificate: PathBuf,
    key: PathBuf,
    names: Vec<String>,
}

fn named(pair: &str) -> Result<Named, FlagError> {
    let (files, names) = match pair.rsplit_once(':') {
        Some((files, names)) => (files, names.split(',').map(str::to_owned).collect()),
        None => (pair, Vec::new()),
    };
    let (certificate, key) =
        files.split_once(',').ok_or_else(|| invalid(SNI, pair, "must be cert,key or cert,key:names"))?;
    Ok(Named { pair: pair.to_owned(), certificate: certificate.into(), key: key.into(), names })
}

/// Reads all certificates.
fn certificates(certificate: &Path, key: &Path, named: &[Named]) -> Result<ServingCertificates, FlagError> {
    let wrong = |e: ironkeel_auth::PkiError| invalid(CERT, &certificate.display().to_string(), e.to_string());
    let mut all = ServingCertificates::new(&read(CERT, certificate)?, &read(KEY, key)?).map_err(wrong)?;
    for one in named {
        all.add(&read(SNI, &one.certificate)?, &read(SNI, &one.key)?, one.names.clone())
            .map_err(|e| invalid(SNI, &one.pair, e.to_string()))?;
    }
    Ok(all)
}

/// TLS as the flags say; certificates that change are served without a restart.
pub(super) fn tls(
    given: &Given,
    advertise: IpAddr,
    service: IpAddr,
    notes: &mut Vec<String>,
    reload: &mut Reload,
) -> Result<Arc<rustls::ServerConfig>, FlagError> {
    let (certificate, key) = match (given.text(CERT), given.text(KEY)) {
        (Some(certificate), Some(key)) => (PathBuf::from(certificate), PathBuf::from(key)),
        (Some(_), None) => return Err(FlagError::Required(KEY)),
        (None, Some(_)) => return Err(FlagError::Required(CERT)),
        (None, None) => generated(given, advertise, service, notes)?,
    };
    let named: Vec<Named> = given.all(SNI).iter().map(|pair| named(pair)).collect::<Result<_, _>>()?;
    let all = Arc::new(ReplaceableCertificates::new(certificates(&certificate, &key, &named)?));
    let files = [certificate.clone(), key.clone()].into_iter();
    let files: Vec<PathBuf> = files.chain(named.iter().flat_map(|n| [n.certificate.clone(), n.key.clone()])).collect();
    let into = all.clone();
    reload.watch("serving certificates", files, move || {
        into.replace(certificates(&certificate, &key, &named).map_err(|e| e.to_string())?);
        Ok(())
    });
    let versions: &[&'static rustls::SupportedProtocolVersion] = match given.text("tls-min-version") {
        None | Some("VersionTLS12") => rustls::ALL_VERSIONS,
        Some("VersionTLS13") => &[&rustls::version::TLS13],
        Some(old @ ("VersionTLS10" | "VersionTLS11")) => {
            return Err(invalid("tls-min-version", old, "TLS below 1.2 is not spoken"));
        }
        Some(other) => return Err(invalid("tls-min-version", other, "must be VersionTLS12 or VersionTLS13")),
    };
    let suites = given.all("tls-cipher-suites");
    pki::api_server_tls_with(all, versions, suites)
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
