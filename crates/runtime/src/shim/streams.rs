//! A running container as the shim sees it: its pipes or terminal, its log, and who is attached.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::log::{LineBuffer, LogFile};
use super::protocol::{ContainerStatusRecord, RunContainer, Stream};

/// Read at once from a container's output, in bytes.
const READ_BYTES: usize = 32 * 1024;
/// Input that a container has not read yet; beyond it, attached clients wait. In bytes.
pub(super) const MAX_PENDING_INPUT_BYTES: usize = 256 * 1024;

pub(super) struct Container {
    pub(super) run: RunContainer,
    pub(super) status: ContainerStatusRecord,
    pub(super) log: Option<LogFile>,
    /// Standard output, or the terminal.
    pub(super) stdout: Option<File>,
    pub(super) stderr: Option<File>,
    stdout_line: LineBuffer,
    stderr_line: LineBuffer,
    /// Where input goes: a pipe's end, or the terminal again.
    pub(super) stdin: Option<File>,
    pub(super) pending_input: VecDeque<u8>,
    input_ended: bool,
}

pub(super) fn nonblocking(fd: &impl AsFd) -> nix::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(|_| ())
}

impl Container {
    pub(super) fn new(run: RunContainer, log: Option<LogFile>) -> Self {
        Container {
            run,
            status: ContainerStatusRecord::default(),
            log,
            stdout: None,
            stderr: None,
            stdout_line: LineBuffer::default(),
            stderr_line: LineBuffer::default(),
            stdin: None,
            pending_input: VecDeque::new(),
            input_ended: false,
        }
    }

    pub(super) fn running(&self) -> bool {
        self.status.pid != 0 && self.status.finished_at == 0
    }

    pub(super) fn set_terminal(&mut self, terminal: OwnedFd) -> std::io::Result<()> {
        nonblocking(&terminal)?;
        let terminal = File::from(terminal);
        if self.run.stdin {
            self.stdin = Some(terminal.try_clone()?);
        }
        self.stdout = Some(terminal);
        Ok(())
    }

    pub(super) fn resize(&self, width: u16, height: u16) -> std::io::Result<()> {
        let Some(terminal) = self.stdout.as_ref().filter(|_| self.run.tty) else { return Ok(()) };
        let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptor is a terminal and the size lives through the call.
        match unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }

    /// Reads what there is of a stream, logs it, and answers it for those attached. An ended stream
    /// is closed.
    pub(super) fn pump(&mut self, stream: Stream) -> Vec<u8> {
        let (source, line, name) = match stream {
            Stream::Stderr => (&mut self.stderr, &mut self.stderr_line, "stderr"),
            _ => (&mut self.stdout, &mut self.stdout_line, "stdout"),
        };
        let Some(file) = source else { return Vec::new() };
        let mut data = vec![0; READ_BYTES];
        match file.read(&mut data) {
            Ok(n) if n > 0 => {
                data.truncate(n);
                if let Some(log) = &mut self.log {
                    log.append(name, line, &data);
                }
                data
            }
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => {
                Vec::new()
            }
            // End of a pipe, or EIO from a terminal that nobody holds any more.
            _ => {
                *source = None;
                if let Some(log) = &mut self.log {
                    log.finish(name, line);
                }
                Vec::new()
            }
        }
    }

    pub(super) fn flush_lines(&mut self) {
        if let Some(log) = &mut self.log {
            log.finish("stdout", &mut self.stdout_line);
            log.finish("stderr", &mut self.stderr_line);
        }
    }

    pub(super) fn write_input(&mut self, data: &[u8]) {
        self.pending_input.extend(data);
        self.drain_input();
    }

    /// No attached client sends any more. Only `stdinOnce` makes that the container's end of input.
    pub(super) fn end_input(&mut self) {
        if self.run.stdin_once && !self.run.tty {
            self.input_ended = true;
            self.drain_input();
        }
    }

    pub(super) fn drain_input(&mut self) {
        while !self.pending_input.is_empty() {
            let Some(stdin) = &mut self.stdin else {
                self.pending_input.clear();
                return;
            };
            let (front, _) = self.pending_input.as_slices();
            match stdin.write(front) {
                Ok(n) => drop(self.pending_input.drain(..n)),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => self.stdin = None,
            }
        }
        if self.input_ended {
            self.stdin = None;
        }
    }

    pub(super) fn stdin_fd(&self) -> Option<RawFd> {
        self.stdin.as_ref().filter(|_| !self.pending_input.is_empty()).map(AsRawFd::as_raw_fd)
    }

    /// Writes `status.json`: what is left when the shim is gone.
    pub(super) fn save(&self) {
        let path = format!("{}/status.json", self.run.bundle);
        let temporary = format!("{path}.new");
        if let Ok(bytes) = serde_json::to_vec(&self.status)
            && std::fs::write(&temporary, bytes).is_ok()
        {
            let _ = std::fs::rename(&temporary, &path);
        }
    }
}
