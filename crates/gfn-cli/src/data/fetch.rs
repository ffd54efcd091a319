//! Downloads: resumed where they stopped, installed only when they are what they should be.

use std::io::{ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

use ureq::http::{Response, StatusCode, Uri, header};
use ureq::{Agent, Body};

use super::partial_file::{PartialFile, Resume};
use super::{
    DataError, DataErrorKind, DataFile, LARGEST, Outcome, create, differ, install, installed,
    sha256,
};

/// How to download.
pub struct FetchOptions<'a> {
    /// An address to use instead of the known ones.
    pub url_override: Option<&'a str>,
    /// Called with the bytes that are there, and with the size where it is known.
    pub progress: &'a mut dyn FnMut(u64, Option<u64>),
    /// A server that is silent for so long is given up.
    pub stall: Duration,
}

impl<'a> FetchOptions<'a> {
    /// The known addresses; a minute of silence is too much.
    pub fn new(progress: &'a mut dyn FnMut(u64, Option<u64>)) -> Self {
        Self { url_override: None, progress, stall: Duration::from_secs(60) }
    }
}

const CONNECT: Duration = Duration::from_secs(30);

/// Why one address did not lead to the file.
enum Trouble {
    /// Another address may do better.
    Refused(String),
    /// What came is not the file; another address may do better.
    Rejected(String),
    /// A part has come, and it is worth going on from there.
    Interrupted(String),
    /// No address would do better.
    Fatal(DataError),
}

impl From<DataError> for Trouble {
    fn from(error: DataError) -> Self {
        Self::Fatal(error)
    }
}

/// Gets a file from its source into the data directory, unless it is there.
///
/// # Errors
/// When no address leads to the expected file, or the data directory cannot be written. A
/// download that was interrupted goes on with the next call.
pub fn fetch(
    entry: &DataFile,
    dir: &Path,
    mut options: FetchOptions<'_>,
) -> Result<Outcome, DataError> {
    if let Ok(path) = installed(entry, dir) {
        return Ok(Outcome::Present(path));
    }
    let given = options.url_override;
    let urls = given.as_ref().map_or(entry.sources, std::slice::from_ref);
    if urls.is_empty() {
        let message = format!("there is no address to fetch `{}` from", entry.name);
        return Err(DataError::new(DataErrorKind::Missing, message).help(entry.note));
    }
    create(dir)?;
    let (mut failures, mut kind) = (Vec::new(), DataErrorKind::Network);
    let mut help = format!(
        "check the connection, or get the source elsewhere and run `gfn data import {} FILE`",
        entry.name
    );
    for url in urls {
        match attempt(entry, dir, url, &mut options) {
            Ok(outcome) => return Ok(outcome),
            Err(Trouble::Fatal(error)) => return Err(error),
            Err(Trouble::Refused(failure)) => failures.push(failure),
            Err(Trouble::Rejected(failure)) => {
                kind = DataErrorKind::Damaged;
                failures.push(failure);
            }
            Err(Trouble::Interrupted(failure)) => {
                kind = DataErrorKind::Network;
                help = "run the same command to resume".to_owned();
                failures.push(failure);
                break;
            }
        }
    }
    let message = format!("cannot fetch `{}`: {}", entry.name, failures.join("; "));
    Err(DataError::new(kind, message).help(help))
}

fn attempt(
    entry: &DataFile,
    dir: &Path,
    url: &str,
    options: &mut FetchOptions<'_>,
) -> Result<Outcome, Trouble> {
    let target = dir.join(entry.file);
    let mut part = PartialFile::open(&target)?;
    if let Err(trouble) = download(&mut part, url, options) {
        // A refusal leaves nothing behind, except the part of an earlier download.
        if part.len() == 0 {
            part.remove();
        }
        return Err(trouble);
    }
    match checked(entry, &part.read()?) {
        Ok(bytes) => {
            let outcome = install(entry, dir, &bytes)?;
            part.remove();
            Ok(outcome)
        }
        Err(reason) => {
            let kept = part.reject(&target)?;
            let kept = kept.display();
            Err(Trouble::Rejected(format!(
                "`{url}` gives a file that {reason}; it is kept as `{kept}`"
            )))
        }
    }
}

/// The file that a source gives, if it is the expected one.
fn checked(entry: &DataFile, source: &[u8]) -> Result<Vec<u8>, String> {
    let bytes = entry.convert.apply(source)?;
    let found = sha256(&bytes);
    match entry.sha256 {
        Some(expected) if expected != found => {
            Err(format!("is not the expected one: {}", differ(&found, expected)))
        }
        _ => Ok(bytes),
    }
}

