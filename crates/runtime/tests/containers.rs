//! Real containers: images, processes, logs, limits, adoption, pulls. As root only.
//!
//! The harness is this file's own, because the runtime re-executes its program as the shim.
#![allow(clippy::unwrap_used, unsafe_code)]

mod support;

use std::time::{Duration, Instant};

use ironkeel_cri::v1::*;
use support::{Node, container, sandbox};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("shim") => std::process::exit(ironkeel_runtime::shim_main(std::env::args_os().skip(2))),
        Some("own") => return support::own(&args[2]),
        // What tools ask a test program for; there is one test.
        Some("--list") => return println!("containers: test"),
        _ => {}
    }
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: needs root");
    }
    let Some(busybox) = support::busybox() else { return println!("skipped: needs a static busybox") };
    let filter = args.iter().skip(1).find(|a| !a.starts_with('-')).cloned().unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut failed = 0;
    macro_rules! run {
        ($($case:ident),*) => {$(
            if stringify!($case).contains(&filter) {
                let started = Instant::now();
                let busybox = busybox.clone();
                let passed = runtime.block_on(async {
                    let node = Node::new(&busybox).await;
                    let dir = node.dir.path().to_owned();
                    let result = tokio::spawn($case(node)).await;
                    let left = support::gone(&dir).await.err().unwrap_or_default();
                    left.iter().for_each(|what| println!("left behind: {what}"));
                    result.is_ok() && left.is_empty()
                });
                let word = if passed { "ok" } else { failed += 1; "FAILED" };
                println!("test {} ... {word} ({} ms)", stringify!($case), started.elapsed().as_millis());
            }
        )*};
    }
    run!(
        runs_logs_and_exit_codes,
        start_is_fast,
        exec_sees_the_same_container,
        limits_are_visible_and_enforced,
        a_container_is_confined,
        a_command_that_is_not_there_is_a_start_error,
        events_tell_of_the_end_at_once,
        volumes_are_mounted_as_asked,
        a_shared_process_namespace_is_shared,
        containers_outlive_their_runtime,
        a_dead_shim_ends_its_pod,
        a_pod_may_go_while_its_container_starts,
        terminals_host_namespaces_and_privileges,
        a_socket_serves_other_clients,
        streams_reach_processes,
        ports_are_forwarded_into_the_pod,
        pulls_from_a_registry
    );
    std::process::exit(if failed == 0 { 0 } else { 1 });
}

