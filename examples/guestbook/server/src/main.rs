//! The example application: `guestbook web` shows what `guestbook store` keeps, `guestbook get` asks
//! either from within a pod.
//!
//! Plain HTTP/1.1 on std alone, so that the image is one static file. Settings come from the
//! environment, as a ConfigMap and a Secret give them. On SIGTERM it says "not ready", serves for
//! `DRAIN_MS` more, and ends.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long requests are still served after SIGTERM, in milliseconds.
const DRAIN_MS: u64 = 1_000;
/// Longest body that is read, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// A client that says nothing for so long is hung up on, in seconds.
const IDLE_SECONDS: u64 = 30;

struct Server {
    role: Role,
    pod: String,
    version: String,
    token: String,
    stopping: AtomicBool,
}

enum Role {
    /// Shows the entries of the store at this host and port.
    Web { store: String, title: String },
    /// Keeps entries in this file.
    Store { file: String },
}

struct Request {
    method: String,
    path: String,
    token: String,
    body: String,
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn main() -> std::io::Result<()> {
    // Before any thread: so that only the waiting thread gets the signal.
    let mut signals = nix::sys::signal::SigSet::empty();
    signals.add(nix::sys::signal::Signal::SIGTERM);
    signals.thread_block()?;
    let role = match std::env::args().nth(1).as_deref() {
        Some("web") => Role::Web { store: setting("STORE", "store:8080"), title: setting("TITLE", "Guestbook") },
        Some("store") => Role::Store { file: setting("DATA", "/data/entries") },
        Some("get") => {
            let url = std::env::args().nth(2).unwrap_or_default();
            let (server, path) = url.split_once('/').unwrap_or((&url, ""));
            print!("{}", ask(server, "GET", &format!("/{path}"), "", "")?);
            return Ok(());
        }
        _ => {
            eprintln!("usage: guestbook web | store | get HOST:PORT/PATH");
            std::process::exit(2);
        }
    };
    let version = std::fs::read_to_string("/etc/guestbook-version").unwrap_or_default().trim().to_owned();
    let server = Arc::new(Server {
        role,
        pod: setting("HOSTNAME", "unknown"),
        version,
        token: setting("TOKEN", ""),
        stopping: AtomicBool::new(false),
    });
    let listener = TcpListener::bind(("0.0.0.0", setting("PORT", "8080").parse().unwrap_or(8080)))?;
    println!("listening on {}", listener.local_addr()?);
    let accepting = server.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let server = accepting.clone();
            std::thread::spawn(move || {
                if let Err(error) = converse(&server, &stream) {
                    eprintln!("connection: {error}");
                }
            });
        }
    });
    signals.wait()?;
    println!("stopping");
    server.stopping.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(DRAIN_MS));
    Ok(())
}

fn converse(server: &Server, stream: &TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(IDLE_SECONDS)))?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader)? {
        let (status, body) = answer(server, &request);
        println!("{} {} {status}", request.method, request.path);
        // A stopping server hangs up after this answer, so that the client's next one goes elsewhere.
        let close = server.stopping.load(Ordering::Relaxed);
        let connection = if close { "close" } else { "keep-alive" };
        let mut stream = stream;
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n{body}",
            body.len()
        )?;
        if close {
            break;
        }
    }
    Ok(())
}

fn read(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (mut length, mut token) = (0, String::new());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "x-token" => value.trim().clone_into(&mut token),
            _ => {}
        }
    }
    let mut body = vec![0; std::cmp::min(length, MAX_BODY_BYTES)];
    reader.read_exact(&mut body)?;
    Ok(Some(Request { method, path, token, body: String::from_utf8_lossy(&body).into_owned() }))
}

fn answer(server: &Server, request: &Request) -> (&'static str, String) {
    match (request.method.as_str(), request.path.as_str()) {
        (_, "/healthz") => ("200 OK", "ok\n".into()),
        (_, "/readyz") if server.stopping.load(Ordering::Relaxed) => ("503 Service Unavailable", "stopping\n".into()),
        (_, "/readyz") => ("200 OK", "ok\n".into()),
        (_, "/hostname") => ("200 OK", format!("{}\n", server.pod)),
        (_, "/version") => ("200 OK", format!("{}\n", server.version)),
        (_, "/crash") => std::process::exit(3),
        (method, "/" | "/entries") => match &server.role {
            Role::Web { store, title } => match ask(store, method, "/entries", &server.token, &request.body) {
                Ok(entries) => {
                    let mut page = String::new();
                    let _ = writeln!(page, "{title}, version {}, served by {}", server.version, server.pod);
                    page.push_str(&entries);
                    ("200 OK", page)
                }
                Err(error) => ("502 Bad Gateway", format!("the store at {store} does not answer: {error}\n")),
            },
            Role::Store { .. } if request.token != server.token => ("403 Forbidden", "wrong token\n".into()),
            Role::Store { file } => match keep(file, method, &request.body) {
                Ok(entries) => ("200 OK", entries),
                Err(error) => ("500 Internal Server Error", format!("{file}: {error}\n")),
            },
        },
        _ => ("404 Not Found", "not found\n".into()),
    }
}

/// Appends a posted entry, and answers all of them.
fn keep(file: &str, method: &str, entry: &str) -> std::io::Result<String> {
    if method == "POST" {
        let mut file = OpenOptions::new().create(true).append(true).open(file)?;
        writeln!(file, "{}", entry.trim().replace('\n', " "))?;
    }
    match std::fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        entries => entries,
    }
}

fn ask(server: &str, method: &str, path: &str, token: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(IDLE_SECONDS)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {server}\r\nX-Token: {token}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut reader = BufReader::new(&stream);
    let mut status = String::new();
    reader.read_line(&mut status)?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    if status.contains(" 200 ") { Ok(body) } else { Err(std::io::Error::other(body.trim().to_owned())) }
}
