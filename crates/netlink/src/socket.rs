//! The socket: requests with acknowledgement, dumps, batches; also inside another network namespace.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

use crate::message::{Message, Received, messages};

/// Receive buffer of one read, in bytes.
const READ_BYTES: usize = 256 * 1024;
/// Socket buffers for large nftables batches, in bytes.
const SOCKET_BUFFER_BYTES: libc::c_int = 64 * 1024 * 1024;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// Why the kernel did not do it.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused; `errno` as it said.
    #[error("{operation}: {source}")]
    Refused {
        /// What was asked for.
        operation: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// No such link.
    #[error("there is no network link {0}")]
    NoLink(String),
    /// The network namespace could not be entered.
    #[error("network namespace {path}: {source}")]
    Namespace {
        /// Its file.
        path: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// Answers of a form that this crate does not know.
    #[error("{0}: the kernel's answer is cut off")]
    Malformed(String),
}

impl NetlinkError {
    pub(crate) fn refused(operation: &str, source: std::io::Error) -> Self {
        NetlinkError::Refused { operation: operation.to_owned(), source }
    }

    /// The errno of a refusal.
    pub fn errno(&self) -> Option<i32> {
        match self {
            NetlinkError::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// A netlink socket of one protocol in one network namespace.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// A socket for links, addresses and routes in the caller's network namespace.
    pub fn route() -> Result<Self, NetlinkError> {
        Self::open(libc::NETLINK_ROUTE)
    }

    /// A socket for nftables in the caller's network namespace.
    pub fn netfilter() -> Result<Self, NetlinkError> {
        Self::open(libc::NETLINK_NETFILTER)
    }

    /// Like [`Socket::route`], inside the namespace that `netns` (a bind-mounted file or
    /// `/proc/<pid>/ns/net`) names. The calling thread stays where it is.
    pub fn route_in(netns: &Path) -> Result<Self, NetlinkError> {
        in_namespace(netns, Self::route)?
    }

    /// Like [`Socket::netfilter`], inside the namespace that `netns` names.
    pub fn netfilter_in(netns: &Path) -> Result<Self, NetlinkError> {
        in_namespace(netns, Self::netfilter)?
    }

    fn open(protocol: libc::c_int) -> Result<Self, NetlinkError> {
        let buffer_bytes = SOCKET_BUFFER_BYTES;
        let fail = |_| NetlinkError::refused("opening a netlink socket", std::io::Error::last_os_error());
        // SAFETY: plain socket(2); the descriptor is owned right away.
        let fd = unsafe {
            let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol);
            if fd < 0 {
                return Err(fail(()));
            }
            OwnedFd::from_raw_fd(fd)
        };
        for option in [libc::SO_SNDBUFFORCE, libc::SO_RCVBUFFORCE] {
            // SAFETY: the value is a c_int that lives through the call. Without CAP_NET_ADMIN the
            // default buffer stays, and only very large batches fail later with a clear error.
            unsafe {
                libc::setsockopt(
                    fd.as_raw_fd(),
                    libc::SOL_SOCKET,
                    option,
                    (&raw const buffer_bytes).cast(),
                    std::mem::size_of::<libc::c_int>() as libc::socklen_t,
                );
            }
        }
        // SAFETY: an all-zero sockaddr_nl with the family set is valid for bind(2).
        let bound = unsafe {
            let mut address: libc::sockaddr_nl = std::mem::zeroed();
            address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
            libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                std::mem::size_of::<libc::sockaddr_nl>() as libc::socklen_t,
            )
        };
        if bound < 0 {
            return Err(fail(()));
        }
        Ok(Socket { fd, sequence: 0 })
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.sequence
    }

    fn send(&self, operation: &str, bytes: &[u8]) -> Result<(), NetlinkError> {
        // SAFETY: the buffer is valid for its length; an unconnected netlink socket sends to the kernel.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 { Err(NetlinkError::refused(operation, std::io::Error::last_os_error())) } else { Ok(()) }
    }

    fn receive<'b>(&self, operation: &str, buffer: &'b mut [u8]) -> Result<&'b [u8], NetlinkError> {
        loop {
            // SAFETY: the buffer is valid and writable for its length.
            let got = unsafe { libc::recv(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            if got >= 0 {
                return Ok(&buffer[..got as usize]);
            }
            let error = std::io::Error::last_os_error();
            if error.kind() != std::io::ErrorKind::Interrupted {
                return Err(NetlinkError::refused(operation, error));
            }
        }
    }

    /// Sends one request and waits for its acknowledgement.
    pub(crate) fn request(&mut self, operation: &str, mut message: Message) -> Result<(), NetlinkError> {
        message.or_flags(NLM_F_REQUEST | NLM_F_ACK);
        let sequence = self.next_sequence();
        self.send(operation, &message.finish(sequence))?;
        let mut buffer = vec![0; 32 * 1024];
        loop {
            for m in messages(self.receive(operation, &mut buffer)?) {
                if m.sequence == sequence && m.kind == NLMSG_ERROR {
                    return acknowledged(operation, &m);
                }
            }
        }
    }

    /// Sends one request and hands every message of the (multi-part) answer to `each`.
    pub(crate) fn dump(
        &mut self,
        operation: &str,
        mut message: Message,
        mut each: impl FnMut(&Received<'_>),
    ) -> Result<(), NetlinkError> {
        message.or_flags(NLM_F_REQUEST | NLM_F_DUMP);
        let sequence = self.next_sequence();
        self.send(operation, &message.finish(sequence))?;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            for m in messages(self.receive(operation, &mut buffer)?).filter(|m| m.sequence == sequence) {
                match m.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return acknowledged(operation, &m),
                    _ => each(&m),
                }
            }
        }
    }

    /// Sends several messages at once (an nftables transaction) and waits until the kernel has
    /// answered the last. The first refusal is the answer; `describe` names the refused message.
    pub(crate) fn batch(
        &mut self,
        batch: Vec<Message>,
        describe: impl Fn(usize) -> String,
    ) -> Result<(), NetlinkError> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(batch.iter().map(Message::len).sum());
        let last = batch.len() - 1;
        for (i, mut message) in batch.into_iter().enumerate() {
            message.or_flags(NLM_F_REQUEST);
            if i + 1 == last {
                message.or_flags(NLM_F_ACK);
            }
            let sequence = self.next_sequence();
            bytes.extend_from_slice(&message.finish(sequence));
        }
        self.send("nftables transaction", &bytes)?;
        let awaited = self.sequence.wrapping_sub(1);
        let mut buffer = vec![0; READ_BYTES];
        let mut refusal = None;
        loop {
            for m in messages(self.receive("nftables transaction", &mut buffer)?) {
                if m.kind != NLMSG_ERROR {
                    continue;
                }
                let index = m.sequence.wrapping_sub(first) as usize;
                if let Err(e) = acknowledged(&describe(index), &m) {
                    refusal.get_or_insert(e);
                }
                // The acknowledgement of the last message, or the refusal of the whole batch (which
                // carries the sequence number of the begin message), ends it.
                if m.sequence == awaited || m.sequence == first {
                    return refusal.map_or(Ok(()), Err);
                }
            }
        }
    }
}

fn acknowledged(operation: &str, message: &Received<'_>) -> Result<(), NetlinkError> {
    let code = message.payload.get(..4).ok_or_else(|| NetlinkError::Malformed(operation.to_owned()))?;
    match i32::from_ne_bytes([code[0], code[1], code[2], code[3]]) {
        0 => Ok(()),
        errno => Err(NetlinkError::refused(operation, std::io::Error::from_raw_os_error(-errno))),
    }
}

/// Runs `f` on a thread of its own inside the network namespace `netns`.
pub fn in_namespace<T: Send>(netns: &Path, f: impl FnOnce() -> T + Send) -> Result<T, NetlinkError> {
    let fail = |source| NetlinkError::Namespace { path: netns.display().to_string(), source };
    let file = std::fs::File::open(netns).map_err(fail)?;
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET).map_err(|e| fail(e.into()))?;
            Ok(f())
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