async fn runs_logs_and_exit_codes(mut node: Node) {
    let pod = node.run_sandbox(sandbox("logs")).await;
    let long = "x".repeat(20_000);
    let script = format!("echo out; echo err >&2; echo {long}; printf last; exit 3");
    let id = node.run(&pod, container("c", &["sh", "-c", &script])).await;
    let status = node.wait_exit(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
    assert!(status.started_at > 0 && status.finished_at >= status.started_at);
    let log = std::fs::read_to_string(&status.log_path).unwrap();
    let entries: Vec<Vec<&str>> = log.lines().map(|l| l.splitn(4, ' ').collect()).collect();
    let of = |stream: &str| entries.iter().filter(|e| e[1] == stream).map(|e| (e[2], e[3])).collect::<Vec<_>>();
    assert_eq!(of("stderr"), [("F", "err")]);
    assert_eq!(of("stdout"), [("F", "out"), ("P", &long[..16384]), ("F", &long[16384..]), ("F", "last")]);
    assert!(entries.iter().all(|e| e[0].ends_with('Z') && e[0].len() == "2026-01-01T00:00:00.000000000Z".len()));
    // Rotation: the old file is renamed, and the log begins anew.
    let id = node
        .run(
            &pod,
            container("rotated", &["sh", "-c", "echo 1; while [ ! -e /go ]; do sleep 0.02; done; echo 2; sleep 60"]),
        )
        .await;
    let path = node.status(&id).await.log_path;
    support::until(|| std::fs::read_to_string(&path).is_ok_and(|l| l.contains(" 1"))).await;
    std::fs::rename(&path, format!("{path}.1")).unwrap();
    node.cri.runtime.reopen_container_log(ReopenContainerLogRequest { container_id: id.clone() }).await.unwrap();
    node.exec(&id, &["touch", "/go"]).await;
    support::until(|| std::fs::read_to_string(&path).is_ok_and(|l| l.ends_with(" 2\n"))).await;
    node.stop(&id, 0).await;
    assert_eq!(node.status(&id).await.exit_code, 137);
}

async fn start_is_fast(mut node: Node) {
    let mut times = Vec::new();
    for n in 0..5 {
        let started = Instant::now();
        let pod = node.run_sandbox(sandbox(&format!("fast{n}"))).await;
        node.run(&pod, container("c", &["sleep", "60"])).await;
        times.push(started.elapsed());
    }
    times.sort();
    println!("sandbox and container: median {:?}, worst {:?}", times[2], times[4]);
    assert!(times[2] < Duration::from_secs(10), "{times:?}");
}

async fn exec_sees_the_same_container(mut node: Node) {
    let pod = node.run_sandbox(sandbox("exec")).await;
    let mut config = container("c", &["sleep", "60"]);
    config.envs.push(KeyValue { key: "WHO".into(), value: b"me".to_vec() });
    let id = node.run(&pod, config).await;
    let answer = node.exec(&id, &["sh", "-c", "echo $WHO; echo no >&2; hostname; cat /etc/resolv.conf; exit 7"]).await;
    let out = String::from_utf8(answer.stdout).unwrap();
    assert_eq!(answer.exit_code, 7);
    assert_eq!(answer.stderr, b"no\n");
    assert_eq!(out, "me\nexec\nsearch default.svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n");
    // Many at once, as probes are.
    let all = (0..20).map(|n| {
        let mut client = node.cri.runtime.clone();
        let request =
            ExecSyncRequest { container_id: id.clone(), cmd: vec!["echo".into(), n.to_string()], timeout: 20 };
        async move { (n, client.exec_sync(request).await.unwrap().into_inner()) }
    });
    for (n, answer) in futures::future::join_all(all).await {
        assert_eq!(String::from_utf8(answer.stdout).unwrap(), format!("{n}\n"));
    }
    let request = ExecSyncRequest { container_id: id.clone(), cmd: vec!["sleep".into(), "30".into()], timeout: 1 };
    let refused = node.cri.runtime.exec_sync(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::DeadlineExceeded);
    let refused =
        node.cri.runtime.exec_sync(ExecSyncRequest { container_id: id.clone(), cmd: vec!["/nope".into()], timeout: 5 });
    assert!(refused.await.unwrap_err().message().contains("no such file or directory"));
    let left = node.exec(&id, &["sh", "-c", "ps | grep -c '[s]leep 30'"]).await;
    assert_eq!(String::from_utf8(left.stdout).unwrap().trim(), "0");
    // Thousands of exec probes must not fill the state directory.
    let find = std::process::Command::new("find").arg(node.dir.path().join("run")).args(["-name", "*tenant*"]).output();
    assert_eq!(String::from_utf8(find.unwrap().stdout).unwrap(), "");
}

async fn limits_are_visible_and_enforced(mut node: Node) {
    let pod = node.run_sandbox(sandbox("limits")).await;
    let limited = |name: &str, command: &[&str]| {
        let mut config = container(name, command);
        config.linux.as_mut().unwrap().resources = Some(LinuxContainerResources {
            memory_limit_in_bytes: 32 << 20,
            cpu_period: 100_000,
            cpu_quota: 50_000,
            cpu_shares: 512,
            ..Default::default()
        });
        config
    };
    let id = node.run(&pod, limited("c", &["sleep", "60"])).await;
    let files =
        if support::cgroup_v2() { "memory.max cpu.max" } else { "memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us" };
    let read = format!("cd /sys/fs/cgroup; cat {files}");
    let seen = String::from_utf8(node.exec(&id, &["sh", "-c", &read]).await.stdout).unwrap();
    assert!(seen.contains("33554432") && seen.contains("50000"), "{seen}");
    let file = if support::cgroup_v2() { "memory.max" } else { "memory/memory.limit_in_bytes" };
    let write = &format!("echo 99999999 > /sys/fs/cgroup/{file}");
    assert_ne!(node.exec(&id, &["sh", "-c", write]).await.exit_code, 0);
    let change = LinuxContainerResources { memory_limit_in_bytes: 48 << 20, ..Default::default() };
    let request =
        UpdateContainerResourcesRequest { container_id: id.clone(), linux: Some(change), ..Default::default() };
    node.cri.runtime.update_container_resources(request).await.unwrap();
    let seen = String::from_utf8(node.exec(&id, &["sh", "-c", &read]).await.stdout).unwrap();
    assert!(seen.contains("50331648"), "{seen}");
    let stats = node
        .cri
        .runtime
        .container_stats(ContainerStatsRequest { container_id: id.clone() })
        .await
        .unwrap()
        .into_inner();
    let stats = stats.stats.unwrap();
    assert!(stats.memory.unwrap().usage_bytes.unwrap().value > 0);
    assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
    let eater = node.run(&pod, limited("eater", &["sh", "-c", "x=0123456789; while true; do x=$x$x; done"])).await;
    let status = node.wait_exit(&eater).await;
    assert_eq!((status.reason.as_str(), status.exit_code), ("OOMKilled", 137));
}

async fn a_container_is_confined(mut node: Node) {
    let pod = node.run_sandbox(sandbox("confined")).await;
    let mut config = container("c", &["sleep", "60"]);
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.run_as_user = Some(Int64Value { value: 1000 });
    security.supplemental_groups = vec![2000];
    security.masked_paths = vec!["/proc/kcore".into(), "/proc/timer_list".into()];
    security.readonly_paths = vec!["/proc/sys".into()];
    security.no_new_privs = true;
    let id = node.run(&pod, config).await;
    let look = "id -u; id -G; grep -E '^(CapEff|Seccomp|NoNewPrivs):' /proc/self/status | tr -d '\\n\\t'";
    let seen = String::from_utf8(node.exec(&id, &["sh", "-c", look]).await.stdout).unwrap();
    assert_eq!(seen, "1000\n0 2000\nCapEff:0000000000000000NoNewPrivs:1Seccomp:2");
    let root = node.run(&pod, container("root", &["sleep", "60"])).await;
    let refused = |command: &'static str| {
        let (node, root) = (node.clone(), root.clone());
        async move { node.exec(&root, &["sh", "-c", command]).await.exit_code != 0 }
    };
    assert!(refused("mount -t tmpfs none /tmp").await);
    assert!(refused("unshare -n true").await);
    assert!(refused("mknod /tmp/disk b 254 0 && cat /tmp/disk").await);
    assert!(refused("echo 1 > /sys/kernel/mm/ksm/run").await);
    let seen =
        node.exec(&root, &["sh", "-c", "grep -E '^(CapBnd|Seccomp):' /proc/self/status; ls /proc/1/root/bin"]).await;
    let seen = String::from_utf8(seen.stdout).unwrap();
    assert!(seen.contains("Seccomp:\t2") && seen.contains("busybox"), "{seen}");
    assert!(!seen.contains("000001ff"), "{seen}");
}

