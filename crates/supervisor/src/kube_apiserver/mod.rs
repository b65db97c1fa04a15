//! `ironkeel kube-apiserver`: the API server alone, with upstream's flags, on an etcd or on the
//! embedded store. Several may run side by side on one etcd.

mod authentication;
mod authorization;
mod dynamic;
mod egress;
mod gates;
mod observing;
mod options;
mod reload;
mod serving;
mod table;

use std::sync::Arc;

use futures::future::{BoxFuture, LocalBoxFuture};
use ironkeel_apiserver::{ApiServer, HealthCheck};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::at_rest::Configured;
use crate::engine::Engine;
use crate::flags::{self, FlagError};
use crate::{Error, Stop, notify};
pub(crate) use observing::{features, shown};
use options::Options;
pub(crate) use options::{MIGRATOR_GATE, feature_gates, gate};

/// A command line that was understood.
pub struct ApiServerCommand(Options);

/// What a command line asks for.
pub enum ApiServerArguments {
    /// The text of `--help`.
    Help(String),
    /// To serve.
    Serve(Box<ApiServerCommand>),
}

impl std::fmt::Debug for ApiServerCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServerCommand").field("listen", &self.0.listen).finish_non_exhaustive()
    }
}

/// The verbosity of `-v`, before anything else is read; 0 without it.
pub fn verbosity(arguments: &[String]) -> u8 {
    flags::parse(table::TABLE, arguments.iter().cloned()).ok().and_then(|g| g.parsed("v", 0).ok()).unwrap_or(0)
}

/// Reads a command line and the files that it names.
///
/// # Errors
/// A flag that is unknown, has a wrong value, or cannot be honoured.
pub fn api_server_arguments(arguments: Vec<String>) -> Result<ApiServerArguments, FlagError> {
    let given = flags::parse(table::TABLE, arguments)?;
    if given.help {
        return Ok(ApiServerArguments::Help(flags::help("kube-apiserver", table::ABOUT, table::TABLE)));
    }
    Ok(ApiServerArguments::Serve(Box::new(ApiServerCommand(options::options(&given)?))))
}

impl ApiServerCommand {
    /// Serves until `stop` resolves, then drains: `/readyz` fails first, watches are told, requests
    /// finish.
    ///
    /// # Errors
    /// The store does not answer, the port is taken, a file is wrong.
    pub fn run(self, stop: Stop) -> LocalBoxFuture<'static, Result<(), Error>> {
        Box::pin(self.serve(stop))
    }

    async fn serve(self, mut stop: Stop) -> Result<(), Error> {
        let options = self.0;
        for note in &options.notes {
            eprintln!("kube-apiserver: {note}");
        }
        let listener = bind(&options)?;
        let address = listener.local_addr().map_err(|source| Error::Port { address: options.listen, source })?;
        let engine = Engine::open(options.store).await?;
        let mut store = engine.store();
        let mut config = options.config;
        config.secure_port = address.port();
        let mut reload = options.reload;
        if let Some((path, again)) = options.encryption {
            let configured = tokio::select! {
                configured = Configured::start(store, &path) => configured?,
                () = &mut stop => {
                    engine.close().await;
                    return Ok(());
                }
            };
            store = configured.store();
            config.health_checks.extend((again || configured.has_plugins()).then(|| plugins_check(&configured)));
            if again {
                reload.watch_async("encryption-provider-config", [path], move || {
                    let configured = configured.clone();
                    Box::pin(async move { configured.reload().await })
                });
            }
        }
        let server = ApiServer::start(config, store).await.map_err(|e| Error::ApiServer(e.to_string()))?;
        options.files.watch(&mut reload, &server);
        let shutdown = CancellationToken::new();
        let reloading = tokio::spawn(reload.run(shutdown.clone()));
        let serving = tokio::spawn({
            let (server, shutdown) = (server.clone(), shutdown.clone());
            async move { server.serve(listener, options.tls, shutdown).await }
        });
        eprintln!("kube-apiserver: serving on https://{address}");
        notify::notify("READY=1");
        tokio::pin!(serving);
        let outcome = tokio::select! {
            ended = &mut serving => ended,
            () = &mut stop => {
                notify::notify("STOPPING=1");
                shutdown.cancel();
                serving.await
            }
        };
        reloading.abort();
        server.stop().await;
        engine.close().await;
        match outcome {
            Ok(served) => served.map_err(|e| Error::ApiServer(e.to_string())),
            Err(panic) => Err(Error::ApiServer(panic.to_string())),
        }
    }
}

/// `/healthz/kms-providers` and its like.
fn plugins_check(configured: &Arc<Configured>) -> HealthCheck {
    let configured = configured.clone();
    let check = move || -> BoxFuture<'static, Result<(), String>> {
        let configured = configured.clone();
        Box::pin(async move { configured.check().await })
    };
    HealthCheck { name: "kms-providers", check: Arc::new(check) }
}

fn bind(options: &Options) -> Result<TcpListener, Error> {
    let address = options.listen;
    let bound = (|| {
        let socket = match address {
            std::net::SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
            std::net::SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        if options.share_port {
            socket.set_reuseport(true)?;
        }
        socket.bind(address)?;
        socket.listen(1024)
    })();
    bound.map_err(|source| Error::Port { address, source })
}
