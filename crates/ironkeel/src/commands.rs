//! What can be typed. Data goes to stdout, progress and errors to stderr; a failure exits with 1.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ipnet::Ipv4Net;
use ironkeel_supervisor::{
    ApiServerArguments, Component, ComponentArguments, Error, EtcdConfig, ImageCommand, Instance, NodeOptions,
    Progress, StatusReport, UpOptions,
};
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(name = "ironkeel", version, about = "A whole Kubernetes (API v1.36) in one binary")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct DataDir {
    /// Where the cluster's data lives
    #[arg(long, global = true, env = "IRONKEEL_DATA_DIR", default_value = "/var/lib/ironkeel")]
    data_dir: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Run a cluster on this host, in the foreground
    Up(Up),
    /// Run one more node of a cluster on this host, in the foreground. On the first host,
    /// `ironkeel certificate node` makes the file that it needs (joining with a token is not there yet)
    Node(Node),
    /// Sign certificates with the cluster's authority
    Certificate {
        #[command(flatten)]
        data_dir: DataDir,
        #[command(subcommand)]
        command: Certificate,
    },
    /// Run the API server alone, with upstream's flags (`kube-apiserver --help`)
    #[command(name = "kube-apiserver", disable_help_flag = true)]
    KubeApiserver {
        /// Upstream's flags
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
        flags: Vec<String>,
    },
    /// Run the kubelet alone, with upstream's flags (`kubelet --help`)
    #[command(name = "kubelet", disable_help_flag = true)]
    Kubelet {
        /// Upstream's flags
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
        flags: Vec<String>,
    },
    /// Run the service proxy alone, with upstream's flags (`kube-proxy --help`)
    #[command(name = "kube-proxy", disable_help_flag = true)]
    KubeProxy {
        /// Upstream's flags
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
        flags: Vec<String>,
    },
    /// Run the controllers alone, with upstream's flags (`kube-controller-manager --help`)
    #[command(name = "kube-controller-manager", disable_help_flag = true)]
    KubeControllerManager {
        /// Upstream's flags
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
        flags: Vec<String>,
    },
    /// Run the scheduler alone, with upstream's flags (`kube-scheduler --help`)
    #[command(name = "kube-scheduler", disable_help_flag = true)]
    KubeScheduler {
        /// Upstream's flags
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
        flags: Vec<String>,
    },
    /// Tell whether the nodes are Ready and DNS answers
    Status {
        #[command(flatten)]
        data_dir: DataDir,
        /// Wait so many seconds for it
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_value_t = 0, default_missing_value = "60")]
        wait: u64,
    },
    /// Import, pull, list and remove images
    Image {
        #[command(flatten)]
        data_dir: DataDir,
        #[command(subcommand)]
        command: Image,
    },
    /// Undo everything that clusters in this data directory made on this host, and remove their data
    Reset {
        #[command(flatten)]
        data_dir: DataDir,
    },
}

#[derive(Args)]
struct Up {
    #[command(flatten)]
    data_dir: DataDir,
    /// Where the API server listens
    #[arg(long, env = "IRONKEEL_BIND_ADDRESS", default_value = "0.0.0.0")]
    bind_address: IpAddr,
    /// Port of the API server
    #[arg(long, env = "IRONKEEL_SECURE_PORT", default_value_t = 6443)]
    secure_port: u16,
    /// Name of this node [default: the host's name]
    #[arg(long, env = "IRONKEEL_NODE_NAME")]
    node_name: Option<String>,
    /// Address of this node [default: the one of the default route]
    #[arg(long, env = "IRONKEEL_NODE_IP")]
    node_ip: Option<IpAddr>,
    /// Addresses of pods [default: a free 10.x.0.0/16]
    #[arg(long, env = "IRONKEEL_POD_CIDR")]
    pod_cidr: Option<Ipv4Net>,
    /// Addresses of Services [default: a free 10.x.0.0/16]
    #[arg(long, env = "IRONKEEL_SERVICE_CIDR")]
    service_cidr: Option<Ipv4Net>,
    /// Leave pods running when the cluster stops; the next `up` finds them
    #[arg(long, env = "IRONKEEL_KEEP_PODS")]
    keep_pods: bool,
    /// Pull from a mirror first, as `docker.io=mirror.example:5000`; may be given several times
    #[arg(long, env = "IRONKEEL_REGISTRY_MIRROR", value_name = "REGISTRY=HOST", value_delimiter = ',', value_parser = mirror)]
    registry_mirror: Vec<(String, String)>,
    /// Serve a version that is not stable, as `resource.k8s.io/v1beta1=true` or `api/beta=true`, or do not serve one
    #[arg(long, env = "IRONKEEL_RUNTIME_CONFIG", value_name = "VERSION=true|false", value_delimiter = ',')]
    runtime_config: Vec<String>,
    #[command(flatten)]
    etcd: Etcd,
}

