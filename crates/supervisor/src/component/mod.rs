//! Components as processes of their own: `ironkeel kubelet`, `kube-proxy`, `kube-controller-manager` and
//! `kube-scheduler`, with upstream's flags and a kubeconfig. They are the same plain API clients as in
//! `up`; here are only their command lines. The API server's is in `kube_apiserver`.

mod controller_manager;
mod controller_manager_flags;
mod delegated;
mod kubelet;
mod kubelet_flags;
mod kubelet_options;
mod proxy;
mod scheduler;
mod service_accounts;
mod serving;
mod shared_flags;

use std::path::PathBuf;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use ironkeel_informer::{LeaderElector, LeaderElectorConfig};
use tokio_util::sync::CancellationToken;

use crate::flags::{self, Flag, FlagError, Given};
use crate::kube_apiserver::{MIGRATOR_GATE, feature_gates};
use crate::{Error, Stop, notify};

/// A component with a command of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// `kubelet`
    Kubelet,
    /// `kube-proxy`
    Proxy,
    /// `kube-controller-manager`
    ControllerManager,
    /// `kube-scheduler`
    Scheduler,
}

impl Component {
    /// All of them.
    pub const ALL: [Component; 4] =
        [Component::Kubelet, Component::Proxy, Component::ControllerManager, Component::Scheduler];

    /// The command's name, as upstream's binary is called.
    pub fn name(self) -> &'static str {
        match self {
            Component::Kubelet => "kubelet",
            Component::Proxy => "kube-proxy",
            Component::ControllerManager => "kube-controller-manager",
            Component::Scheduler => "kube-scheduler",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Component::Kubelet => {
                "The kubelet alone, with upstream's flags. Its container runtime is the embedded one unless \
                 --container-runtime-endpoint names another."
            }
            Component::Proxy => "The service proxy alone, with upstream's flags. Its rules are one nftables table.",
            Component::ControllerManager => "The controllers alone, with upstream's flags.",
            Component::Scheduler => "The scheduler alone, with upstream's flags.",
        }
    }

    fn table(self) -> Vec<Flag> {
        match self {
            Component::Kubelet => [kubelet_flags::TABLE, shared_flags::LOGGING, shared_flags::CLIENT].concat(),
            Component::Proxy => [proxy::TABLE, shared_flags::LOGGING, shared_flags::CLIENT].concat(),
            Component::ControllerManager => [
                controller_manager_flags::TABLE,
                shared_flags::LOGGING,
                shared_flags::CLIENT,
                shared_flags::LEADING,
                shared_flags::SERVING,
            ]
            .concat(),
            Component::Scheduler => [
                scheduler::TABLE,
                shared_flags::LOGGING,
                shared_flags::CLIENT,
                shared_flags::LEADING,
                shared_flags::SERVING,
            ]
            .concat(),
        }
    }

    /// The verbosity of `-v`, before anything else is read; 0 without it.
    pub fn verbosity(self, arguments: &[String]) -> u8 {
        let given = flags::parse(&self.table(), arguments.iter().cloned()).ok();
        given.and_then(|g| g.parsed("v", 0).ok()).unwrap_or(0)
    }

    /// Reads a command line and the files that it names.
    ///
    /// # Errors
    /// A flag that is unknown, has a wrong value, or cannot be honoured.
    pub fn arguments(self, arguments: Vec<String>) -> Result<ComponentArguments, FlagError> {
        let table = self.table();
        let given = flags::parse(&table, arguments)?;
        if given.help {
            return Ok(ComponentArguments::Help(flags::help(self.name(), self.about(), &table)));
        }
        let mut notes = given.notes.clone();
        let honoured: &[&str] = match self {
            Component::ControllerManager => &[MIGRATOR_GATE],
            Component::Kubelet | Component::Proxy | Component::Scheduler => &[],
        };
        feature_gates(&given, honoured, &mut notes)?;
        let options = match self {
            Component::Kubelet => Options::Kubelet(Box::new(kubelet_options::options(&given)?)),
            Component::Proxy => Options::Proxy(proxy::options(&given, &table)?),
            Component::ControllerManager => {
                Options::ControllerManager(Box::new(controller_manager::options(&given, &table)?))
            }
            Component::Scheduler => Options::Scheduler(scheduler::options(&given, &table)?),
        };
        Ok(ComponentArguments::Run(Box::new(ComponentCommand { component: self, options, notes })))
    }
}