async fn a_command_that_is_not_there_is_a_start_error(mut node: Node) {
    let pod = node.run_sandbox(sandbox("absent")).await;
    let id = node.create(&pod, container("c", &["/no/such/program"])).await;
    let refused =
        node.cri.runtime.start_container(StartContainerRequest { container_id: id.clone() }).await.unwrap_err();
    assert!(refused.message().contains("no such file or directory"), "{refused}");
    let status = node.status(&id).await;
    assert_eq!(
        (status.state(), status.exit_code, status.reason.as_str()),
        (ContainerState::ContainerExited, 128, "StartError")
    );
    // The pod goes on.
    let id = node.run(&pod, container("next", &["true"])).await;
    assert_eq!(node.wait_exit(&id).await.exit_code, 0);
}

async fn events_tell_of_the_end_at_once(mut node: Node) {
    let mut events = node.cri.runtime.get_container_events(GetEventsRequest {}).await.unwrap().into_inner();
    let pod = node.run_sandbox(sandbox("events")).await;
    let id = node.run(&pod, container("c", &["sleep", "60"])).await;
    let pid = node.pid(&id).await;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    let killed = Instant::now();
    let mut kinds = Vec::new();
    while let Ok(Some(event)) = events.message().await {
        if event.container_id == id {
            kinds.push(event.container_event_type());
            if event.container_event_type() == ContainerEventType::ContainerStoppedEvent {
                assert_eq!(event.containers_statuses[0].exit_code, 137);
                break;
            }
        }
    }
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    use ContainerEventType::*;
    assert_eq!(kinds, [ContainerCreatedEvent, ContainerStartedEvent, ContainerStoppedEvent]);
}

