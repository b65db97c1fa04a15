//! KMS v2: keys are encrypted by a plugin behind a unix socket; values are encrypted here, under keys
//! that are derived from one seed.
//!
//! The plugin's `Status` tells its key's id. When the id changes, a new seed is made and encrypted; a
//! seed may be written with for three minutes after the last `Status` that was well, so that a
//! rotation is never missed for longer. Reading goes on without limit: a decrypted seed is kept for a
//! day. Intervals and limits are upstream's.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use prost::Message;
use tokio::net::UnixStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::EncryptionError;
use crate::ciphers::{self, SEED_BYTES};
use crate::envelope::{self, DataKey, EncryptedObject, KeyHash};
use crate::v2::key_management_service_client::KeyManagementServiceClient;
use crate::v2::{DecryptRequest, EncryptRequest, StatusRequest, StatusResponse};

/// Time between two looks at a plugin that is well.
const POLL_SECONDS: u64 = 60;
/// Time between two looks at a plugin that is not.
const RETRY_SECONDS: u64 = 10;
/// How long a seed may be written with after the last good `Status`.
const WRITE_SECONDS: u64 = 180;
/// How long the answer to a good health check is good for.
const GOOD_SECONDS: u64 = 20;
/// How long the answer to a bad one is.
const BAD_SECONDS: u64 = 3;
/// How long a decrypted key is kept.
const KEY_SECONDS: u64 = 24 * 60 * 60;
/// Decrypted keys that are kept; past it those that were used longest ago go.
const KEYS: usize = 4096;
/// Time between two tries to reach the plugin's socket, in milliseconds.
const RECONNECT_MILLIS: u64 = 100;

/// The seed that is written with.
struct Current {
    seed: Arc<DataKey>,
    /// Key id, encrypted seed and annotations; no data.
    object: EncryptedObject,
    hash: KeyHash,
    until: Instant,
}

#[derive(Default)]
struct Probe {
    last: Option<(Instant, Result<(), String>)>,
    version: String,
}

/// A plugin.
pub struct Kms {
    name: String,
    socket: PathBuf,
    timeout: Duration,
    client: OnceLock<KeyManagementServiceClient<Channel>>,
    current: ArcSwapOption<Current>,
    keys: Mutex<HashMap<KeyHash, (Arc<DataKey>, Instant)>>,
    /// Held while the plugin is asked, so that it is asked once for all who want to know.
    probe: tokio::sync::Mutex<Probe>,
}