/// What a command line asks for.
pub enum ComponentArguments {
    /// The text of `--help`.
    Help(String),
    /// To run.
    Run(Box<ComponentCommand>),
}

impl std::fmt::Debug for ComponentArguments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ComponentArguments::Help(_) => f.write_str("Help(..)"),
            ComponentArguments::Run(command) => command.fmt(f),
        }
    }
}

/// A command line that was understood.
pub struct ComponentCommand {
    component: Component,
    options: Options,
    notes: Vec<String>,
}

impl std::fmt::Debug for ComponentCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ComponentCommand").field("component", &self.component).finish_non_exhaustive()
    }
}

enum Options {
    Kubelet(Box<kubelet_options::KubeletOptions>),
    Proxy(proxy::ProxyOptions),
    ControllerManager(Box<controller_manager::ControllerManagerOptions>),
    Scheduler(scheduler::SchedulerOptions),
}

impl ComponentCommand {
    /// Runs the component until `stop` resolves.
    ///
    /// # Errors
    /// The kubeconfig cannot be used, the host lacks something, or the component ended by itself.
    pub fn run(self, shim_exe: PathBuf, stop: Stop) -> LocalBoxFuture<'static, Result<(), Error>> {
        Box::pin(self.until(shim_exe, stop))
    }

    async fn until(self, shim_exe: PathBuf, stop: Stop) -> Result<(), Error> {
        let name = self.component.name();
        for note in &self.notes {
            eprintln!("{name}: {note}");
        }
        let shutdown = CancellationToken::new();
        let run = async {
            match self.options {
                Options::Kubelet(options) => kubelet::run(*options, shim_exe, shutdown.clone()).await,
                Options::Proxy(options) => proxy::run(options, shutdown.clone()).await,
                Options::ControllerManager(options) => controller_manager::run(*options, shutdown.clone()).await,
                Options::Scheduler(options) => scheduler::run(options, shutdown.clone()).await,
            }
        };
        notify::notify("READY=1");
        tokio::pin!(run);
        tokio::select! {
            outcome = &mut run => outcome,
            () = stop => {
                notify::notify("STOPPING=1");
                shutdown.cancel();
                run.await
            }
        }
    }
}

/// A file that must be given.
fn required(given: &Given, flag: &'static str) -> Result<PathBuf, FlagError> {
    given.text(flag).map(PathBuf::from).ok_or(FlagError::Required(flag))
}

/// A file's bytes.
fn read(given: &Given, flag: &'static str) -> Result<Option<Vec<u8>>, FlagError> {
    let read = |path: &str| std::fs::read(path).map_err(|e| flags::invalid(flag, path, e.to_string()));
    given.text(flag).map(read).transpose()
}

/// The lease that `--leader-elect` asks for.
fn election(given: &Given, component: Component) -> Result<Option<LeaderElectorConfig>, FlagError> {
    if !given.switch("leader-elect", true) {
        return Ok(None);
    }
    let namespace = given.text("leader-elect-resource-namespace").unwrap_or("kube-system");
    let name = given.text("leader-elect-resource-name").unwrap_or(component.name());
    // The kernel's random id tells two candidates of one host apart.
    let random = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    let identity = format!("{}_{}", crate::instance::host_name(), random.trim());
    let mut config = LeaderElectorConfig::new(namespace, name, &identity);
    config.lease_duration = given.duration("leader-elect-lease-duration", config.lease_duration)?;
    config.renew_deadline = given.duration("leader-elect-renew-deadline", config.renew_deadline)?;
    config.retry_period = given.duration("leader-elect-retry-period", config.retry_period)?;
    let wrong = |flag, reason: &str| Err(flags::invalid(flag, given.text(flag).unwrap_or_default(), reason));
    if config.retry_period.is_zero() {
        return wrong("leader-elect-retry-period", "must be greater than zero");
    }
    if config.lease_duration < Duration::from_secs(1) || config.lease_duration <= config.renew_deadline {
        return wrong("leader-elect-lease-duration", "must be greater than --leader-elect-renew-deadline");
    }
    if config.renew_deadline <= config.retry_period {
        return wrong("leader-elect-renew-deadline", "must be greater than --leader-elect-retry-period");
    }
    Ok(Some(config))
}

/// Upstream's ports.
const CONTROLLER_MANAGER_PORT: u16 = 10257;
const SCHEDULER_PORT: u16 = 10259;