async fn volumes_are_mounted_as_asked(mut node: Node) {
    let pod = node.run_sandbox(sandbox("volumes")).await;
    let host = node.dir.path().join("volume");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("file"), "there\n").unwrap();
    let mount = |path: &str, readonly| Mount {
        container_path: path.into(),
        host_path: host.display().to_string(),
        readonly,
        ..Default::default()
    };
    let mut config = container("c", &["sleep", "60"]);
    let image = Some(ImageSpec { image: support::IMAGE.into(), ..Default::default() });
    config.mounts = vec![
        mount("/data", false),
        mount("/fixed", true),
        Mount { recursive_read_only: true, ..mount("/deep/fixed", true) },
        Mount { container_path: "/image".into(), image, readonly: true, ..Default::default() },
    ];
    let id = node.run(&pod, config).await;
    let seen = node
        .exec(&id, &["sh", "-c", "cat /data/file /fixed/file /deep/fixed/file; ls /image/bin; echo new > /data/new"])
        .await;
    assert_eq!(seen.exit_code, 0);
    assert!(String::from_utf8(seen.stdout).unwrap().starts_with("there\nthere\nthere\nbusybox"));
    assert_eq!(std::fs::read_to_string(host.join("new")).unwrap(), "new\n");
    for path in ["/fixed/x", "/deep/fixed/x", "/image/x"] {
        assert_ne!(node.exec(&id, &["touch", path]).await.exit_code, 0, "{path}");
    }
}

async fn a_shared_process_namespace_is_shared(mut node: Node) {
    let mut config = sandbox("shared");
    let options = config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options.as_mut().unwrap();
    options.set_pid(NamespaceMode::Pod);
    let pod = node.run_sandbox(config).await;
    let shared = |name: &str, command: &[&str]| {
        let mut config = container(name, command);
        let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        security.namespace_options.as_mut().unwrap().set_pid(NamespaceMode::Pod);
        config
    };
    let one = node.run(&pod, shared("one", &["sleep", "61"])).await;
    let two = node.run(&pod, shared("two", &["sleep", "62"])).await;
    let seen = String::from_utf8(node.exec(&two, &["ps"]).await.stdout).unwrap();
    assert!(seen.contains("sleep 61") && seen.contains("sleep 62"), "{seen}");
    node.stop(&one, 0).await;
    let seen = String::from_utf8(node.exec(&two, &["ps"]).await.stdout).unwrap();
    assert!(!seen.contains("sleep 61") && seen.contains("sleep 62"), "{seen}");
}

async fn containers_outlive_their_runtime(node: Node) {
    // Another process owns the runtime and is killed; this one finds its pods.
    let mut node = node.stopped();
    let mut owner = tokio::process::Command::new(std::env::current_exe().unwrap())
        .arg("own")
        .arg(node.dir.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(owner.stdout.take().unwrap()));
    let mut ids = Vec::new();
    while ids.len() < 3 {
        ids.push(lines.next_line().await.unwrap().expect("the owner ended early"));
    }
    let pid_before: i32 = ids[2].parse().unwrap();
    owner.start_kill().unwrap();
    owner.wait().await.unwrap();
    node.start().await;
    let status = node.status(&ids[1]).await;
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    assert_eq!(node.pid(&ids[1]).await, pid_before);
    let seen = node.exec(&ids[1], &["cat", "/marker"]).await;
    assert_eq!(seen.stdout, b"kept\n");
    let pods = node.cri.runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await.unwrap().into_inner().items;
    assert_eq!(pods.len(), 1);
    assert_eq!(pods[0].state(), PodSandboxState::SandboxReady);
    node.stop(&ids[1], 10).await;
    let status = node.status(&ids[1]).await;
    assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 5));
    // The log went on without the runtime.
    assert!(std::fs::read_to_string(status.log_path).unwrap().contains("stdout F stopping"));
}

