//! Data files: fetched from a server with every fault, imported, checked, installed in one step.

mod reference;
mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use data::{Convert, DataError, DataErrorKind, DataFile, FetchOptions, Outcome};
use gfn_cli::data;
use server::{Behaviour, Seen, Server};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An entry of that content. What tests leak is gone with the process.
fn entry(content: &[u8], sources: &[String]) -> DataFile {
    let sources: Vec<&str> = sources.iter().map(|url| &*url.clone().leak()).collect();
    DataFile {
        name: "toy",
        file: "toy.txt",
        title: "a toy",
        licence: "none",
        citation: "nobody",
        bytes: None,
        sha256: Some(hash(content).leak()),
        sources: sources.leak(),
        source_bytes: None,
        convert: Convert::AsIs,
        note: "make it yourself",
    }
}

/// 10,000 bytes without a period.
fn content() -> Vec<u8> {
    (0..10_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn serving() -> Behaviour {
    Behaviour { body: content(), etag: "\"v1\"", ranges: true, ..Behaviour::default() }
}

fn fetch(entry: &DataFile, dir: &Path) -> Result<Outcome, DataError> {
    let mut ignore = |_, _| {};
    let stall = Duration::from_secs(1);
    data::fetch(entry, dir, FetchOptions { stall, ..FetchOptions::new(&mut ignore) })
}

/// Everything in the folder, by name.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A server with a toy, its entry and an empty data directory.
fn setting(behaviour: Behaviour) -> (Server, DataFile, TempDir) {
    let server = Server::start(behaviour);
    let entry = entry(&content(), &[server.url("toy")]);
    (server, entry, TempDir::new().unwrap())
}

fn assert_installed(entry: &DataFile, dir: &Path) {
    assert_eq!(names(dir), ["toy.txt"]);
    assert!(std::fs::read(dir.join("toy.txt")).unwrap() == content());
    assert_eq!(data::installed(entry, dir), Ok(dir.join("toy.txt")));
}

#[test]
fn a_whole_file_is_fetched_once() {
    let (server, entry, dir) = setting(serving());
    let missing = data::installed(&entry, dir.path()).unwrap_err();
    assert_eq!(missing.kind, DataErrorKind::Missing);
    assert!(missing.help.unwrap().contains("gfn data fetch toy"));
    // The folder is made where it is missing.
    let deep = dir.path().join("a/b");
    let mut calls = Vec::new();
    let mut progress = |done, total| calls.push((done, total));
    let outcome = data::fetch(&entry, &deep, FetchOptions::new(&mut progress)).unwrap();
    assert_eq!(outcome, Outcome::Installed(deep.join("toy.txt")));
    assert_eq!(outcome.path(), deep.join("toy.txt"));
    assert_eq!(calls[0], (0, Some(10_000)));
    assert_eq!(calls.last(), Some(&(10_000, Some(10_000))));
    assert_installed(&entry, &deep);
    assert_eq!(server.seen(), [Seen { path: "/toy".into(), sent: 10_000, ..Seen::default() }]);
    assert_eq!(fetch(&entry, &deep), Ok(Outcome::Present(deep.join("toy.txt"))));
    assert_eq!(server.seen(), []);
}

#[test]
fn an_interrupted_download_goes_on() {
    let (server, entry, dir) = setting(Behaviour { cut: Some(4_000), ..serving() });
    let error = fetch(&entry, dir.path()).unwrap_err();
    assert_eq!(error.kind, DataErrorKind::Network);
    assert!(error.message.contains("after 4000 bytes"), "{error}");
    assert_eq!(error.help.as_deref(), Some("run the same command to resume"));
    assert_eq!(names(dir.path()), ["toy.txt.part", "toy.txt.part.etag"]);
    server.set(|behaviour| behaviour.cut = Some(1_000));
    let error = fetch(&entry, dir.path()).unwrap_err();
    assert!(error.message.contains("after 5000 bytes"), "{error}");
    server.set(|behaviour| behaviour.cut = None);
    server.seen();
    fetch(&entry, dir.path()).unwrap();
    assert_installed(&entry, dir.path());
    let [Seen { range, if_range, sent, .. }] = &server.seen()[..] else { panic!() };
    assert_eq!((&**range, &**if_range, *sent), ("bytes=5000-", "\"v1\"", 5_000));
}

#[test]
fn a_server_without_ranges_starts_anew() {
    let (server, entry, dir) = setting(Behaviour { cut: Some(4_000), ..serving() });
    fetch(&entry, dir.path()).unwrap_err();
    server.set(|behaviour| (behaviour.cut, behaviour.ranges) = (None, false));
    fetch(&entry, dir.path()).unwrap();
    assert_installed(&entry, dir.path());
    assert_eq!(server.seen().iter().map(|seen| seen.sent).collect::<Vec<_>>(), [4_000, 10_000]);
}

#[test]
fn another_version_starts_anew() {
    // With a strong mark the server decides; a weak one cannot be asked for and is compared;
    // without one, or with a range that was not asked for, the start of the range tells.
    for (before, after, wrong_start, requests) in
        [("\"v1\"", "\"v2\"", None, 1), ("W/\"v1\"", "W/\"v2\"", None, 2), ("", "", Some(0), 2)]
    {
        let older = content().iter().map(|byte| byte ^ 1).collect();
        let (server, entry, dir) =
            setting(Behaviour { body: older, etag: before, cut: Some(4_000), ..serving() });
        fetch(&entry, dir.path()).unwrap_err();
        server.seen();
        server.set(|now| *now = Behaviour { etag: after, wrong_start, ..serving() });
        fetch(&entry, dir.path()).unwrap();
        assert_installed(&entry, dir.path());
        let seen = server.seen();
        assert_eq!(seen.len(), requests, "{before} {after}");
        assert_eq!(seen[0].range, "bytes=4000-");
        assert_eq!(seen.last().unwrap().sent, 10_000);
    }
}

#[test]
fn a_part_of_another_address_is_not_continued() {
    let (server, entry, dir) = setting(Behaviour { cut: Some(4_000), ..serving() });
    fetch(&entry, dir.path()).unwrap_err();
    server.set(|behaviour| behaviour.cut = None);
    server.seen();
    let mut ignore = |_, _| {};
    let other = server.url("other");
    let options = FetchOptions { url_override: Some(&other), ..FetchOptions::new(&mut ignore) };
    data::fetch(&entry, dir.path(), options).unwrap();
    assert_installed(&entry, dir.path());
    assert_eq!(server.seen()[0].range, "");
}

#[test]
fn a_part_that_is_complete_or_too_long() {
    let (server, entry, dir) = setting(serving());
    let part = |content: &[u8]| {
        std::fs::write(dir.path().join("toy.txt.part"), content).unwrap();
        let origin = format!("{}\n\"v1\"\n", server.url("toy"));
        std::fs::write(dir.path().join("toy.txt.part.etag"), origin).unwrap();
    };
    part(&content());
    fetch(&entry, dir.path()).unwrap();
    assert_installed(&entry, dir.path());
    let sent = |server: &Server| server.seen().iter().map(|seen| seen.sent).collect::<Vec<_>>();
    assert_eq!(sent(&server), [0]);
    std::fs::remove_file(dir.path().join("toy.txt")).unwrap();
    part(&[content(), content()].concat());
    fetch(&entry, dir.path()).unwrap();
    assert_installed(&entry, dir.path());
    assert_eq!(sent(&server), [0, 10_000]);
    // A server that refuses every range is asked only once more.
    std::fs::remove_file(dir.path().join("toy.txt")).unwrap();
    part(b"x");
    server.set(|behaviour| behaviour.status = Some("416 Range Not Satisfiable"));
    let error = fetch(&entry, dir.path()).unwrap_err();
    assert!(error.message.contains("answers 416"), "{error}");
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn a_wrong_file_is_kept_aside_and_not_installed() {
    let (server, entry, dir) = setting(Behaviour { body: b"no toy".to_vec(), ..serving() });
    let error = fetch(&entry, dir.path()).unwrap_err();
    assert_eq!(error.kind, DataErrorKind::Damaged);
    for part in [hash(b"no toy"), hash(&content()), server.url("toy"), "rejected".to_owned()] {
        assert!(error.message.contains(&part), "{error}");
    }
    assert_eq!(names(dir.path()), ["toy.txt.rejected"]);
    assert_eq!(std::fs::read(dir.path().join("toy.txt.rejected")).unwrap(), b"no toy");
    server.seen();
    server.set(|behaviour| *behaviour = serving());
    fetch(&entry, dir.path()).unwrap();
    assert_eq!(server.seen()[0].range, "");
    assert_eq!(names(dir.path()), ["toy.txt", "toy.txt.rejected"]);
    // What is damaged on the disk is replaced.
    std::fs::write(dir.path().join("toy.txt"), b"broken").unwrap();
    let error = data::installed(&entry, dir.path()).unwrap_err();
    assert_eq!(error.kind, DataErrorKind::Damaged);
    assert!(error.message.contains(&hash(b"broken")), "{error}");
    assert!(matches!(fetch(&entry, dir.path()), Ok(Outcome::Installed(_))));
    assert!(std::fs::read(dir.path().join("toy.txt")).unwrap() == content());
}

#[test]
fn addresses_are_tried_in_order() {
    let absent = Server::start(Behaviour { status: Some("404 Not Found"), ..serving() });
    let wrong = Server::start(Behaviour { body: b"no toy".to_vec(), ..serving() });
    let right = Server::start(serving());
    let dir = TempDir::new().unwrap();
    // Nobody listens on a port that has just been given back.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut urls = vec![absent.url("1"), format!("http://{closed}/2"), wrong.url("3")];
    let error = fetch(&entry(&content(), &urls), dir.path()).unwrap_err();
    assert_eq!(error.kind, DataErrorKind::Damaged);
    for part in urls.iter().map(String::as_str).chain(["404 Not Found", "refused", "SHA-256"]) {
        assert!(error.message.contains(part), "{part}: {error}");
    }
    urls.push(right.url("moved/4"));
    fetch(&entry(&content(), &urls), dir.path()).unwrap();
    assert_eq!(names(dir.path()), ["toy.txt", "toy.txt.rejected"]);
    // The last one redirects.
    assert_eq!(right.seen().iter().map(|seen| &*seen.path).collect::<Vec<_>>(), ["/moved/4", "/4"]);
}

#[test]
fn a_missing_file_names_its_address_and_leaves_nothing() {
    let (server, entry, dir) = setting(Behaviour { status: Some("404 Not Found"), ..serving() });
    let error = fetch(&entry, dir.path()).unwrap_err();
    assert_eq!(error.kind, DataErrorKind::Network);
    assert!(error.message.contains(&format!("`{}` answers 404 Not Found", server.url("toy"))));
    assert!(error.help.unwrap().contains("gfn data import toy FILE"));
    assert_eq!(names(dir.path()), Vec::<String>::new());
    // An earlier part survives.
    server.set(|behaviour| (behaviour.status, behaviour.cut) = (None, Some(4_000)));
    fetch(&entry, dir.path()).unwrap_err();
    server.set(|behaviour| behaviour.status = Some("503 Service Unavailable"));
    fetch(&entry, dir.path()).unwrap_err();
    assert_eq!(std::fs::metadata(dir.path().join("toy.txt.part")).unwrap().len(), 4_000);
}

#[test]
fn a_silent_server_is_given_up_and_a_slow_one_is_not() {
    let (server, entry, dir) = setting(Behaviour { silent: Some(2_000), ..serving() });
    let error = fetch(&entry, dir.path()).unwrap_err();
    assert!(error.message.contains("after 2000 bytes: the server is silent"), "{error}");
    // Ten pieces, together longer than the silence that is allowed.
    let pause = Duration::from_millis(150);
    server.set(|behaviour| (behaviour.silent, behaviour.pause) = (None, pause));
    fetch(&entry, dir.path()).unwrap();
    assert_installed(&entry, dir.path());
}

#[test]
fn a_body_without_a_length_is_checked_by_its_hash() {
    let (server, entry, dir) =
        setting(Behaviour { no_length: true, cut: Some(4_000), ..serving() });
    let error = fetch(&entry, dir.path()).unwrap_err();
    assert_eq!(error.kind, DataErrorKind::Damaged);
    server.set(|behaviour| behaviour.cut = None);
    let mut totals = Vec::new();
    let mut progress = |_, total| totals.push(total);
    data::fetch(&entry, dir.path(), FetchOptions::new(&mut progress)).unwrap();
    assert!(totals.iter().all(Option::is_none));
}

#[test]
fn two_programs_do_not_write_into_one_part() {
    let (_server, entry, dir) = setting(serving());
    let part = std::fs::File::create(dir.path().join("toy.txt.part")).unwrap();
    part.lock().unwrap();
    let error = fetch(&entry, dir.path()).unwrap_err();
    assert!(error.message.contains("another program"), "{error}");
    drop(part);
    fetch(&entry, dir.path()).unwrap();
}

#[test]
fn a_file_without_address_or_hash() {
    let dir = TempDir::new().unwrap();
    let known = DataFile { sha256: None, ..entry(b"", &[]) };
    let error = fetch(&known, dir.path()).unwrap_err();
    assert_eq!((error.kind, error.help.as_deref()), (DataErrorKind::Missing, Some(known.note)));
    let file = dir.path().join("given");
    std::fs::write(&file, b"anything").unwrap();
    let target = dir.path().join("toy.txt");
    let outcome = data::import(&known, &file, dir.path());
    assert_eq!(outcome, Ok(Outcome::Unchecked(target.clone(), hash(b"anything"))));
    assert_eq!(data::installed(&known, dir.path()), Ok(target));
}

#[test]
fn imports_are_checked() {
    let dir = TempDir::new().unwrap();
    let toy = entry(&content(), &["https://example.org/toy".to_owned()]);
    let file = |content: &[u8]| -> PathBuf {
        let file = dir.path().join("given");
        std::fs::write(&file, content).unwrap();
        file
    };
    let data_dir = dir.path().join("data");
    let error = data::import(&toy, &file(b"wrong"), &data_dir).unwrap_err();
    assert_eq!(error.kind, DataErrorKind::Damaged);
    assert!(error.message.contains(&hash(b"wrong")) && error.message.contains(&hash(&content())));
    assert!(error.message.contains("given"));
    assert!(!data_dir.exists());
    for absent in [dir.path().join("absent"), dir.path().to_owned()] {
        let error = data::import(&toy, &absent, &data_dir).unwrap_err();
        assert_eq!(error.kind, DataErrorKind::Missing);
        assert!(error.message.contains(absent.to_str().unwrap()), "{error}");
    }
    let outcome = data::import(&toy, &file(&content()), &data_dir);
    assert_eq!(outcome, Ok(Outcome::Installed(data_dir.join("toy.txt"))));
    assert_installed(&toy, &data_dir);
    // Once more, from its own place.
    data::import(&toy, &data_dir.join("toy.txt"), &data_dir).unwrap();
    assert_installed(&toy, &data_dir);
}

#[test]
fn sources_are_converted() {
    // A pickled list of one list of blocks is not what is asked for, and is kept.
    let pickle = b"\x80\x02]](K\x01K\x02K\x03K\x04K\x05K\x06ea.".to_vec();
    let server = Server::start(Behaviour { body: pickle.clone(), ..serving() });
    let sources = [server.url("modes.pkl")];
    let modes = DataFile { convert: Convert::BlockModes, ..entry(&content(), &sources) };
    let dir = TempDir::new().unwrap();
    let error = fetch(&modes, dir.path()).unwrap_err();
    assert_eq!(error.kind, DataErrorKind::Damaged);
    assert!(
        error.message.contains("gives a file that has 1 different strings; expected 159"),
        "{error}"
    );
    let file = dir.path().join("toy.txt.rejected");
    let error = data::import(&modes, &file, dir.path()).unwrap_err();
    assert!(error.message.contains("as the source, it has 1 different strings"), "{error}");
    assert!(error.message.contains(&hash(&pickle)), "{error}");
}

#[test]
fn a_data_directory_that_cannot_be_written() {
    let (server, entry, dir) = setting(serving());
    let file = dir.path().join("file");
    std::fs::write(&file, content()).unwrap();
    let fetched = fetch(&entry, &file).unwrap_err();
    let imported = data::import(&entry, &file, &file.join("below")).unwrap_err();
    for error in [fetched, imported] {
        assert_eq!(error.kind, DataErrorKind::Write);
        assert!(error.message.contains("data directory"), "{error}");
        assert!(error.help.unwrap().contains("GFN_DATA"));
    }
    assert_eq!(server.seen(), []);
    // A folder in the place of the file.
    std::fs::create_dir(dir.path().join("toy.txt")).unwrap();
    let error = data::import(&entry, &file, dir.path()).unwrap_err();
    assert_eq!(error.kind, DataErrorKind::Write);
    assert_eq!(names(dir.path()), ["file", "toy.txt"]);
}

/// A folder that even the administrator cannot write into.
#[cfg(target_os = "linux")]
#[test]
fn a_data_directory_without_permission() {
    let (_server, entry, _dir) = setting(serving());
    let error = fetch(&entry, Path::new("/proc/self")).unwrap_err();
    assert_eq!(error.kind, DataErrorKind::Write);
    assert!(error.message.contains("/proc/self"), "{error}");
}
