//! From credentials to a user. The methods are asked in upstream's order: client certificate,
//! static token, ServiceAccount token (bound, then of a Secret), bootstrap token; anonymous last, where it is enabled.
//!
//! A certificate that the handshake verified names its user; nothing here verifies chains.

mod bootstrap_token;
mod claims;
mod client_ca;
mod configuration;
mod legacy_token;
mod oidc;
mod service_account;
mod static_tokens;
mod x509;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use ironkeel_object::ObjectSource;
use rustls_pki_types::CertificateDer;

use crate::token::{KeySet, MAX_TOKEN_BYTES};
use crate::{AuthError, UserInfo};
use legacy_token::LegacyTokens;
use service_account::ServiceAccountTokens;
use static_tokens::StaticTokens;

pub use client_ca::{ClientCertificates, Peer, RequestHeaderConfig};
pub use configuration::{AnonymousRule, AuthenticationConfiguration, read_authentication};
pub use legacy_token::TokenUse;
pub use oidc::{ClaimMapping, DistributedClaim, OidcConfig, ValidationRule};
pub use x509::identity_of_certificate;

/// Tells the time, Unix seconds.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The system's clock.
pub fn system_clock() -> Clock {
    Arc::new(|| jiff::Timestamp::now().as_second())
}

/// What a request brings.
#[derive(Clone, Copy, Debug, Default)]
pub struct AuthRequest<'a> {
    /// The token of `Authorization: Bearer …`.
    pub bearer: Option<&'a str>,
    /// The client's chain, verified by the handshake; the leaf first.
    pub peer_certificates: &'a [CertificateDer<'a>],
    /// Audiences to accept; empty means the API server's own (a TokenReview may ask for others).
    pub audiences: &'a [String],
}

/// Who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// The user.
    pub user: UserInfo,
    /// The accepted audiences that the credentials are good for; empty where the method knows none.
    pub audiences: Vec<String>,
}

/// What is accepted.
#[derive(Clone)]
pub struct AuthenticatorConfig {
    /// Issuers of ServiceAccount tokens that are accepted.
    pub issuers: Vec<String>,
    /// The keys that verify them.
    pub keys: KeySet,
    /// This API server's audiences.
    pub api_audiences: Vec<String>,
    /// Text of a static token file: `token,user,uid,"group1,group2"` a line.
    pub static_tokens: Option<String>,
    /// Whether requests without credentials are `system:anonymous`.
    pub anonymous: bool,
    /// Whether bootstrap tokens are accepted.
    pub bootstrap_tokens: bool,
    /// Told of the Secret whose token a caller has used.
    pub token_used: Option<TokenUse>,
    /// The clock.
    pub clock: Clock,
}

impl Default for AuthenticatorConfig {
    fn default() -> Self {
        AuthenticatorConfig {
            issuers: Vec::new(),
            keys: KeySet::default(),
            api_audiences: Vec::new(),
            static_tokens: None,
            anonymous: false,
            bootstrap_tokens: true,
            token_used: None,
            clock: system_clock(),
        }
    }
}

/// Authenticates requests.
pub struct Authenticator {
    source: Arc<dyn ObjectSource>,
    service_accounts: ServiceAccountTokens,
    legacy_tokens: LegacyTokens,
    keys: Arc<ArcSwap<KeySet>>,
    static_tokens: ArcSwap<StaticTokens>,
    api_audiences: Vec<String>,
    anonymous: AtomicBool,
    bootstrap_tokens: bool,
    clock: Clock,
}

impl Authenticator {
    /// An authenticator over the stored ServiceAccounts, Pods, Secrets and Nodes.
    ///
    /// # Errors
    /// A malformed static token file.
    pub fn new(config: AuthenticatorConfig, source: Arc<dyn ObjectSource>) -> Result<Self, AuthError> {
        let keys = Arc::new(ArcSwap::from_pointee(config.keys));
        let tokens = config.static_tokens.as_deref().map_or_else(|| Ok(StaticTokens::default()), StaticTokens::parse);
        Ok(Authenticator {
            legacy_tokens: LegacyTokens::new(keys.clone(), config.token_used),
            service_accounts: ServiceAccountTokens::new(config.issuers, keys.clone()),
            keys,
            static_tokens: ArcSwap::from_pointee(tokens?),
            source,
            api_audiences: config.api_audiences,
            anonymous: AtomicBool::new(config.anonymous),
            bootstrap_tokens: config.bootstrap_tokens,
            clock: config.clock,
        })
    }

