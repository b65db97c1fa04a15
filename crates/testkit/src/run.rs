//! Commands of a test: run to their end within a limit, beside the test, or in a terminal.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Error, Outcome};

/// Limit of a command that should answer at once.
pub const SHORT: Duration = Duration::from_secs(20);
/// Limit of a command that waits for containers.
pub const LONG: Duration = Duration::from_secs(90);
/// Pause between two looks at something that is waited for.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// What was typed.
    pub command: String,
    /// Its exit code; 128 and the signal when one ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` exited with {}", self.command, self.code)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.trim().is_empty() {
                write!(f, "\n{name}: {}", shorten(text.trim()))?;
            }
        }
        Ok(())
    }
}

/// Keeps both ends of a long text.
fn shorten(text: &str) -> String {
    const KEPT_CHARS: usize = 1_500;
    let count = text.chars().count();
    if count <= 2 * KEPT_CHARS {
        return text.to_owned();
    }
    let head: String = text.chars().take(KEPT_CHARS).collect();
    let tail: String = text.chars().skip(count - KEPT_CHARS).collect();
    format!("{head}\n[…]\n{tail}")
}

impl Output {
    /// Standard output, when it succeeded.
    pub fn ok(self) -> Outcome<String> {
        if self.code == 0 { Ok(self.stdout) } else { Err(self.not("success")) }
    }

    /// Whether it succeeded.
    pub fn done(self) -> Outcome {
        self.ok().map(drop)
    }

    /// Standard output, when it succeeded and says all of `words`.
    pub fn says(self, words: &[&str]) -> Outcome<String> {
        match words.iter().find(|w| !self.stdout.contains(**w)) {
            _ if self.code != 0 => self.ok(),
            Some(missing) => Err(self.not(&format!("{missing:?} on stdout"))),
            None => Ok(self.stdout),
        }
    }

    /// Succeeds when it failed with `code` and says all of `words` on either stream.
    pub fn fails(self, code: i32, words: &[&str]) -> Outcome {
        let text = format!("{}{}", self.stdout, self.stderr);
        match words.iter().find(|w| !text.contains(**w)) {
            _ if self.code != code => Err(self.not(&format!("exit code {code}"))),
            Some(missing) => Err(self.not(&format!("the words {missing:?}"))),
            None => Ok(()),
        }
    }

    fn not(self, expected: &str) -> Error {
        Error::Command { expected: format!("expected {expected}"), output: Box::new(self) }
    }
}

fn shown(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn code_of(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Runs a command to its end. One that takes longer than `limit` is killed, and fails.
pub fn finish(mut command: Command, input: Option<&[u8]>, limit: Duration) -> Outcome<Output> {
    let what = shown(&command);
    let start = Instant::now();
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(Error::io(format!("starting `{what}`")))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // A command may end without having read all.
            scope.spawn(move || drop(stdin.write_all(input)));
        }
        let stdout = scope.spawn(move || read_all(stdout));
        let stderr = scope.spawn(move || read_all(stderr));
        let status = wait(&mut child, limit);
        if status.is_none() {
            end(&mut child);
        }
        let text = |t: std::thread::ScopedJoinHandle<'_, String>| t.join().unwrap_or_default();
        let (stdout, stderr) = (text(stdout), text(stderr));
        match status {
            Some(status) => Ok(Output { command: what, code: code_of(status), stdout, stderr, took: start.elapsed() }),
            None => {
                Err(Error::Timeout { what: format!("the end of `{what}`"), limit, last: shorten(&(stdout + &stderr)) })
            }
        }
    })
}

fn read_all(stream: Option<impl std::io::Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // What came before an error is worth showing.
        let _ = stream.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for the end at most `limit`.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if start.elapsed() < limit => std::thread::sleep(LOOK_PAUSE / 4),
            _ => return None,
        }
    }
}

/// Kills and reaps.
fn end(child: &mut Child) {
    // It may have ended meanwhile.
    let _ = child.kill();
    let _ = child.wait();
}

/// Looks until `look` finds something, and fails with the last state when it does not within `limit`.
pub fn eventually<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Outcome<T>) -> Outcome<T> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(last) if start.elapsed() >= limit => {
                return Err(Error::Timeout { what: what.to_owned(), limit, last: last.to_string() });
            }
            Err(_) => std::thread::sleep(LOOK_PAUSE),
        }
    }
}

