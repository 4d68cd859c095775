//! A hub on 127.0.0.1 for tests: it serves one repository, by the protocol, or wrongly in one chosen way.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::Digest;

/// What the server does wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    None,
    /// The weights' body ends early.
    ShortBody,
    /// The tree says that the weights have 1,000,000 bytes; the body has fewer.
    LyingSize,
    /// The weights' body is longer than the tree says and has no length.
    LongBody,
    /// The weights have the right size and other contents.
    WrongContents,
    /// The hash of config.json leads elsewhere.
    EvilEtag(&'static str),
    /// The commit leads elsewhere.
    EvilCommit(&'static str),
    /// The tree lists a file that leads elsewhere.
    EvilFile(&'static str),
    /// Every answer has this status.
    Status(u16),
    /// The body of the weights takes its time.
    Slow,
    /// No trees, as some mirrors.
    NoTree,
    /// The weights are served as Xet, which needs another server that does not exist.
    Xet,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
}

pub struct Server {
    pub url: String,
    state: Arc<State>,
}

struct State {
    repo: String,
    fault: Mutex<Fault>,
    requests: Mutex<Vec<Request>>,
    /// Commit and files of each revision.
    revisions: Mutex<BTreeMap<String, Revision>>,
}

#[derive(Clone)]
struct Revision {
    commit: String,
    files: BTreeMap<String, Vec<u8>>,
}

impl Server {
    /// Serves `files` as revision `main` of `repo`.
    pub fn start(repo: &str, files: &[(&str, &[u8])]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            repo: repo.to_string(),
            fault: Mutex::new(Fault::None),
            requests: Mutex::new(Vec::new()),
            revisions: Mutex::new(BTreeMap::new()),
        });
        let server = Server { url, state: state.clone() };
        server.add_revision("main", files);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = state.clone();
                // A client that goes away is no failure of the server.
                std::thread::spawn(move || state.answer(stream).ok());
            }
        });
        server
    }

    /// Adds or replaces a branch or tag; returns its commit.
    pub fn add_revision(&self, name: &str, files: &[(&str, &[u8])]) -> String {
        let files: BTreeMap<String, Vec<u8>> =
            files.iter().map(|(name, bytes)| (name.to_string(), bytes.to_vec())).collect();
        let commit = git_sha1(format!("{name}{files:?}").as_bytes());
        let revision = Revision { commit: commit.clone(), files };
        let mut revisions = self.state.revisions.lock().unwrap();
        revisions.insert(name.to_string(), revision.clone());
        revisions.insert(commit.clone(), revision);
        commit
    }

    pub fn set_fault(&self, fault: Fault) {
        *self.state.fault.lock().unwrap() = fault;
    }

    /// The requests since the last call.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.requests.lock().unwrap())
    }
}

