//! Who a request says it is from: a header that stays, a token in a file, or what a plugin gives.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use parking_lot::Mutex;

use crate::exec::{Exec, Given};
use crate::identity::Identity;
use crate::{ExecError, KubeconfigError};

/// How long a token from a file is used before the file is read again, as with client-go.
const TOKEN_FILE_PERIOD: Duration = Duration::from_secs(60);

/// Where the `Authorization` header comes from.
#[derive(Clone)]
pub(crate) enum Credential {
    /// There is none.
    None,
    /// It never changes.
    Fixed(HeaderValue),
    /// The file is read again now and then.
    File(Arc<TokenFile>),
    /// The plugin is run again when what it gave expires.
    Plugin(Arc<Plugin>),
}

pub(crate) struct TokenFile {
    path: PathBuf,
    /// What was read, and when; no time where it is to be read again.
    last: Mutex<(Option<HeaderValue>, Option<Instant>)>,
}

pub(crate) struct Plugin {
    pub(crate) exec: Exec,
    given: tokio::sync::Mutex<Option<Given>>,
}

impl Credential {
    /// The token in the file at `path`; until it can be read, `first`.
    pub(crate) fn file(path: PathBuf, first: Option<HeaderValue>) -> Result<Self, KubeconfigError> {
        let token = match (token_in(&path), first) {
            (Ok(token), _) => token,
            (Err(_), Some(first)) => Some(first),
            (Err(source), None) => return Err(KubeconfigError::Read { path, source }),
        };
        Ok(Credential::File(Arc::new(TokenFile { path, last: Mutex::new((token, Some(Instant::now()))) })))
    }

    pub(crate) fn plugin(exec: Exec) -> Self {
        Credential::Plugin(Arc::new(Plugin { exec, given: tokio::sync::Mutex::default() }))
    }

    /// The header of a request that is sent now, and the certificate that a plugin gave with it.
    pub(crate) async fn current(&self) -> Result<(Option<HeaderValue>, Option<Arc<Identity>>), ExecError> {
        match self {
            Credential::None => Ok((None, None)),
            Credential::Fixed(header) => Ok((Some(header.clone()), None)),
            Credential::File(file) => Ok((file.header(), None)),
            Credential::Plugin(plugin) => {
                let given = plugin.current().await?;
                Ok((given.header, given.identity))
            }
        }
    }

    /// The server does not take who `sent` says we are: a file is read, or a plugin run, before the next request, as
    /// with client-go.
    pub(crate) async fn refused(&self, sent: Option<&HeaderValue>) {
        match self {
            Credential::None | Credential::Fixed(_) => {}
            Credential::File(file) => {
                let mut last = file.last.lock();
                if last.0.as_ref() == sent {
                    last.1 = None;
                }
            }
            Credential::Plugin(plugin) => {
                let mut given = plugin.given.lock().await;
                if given.as_ref().is_some_and(|given| given.header.as_ref() == sent) {
                    *given = None;
                }
            }
        }
    }
}

impl TokenFile {
    /// A file that cannot be read any more leaves the last token in use.
    fn header(&self) -> Option<HeaderValue> {
        let mut last = self.last.lock();
        if last.1.is_none_or(|read| read.elapsed() > TOKEN_FILE_PERIOD) {
            if let Ok(Some(token)) = token_in(&self.path) {
                last.0 = Some(token);
            }
            last.1 = Some(Instant::now());
        }
        last.0.clone()
    }
}

impl Plugin {
    /// What the plugin gave last, or gives now where that has expired.
    async fn current(&self) -> Result<Given, ExecError> {
        let mut given = self.given.lock().await;
        match &*given {
            Some(last) if !last.expired() => Ok(last.clone()),
            _ => Ok(given.insert(self.exec.run().await?).clone()),
        }
    }
}

fn token_in(path: &Path) -> std::io::Result<Option<HeaderValue>> {
    let text = std::fs::read_to_string(path)?;
    Ok(Some(text.trim()).filter(|token| !token.is_empty()).and_then(bearer))
}

/// `None` where a header cannot carry the token.
pub(crate) fn bearer(token: &str) -> Option<HeaderValue> {
    secret(format!("Bearer {token}"))
}

/// `None` where a header cannot carry it.
pub(crate) fn basic(name: &str, password: &str) -> Option<HeaderValue> {
    secret(format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))))
}

fn secret(text: String) -> Option<HeaderValue> {
    let mut header = HeaderValue::try_from(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}