async fn a_dead_shim_ends_its_pod(mut node: Node) {
    let pod = node.run_sandbox(sandbox("shimless")).await;
    let id = node.run(&pod, container("c", &["sleep", "60"])).await;
    let pid = node.pid(&id).await;
    let request = PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: true };
    let status = node.cri.runtime.pod_sandbox_status(request).await.unwrap().into_inner();
    let info: serde_json::Value = serde_json::from_str(&status.info["info"]).unwrap();
    let shim = nix::unistd::Pid::from_raw(info["pid"].as_i64().unwrap() as i32);
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).unwrap();
    let status = node.wait_exit(&id).await;
    assert_eq!(status.exit_code, 137);
    support::until(|| !std::path::Path::new(&format!("/proc/{pid}/exe")).exists()).await;
    let request = PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: false };
    let status = node.cri.runtime.pod_sandbox_status(request).await.unwrap().into_inner();
    assert_eq!(status.status.unwrap().state(), PodSandboxState::SandboxNotready);
}

async fn a_pod_may_go_while_its_container_starts(mut node: Node) {
    // Later and later into the start.
    for delay_ms in 0..8 {
        let pod = node.run_sandbox(sandbox(&format!("brief-{delay_ms}"))).await;
        let id = node.create(&pod, container("c", &["sleep", "60"])).await;
        let mut other = node.cri.runtime.clone();
        let start = StartContainerRequest { container_id: id.clone() };
        let starting = tokio::spawn(async move { other.start_container(start).await });
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        let stop = StopPodSandboxRequest { pod_sandbox_id: pod.clone() };
        node.cri.runtime.stop_pod_sandbox(stop).await.unwrap();
        // Whoever came first: the start may have failed, but nothing runs.
        let _ = starting.await.unwrap();
        assert_ne!(node.status(&id).await.state(), ContainerState::ContainerRunning, "after {delay_ms} ms");
        let remove = RemovePodSandboxRequest { pod_sandbox_id: pod };
        node.cri.runtime.remove_pod_sandbox(remove).await.unwrap();
    }
    let left = node.cri.runtime.list_containers(ListContainersRequest::default()).await.unwrap().into_inner();
    assert_eq!(left.containers, []);
}