pub fn git_sha1(bytes: &[u8]) -> String {
    let mut state = sha1::Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
    state.update(bytes);
    state.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hub keeps large files apart, by SHA-256.
fn is_large(path: &str) -> bool {
    path.ends_with(".safetensors") || path.ends_with(".bin")
}

impl State {
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut parts = line.split_whitespace();
        let (Some(method), Some(path)) = (parts.next(), parts.next()) else { return Ok(()) };
        let mut request =
            Request { method: method.to_string(), path: path.to_string(), authorization: None, range: None };
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = header.trim().split_once(": ") {
                match name.to_lowercase().as_str() {
                    "authorization" => request.authorization = Some(value.to_string()),
                    "range" => request.range = Some(value.to_string()),
                    _ => {}
                }
            }
        }
        self.requests.lock().unwrap().push(request.clone());
        let fault = self.fault.lock().unwrap().clone();
        let path = request.path.split('?').next().unwrap().replace("%2F", "/");
        if let Fault::Status(status) = fault {
            return send(&mut stream, &request, status, &[], b"{}");
        }
        let api = format!("/api/models/{}/", self.repo);
        let resolve = format!("/{}/resolve/", self.repo);
        if let Some(name) = path.strip_prefix(&format!("{api}revision/")) {
            self.info(&mut stream, &request, name, &fault)
        } else if let Some(name) = path.strip_prefix(&format!("{api}tree/")) {
            self.tree(&mut stream, &request, name, &fault)
        } else if let Some(rest) = path.strip_prefix(&resolve) {
            self.file(&mut stream, &request, rest, false, &fault)
        } else if let Some(rest) = path.strip_prefix("/cdn/") {
            self.file(&mut stream, &request, rest, true, &fault)
        } else {
            send(&mut stream, &request, 404, &[], br#"{"error": "Repository not found"}"#)
        }
    }

    fn info(&self, stream: &mut TcpStream, request: &Request, name: &str, fault: &Fault) -> std::io::Result<()> {
        let Some(revision) = self.revisions.lock().unwrap().get(name).cloned() else {
            return send(stream, request, 404, &["X-Error-Code: RevisionNotFound"], b"{}");
        };
        let commit = if let Fault::EvilCommit(evil) = fault { evil } else { revision.commit.as_str() };
        let siblings: Vec<_> = revision.files.keys().map(|name| serde_json::json!({"rfilename": name})).collect();
        let body = serde_json::json!({"_id": "1", "id": self.repo, "sha": commit, "siblings": siblings});
        send(stream, request, 200, &["Content-Type: application/json"], body.to_string().as_bytes())
    }

    fn tree(&self, stream: &mut TcpStream, request: &Request, name: &str, fault: &Fault) -> std::io::Result<()> {
        let revision = self.revisions.lock().unwrap().get(name).cloned();
        let Some(revision) = revision.filter(|_| *fault != Fault::NoTree) else {
            return send(stream, request, 404, &[], b"{}");
        };
        let mut entries = vec![serde_json::json!({"type": "directory", "oid": "0", "size": 0, "path": "1_Pooling"})];
        for (path, bytes) in &revision.files {
            let mut size = bytes.len();
            let mut oid = git_sha1(bytes);
            match fault {
                Fault::LyingSize if is_large(path) => size = 1_000_000,
                Fault::EvilEtag(evil) if path == "config.json" => oid = evil.to_string(),
                _ => {}
            }
            let mut entry = serde_json::json!({"type": "file", "oid": oid, "size": size, "path": path});
            if is_large(path) {
                entry["lfs"] = serde_json::json!({"oid": sha256(bytes), "sha256": sha256(bytes), "size": size, "pointerSize": 134});
            }
            entries.push(entry);
        }
        if let Fault::EvilFile(path) = fault {
            entries.push(serde_json::json!({"type": "file", "oid": git_sha1(b"x"), "size": 1, "path": path}));
        }
        let body = serde_json::Value::from(entries).to_string();
        send(stream, request, 200, &["Content-Type: application/json"], body.as_bytes())
    }

    fn file(
        &self,
        stream: &mut TcpStream,
        request: &Request,
        rest: &str,
        cdn: bool,
        fault: &Fault,
    ) -> std::io::Result<()> {
        let found = rest.split_once('/').and_then(|(name, path)| {
            let revisions = self.revisions.lock().unwrap();
            let revision = revisions.get(name)?;
            Some((revision.commit.clone(), path.to_string(), revision.files.get(path)?.clone()))
        });
        let Some((commit, path, mut bytes)) = found else {
            return send(stream, request, 404, &["X-Error-Code: EntryNotFound"], b"{}");
        };
        let large = is_large(&path);
        let etag = if large { sha256(&bytes) } else { git_sha1(&bytes) };
        let mut headers = vec![format!("ETag: \"{etag}\""), format!("X-Repo-Commit: {commit}")];
        if large && !cdn {
            headers.push(format!("X-Linked-Etag: \"{etag}\""));
            headers.push(format!("X-Linked-Size: {}", bytes.len()));
            if *fault == Fault::Xet {
                headers.push(format!("X-Xet-Hash: {etag}"));
            } else {
                headers.push(format!("Location: /cdn/{rest}"));
                let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
                return send(stream, request, 302, &headers, b"");
            }
        }
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        if !large {
            return send(stream, request, 200, &headers, &bytes);
        }
        if *fault == Fault::WrongContents {
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
        }
        let range = request.range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        let (status, body) = match range {
            Some((start, end)) => (206, &bytes[start.parse().unwrap()..=end.parse::<usize>().unwrap()]),
            None => (200, &bytes[..]),
        };
        match fault {
            Fault::ShortBody if request.method == "GET" => {
                head(stream, status, &headers, Some(body.len()))?;
                stream.write_all(&body[..body.len() / 2])
            }
            Fault::LongBody if request.method == "GET" => {
                head(stream, status, &headers, None)?;
                (0..100).try_for_each(|_| stream.write_all(body))
            }
            // Without a length, as a server that does not want to be caught early.
            Fault::LyingSize if request.method == "GET" => {
                head(stream, status, &headers, None)?;
                stream.write_all(body)
            }
            Fault::Slow if request.method == "GET" => {
                head(stream, status, &headers, Some(body.len()))?;
                for piece in body.chunks(body.len() / 10 + 1) {
                    std::thread::sleep(Duration::from_millis(30));
                    stream.write_all(piece)?;
                }
                Ok(())
            }
            _ => send(stream, request, status, &headers, body),
        }
    }
}

fn head(stream: &mut TcpStream, status: u16, headers: &[&str], length: Option<usize>) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {status} x\r\nConnection: close\r\n");
    for header in headers {
        text.push_str(&format!("{header}\r\n"));
    }
    if let Some(length) = length {
        text.push_str(&format!("Content-Length: {length}\r\n"));
    }
    write!(stream, "{text}\r\n")
}

fn send(stream: &mut TcpStream, request: &Request, status: u16, headers: &[&str], body: &[u8]) -> std::io::Result<()> {
    head(stream, status, headers, Some(body.len()))?;
    if request.method == "HEAD" { Ok(()) } else { stream.write_all(body) }
}
