//! Reads CRI log files: `<time> <stream> <P|F> <text>` a line. Tail, since, limit, follow over rotation.

use std::{
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::mpsc;

/// How often a followed log is looked at.
const FOLLOW_PERIOD: Duration = Duration::from_millis(100);
/// Text handed over at a time, bytes.
const CHUNK_BYTES: usize = 32 << 10;

/// What part of a log is wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) follow: bool,
    pub(crate) tail: Option<usize>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) timestamps: bool,
    pub(crate) limit_bytes: Option<usize>,
    /// `stdout` or `stderr`; both when absent.
    pub(crate) stream: Option<String>,
}

/// One line of a CRI log.
struct Line<'a> {
    time: &'a str,
    stream: &'a str,
    partial: bool,
    text: &'a [u8],
}

fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let mut word = || std::str::from_utf8(parts.next()?).ok();
    let (time, stream, tags) = (word()?, word()?, word()?);
    let text = parts.next().unwrap_or_default();
    Some(Line { time, stream, partial: tags.split(':').next() == Some("P"), text })
}

/// The text of a line as the user gets it, if the options want it.
fn render(line: &[u8], options: &Options) -> Option<Vec<u8>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = parse(line)?;
    if options.stream.as_ref().is_some_and(|stream| stream != line.stream) {
        return None;
    }
    if let Some(since) = options.since
        && line.time.parse::<Timestamp>().is_ok_and(|time| time < since)
    {
        return None;
    }
    let mut out = Vec::with_capacity(line.text.len() + 36);
    if options.timestamps {
        out.extend(line.time.as_bytes());
        out.push(b' ');
    }
    out.extend(line.text);
    if !line.partial {
        out.push(b'\n');
    }
    Some(out)
}

/// The rotated predecessors of a log, oldest first; compressed ones are skipped.
fn rotated(path: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let prefix = format!("{name}.");
    let mut found: Vec<PathBuf> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|n| n.starts_with(&prefix) && !n.ends_with(".gz")))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

fn lines(path: &Path) -> impl Iterator<Item = Vec<u8>> {
    let mut reader = File::open(path).ok().map(BufReader::new);
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        match reader.as_mut()?.read_until(b'\n', &mut line) {
            Ok(count) if count > 0 => Some(line),
            _ => None,
        }
    })
}

/// The last lines of a log as one text.
pub(crate) fn tail_text(path: &Path, max_lines: usize, max_bytes: usize) -> String {
    let options = Options::default();
    let mut kept = std::collections::VecDeque::new();
    for text in lines(path).filter_map(|line| render(&line, &options)) {
        kept.push_back(text);
        if kept.len() > max_lines {
            kept.pop_front();
        }
    }
    let bytes: Vec<u8> = kept.into_iter().flatten().collect();
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(max_bytes)..]).into_owned()
}

/// Sends the log's text to `out`; with follow, until `running` says that the container has ended.
pub(crate) async fn stream<F, R>(path: PathBuf, options: Options, out: mpsc::Sender<Bytes>, running: F)
where
    F: Fn() -> R + Send,
    R: Future<Output = bool> + Send,
{
    let mut limit = options.limit_bytes.unwrap_or(usize::MAX);
    let (first, start) = {
        let (path, options) = (path.clone(), options.clone());
        let read = tokio::task::spawn_blocking(move || existing(&path, &options));
        read.await.unwrap_or_default()
    };
    if !send(&out, first, &mut limit).await || !options.follow {
        return;
    }
    let mut position = start;
    let mut ended = false;
    loop {
        // Asked before reading: what is written before the end is read after it was seen.
        let last = ended || !running().await;
        let (chunk, next) = more(&path, &options, position);
        position = next;
        let quiet = chunk.is_empty();
        if !send(&out, chunk, &mut limit).await || (last && quiet) || out.is_closed() {
            return;
        }
        ended = last;
        if quiet {
            tokio::time::sleep(FOLLOW_PERIOD).await;
        }
    }
}

/// A place in a log: which file, and where in it.
type Position = Option<(u64, u64)>;

fn existing(path: &Path, options: &Options) -> (Vec<u8>, Position) {
    let mut files = rotated(path);
    files.push(path.to_owned());
    let mut kept = std::collections::VecDeque::new();
    let mut position = None;
    for file in &files {
        let mut offset = 0;
        for line in lines(file) {
            if !line.ends_with(b"\n") {
                break;
            }
            offset += line.len() as u64;
            let Some(text) = render(&line, options) else { continue };
            kept.push_back(text);
            if options.tail.is_some_and(|tail| kept.len() > tail) {
                kept.pop_front();
            }
        }
        if file == path {
            position = std::fs::metadata(path).ok().map(|metadata| (metadata.ino(), offset));
        }
    }
    (kept.into_iter().flatten().collect(), position)
}