impl std::fmt::Debug for Kms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kms").field("name", &self.name).field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Kms {
    /// A plugin of this name behind this socket, each call limited to `timeout`. Nothing is asked yet.
    pub fn new(name: impl Into<String>, socket: impl Into<PathBuf>, timeout: Duration) -> Kms {
        Kms {
            name: name.into(),
            socket: socket.into(),
            timeout,
            client: OnceLock::new(),
            current: ArcSwapOption::empty(),
            keys: Mutex::default(),
            probe: tokio::sync::Mutex::default(),
        }
    }

    /// The provider's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn error(&self, reason: impl Into<String>) -> EncryptionError {
        EncryptionError::Kms { name: self.name.clone(), reason: reason.into() }
    }

    fn client(&self) -> KeyManagementServiceClient<Channel> {
        let connect = || {
            let socket = self.socket.clone();
            let connector = tower::service_fn(move |_: Uri| {
                let socket = socket.clone();
                async move { UnixStream::connect(socket).await.map(TokioIo::new) }
            });
            // The address only fills the :authority header; the connector ignores it.
            let endpoint = Endpoint::from_static("http://localhost");
            KeyManagementServiceClient::new(endpoint.connect_with_connector_lazy(connector))
        };
        self.client.get_or_init(connect).clone()
    }

    /// Calls until the socket answers, or the time is over.
    async fn call<T, F>(&self, mut call: impl FnMut(KeyManagementServiceClient<Channel>) -> F) -> Result<T, String>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let talk = async {
            loop {
                match call(self.client()).await {
                    Ok(answer) => return Ok(answer.into_inner()),
                    // Nobody listens yet: only such a status has a source.
                    Err(status) if std::error::Error::source(&status).is_some() => {
                        tokio::time::sleep(Duration::from_millis(RECONNECT_MILLIS)).await;
                    }
                    Err(status) => {
                        return Err(format!("rpc error: code = {:?} desc = {}", status.code(), status.message()));
                    }
                }
            }
        };
        let late = || Err("rpc error: code = DeadlineExceeded desc = context deadline exceeded".to_owned());
        tokio::time::timeout(self.timeout, talk).await.unwrap_or_else(|_| late())
    }

    /// Whether the plugin is well; asks it where the last answer is too old.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn check(&self) -> Result<(), String> {
        let mut probe = self.probe.lock().await;
        if let Some((at, result)) = &probe.last {
            let good_for = if result.is_ok() { GOOD_SECONDS } else { BAD_SECONDS };
            if at.elapsed() < Duration::from_secs(good_for) {
                return result.clone();
            }
        }
        let result = self.look(&mut probe).await;
        probe.last = Some((Instant::now(), result.clone()));
        result
    }

    async fn look(&self, probe: &mut Probe) -> Result<(), String> {
        let name = &self.name;
        let status = self.call(async |mut c| c.status(StatusRequest {}).await).await.map_err(|e| {
            format!("failed to perform status section of the healthz check for KMS Provider {name}, error: {e}")
        })?;
        let mut wrong = Vec::new();
        if status.healthz != "ok" {
            wrong.push(format!("got unexpected healthz status: {}", status.healthz));
        }
        if !matches!(status.version.as_str(), "v2" | "v2beta1") {
            wrong.push(format!("expected KMSv2 API version v2, got {}", status.version));
        } else if probe.version.is_empty() {
            probe.version.clone_from(&status.version);
        } else if probe.version != status.version {
            wrong.push(format!(
                "KMSv2 API version should not change after the initial status response version {}, got {}",
                probe.version, status.version
            ));
        }
        match envelope::check_key_id(&status.key_id) {
            Some(why) => {
                wrong.push(format!("got invalid KMSv2 KeyID hash {:?}: {why}", envelope::id_hash(&status.key_id)));
            }
            None => wrong.extend(self.follow_key(&status).await.err()),
        }
        match wrong.len() {
            0 => Ok(()),
            1 => Err(format!("kmsv2 Provider {name} is not healthy, error: {}", wrong.remove(0))),
            _ => Err(format!("kmsv2 Provider {name} is not healthy, error: [{}]", wrong.join(", "))),
        }
    }

    /// Keeps the seed as long as the plugin's key is the same, and makes another one otherwise.
    async fn follow_key(&self, status: &StatusResponse) -> Result<(), String> {
        let until = Instant::now() + Duration::from_secs(WRITE_SECONDS);
        let current = self.current.load_full();
        if let Some(current) = current.as_deref().filter(|c| c.object.key_id == status.key_id) {
            let (seed, object) = (current.seed.clone(), current.object.clone());
            self.current.store(Some(Arc::new(Current { seed, object, hash: current.hash, until })));
            return Ok(());
        }
        let uid = uuid::Uuid::new_v4().to_string();
        let failed = |why: String, encrypt_id: &str| {
            let of = |id: &str| envelope::id_hash(id);
            let state_id = current.as_deref().map(|c| of(&c.object.key_id)).unwrap_or_default();
            format!(
                "failed to rotate DEK uid={uid:?}, errGen={why}, statusKeyIDHash={:?}, encryptKeyIDHash={:?}, stateKeyIDHash={state_id:?}",
                of(&status.key_id),
                of(encrypt_id),
            )
        };
        let mut seed = vec![0; SEED_BYTES];
        ciphers::random(&mut seed).map_err(|e| failed(e.to_string(), ""))?;
        let request = EncryptRequest { plaintext: seed.clone(), uid: uid.clone() };
        let answer = self
            .call(async |mut c| c.encrypt(request.clone()).await)
            .await
            .map_err(|e| failed(format!("failed to encrypt DEK, error: {e}"), ""))?;
        let object = EncryptedObject {
            data: Vec::new(),
            key_id: answer.key_id,
            key: answer.ciphertext,
            annotations: answer.annotations.into_iter().collect::<BTreeMap<_, _>>(),
            key_type: envelope::SEED,
        };
        if let Some(why) = object.check() {
            return Err(failed(why, &object.key_id));
        }
        if object.key_id != status.key_id {
            return Err(failed("<nil>".to_owned(), &object.key_id));
        }
        let seed = Arc::new(DataKey::new(envelope::SEED, &seed).expect("a seed has the length of a seed"));
        let hash = object.key_hash();
        self.keep(hash, seed.clone());
        tracing::info!(provider = self.name, key = envelope::id_hash(&object.key_id), "a new seed is written with");
        self.current.store(Some(Arc::new(Current { seed, object, hash, until })));
        Ok(())
    }

    /// Looks at the plugin for ever: each minute, and more often while it is not well.
    pub async fn follow(&self) {
        loop {
            let wait = match self.check().await {
                Ok(()) => POLL_SECONDS,
                Err(error) => {
                    tracing::warn!(provider = self.name, error, "a KMS plugin is not well");
                    RETRY_SECONDS
                }
            };
            tokio::time::sleep(Duration::from_secs(wait)).await;
        }
    }

    fn keep(&self, hash: KeyHash, key: Arc<DataKey>) {
        let mut keys = self.keys.lock();
        if keys.len() >= KEYS {
            let now = Instant::now();
            keys.retain(|_, (_, until)| *until > now);
            if keys.len() >= KEYS
                && let Some(oldest) = keys.iter().min_by_key(|(_, (_, until))| *until).map(|(hash, _)| *hash)
            {
                keys.remove(&oldest);
            }
        }
        keys.insert(hash, (key, Instant::now() + Duration::from_secs(KEY_SECONDS)));
    }

    fn kept(&self, hash: &KeyHash) -> Option<Arc<DataKey>> {
        self.keys.lock().get(hash).filter(|(_, until)| *until > Instant::now()).map(|(key, _)| key.clone())
    }

    /// Appends the message that holds `value`.
    pub(crate) fn seal(&self, aad: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), EncryptionError> {
        let current = self.current.load_full().ok_or_else(|| self.error("the plugin has not given a key yet"))?;
        if Instant::now() > current.until {
            let id = envelope::id_hash(&current.object.key_id);
            let reason = format!("encryptedDEKSource with keyID hash {id:?} expired: the plugin is not well");
            return Err(self.error(reason));
        }
        let DataKey::Seed(seed) = &*current.seed else { return Err(EncryptionError::Encrypt) };
        // It stays warm, and what is written can be read back without the plugin.
        self.keep(current.hash, current.seed.clone());
        let mut object = current.object.clone();
        seed.seal(aad, value, &mut object.data)?;
        object.encode(out).map_err(|_| EncryptionError::Encrypt)
    }

    /// The value, and whether it should be written anew.
    pub(crate) async fn open(&self, aad: &[u8], stored: &[u8]) -> Result<(Bytes, bool), EncryptionError> {
        let object = EncryptedObject::read(stored)?;
        let hash = object.key_hash();
        let key = match self.kept(&hash) {
            Some(key) => key,
            None => self.decrypt_key(&object, hash).await?,
        };
        let value = key.open(aad, &object.data)?;
        let stale = self.current.load().as_deref().is_none_or(|current| {
            (current.object.key_id.as_str(), current.object.key_type) != (object.key_id.as_str(), object.key_type)
        });
        Ok((value.into(), stale))
    }

    async fn decrypt_key(&self, object: &EncryptedObject, hash: KeyHash) -> Result<Arc<DataKey>, EncryptionError> {
        let request = DecryptRequest {
            ciphertext: object.key.clone(),
            uid: uuid::Uuid::new_v4().to_string(),
            key_id: object.key_id.clone(),
            annotations: object.annotations.clone().into_iter().collect(),
        };
        let answer = self
            .call(async |mut c| c.decrypt(request.clone()).await)
            .await
            .map_err(|e| self.error(format!("failed to decrypt DEK, error: {e}")))?;
        let key = DataKey::new(object.key_type, &answer.plaintext);
        let key = Arc::new(key.ok_or_else(|| self.error("the plugin answered no key of a length that is used"))?);
        self.keep(hash, key.clone());
        Ok(key)
    }
}