/// A command that runs beside the test; its lines on both streams are collected.
#[derive(Debug)]
pub struct Background {
    child: Child,
    what: String,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Background {
    /// Starts it.
    pub fn start(mut command: Command) -> Outcome<Self> {
        let what = shown(&command);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(Error::io(format!("starting `{what}`")))?;
        let (sender, lines) = channel();
        let streams: [Option<Box<dyn std::io::Read + Send>>; 2] =
            [child.stdout.take().map(|s| Box::new(s) as _), child.stderr.take().map(|s| Box::new(s) as _)];
        for stream in streams.into_iter().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                // The receiver goes when the test has seen enough.
                BufReader::new(stream).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
            });
        }
        Ok(Background { child, what, lines, seen: Vec::new() })
    }

    /// Waits for a line that says `words`, from those not yet waited for.
    pub fn wait_for(&mut self, words: &str, limit: Duration) -> Outcome<String> {
        let deadline = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(words) {
                        return Ok(line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    let what = format!("{words:?} from `{}`", self.what);
                    return Err(Error::Timeout { what, limit, last: shorten(&self.seen.join("\n")) });
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = wait(&mut self.child, SHORT).map_or("it runs on".to_owned(), |s| s.to_string());
                    let words = shorten(&self.seen.join("\n"));
                    return Err(Error::Ended { what: format!("`{}`", self.what), status, words });
                }
            }
        }
    }

    /// Waits for its end, and gives everything it said.
    pub fn wait_for_end(mut self, limit: Duration) -> Outcome<(i32, Vec<String>)> {
        let Some(status) = wait(&mut self.child, limit) else {
            let what = format!("the end of `{}`", self.what);
            return Err(Error::Timeout { what, limit, last: shorten(&self.seen.join("\n")) });
        };
        let mut seen = std::mem::take(&mut self.seen);
        while let Ok(line) = self.lines.recv_timeout(SHORT) {
            seen.push(line);
        }
        Ok((code_of(status), seen))
    }

    /// Ctrl-C.
    pub fn interrupt(&self) {
        // It may have ended already.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT);
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Runs a command whose three streams are a terminal, and types `input` once it has started.
pub fn finish_in_terminal(mut command: Command, input: &str, limit: Duration) -> Outcome<Output> {
    let what = shown(&command);
    let start = Instant::now();
    let size = nix::pty::Winsize { ws_row: 40, ws_col: 132, ws_xpixel: 0, ws_ypixel: 0 };
    let pair =
        nix::pty::openpty(Some(&size), None).map_err(|e| Error::Io { step: "a terminal".into(), source: e.into() })?;
    let copy = || pair.slave.try_clone().map(Stdio::from).map_err(Error::io("a terminal"));
    command.stdin(copy()?).stdout(copy()?).stderr(copy()?);
    let control = || {
        nix::unistd::setsid()?;
        // SAFETY: descriptor 0 is the terminal by now.
        match unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: two system calls; nothing is allocated.
    unsafe { command.pre_exec(control) };
    let mut child = command.spawn().map_err(Error::io(format!("starting `{what}`")))?;
    // Our copies would keep the terminal open after the command's end.
    drop(command);
    drop(pair.slave);
    let mut keyboard = File::from(pair.master);
    let mut screen = keyboard.try_clone().map_err(Error::io("the terminal"))?;
    let reader = std::thread::spawn(move || {
        let mut seen = Vec::new();
        let mut piece = [0; 4096];
        // The other side's close is an error here (EIO).
        while let Ok(n @ 1..) = screen.read(&mut piece) {
            seen.extend_from_slice(&piece[..n]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    });
    keyboard.write_all(input.as_bytes()).map_err(Error::io("typing"))?;
    let status = wait(&mut child, limit);
    if status.is_none() {
        end(&mut child);
    }
    let stdout = reader.join().unwrap_or_default();
    match status {
        Some(status) => {
            Ok(Output { command: what, code: code_of(status), stdout, stderr: String::new(), took: start.elapsed() })
        }
        None => Err(Error::Timeout { what: format!("the end of `{what}`"), limit, last: shorten(&stdout) }),
    }
}
