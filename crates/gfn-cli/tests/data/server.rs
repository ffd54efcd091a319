//! A small HTTP/1.1 server on the loopback, with the faults that downloads meet.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What the server does.
#[derive(Clone, Default)]
pub struct Behaviour {
    /// The file.
    pub body: Vec<u8>,
    /// Sent with every answer, if any.
    pub etag: &'static str,
    /// Whether ranges are honoured; otherwise the whole file is sent.
    pub ranges: bool,
    /// The range that a partial answer claims to start at, if it is not the one asked for.
    pub wrong_start: Option<usize>,
    /// Closes the connection after so many bytes of the body.
    pub cut: Option<usize>,
    /// Goes silent after so many bytes of the body.
    pub silent: Option<usize>,
    /// Waits so long before each kilobyte.
    pub pause: Duration,
    /// Answers with this status and nothing else.
    pub status: Option<&'static str>,
    /// Leaves the end of the connection to tell the end of the body.
    pub no_length: bool,
}

/// What the client asked, and what it got.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    pub path: String,
    pub range: String,
    pub if_range: String,
    /// Bytes of the body that were sent.
    pub sent: usize,
}

/// The running server; it stops when it is dropped.
pub struct Server {
    address: String,
    behaviour: Arc<Mutex<Behaviour>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let behaviour = Arc::new(Mutex::new(behaviour));
        let (seen, stopped) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<AtomicBool>::default());
        let shared = (behaviour.clone(), seen.clone(), stopped.clone());
        let thread = std::thread::spawn(move || {
            let (behaviour, seen, stopped) = shared;
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let behaviour = behaviour.lock().unwrap().clone();
                // A client that goes away ends its connection, not the server.
                let _ = answer(stream.unwrap(), &behaviour, &seen);
            }
        });
        Self { address, behaviour, seen, stopped, thread: Some(thread) }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    pub fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().unwrap());
    }

    /// The requests since the last call.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
        let _ = self.thread.take().unwrap().join();
    }
}

fn request(stream: &TcpStream) -> std::io::Result<Seen> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut seen = Seen { path, ..Seen::default() };
    for line in lines {
        let line = line?;
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("range") => seen.range = value.into(),
            Some((name, value)) if name.eq_ignore_ascii_case("if-range") => {
                seen.if_range = value.into();
            }
            None => break,
            _ => {}
        }
    }
    Ok(seen)
}

fn answer(
    mut stream: TcpStream,
    behaviour: &Behaviour,
    log: &Mutex<Vec<Seen>>,
) -> std::io::Result<()> {
    let mut seen = request(&stream)?;
    let Behaviour { body, etag, .. } = behaviour;
    let whole = body.len();
    let start = seen.range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
    let start: Option<usize> = start.and_then(|start| start.parse().ok());
    let same = seen.if_range.is_empty() || seen.if_range == *etag;
    let start = start.filter(|_| behaviour.ranges && same);
    let mut head = match (behaviour.status, seen.path.strip_prefix("/moved/"), start) {
        (Some(status), ..) => format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n"),
        (_, Some(path), _) => {
            format!("HTTP/1.1 302 Found\r\nLocation: /{path}\r\nContent-Length: 0\r\n")
        }
        (.., Some(start)) if start >= whole => {
            "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n".to_owned()
                + &format!("Content-Range: bytes */{whole}\r\n")
        }
        (.., Some(start)) => {
            let claimed = behaviour.wrong_start.unwrap_or(start);
            format!("HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\n", whole - start)
                + &format!("Content-Range: bytes {claimed}-{}/{whole}\r\n", whole - 1)
        }
        _ if behaviour.no_length => "HTTP/1.1 200 OK\r\n".to_owned(),
        _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {whole}\r\n"),
    };
    let empty = head.contains("Content-Length: 0\r");
    if !etag.is_empty() {
        head += &format!("ETag: {etag}\r\n");
    }
    head += "Connection: close\r\n\r\n";
    let body = if empty { &[][..] } else { &body[start.unwrap_or(0)..] };
    let end = behaviour.cut.or(behaviour.silent).unwrap_or(body.len()).min(body.len());
    seen.sent = end;
    log.lock().unwrap().push(seen);
    stream.write_all(head.as_bytes())?;
    for piece in body[..end].chunks(1024) {
        std::thread::sleep(behaviour.pause);
        stream.write_all(piece)?;
    }
    if behaviour.silent.is_some() {
        // Until the client gives up.
        let _ = stream.read(&mut [0]);
    }
    Ok(())
}