async fn terminals_host_namespaces_and_privileges(mut node: Node) {
    let pod = node.run_sandbox(sandbox("tty")).await;
    let mut config = container("tty", &["sh", "-c", "read go; stty size; exit 6"]);
    (config.tty, config.stdin) = (true, true);
    let id = node.run(&pod, config).await;
    let attach = AttachRequest { container_id: id.clone(), stdin: true, stdout: true, stderr: false, tty: true };
    let url = node.cri.runtime.attach(attach).await.unwrap().into_inner().url;
    let mut session = support::Session::open(&url).await;
    session.send(4, br#"{"Width":90,"Height":30}"#).await;
    // The size travels beside the input, so the process asks until it has come.
    session.send(0, b"go\n").await;
    session.finish().await;
    let status = node.wait_exit(&id).await;
    assert_eq!(status.exit_code, 6);
    assert!(std::fs::read_to_string(status.log_path).unwrap().contains(" stdout F "));
    // Not root, and free to gain privileges: the filter is installed all the same.
    let mut config = container("user", &["sleep", "60"]);
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().run_as_user = Some(Int64Value { value: 1000 });
    let id = node.run(&pod, config).await;
    let look = "grep -E '^(CapEff|CapPrm|Seccomp|NoNewPrivs):' /proc/1/status | tr -d '\\n\\t'";
    let seen = String::from_utf8(node.exec(&id, &["sh", "-c", look]).await.stdout).unwrap();
    assert_eq!(seen, "CapPrm:0000000000000000CapEff:0000000000000000NoNewPrivs:0Seccomp:2");
    let mut config = container("root", &["sleep", "60"]);
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let id = node.run(&pod, config).await;
    let seen =
        node.exec(&id, &["sh", "-c", "mount -t tmpfs none /tmp && ls /dev/null && grep Seccomp: /proc/1/status"]).await;
    assert_eq!(seen.exit_code, 0, "{}", String::from_utf8_lossy(&seen.stderr));
    assert!(String::from_utf8(seen.stdout).unwrap().contains("Seccomp:\t0"));
    // The host's network, names and queues.
    let mut config = sandbox("host");
    let options = config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options.as_mut().unwrap();
    options.set_network(NamespaceMode::Node);
    options.set_ipc(NamespaceMode::Node);
    config.hostname = String::new();
    let pod = node.run_sandbox(config).await;
    let id = node.run(&pod, container("host", &["sleep", "60"])).await;
    let pid = node.pid(&id).await;
    for (kind, same) in [("net", true), ("ipc", true), ("uts", true), ("mnt", false), ("pid", false)] {
        let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_eq!(link(&pid.to_string()) == link("self"), same, "{kind}");
    }
}

async fn a_socket_serves_other_clients(mut node: Node) {
    let path = node.dir.path().join("cri.sock");
    let shutdown = tokio_util::sync::CancellationToken::new();
    let runtime = node.runtime();
    let (socket, stop) = (path.clone(), shutdown.clone());
    let server = tokio::spawn(async move { runtime.serve_socket(&socket, stop).await });
    support::until(|| path.exists()).await;
    let mut client = ironkeel_cri::CriClient::connect(&format!("unix://{}", path.display())).await.unwrap();
    let version = client.runtime.version(VersionRequest::default()).await.unwrap().into_inner();
    assert_eq!((version.runtime_name.as_str(), version.runtime_api_version.as_str()), ("ironkeel", "v1"));
    let images = client.image.list_images(ListImagesRequest::default()).await.unwrap().into_inner().images;
    assert_eq!(images[0].repo_tags, [support::IMAGE]);
    let status = client.runtime.status(StatusRequest::default()).await.unwrap().into_inner().status.unwrap();
    assert!(status.conditions.iter().all(|c| c.status));
    shutdown.cancel();
    server.await.unwrap().unwrap();
    let remove = RemoveImageRequest { image: Some(ImageSpec { image: support::IMAGE.into(), ..Default::default() }) };
    node.cri.image.remove_image(remove).await.unwrap();
    assert!(node.cri.image.list_images(ListImagesRequest::default()).await.unwrap().into_inner().images.is_empty());
    assert_eq!(std::fs::read_dir(node.dir.path().join("root/layers")).unwrap().count(), 0);
}

async fn streams_reach_processes(mut node: Node) {
    let pod = node.run_sandbox(sandbox("streams")).await;
    let mut config = container("c", &["sh", "-c", "while read line; do echo got $line; done; echo end"]);
    (config.stdin, config.stdin_once) = (true, true);
    let id = node.run(&pod, config).await;
    let exec = |command: &str, tty| ExecRequest {
        container_id: id.clone(),
        cmd: vec!["sh".into(), "-c".into(), command.into()],
        tty,
        stdin: true,
        stdout: true,
        stderr: !tty,
    };
    let url = node.cri.runtime.exec(exec("cat; echo bad >&2; exit 3", false)).await.unwrap().into_inner().url;
    let mut session = support::Session::open(&url).await;
    session.send(0, b"hello\n").await;
    session.close_input().await;
    let ended = session.finish().await;
    assert_eq!((ended.of(1), ended.of(2)), ("hello\n".into(), "bad\n".into()));
    let status: serde_json::Value = serde_json::from_str(&ended.of(3)).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "3");
    // The token works once.
    assert!(tokio_tungstenite::connect_async(url.replace("http://", "ws://")).await.is_err());
    // A terminal has a size and is its process's standard error, too.
    let url = node
        .cri
        .runtime
        .exec(exec("read go; stty size; tty >&2 || true; exit 4", true))
        .await
        .unwrap()
        .into_inner()
        .url;
    let mut session = support::Session::open(&url).await;
    session.send(4, br#"{"Width":101,"Height":42}"#).await;
    session.send(0, b"go\n").await;
    let ended = session.finish().await;
    assert!(ended.of(1).contains("42 101"), "{:?}", ended.of(1));
    assert!(ended.of(3).contains("\"message\":\"4\""), "{}", ended.of(3));
    // Attached input is the container's own, and its end the container's end.
    let attach = AttachRequest { container_id: id.clone(), stdin: true, stdout: true, stderr: true, tty: false };
    let url = node.cri.runtime.attach(attach).await.unwrap().into_inner().url;
    let mut session = support::Session::open(&url).await;
    session.send(0, b"one\n").await;
    session.send(0, b"two\n").await;
    session.close_input().await;
    let ended = session.finish().await;
    assert_eq!(ended.of(1), "got one\ngot two\nend\n");
    let status = node.wait_exit(&id).await;
    assert_eq!(status.exit_code, 0);
    assert_eq!(std::fs::read_to_string(status.log_path).unwrap().lines().count(), 3);
}

async fn ports_are_forwarded_into_the_pod(mut node: Node) {
    let pod = node.run_sandbox(sandbox("ports")).await;
    let id =
        node.run(&pod, container("c", &["nc", "-l", "-p", "8080", "-e", "sh", "-c", "read l; echo served $l"])).await;
    let listens = "while ! grep -q :1F90 /proc/net/tcp /proc/net/tcp6; do sleep 0.02; done";
    assert_eq!(node.exec(&id, &["sh", "-c", listens]).await.exit_code, 0);
    let request = PortForwardRequest { pod_sandbox_id: pod.clone(), port: vec![8080] };
    let url = node.cri.runtime.port_forward(request).await.unwrap().into_inner().url;
    let mut session = support::Session::open_with(&url, "v4.channel.k8s.io").await;
    session.send(0, b"you\n").await;
    let reply = session.until(|received| received.of(0).ends_with("served you\n")).await;
    // Both channels begin with the port, little-endian.
    assert_eq!(reply.bytes(0)[..2], [0x90, 0x1f]);
}

async fn pulls_from_a_registry(mut node: Node) {
    let Some(registry) = support::Registry::start(node.dir.path(), &node.archive).await else {
        return println!("skipped: no docker-registry on this machine");
    };
    let name = format!("{}/test/busybox:1", registry.address);
    let image = |name: &str| Some(ImageSpec { image: name.to_owned(), ..Default::default() });
    let pull = |name: &str| PullImageRequest { image: image(name), ..Default::default() };
    // Both at once: each layer is fetched once.
    let mut other = node.cri.image.clone();
    let (one, two) = tokio::join!(node.cri.image.pull_image(pull(&name)), other.pull_image(pull(&name)));
    let id = one.unwrap().into_inner().image_ref;
    assert_eq!(two.unwrap().into_inner().image_ref, id);
    let status = node.cri.image.image_status(ImageStatusRequest { image: image(&name), verbose: true }).await.unwrap();
    let status = status.into_inner().image.unwrap();
    assert!(status.repo_tags.contains(&name) && status.repo_digests.len() >= 2, "{status:?}");
    let digest = status.repo_digests.iter().find(|d| d.starts_with(&registry.address)).unwrap().clone();
    node.cri.image.pull_image(pull(&digest)).await.unwrap();
    let absent = node.cri.image.pull_image(pull(&format!("{}/test/absent:1", registry.address))).await.unwrap_err();
    assert!(absent.message().contains("absent"), "{absent}");
    let pod = node.run_sandbox(sandbox("pulled")).await;
    let mut config = container("c", &["true"]);
    config.image = image(&name);
    let ran = node.run(&pod, config).await;
    assert_eq!(node.wait_exit(&ran).await.exit_code, 0);
}
