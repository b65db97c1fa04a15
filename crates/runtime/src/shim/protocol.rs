//! What the runtime and a pod's shim say to each other over the shim's unix socket.
//!
//! A frame is a big-endian u32 length and JSON; descriptors ride on a frame's first bytes. After an
//! accepted [`Request::Attach`] both sides send stream frames instead: one byte of [`Stream`], a
//! big-endian u32 length, bytes.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};

/// The longest frame either side accepts, in bytes.
pub(crate) const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;
/// Descriptors a frame may carry: standard input, output and error.
pub(crate) const MAX_FRAME_FDS: usize = 3;

/// How a shim is told what to be: written to a file whose path is its argument.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ShimConfig {
    pub(crate) sandbox_id: String,
    /// Where to listen.
    pub(crate) socket: String,
    /// Where libcontainer keeps its records.
    pub(crate) containers_dir: String,
    /// Namespace files to bind, when the pod has its own.
    pub(crate) netns: Option<String>,
    pub(crate) ipcns: Option<String>,
    pub(crate) utsns: Option<String>,
    pub(crate) hostname: String,
    /// Whether the pod's containers share one process namespace.
    pub(crate) shared_pid: bool,
    pub(crate) sysctls: Vec<(String, String)>,
}

/// What a new container needs besides its bundle.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RunContainer {
    pub(crate) id: String,
    /// Directory of config.json and seccomp.json; `status.json` is written there.
    pub(crate) bundle: String,
    /// Absolute path of the CRI log, or none.
    pub(crate) log_path: Option<String>,
    pub(crate) stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) tty: bool,
    /// Path below the cgroup hierarchies.
    pub(crate) cgroup: String,
    /// Whether the kernel kills the container's other processes with its first one.
    pub(crate) own_pid_namespace: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "camelCase")]
pub(crate) enum Request {
    /// Create and start a container. Answer: [`Reply::Started`].
    Run(RunContainer),
    /// Signal the first process, or every process of the container.
    Signal { id: String, signal: i32, all: bool },
    /// Start a process in a container; without a terminal its three descriptors come along.
    /// Answers: [`Reply::Started`] (with the terminal's descriptor), later [`Reply::Exited`].
    Exec {
        id: String,
        process: serde_json::Value,
        tty: bool,
        /// Kill the process when this connection closes before it has ended.
        kill_on_hangup: bool,
    },
    /// Turn the connection into the container's standard streams.
    Attach { id: String, stdin: bool },
    /// The size of a container's terminal, in characters.
    Resize { id: String, width: u16, height: u16 },
    /// Close the log and open its path again.
    ReopenLog { id: String },
    /// Forget an exited container and remove what libcontainer keeps of it.
    Delete { id: String },
    /// Every container, and from now on every exit: the connection stays.
    Subscribe,
    /// End the shim; its containers must be gone.
    Shutdown,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "camelCase")]
pub(crate) enum Reply {
    Ok,
    Error {
        message: String,
    },
    Started {
        pid: i32,
    },
    Exited {
        code: i32,
    },
    /// First message to a subscriber.
    Sandbox {
        pause_pid: Option<i32>,
        containers: Vec<ContainerReport>,
    },
    /// A container's state changed.
    Container(ContainerReport),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerReport {
    pub(crate) id: String,
    pub(crate) status: ContainerStatusRecord,
}

/// `status.json` in a container's bundle: what outlives shim and runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerStatusRecord {
    pub(crate) pid: i32,
    /// Nanoseconds since the epoch.
    pub(crate) started_at: i64,
    /// Zero while the container runs.
    pub(crate) finished_at: i64,
    pub(crate) exit_code: i32,
    pub(crate) oom_killed: bool,
    /// Why it could not start.
    pub(crate) start_error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stream {
    /// Empty data: end of input.
    Stdin = 0,
    Stdout = 1,
    Stderr = 2,
    /// The container has ended.
    End = 3,
}

impl Stream {
    pub(crate) fn from_byte(byte: u8) -> Option<Stream> {
        [Stream::Stdin, Stream::Stdout, Stream::Stderr, Stream::End].into_iter().find(|s| *s as u8 == byte)
    }
}

pub(crate) fn stream_frame(stream: Stream, data: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(5 + data.len());
    frame.push(stream as u8);
    frame.extend_from_slice(&(data.len() as u32).to_be_bytes());
    frame.extend_from_slice(data);
    frame
}

pub(crate) fn frame<T: Serialize>(message: &T) -> std::io::Result<Vec<u8>> {
    let body = serde_json::to_vec(message)?;
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// Sends one frame, with descriptors.
pub(crate) fn send(stream: &mut UnixStream, bytes: &[u8], fds: &[RawFd]) -> std::io::Result<()> {
    let rights = [ControlMessage::ScmRights(fds)];
    let messages = if fds.is_empty() { &rights[..0] } else { &rights[..] };
    let sent = sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(bytes)], messages, MsgFlags::MSG_NOSIGNAL, None)?;
    stream.write_all(bytes.get(sent..).unwrap_or_default())
}

/// Receives what is there, with descriptors. Zero bytes mean the other side is gone.
pub(crate) fn receive(fd: RawFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> std::io::Result<usize> {
    let mut space = nix::cmsg_space!([RawFd; MAX_FRAME_FDS]);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(fd, &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let received = message.bytes;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            // SAFETY: the kernel has just made these descriptors for us; nobody else owns them.
            fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok(received)
}

/// Reads one JSON frame from a blocking stream.
pub(crate) fn read_reply(stream: &mut UnixStream, fds: &mut Vec<OwnedFd>) -> std::io::Result<Reply> {
    let mut head = [0; 4];
    let mut have = 0;
    while have < 4 {
        match receive(stream.as_raw_fd(), &mut head[have..], fds)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => have += n,
        }
    }
    let length = u32::from_be_bytes(head) as usize;
    if length > MAX_FRAME_BYTES {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "the shim's frame is too long"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}