    /// Whether requests without credentials are let in as `system:anonymous`.
    pub fn anonymous_enabled(&self) -> bool {
        self.anonymous.load(Ordering::Relaxed)
    }

    /// Lets requests without credentials in, or not, from now on.
    pub fn set_anonymous(&self, enabled: bool) {
        self.anonymous.store(enabled, Ordering::Relaxed);
    }

    /// Takes another static token file.
    ///
    /// # Errors
    /// A malformed file; the one of before stays.
    pub fn replace_static_tokens(&self, text: &str) -> Result<(), AuthError> {
        self.static_tokens.store(Arc::new(StaticTokens::parse(text)?));
        Ok(())
    }

    /// Verifies tokens of ServiceAccounts with these keys from now on.
    pub fn replace_keys(&self, keys: KeySet) {
        self.keys.store(Arc::new(keys));
        self.service_accounts.forget();
    }

    /// Who the request comes from; `None` without credentials where anonymous is off (401).
    ///
    /// # Errors
    /// Credentials that are refused (401; the error is for the log).
    pub fn authenticate(&self, request: &AuthRequest<'_>) -> Result<Option<Authenticated>, AuthError> {
        if let Some(leaf) = request.peer_certificates.first()
            && let Some(user) = identity_of_certificate(leaf)?
        {
            return Ok(Some(Authenticated { user, audiences: self.accepted(request).to_vec() }));
        }
        match request.bearer {
            Some(token) if !token.trim().is_empty() => self.token(token.trim(), request).map(Some),
            _ if self.anonymous_enabled() => {
                Ok(Some(Authenticated { user: UserInfo::anonymous(), audiences: Vec::new() }))
            }
            _ => Ok(None),
        }
    }

    /// Who a token stands for (TokenReview).
    ///
    /// # Errors
    /// A token that is refused.
    pub fn authenticate_token(&self, token: &str, audiences: &[String]) -> Result<Authenticated, AuthError> {
        self.token(token, &AuthRequest { audiences, ..AuthRequest::default() })
    }

    fn accepted<'a>(&'a self, request: &AuthRequest<'a>) -> &'a [String] {
        if request.audiences.is_empty() { &self.api_audiences } else { request.audiences }
    }

    fn token(&self, token: &str, request: &AuthRequest<'_>) -> Result<Authenticated, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::TokenTooLong { limit_bytes: MAX_TOKEN_BYTES });
        }
        let accepted = self.accepted(request);
        let of_this_server = || -> Result<Vec<String>, AuthError> {
            // These methods know no audiences: their tokens are for this API server alone.
            let common: Vec<String> = accepted.iter().filter(|a| self.api_audiences.contains(a)).cloned().collect();
            if common.is_empty() && !accepted.is_empty() {
                return Err(AuthError::WrongAudience {
                    found: self.api_audiences.clone(),
                    accepted: accepted.to_vec(),
                });
            }
            Ok(common)
        };
        let now = (self.clock)();
        if let Some(user) = self.static_tokens.load().find(token) {
            return Ok(Authenticated { user, audiences: of_this_server()? });
        }
        if self.service_accounts.issued_here(token) {
            return self.service_accounts.authenticate(token, accepted, now, self.source.as_ref());
        }
        if LegacyTokens::is_one(token) {
            return self.legacy_tokens.authenticate(token, of_this_server()?, self.source.as_ref());
        }
        if self.bootstrap_tokens
            && let Some(user) = bootstrap_token::authenticate(token, now, self.source.as_ref())?
        {
            return Ok(Authenticated { user, audiences: of_this_server()? });
        }
        Err(AuthError::UnknownToken)
    }
}

/// Compares secrets in a time that depends on their lengths alone.
fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0u8, |all, (x, y)| std::hint::black_box(all | (x ^ y)));
    a.len() == b.len() && std::hint::black_box(difference) == 0
}
