//! The sandbox's namespaces: made once, kept alive by bind mounts and, for a shared process
//! namespace, by a first process that only reaps.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};

use super::protocol::ShimConfig;

/// Makes what the configuration asks for. Runs in a forked child, whose exit leaves the bind mounts.
pub(crate) fn make(config: &ShimConfig) -> Result<(), String> {
    let wanted = [
        (&config.netns, CloneFlags::CLONE_NEWNET, "net"),
        (&config.ipcns, CloneFlags::CLONE_NEWIPC, "ipc"),
        (&config.utsns, CloneFlags::CLONE_NEWUTS, "uts"),
    ];
    let flags =
        wanted.iter().filter(|(file, ..)| file.is_some()).fold(CloneFlags::empty(), |all, (_, flag, _)| all | *flag);
    unshare(flags).map_err(|e| format!("making the sandbox's namespaces: {e}"))?;
    if config.utsns.is_some() {
        nix::unistd::sethostname(&config.hostname).map_err(|e| format!("setting the hostname: {e}"))?;
    }
    if config.netns.is_some() {
        loopback_up().map_err(|e| format!("bringing lo up: {e}"))?;
    }
    for (name, value) in &config.sysctls {
        let path = format!("/proc/sys/{}", sysctl_path(name));
        std::fs::write(&path, value).map_err(|e| format!("setting sysctl {name}: {e}"))?;
    }
    for (file, _, kind) in wanted {
        let Some(file) = file else { continue };
        File::create(file).map_err(|e| format!("creating {file}: {e}"))?;
        let source = format!("/proc/self/ns/{kind}");
        mount(Some(source.as_str()), file.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(|e| format!("binding {file}: {e}"))?;
    }
    Ok(())
}

/// `net.ipv4.conf.eth0/1.x`: dots separate, a slash stands for a dot in a name; or the path itself.
fn sysctl_path(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(i) if name.as_bytes()[i] == b'/' => name.to_owned(),
        _ => name
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
    }
}

fn loopback_up() -> std::io::Result<()> {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    // SAFETY: an all-zero ifreq is valid; the kernel reads the name and the flags that are set here.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the descriptor is a socket and the request lives through the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request) } == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// Starts the first process of a shared process namespace; answers its pid.
pub(crate) fn pause() -> std::io::Result<i32> {
    // SAFETY: fork by another name, in a process of one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_NEWPID | libc::SIGCHLD, 0, 0, 0, 0) };
    match pid {
        -1 => Err(std::io::Error::last_os_error()),
        0 => reap_for_ever(),
        pid => Ok(pid as i32),
    }
}

fn reap_for_ever() -> ! {
    let name = CString::new("ironkeel-pause").unwrap_or_default();
    // SAFETY: plain system calls in a process of one thread; no descriptor above 2 is used again.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
        libc::close_range(3, libc::c_uint::MAX, 0);
    }
    let mut wanted = SigSet::empty();
    wanted.add(nix::sys::signal::Signal::SIGCHLD);
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&wanted), None);
    loop {
        let _ = wanted.wait();
        // SAFETY: reaps children without waiting.
        while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
    }
}
