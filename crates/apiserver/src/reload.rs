//! What may change while the server runs: authorities, tokens, keys, issuers, authorizers. Whoever
//! watches the files calls these; each takes the new one whole or leaves the old one.

use ironkeel_auth::{AbacPolicies, AnonymousRule, AuthorizerEntry, AuthorizerKind, KeySet, OidcConfig, SigningKey};

use crate::bootstrap;
use crate::measured::reloads::Configuration;
use crate::server::ApiServer;

impl ApiServer {
    /// Believes client certificates of another authority (PEM), and tells extension API servers.
    ///
    /// # Errors
    /// A bundle that cannot be used.
    pub async fn replace_client_ca(&self, pem: &str) -> Result<(), String> {
        self.server.certificates.replace_client_ca(pem).map_err(|e| e.to_string())?;
        self.publish_authorities().await
    }

    /// Believes front proxies of another authority (PEM), and tells extension API servers.
    ///
    /// # Errors
    /// A bundle that cannot be used.
    pub async fn replace_front_proxy_ca(&self, pem: &str) -> Result<(), String> {
        self.server.certificates.replace_front_proxy_ca(pem).map_err(|e| e.to_string())?;
        self.publish_authorities().await
    }

    async fn publish_authorities(&self) -> Result<(), String> {
        let known = &self.server.certificates;
        let (client, proxies) = (known.client_ca_pem(), known.request_header());
        let published = bootstrap::publish_authorities(&self.server.registry, &client, proxies.as_ref()).await;
        published.map_err(|e| e.to_string())
    }

    /// Takes another static token file.
    ///
    /// # Errors
    /// A line that cannot be read.
    pub fn replace_static_tokens(&self, text: &str) -> Result<(), String> {
        self.server.authenticator.replace_static_tokens(text).map_err(|e| e.to_string())
    }

    /// Signs tokens of ServiceAccounts with this key, and verifies them with these.
    pub fn replace_service_account_keys(&self, signing: SigningKey, verifying: KeySet) {
        self.server.authenticator.replace_keys(verifying.clone());
        self.server.issuer.replace_keys(signing, verifying);
    }

    /// Believes these issuers of ID tokens; anonymous callers as the rule says, where there is one.
    ///
    /// # Errors
    /// Authorities that cannot be used.
    pub fn replace_issuers(&self, issuers: &[OidcConfig], anonymous: Option<AnonymousRule>) -> Result<(), String> {
        self.server.delegates.replace_issuers(issuers)?;
        if let Some(rule) = anonymous {
            self.server.anonymous_paths.replace(rule.paths);
            self.server.authenticator.set_anonymous(rule.enabled);
        }
        Ok(())
    }

    /// Asks these authorizers, in their order.
    ///
    /// # Errors
    /// A webhook whose kubeconfig cannot be used.
    pub fn replace_authorizers(&self, chain: &[AuthorizerEntry]) -> Result<(), String> {
        self.server.delegates.chain.replace(chain)?;
        let local = chain.iter().filter_map(|entry| match entry.kind {
            AuthorizerKind::Local(mode) => Some(mode),
            AuthorizerKind::Webhook(_) => None,
        });
        self.server.authorizer.set_modes(local.collect());
        Ok(())
    }

    /// Goes by these policies, where ABAC is among the authorizers.
    pub fn replace_policies(&self, policies: AbacPolicies) {
        self.server.authorizer.set_policies(policies);
    }

    /// Notes which text of a configuration the server has begun with.
    pub fn configured(&self, which: Configuration, text: &str) {
        self.server.metrics.reloads.in_use(which, text);
    }

    /// Notes that a changed file of a configuration was read: its text, where it was good.
    pub fn reconfigured(&self, which: Configuration, text: Option<&str>) {
        let reloads = &self.server.metrics.reloads;
        reloads.read(which, text.is_some(), self.server.registry.clock().now().as_second());
        if let Some(text) = text {
            reloads.in_use(which, text);
        }
    }
}