/// Flags with kube-apiserver's names.
#[derive(Args)]
struct Etcd {
    /// Keep the objects in this etcd instead of the embedded store: its members, as `https://10.0.0.1:2379`
    #[arg(long, env = "IRONKEEL_ETCD_SERVERS", value_name = "URL", value_delimiter = ',')]
    etcd_servers: Vec<String>,
    /// PEM file with the authorities that vouch for the etcd [default: the host's]
    #[arg(long, env = "IRONKEEL_ETCD_CAFILE", value_name = "FILE", requires = "etcd_servers")]
    etcd_cafile: Option<PathBuf>,
    /// PEM file with the client certificate towards the etcd
    #[arg(long, env = "IRONKEEL_ETCD_CERTFILE", value_name = "FILE", requires = "etcd_servers")]
    etcd_certfile: Option<PathBuf>,
    /// PEM file with its key
    #[arg(long, env = "IRONKEEL_ETCD_KEYFILE", value_name = "FILE", requires = "etcd_servers")]
    etcd_keyfile: Option<PathBuf>,
    /// What the objects' keys begin with in the etcd
    #[arg(long, env = "IRONKEEL_ETCD_PREFIX", value_name = "PREFIX", default_value = "/registry")]
    etcd_prefix: String,
}

impl Etcd {
    fn config(self) -> Option<EtcdConfig> {
        (!self.etcd_servers.is_empty()).then(|| EtcdConfig {
            endpoints: self.etcd_servers,
            ca: self.etcd_cafile,
            cert: self.etcd_certfile,
            key: self.etcd_keyfile,
            prefix: self.etcd_prefix,
            ..EtcdConfig::default()
        })
    }
}

#[derive(Args)]
struct Node {
    #[command(flatten)]
    data_dir: DataDir,
    /// The file of `ironkeel certificate node`
    #[arg(long, env = "IRONKEEL_KUBECONFIG")]
    kubeconfig: PathBuf,
    /// Name of this node; it must be the kubeconfig's [default: the kubeconfig's]
    #[arg(long, env = "IRONKEEL_NODE_NAME")]
    node_name: Option<String>,
    /// Address of this node; the kubelet's certificate is for the kubeconfig's [default: the kubeconfig's]
    #[arg(long, env = "IRONKEEL_NODE_IP")]
    node_ip: Option<IpAddr>,
    /// Leave pods running when the node stops; the next `node` finds them
    #[arg(long, env = "IRONKEEL_KEEP_PODS")]
    keep_pods: bool,
    /// Pull from a mirror first, as `docker.io=mirror.example:5000`; may be given several times
    #[arg(long, env = "IRONKEEL_REGISTRY_MIRROR", value_name = "REGISTRY=HOST", value_delimiter = ',', value_parser = mirror)]
    registry_mirror: Vec<(String, String)>,
}