/// Completes the part from that address.
fn download(
    part: &mut PartialFile,
    url: &str,
    options: &mut FetchOptions<'_>,
) -> Result<(), Trouble> {
    let agent = agent(url, options.stall);
    let mut resume = part.resume(url);
    loop {
        let response = ask(&agent, url, resume.as_ref())?;
        let status = response.status();
        match &resume {
            _ if status == StatusCode::OK => {
                part.restart(url, text(&response, header::ETAG))?;
                return receive(part, url, response, options);
            }
            Some(at) if status == StatusCode::PARTIAL_CONTENT && continues(&response, at) => {
                return receive(part, url, response, options);
            }
            // Everything had come, and only the end of the program was in the way.
            Some(at) if is_complete(&response, at) => return Ok(()),
            // The server has something else by now: once more, from the start.
            Some(_) if matches!(status.as_u16(), 206 | 416) => resume = None,
            _ => {
                let reason = status.canonical_reason().unwrap_or_default();
                let code = status.as_u16();
                return Err(Trouble::Refused(format!("`{url}` answers {code} {reason}")));
            }
        }
    }
}

fn agent(url: &str, stall: Duration) -> Agent {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .user_agent(concat!("gfn/", env!("CARGO_PKG_VERSION")))
        // Ranges count the bytes of the file, not of a compressed form.
        .accept_encoding("identity")
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(stall))
        .timeout_per_read(Some(stall))
        .timeout_per_write(Some(stall));
    // A proxy has its own loopback.
    let uri = url.parse::<Uri>().ok();
    if matches!(uri.as_ref().and_then(Uri::host), Some("localhost" | "127.0.0.1" | "[::1]")) {
        config = config.proxy(None);
    }
    config.build().new_agent()
}

fn ask(agent: &Agent, url: &str, resume: Option<&Resume>) -> Result<Response<Body>, Trouble> {
    let mut request = agent.get(url);
    if let Some(resume) = resume {
        request = request.header(header::RANGE, format!("bytes={}-", resume.start));
        // Weak marks cannot be asked for; the answer is compared with them instead.
        if resume.etag.starts_with('"') {
            request = request.header(header::IF_RANGE, &resume.etag);
        }
    }
    request.call().map_err(|error| Trouble::Refused(format!("`{url}`: {}", why(error))))
}

fn why(error: ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Timeout(_) => "the server is silent".to_owned(),
        error => error.to_string(),
    }
}

fn text(response: &Response<Body>, name: header::HeaderName) -> &str {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Whether a partial answer starts where the part ends, and is of the same version.
fn continues(response: &Response<Body>, at: &Resume) -> bool {
    let range = text(response, header::CONTENT_RANGE);
    range.starts_with(&format!("bytes {}-", at.start)) && is_same(response, at)
}

/// Whether a range is refused because nothing is left to ask for.
fn is_complete(response: &Response<Body>, at: &Resume) -> bool {
    let range = text(response, header::CONTENT_RANGE);
    response.status() == StatusCode::RANGE_NOT_SATISFIABLE
        && range == format!("bytes */{}", at.start)
        && is_same(response, at)
}

fn is_same(response: &Response<Body>, at: &Resume) -> bool {
    let etag = text(response, header::ETAG);
    etag.is_empty() || at.etag.is_empty() || etag == at.etag
}

/// Appends the body of an answer to the part.
fn receive(
    part: &mut PartialFile,
    url: &str,
    response: Response<Body>,
    options: &mut FetchOptions<'_>,
) -> Result<(), Trouble> {
    let too_large = || Trouble::Refused(format!("`{url}` gives more than {LARGEST} bytes"));
    let body = response.into_body();
    let total = body.content_length().map(|rest| part.len().saturating_add(rest));
    if total.is_some_and(|total| total > LARGEST) {
        return Err(too_large());
    }
    let mut reader = body.into_reader();
    let mut buffer = vec![0; 64 << 10];
    loop {
        (options.progress)(part.len(), total);
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) if part.len() + n as u64 > LARGEST => {
                part.restart(url, "")?;
                return Err(too_large());
            }
            Ok(n) => part.append(&buffer[..n])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                let (bytes, why) = (part.len(), why(error.into()));
                let message = format!("`{url}` broke off after {bytes} bytes: {why}");
                return Err(Trouble::Interrupted(message));
            }
        }
    }
}