/// Runs `work` while this process leads; losing the lease is an error, so that the process starts anew.
async fn lead<F>(
    client: kube::Client,
    election: Option<LeaderElectorConfig>,
    told: &serving::Told,
    shutdown: CancellationToken,
    work: impl FnOnce(CancellationToken) -> F,
) -> Result<(), Error>
where
    F: Future<Output = ()>,
{
    let Some(election) = election else {
        work(shutdown).await;
        return Ok(());
    };
    let (acquired, leading) = tokio::sync::oneshot::channel();
    let elector = LeaderElector::new(client, election);
    let election = tokio::spawn(elector.run(shutdown.clone(), move |token| {
        // The receiver is gone on shutdown only.
        let _ = acquired.send(token);
    }));
    let Ok(leading) = leading.await else { return Ok(()) };
    told.leads.store(true, std::sync::atomic::Ordering::Relaxed);
    work(leading).await;
    told.leads.store(false, std::sync::atomic::Ordering::Relaxed);
    if shutdown.is_cancelled() {
        // Gives the elector the time to release the lease.
        let _ = election.await;
        return Ok(());
    }
    Err(Error::Component { component: "kube-scheduler", reason: "leadership was lost".to_owned() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn arguments(component: Component, line: &str) -> Result<ComponentArguments, FlagError> {
        component.arguments(line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn every_flag_of_a_component_stands_once_and_help_tells_all() {
        for component in Component::ALL {
            let table = component.table();
            for (i, flag) in table.iter().enumerate() {
                assert!(!table[..i].iter().any(|f| f.name == flag.name), "{component:?}: --{} stands twice", flag.name);
            }
            let Ok(ComponentArguments::Help(text)) = arguments(component, "--help") else { panic!("{component:?}") };
            assert!(table.iter().all(|flag| text.contains(&format!("--{}", flag.name))));
        }
    }

    #[test]
    fn what_is_missing_unknown_or_not_supported_is_named() {
        for component in Component::ALL {
            let check = |line: &str, wanted: &str| {
                assert_eq!(arguments(component, line).unwrap_err().to_string(), wanted, "{component:?} {line}");
            };
            check("", "--kubeconfig is required");
            check("--no-such-flag=1", "unknown flag: --no-such-flag");
            check("--kubeconfig", "flag needs an argument: --kubeconfig");
            check(
                "--kubeconfig=/k --feature-gates=NoSuchGate=true",
                "invalid argument \"NoSuchGate=true\" for \"--feature-gates\" flag: unrecognized feature gate: NoSuchGate",
            );
        }
        let check = |component, line: &str, wanted: &str| {
            assert_eq!(arguments(component, line).unwrap_err().to_string(), wanted, "{component:?} {line}");
        };
        check(Component::Kubelet, "--config=/c", "--config is not supported: flags say all of it");
        check(
            Component::Kubelet,
            "--kubeconfig=/k --node-ip=x",
            "invalid argument \"x\" for \"--node-ip\" flag: invalid IP address syntax",
        );
        check(Component::ControllerManager, "--kubeconfig=/k --allocate-node-cidrs", "--cluster-cidr is required");
        check(
            Component::Scheduler,
            "--kubeconfig=/k --leader-elect-lease-duration=5s",
            "invalid argument \"5s\" for \"--leader-elect-lease-duration\" flag: must be greater than \
             --leader-elect-renew-deadline",
        );
    }

    #[test]
    fn usual_command_lines_are_understood() {
        let check = |component, line: &str| {
            assert!(matches!(arguments(component, line), Ok(ComponentArguments::Run(_))), "{component:?} {line}");
        };
        check(
            Component::Kubelet,
            "--kubeconfig=/k --hostname-override=b --node-ip=192.0.2.3 --cluster-dns=10.0.0.10 --cluster-domain=c.local \
             --node-labels=a=b,c=d --register-with-taints=k=v:NoSchedule --pod-cidr=10.1.2.0/24 -v=2",
        );
        check(Component::Proxy, "--kubeconfig=/k --hostname-override=b --cluster-cidr=10.1.0.0/16");
        check(
            Component::ControllerManager,
            "--kubeconfig=/k --allocate-node-cidrs=true --cluster-cidr=10.1.0.0/16 --leader-elect=false \
             --use-service-account-credentials=true --bind-address=127.0.0.1",
        );
        check(Component::Scheduler, "--kubeconfig=/k --leader-elect=true");
    }
}