fn more(path: &Path, options: &Options, position: Position) -> (Vec<u8>, Position) {
    let mut out = Vec::new();
    let Ok(file) = File::open(path) else { return (out, position) };
    let inode = file.metadata().map(|metadata| metadata.ino()).unwrap_or_default();
    let mut offset = 0;
    if let Some((known, at)) = position {
        if known == inode {
            offset = at;
        } else if let Some(old) = rotated(path)
            .into_iter()
            .rev()
            .find(|old| std::fs::metadata(old).is_ok_and(|metadata| metadata.ino() == known))
            && let Ok(old) = File::open(old)
        {
            read_from(old, at, options, &mut out);
        }
    }
    let offset = read_from(file, offset, options, &mut out);
    (out, Some((inode, offset)))
}

/// Reads whole lines from `offset` on and returns where they end.
fn read_from(mut file: File, mut offset: u64, options: &Options, out: &mut Vec<u8>) -> u64 {
    if file.seek(SeekFrom::Start(offset)).is_err() {
        return offset;
    }
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) && line.ends_with(b"\n") {
        offset += line.len() as u64;
        out.extend(render(&line, options).unwrap_or_default());
        line.clear();
    }
    offset
}

async fn send(out: &mpsc::Sender<Bytes>, text: Vec<u8>, limit: &mut usize) -> bool {
    let mut text = Bytes::from(text);
    text.truncate(*limit);
    *limit -= text.len();
    while !text.is_empty() {
        let chunk = text.split_to(text.len().min(CHUNK_BYTES));
        if out.send(chunk).await.is_err() {
            return false;
        }
    }
    *limit > 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    fn line(second: u32, text: &str) -> String {
        format!("2026-01-01T00:00:{second:02}.000000000Z stdout F {text}\n")
    }

    async fn read(path: &Path, options: Options) -> String {
        let (sender, mut receiver) = mpsc::channel(16);
        stream(path.to_owned(), options, sender, || async { false }).await;
        let mut text = Vec::new();
        while let Ok(chunk) = receiver.try_recv() {
            text.extend(chunk);
        }
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn logs_are_cut_as_the_user_asks() {
        let directory = std::env::temp_dir().join(format!("ironkeel-logs-{}", rand::random::<u64>()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("0.log");
        std::fs::write(directory.join("0.log.20260101-000000"), line(1, "old")).unwrap();
        std::fs::write(&path, format!("{}{}", line(2, "a"), line(3, "b"))).unwrap();
        assert_eq!(read(&path, Options::default()).await, "old\na\nb\n");
        assert_eq!(read(&path, Options { tail: Some(1), ..Options::default() }).await, "b\n");
        assert_eq!(read(&path, Options { tail: Some(0), ..Options::default() }).await, "");
        let since = Some("2026-01-01T00:00:02Z".parse().unwrap());
        assert_eq!(read(&path, Options { since, ..Options::default() }).await, "a\nb\n");
        assert_eq!(read(&path, Options { limit_bytes: Some(5), ..Options::default() }).await, "old\na");
        let stamped = Options { timestamps: true, tail: Some(1), ..Options::default() };
        assert_eq!(read(&path, stamped).await, "2026-01-01T00:00:03.000000000Z b\n");
        assert_eq!(tail_text(&path, 1, 100), "b\n");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[tokio::test]
    async fn following_goes_over_a_rotation_to_the_containers_end() {
        let directory = std::env::temp_dir().join(format!("ironkeel-follow-{}", rand::random::<u64>()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("0.log");
        std::fs::write(&path, line(1, "a")).unwrap();
        let running = Arc::new(AtomicBool::new(true));
        let (sender, mut receiver) = mpsc::channel(16);
        let flag = running.clone();
        let options = Options { follow: true, ..Options::default() };
        let task = tokio::spawn(stream(path.clone(), options, sender, move || {
            let flag = flag.clone();
            async move { flag.load(Ordering::Relaxed) }
        }));
        assert_eq!(receiver.recv().await.unwrap(), "a\n");
        std::fs::rename(&path, directory.join("0.log.20260101-000000")).unwrap();
        std::fs::write(&path, line(2, "b")).unwrap();
        assert_eq!(receiver.recv().await.unwrap(), "b\n");
        running.store(false, Ordering::Relaxed);
        assert!(receiver.recv().await.is_none());
        task.await.unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
