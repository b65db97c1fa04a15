//! The ciphers on bare bytes, in upstream's layout: AES-GCM (nonce, sealed), AES-CBC (IV, padded),
//! secretbox (nonce, tag, sealed), and AES-GCM under a key that is derived for each value from a seed.
//!
//! Keys live in ring's and RustCrypto's types and are never shown.

use aes_gcm::AesGcm;
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::aes::cipher::block_padding::NoPadding;
use aes_gcm::aes::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use aes_gcm::aes::{Aes128, Aes192, Aes256};
use crypto_secretbox::XSalsa20Poly1305;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk};
use ring::rand::{SecureRandom, SystemRandom};

use crate::EncryptionError;

/// Bytes of an AES block, and so of an initialization vector.
const BLOCK_BYTES: usize = 16;
/// Bytes of secretbox's nonce.
const SECRETBOX_NONCE_BYTES: usize = 24;
/// Bytes of secretbox's and AES-GCM's tag.
const TAG_BYTES: usize = 16;
/// Bytes of what a value's own key is derived with; they stand before the value.
const INFO_BYTES: usize = 32;
/// Bytes of a seed.
pub(crate) const SEED_BYTES: usize = 32;

const SHORT: EncryptionError = EncryptionError::Decrypt("the stored data was shorter than the required size");
const DAMAGED: EncryptionError = EncryptionError::Decrypt("the value was encrypted with another key, or is damaged");

pub(crate) fn random(bytes: &mut [u8]) -> Result<(), EncryptionError> {
    SystemRandom::new().fill(bytes).map_err(|_| EncryptionError::Encrypt)
}

/// AES-GCM with random nonces of 96 bits. ring has no AES-192.
pub(crate) enum Gcm {
    /// AES-128 and AES-256.
    Ring(Box<LessSafeKey>),
    /// AES-192.
    Aes192(Box<AesGcm<Aes192, U12>>),
}

impl Gcm {
    /// Of a key of 16, 24 or 32 bytes.
    pub(crate) fn new(key: &[u8]) -> Option<Gcm> {
        let algorithm = match key.len() {
            16 => &AES_128_GCM,
            24 => return Some(Gcm::Aes192(Box::new(AesGcm::new_from_slice(key).ok()?))),
            32 => &AES_256_GCM,
            _ => return None,
        };
        Some(Gcm::Ring(Box::new(LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?))))
    }

    /// Appends nonce and sealed value to `out`.
    pub(crate) fn seal(&self, aad: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), EncryptionError> {
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce)?;
        out.extend_from_slice(&nonce);
        let at = out.len();
        out.extend_from_slice(value);
        let sealed = &mut out[at..];
        match self {
            Gcm::Ring(key) => {
                let tag = key
                    .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), sealed)
                    .map_err(|_| EncryptionError::Encrypt)?;
                out.extend_from_slice(tag.as_ref());
            }
            Gcm::Aes192(key) => {
                let tag =
                    key.encrypt_in_place_detached(&nonce.into(), aad, sealed).map_err(|_| EncryptionError::Encrypt)?;
                out.extend_from_slice(&tag);
            }
        }
        Ok(())
    }

    pub(crate) fn open(&self, aad: &[u8], stored: &[u8]) -> Result<Vec<u8>, EncryptionError> {
        let (nonce, sealed) = stored.split_first_chunk::<NONCE_LEN>().ok_or(SHORT)?;
        match self {
            Gcm::Ring(key) => {
                let mut value = sealed.to_vec();
                let nonce = Nonce::assume_unique_for_key(*nonce);
                let length = key.open_in_place(nonce, Aad::from(aad), &mut value).map_err(|_| DAMAGED)?.len();
                value.truncate(length);
                Ok(value)
            }
            Gcm::Aes192(key) => {
                let (sealed, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(SHORT)?;
                let mut value = sealed.to_vec();
                key.decrypt_in_place_detached(nonce.into(), aad, &mut value, tag.into()).map_err(|_| DAMAGED)?;
                Ok(value)
            }
        }
    }
}

/// AES-CBC with random initialization vectors and PKCS#7 padding; nothing is authenticated.
pub(crate) enum Cbc {
    Aes128([u8; 16]),
    Aes192([u8; 24]),
    Aes256([u8; 32]),
}

impl Cbc {
    /// Of a key of 16, 24 or 32 bytes.
    pub(crate) fn new(key: &[u8]) -> Option<Cbc> {
        Some(match key.len() {
            16 => Cbc::Aes128(key.try_into().ok()?),
            24 => Cbc::Aes192(key.try_into().ok()?),
            32 => Cbc::Aes256(key.try_into().ok()?),
            _ => return None,
        })
    }