#[derive(Subcommand)]
enum Certificate {
    /// Print a kubeconfig for `ironkeel node`, which makes one more host a node of this cluster. It holds
    /// private keys: keep it to yourself
    Node {
        /// The node's name
        name: String,
        /// The node's address, where the API server will reach its kubelet
        #[arg(long)]
        node_ip: IpAddr,
        /// Write it here, readable by its owner alone, instead of to standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

fn mirror(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((registry, host)) if !registry.is_empty() && !host.is_empty() && !host.contains('/') => {
            Ok((registry.to_owned(), host.to_owned()))
        }
        _ => Err("expected REGISTRY=HOST[:PORT]".to_owned()),
    }
}

#[derive(Subcommand)]
enum Image {
    /// Import OCI or docker archives
    Import {
        /// Archives
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Pull an image from its registry
    Pull {
        /// The image
        image: String,
    },
    /// List images
    Ls,
    /// Remove images
    Rm {
        /// Images, by name, digest or id
        #[arg(required = true)]
        images: Vec<String>,
    },
}

/// The arguments; under the name of a component, the binary is that component.
fn arguments() -> Vec<OsString> {
    let mut all: Vec<OsString> = std::env::args_os().collect();
    let name = all.first().map(PathBuf::from).and_then(|p| p.file_name().map(OsString::from));
    let component = |name: &OsString| name == "kube-apiserver" || Component::ALL.iter().any(|c| name == c.name());
    if let Some(name) = name.filter(component) {
        all.insert(1, name);
    }
    all
}

impl Command {
    /// The component that it runs alone, with its flags.
    fn component(&self) -> Option<(Component, &Vec<String>)> {
        match self {
            Command::Kubelet { flags } => Some((Component::Kubelet, flags)),
            Command::KubeProxy { flags } => Some((Component::Proxy, flags)),
            Command::KubeControllerManager { flags } => Some((Component::ControllerManager, flags)),
            Command::KubeScheduler { flags } => Some((Component::Scheduler, flags)),
            _ => None,
        }
    }
}

/// What `-v` of a component logs.
fn level(verbosity: u8) -> &'static str {
    match verbosity {
        0 | 1 => "warn",
        2 | 3 => "info",
        _ => "debug,h2=info,hyper=info,rustls=info",
    }
}

/// Parses the command line and does what it says.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse_from(arguments());
    ironkeel_client::install_crypto_provider();
    let level = match &cli.command {
        Command::KubeApiserver { flags } => level(ironkeel_supervisor::verbosity(flags)),
        command => match command.component() {
            Some((component, flags)) => level(component.verbosity(flags)),
            None => "warn,kube_client=off",
        },
    };
    let filter = EnvFilter::try_from_env("IRONKEEL_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("ironkeel: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(execute(cli.command)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ironkeel: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::Up(up) => {
            let options = UpOptions {
                data_dir: up.data_dir.data_dir,
                bind_address: up.bind_address,
                secure_port: up.secure_port,
                node_name: up.node_name,
                node_ip: up.node_ip,
                pod_cidr: up.pod_cidr,
                service_cidr: up.service_cidr,
                keep_pods: up.keep_pods,
                registry_mirrors: up.registry_mirror,
                runtime_config: up.runtime_config,
                etcd: up.etcd.config(),
            };
            ironkeel_supervisor::up(options, shim_program(), Box::pin(stop_signal())).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Node(node) => {
            let options = NodeOptions {
                data_dir: node.data_dir.data_dir,
                kubeconfig: node.kubeconfig,
                node_name: node.node_name,
                node_ip: node.node_ip,
                keep_pods: node.keep_pods,
                registry_mirrors: node.registry_mirror,
            };
            ironkeel_supervisor::node(options, shim_program(), Box::pin(stop_signal())).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Certificate { data_dir, command: Certificate::Node { name, node_ip, out } } => {
            let instance = Instance::of(&data_dir.data_dir)?;
            let text = ironkeel_supervisor::node_kubeconfig(&instance, &name, node_ip)?;
            match out {
                Some(path) => ironkeel_supervisor::write_private(&path, text.as_bytes())?,
                None => print!("{text}"),
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::KubeApiserver { flags } => kube_apiserver(flags).await,
        Command::Kubelet { flags } => component(Component::Kubelet, flags).await,
        Command::KubeProxy { flags } => component(Component::Proxy, flags).await,
        Command::KubeControllerManager { flags } => component(Component::ControllerManager, flags).await,
        Command::KubeScheduler { flags } => component(Component::Scheduler, flags).await,
        Command::Status { data_dir, wait } => {
            let instance = Instance::of(&data_dir.data_dir)?;
            let report = ironkeel_supervisor::status(&instance, Duration::from_secs(wait)).await?;
            print_status(&report);
            Ok(if report.healthy() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Image { data_dir, command } => {
            let instance = Instance::of(&data_dir.data_dir)?;
            let commands = match command {
                Image::Import { archives } => archives.into_iter().map(ImageCommand::Import).collect(),
                Image::Pull { image } => vec![ImageCommand::Pull(image)],
                Image::Ls => vec![ImageCommand::List],
                Image::Rm { images } => images.into_iter().map(ImageCommand::Remove).collect(),
            };
            for command in commands {
                // The server side has its own working directory.
                let command = match command {
                    ImageCommand::Import(path) => ImageCommand::Import(std::path::absolute(&path).unwrap_or(path)),
                    other => other,
                };
                ironkeel_supervisor::run_image_command(&instance, command, &mut |line| println!("{line}")).await?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Reset { data_dir } => {
            let instance = Instance::of(&data_dir.data_dir)?;
            ironkeel_supervisor::reset(&instance, &Progress::start(false))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The shim is this very program, even when its file is replaced while it runs.
fn shim_program() -> PathBuf {
    PathBuf::from(format!("/proc/{}/exe", std::process::id()))
}

async fn kube_apiserver(flags: Vec<String>) -> Result<ExitCode, Error> {
    match ironkeel_supervisor::api_server_arguments(flags)? {
        ApiServerArguments::Help(text) => print!("{text}"),
        ApiServerArguments::Serve(command) => command.run(Box::pin(stop_signal())).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn component(component: Component, flags: Vec<String>) -> Result<ExitCode, Error> {
    match component.arguments(flags)? {
        ComponentArguments::Help(text) => print!("{text}"),
        ComponentArguments::Run(command) => command.run(shim_program(), Box::pin(stop_signal())).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Ctrl-C, or what systemd sends.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
    }
}

fn print_status(report: &StatusReport) {
    if let Some(reason) = &report.api {
        println!("API server: not answering ({reason})");
        return;
    }
    println!("API server: ok");
    for (node, ready) in &report.nodes {
        match ready {
            Ok(()) => println!("node {node}: Ready"),
            Err(reason) => println!("node {node}: not ready ({reason})"),
        }
    }
    match &report.dns {
        Some(Ok(())) => println!("cluster DNS: ok"),
        Some(Err(reason)) => println!("cluster DNS: not answering ({reason})"),
        None => println!("cluster DNS: not asked"),
    }
}