    pub(crate) fn seal(&self, value: &[u8], out: &mut Vec<u8>) -> Result<(), EncryptionError> {
        let mut iv = [0; BLOCK_BYTES];
        random(&mut iv)?;
        out.extend_from_slice(&iv);
        let at = out.len();
        out.extend_from_slice(value);
        let padding = BLOCK_BYTES - value.len() % BLOCK_BYTES;
        out.resize(out.len() + padding, padding as u8);
        let (blocks, length) = (&mut out[at..], value.len() + padding);
        let iv = &iv.into();
        let done = match self {
            Cbc::Aes128(key) => {
                cbc::Encryptor::<Aes128>::new(key.into(), iv).encrypt_padded_mut::<NoPadding>(blocks, length)
            }
            Cbc::Aes192(key) => {
                cbc::Encryptor::<Aes192>::new(key.into(), iv).encrypt_padded_mut::<NoPadding>(blocks, length)
            }
            Cbc::Aes256(key) => {
                cbc::Encryptor::<Aes256>::new(key.into(), iv).encrypt_padded_mut::<NoPadding>(blocks, length)
            }
        };
        done.map(drop).map_err(|_| EncryptionError::Encrypt)
    }

    pub(crate) fn open(&self, stored: &[u8]) -> Result<Vec<u8>, EncryptionError> {
        let (iv, sealed) = stored.split_first_chunk::<BLOCK_BYTES>().ok_or(SHORT)?;
        if sealed.is_empty() {
            return Err(SHORT);
        }
        if sealed.len() % BLOCK_BYTES != 0 {
            return Err(EncryptionError::Decrypt("the stored data is not a multiple of the block size"));
        }
        let mut value = sealed.to_vec();
        let iv = iv.into();
        let done = match self {
            Cbc::Aes128(key) => {
                cbc::Decryptor::<Aes128>::new(key.into(), iv).decrypt_padded_mut::<NoPadding>(&mut value)
            }
            Cbc::Aes192(key) => {
                cbc::Decryptor::<Aes192>::new(key.into(), iv).decrypt_padded_mut::<NoPadding>(&mut value)
            }
            Cbc::Aes256(key) => {
                cbc::Decryptor::<Aes256>::new(key.into(), iv).decrypt_padded_mut::<NoPadding>(&mut value)
            }
        };
        done.map_err(|_| DAMAGED)?;
        let padding = usize::from(value.last().copied().unwrap_or_default());
        let length = value.len().checked_sub(padding).filter(|_| padding > 0);
        let length = length.ok_or(EncryptionError::Decrypt("invalid PKCS7 data (empty or not padded)"))?;
        if value[length..].iter().any(|b| usize::from(*b) != padding) {
            return Err(EncryptionError::Decrypt("invalid padding on input"));
        }
        value.truncate(length);
        Ok(value)
    }
}

/// NaCl's secretbox: XSalsa20 and Poly1305. The key in the store is not bound in.
pub(crate) struct Secretbox(XSalsa20Poly1305);

impl Secretbox {
    /// Of a key of 32 bytes.
    pub(crate) fn new(key: &[u8]) -> Option<Secretbox> {
        XSalsa20Poly1305::new_from_slice(key).ok().map(Secretbox)
    }

    pub(crate) fn seal(&self, value: &[u8], out: &mut Vec<u8>) -> Result<(), EncryptionError> {
        let mut nonce = [0; SECRETBOX_NONCE_BYTES];
        random(&mut nonce)?;
        let mut sealed = value.to_vec();
        let tag =
            self.0.encrypt_in_place_detached(&nonce.into(), &[], &mut sealed).map_err(|_| EncryptionError::Encrypt)?;
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&tag);
        out.extend_from_slice(&sealed);
        Ok(())
    }

    pub(crate) fn open(&self, stored: &[u8]) -> Result<Vec<u8>, EncryptionError> {
        let (nonce, rest) = stored.split_first_chunk::<SECRETBOX_NONCE_BYTES>().ok_or(SHORT)?;
        let (tag, sealed) = rest.split_first_chunk::<TAG_BYTES>().ok_or(SHORT)?;
        let mut value = sealed.to_vec();
        self.0.decrypt_in_place_detached(nonce.into(), &[], &mut value, tag.into()).map_err(|_| DAMAGED)?;
        Ok(value)
    }
}

/// AES-256-GCM under a key of the value's own: HKDF-SHA256 expands the seed with 32 random bytes that
/// stand before the value. So one seed is good for any number of values.
pub(crate) struct Seed(Prk);

struct Aes256Key;

impl KeyType for Aes256Key {
    fn len(&self) -> usize {
        32
    }
}

impl Seed {
    /// Of at least 32 bytes.
    pub(crate) fn new(seed: &[u8]) -> Option<Seed> {
        (seed.len() >= SEED_BYTES).then(|| Seed(Prk::new_less_safe(HKDF_SHA256, seed)))
    }

    fn derive(&self, info: &[u8; INFO_BYTES]) -> Option<Gcm> {
        let info: [&[u8]; 1] = [info];
        let mut key = [0; 32];
        self.0.expand(&info, Aes256Key).ok()?.fill(&mut key).ok()?;
        Gcm::new(&key)
    }

    pub(crate) fn seal(&self, aad: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), EncryptionError> {
        let mut info = [0; INFO_BYTES];
        random(&mut info)?;
        out.extend_from_slice(&info);
        self.derive(&info).ok_or(EncryptionError::Encrypt)?.seal(aad, value, out)
    }

    pub(crate) fn open(&self, aad: &[u8], stored: &[u8]) -> Result<Vec<u8>, EncryptionError> {
        let (info, sealed) = stored.split_first_chunk::<INFO_BYTES>().ok_or(SHORT)?;
        self.derive(info).ok_or(DAMAGED)?.open(aad, sealed)
    }
}
