//! Files by address and git repositories, brought here as contexts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wharf_error::Kind;
use wharf_solver::digest_of;

use crate::BuildError;
use crate::job::{Files, Job, Value};
use crate::local::in_place;
use crate::progress::Step;

/// The largest file that is fetched.
const LIMIT: u64 = 16 << 30;

/// Redirections that are followed.
const HOPS: usize = 10;

/// Fetches a file.
///
/// # Errors
/// It is not there, or not what the checksum says.
pub async fn http(
    job: &Arc<Job>,
    address: &str,
    attrs: &BTreeMap<String, String>,
    step: &Step,
) -> Result<Value, BuildError> {
    let mut address = address.to_owned();
    let mut hops = 0;
    let (head, mut stream, early) = loop {
        let (head, stream, early) = request(&address).await?;
        match head.redirect() {
            Some(next) if hops < HOPS => {
                hops += 1;
                address = if next.starts_with('/') { format!("{}{next}", origin(&address)) } else { next };
            }
            _ => break (head, stream, early),
        }
    };
    if head.status != 200 {
        return Err(BuildError::invalid(format!("invalid response status {}", head.status)));
    }
    let mut body = Body { early, at: 0, left: head.length, chunked: head.chunked, chunk: 0, ended: false };
    let mut bytes = Vec::new();
    while let Some(part) = body.next(&mut stream).await? {
        bytes.extend_from_slice(&part);
        if bytes.len() as u64 > LIMIT {
            return Err(BuildError::invalid(format!("{address} is too large")));
        }
        step.status("downloading", bytes.len() as i64, head.length.unwrap_or(0) as i64, false);
    }
    let digest = digest_of(&bytes);
    if let Some(wanted) = attrs.get("http.checksum").filter(|w| **w != digest) {
        return Err(BuildError::invalid(format!("digest mismatch {digest}: {wanted}")));
    }
    let name = attrs.get("http.filename").cloned().unwrap_or_else(|| {
        let path = address.split(['?', '#']).next().unwrap_or_default();
        let last = path.rsplit('/').next().unwrap_or_default();
        if last.is_empty() || path.matches('/').count() < 3 { "download".to_owned() } else { last.to_owned() }
    });
    if name.contains('/') || name == ".." || name == "." {
        return Err(BuildError::invalid(format!("invalid file name {name:?}")));
    }
    let number = |key: &str, base| attrs.get(key).and_then(|t| u32::from_str_radix(t, base).ok());
    let mode = number("http.perm", 8).unwrap_or(0o600);
    let owner = (number("http.uid", 10).unwrap_or(0), number("http.gid", 10).unwrap_or(0));
    let mut header = wharf_archive::Entry::plain(
        &name,
        wharf_archive::EntryKind::File,
        mode,
        bytes.len() as u64,
        wharf_archive::Time { seconds: head.modified, nanoseconds: 0 },
    );
    (header.uid, header.gid) = owner;
    let context = in_place(|| -> Result<_, BuildError> {
        let mut archive = Vec::new();
        let mut writer = wharf_archive::Writer::new(&mut archive);
        let failed = |e: wharf_archive::ArchiveError| BuildError::system("pack a download", &e);
        writer.entry(&header, &mut bytes.as_slice()).map_err(failed)?;
        writer.finish().map_err(failed)?;
        job.builder.pool.extract(&mut archive.as_slice())
    })?;
    Ok(Value { key: format!("http:{digest}:{name}:{mode:o}"), files: Files::Context(Arc::new(context)) })
}

struct Head {
    status: u16,
    length: Option<u64>,
    chunked: bool,
    location: Option<String>,
    modified: i64,
}

impl Head {
    fn redirect(&self) -> Option<String> {
        matches!(self.status, 301 | 302 | 303 | 307 | 308).then(|| self.location.clone()).flatten()
    }
}

fn origin(address: &str) -> &str {
    let start = address.find("://").map_or(0, |at| at + 3);
    let end = address[start..].find('/').map_or(address.len(), |at| start + at);
    &address[..end]
}

/// Asks by HTTP/1.1, one connection for one answer.
async fn request(address: &str) -> Result<(Head, tokio::net::TcpStream, Vec<u8>), BuildError> {
    let Some(rest) = address.strip_prefix("http://") else {
        return Err(BuildError::new(
            Kind::NotImplemented,
            format!("{address}: only http addresses can be fetched so far"),
        ));
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.rsplit('@').next().unwrap_or(host);
    let place =
        if host.rsplit(']').next().unwrap_or(host).contains(':') { host.to_owned() } else { format!("{host}:80") };
    let failed = |e: std::io::Error| BuildError::new(Kind::Unavailable, format!("failed to load {address}: {e}"));
    let mut stream = tokio::net::TcpStream::connect(&place).await.map_err(failed)?;
    let path = path.split('#').next().unwrap_or_default();
    if path.bytes().any(|b| b <= b' ' || b == 0x7f) || host.bytes().any(|b| b <= b' ') {
        return Err(BuildError::invalid(format!("invalid address {address:?}")));
    }
    let ask = format!(
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: wharf-build\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(ask.as_bytes()).await.map_err(failed)?;
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let early = bytes.split_off(end + 4);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            return Ok((parse_head(&text)?, stream, early));
        }
        let mut part = [0; 8192];
        let n = stream.read(&mut part).await.map_err(failed)?;
        if n == 0 || bytes.len() > 64 << 10 {
            return Err(BuildError::invalid(format!("{address} answers no HTTP")));
        }
        bytes.extend_from_slice(&part[..n]);
    }
}

fn parse_head(text: &str) -> Result<Head, BuildError> {
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|l| l.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or_else(|| BuildError::invalid("the answer is no HTTP"))?;
    let mut head = Head { status, length: None, chunked: false, location: None, modified: 0 };
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => head.length = value.parse().ok(),
            "transfer-encoding" => head.chunked = value.eq_ignore_ascii_case("chunked"),
            "location" => head.location = Some(value.to_owned()),
            "last-modified" => head.modified = http_date(value).unwrap_or(0),
            _ => {}
        }
    }
    Ok(head)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` in seconds since 1970.
fn http_date(text: &str) -> Option<i64> {
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [_, day, month, year, clock, _] = parts.as_slice() else { return None };
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = MONTHS.iter().position(|m| m == month)? + 1;
    let iso = format!("{year}-{month:02}-{day}T{clock}Z");
    wharf_types::Timestamp::parse(&iso).ok().map(wharf_types::Timestamp::seconds)
}

/// A body as it comes.
struct Body {
    early: Vec<u8>,
    at: usize,
    left: Option<u64>,
    chunked: bool,
    chunk: u64,
    ended: bool,
}

impl Body {
    async fn some(&mut self, stream: &mut tokio::net::TcpStream, most: u64) -> Result<Vec<u8>, BuildError> {
        let most = usize::try_from(most).unwrap_or(64 << 10).min(64 << 10);
        if self.at < self.early.len() {
            let end = self.early.len().min(self.at + most);
            let part = self.early[self.at..end].to_vec();
            self.at = end;
            return Ok(part);
        }
        let mut part = vec![0; most];
        let n = stream.read(&mut part).await?;
        part.truncate(n);
        Ok(part)
    }

    async fn line(&mut self, stream: &mut tokio::net::TcpStream) -> Result<String, BuildError> {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") && line.len() < 1024 {
            let byte = self.some(stream, 1).await?;
            if byte.is_empty() {
                break;
            }
            line.extend(byte);
        }
        Ok(String::from_utf8_lossy(&line).trim().to_owned())
    }

    async fn next(&mut self, stream: &mut tokio::net::TcpStream) -> Result<Option<Vec<u8>>, BuildError> {
        let short = || BuildError::new(Kind::Unavailable, "the download ended early");
        if self.ended {
            return Ok(None);
        }
        if self.chunked {
            if self.chunk == 0 {
                let line = self.line(stream).await?;
                let line = if line.is_empty() { self.line(stream).await? } else { line };
                let size = line.split(';').next().unwrap_or_default();
                self.chunk = u64::from_str_radix(size.trim(), 16).map_err(|_| short())?;
                if self.chunk == 0 {
                    self.ended = true;
                    return Ok(None);
                }
            }
            let part = self.some(stream, self.chunk).await?;
            if part.is_empty() {
                return Err(short());
            }
            self.chunk -= part.len() as u64;
            return Ok(Some(part));
        }
        match self.left {
            Some(0) => Ok(None),
            left => {
                let part = self.some(stream, left.unwrap_or(u64::MAX)).await?;
                match left {
                    Some(_) if part.is_empty() => return Err(short()),
                    Some(left) => self.left = Some(left - part.len() as u64),
                    None if part.is_empty() => return Ok(None),
                    None => {}
                }
                Ok(Some(part))
            }
        }
    }
}

/// Fetches a git repository: `host/path.git#reference:subfolder`.
///
/// The host's git does the work with nothing of the host's configuration, and only over protocols that reach another
/// machine: a local repository could be any folder of this host (CVE-2022-39253), and a reference or address that looks
/// like an option is refused (CVE-2019-13139).
///
/// # Errors
/// git is not installed, or cannot fetch it.
pub async fn git(
    job: &Arc<Job>,
    rest: &str,
    attrs: &BTreeMap<String, String>,
    step: &Step,
) -> Result<Value, BuildError> {
    let full = attrs.get("git.fullurl").cloned().unwrap_or_else(|| format!("https://{rest}"));
    let (address, fragment) = match rest.split_once('#') {
        Some((_, fragment)) => (full.split('#').next().unwrap_or_default().to_owned(), fragment.to_owned()),
        None => (full.split('#').next().unwrap_or_default().to_owned(), String::new()),
    };
    let (reference, subfolder) = fragment.split_once(':').unwrap_or((fragment.as_str(), ""));
    let reference = if reference.is_empty() { "HEAD" } else { reference };
    check_git(&address, reference, subfolder)?;
    let keep = attrs.get("git.keepgitdir").is_some_and(|v| v == "true");
    let folder = job
        .builder
        .parts
        .folder
        .join("git")
        .join(&digest_of(format!("{address}\0{reference}\0{}", rand()).as_bytes())[7..39]);
    std::fs::create_dir_all(&folder)?;
    let done = checkout(&folder, &address, reference, step).await;
    let result = match done {
        Err(e) => Err(e),
        Ok(commit) => in_place(|| {
            if !keep {
                std::fs::remove_dir_all(folder.join(".git"))?;
            }
            let root = crate::tree::Tree::at(&folder)?;
            let inner = root
                .folder(Path::new(subfolder))
                .map_err(|_| BuildError::invalid(format!("failed to read subfolder {subfolder:?} of {address}")))?;
            let (reader, mut writer) = std::io::pipe()?;
            use std::os::fd::AsFd;
            std::thread::scope(|scope| {
                let packing = scope.spawn(move || wharf_archive::pack(inner.as_fd(), &mut writer));
                let context = job.builder.pool.extract(&mut std::io::BufReader::new(reader))?;
                packing.join().map_err(|_| BuildError::cancelled())?.map_err(|e| BuildError::system("pack", &e))?;
                Ok(Value { key: format!("git:{commit}:{subfolder}:{keep}"), files: Files::Context(Arc::new(context)) })
            })
        }),
    };
    if let Err(error) = std::fs::remove_dir_all(&folder) {
        tracing::warn!(%error, "cannot remove a git checkout");
    }
    result
}

fn rand() -> u64 {
    let mut bytes = [0u8; 8];
    // getrandom(2) does not fail once the pool is ready.
    let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    u64::from_le_bytes(bytes)
}

fn check_git(address: &str, reference: &str, subfolder: &str) -> Result<(), BuildError> {
    let far = ["https://", "http://", "git://", "ssh://"].iter().any(|scheme| address.starts_with(scheme));
    let host = address.split("://").nth(1).unwrap_or_default();
    if !far || host.starts_with('-') || address.bytes().any(|b| b <= b' ') {
        return Err(BuildError::invalid(format!("invalid git address {address:?}")));
    }
    if reference.starts_with('-') || reference.bytes().any(|b| b <= b' ') {
        return Err(BuildError::invalid(format!("invalid git reference {reference:?}")));
    }
    if subfolder.split('/').any(|p| p == "..") {
        return Err(BuildError::invalid(format!("invalid subfolder {subfolder:?}")));
    }
    Ok(())
}

async fn checkout(folder: &PathBuf, address: &str, reference: &str, step: &Step) -> Result<String, BuildError> {
    run_git(folder, &["init", "--quiet", "."], step).await?;
    run_git(folder, &["fetch", "--quiet", "--depth=1", "--no-tags", "--", address, reference], step).await?;
    let commit = run_git(folder, &["rev-parse", "--verify", "FETCH_HEAD^{commit}"], step).await?;
    run_git(folder, &["checkout", "--quiet", "--detach", "FETCH_HEAD"], step).await?;
    Ok(commit.trim().to_owned())
}

async fn run_git(folder: &PathBuf, args: &[&str], step: &Step) -> Result<String, BuildError> {
    let child = std::process::Command::new("git")
        .args(["-c", "protocol.allow=never", "-c", "protocol.https.allow=always", "-c", "protocol.http.allow=always"])
        .args(["-c", "protocol.git.allow=always", "-c", "protocol.ssh.allow=always", "-c", "core.hooksPath=/dev/null"])
        .args(["-c", "core.fsmonitor=false", "-c", "init.defaultBranch=main"])
        .args(args)
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .envs([
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("HOME", "/dev/null"),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child =
        child.map_err(|e| BuildError::new(Kind::NotImplemented, format!("git is needed for this source: {e}")))?;
    let output = tokio::task::spawn_blocking(move || child.wait_with_output());
    let output = output.await.map_err(|_| BuildError::cancelled())??;
    step.log(2, &output.stderr);
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(BuildError::invalid(format!("failed to fetch remote: git {} failed: {text}", args[0])));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cve_2019_13139_references_that_are_options_are_refused() {
        assert!(check_git("https://h/r.git", "--upload-pack=sh", "").is_err());
        assert!(check_git("https://-oProxyCommand=x/r", "main", "").is_err());
        assert!(check_git("https://h/r.git", "main", "a/b").is_ok());
    }

    #[test]
    fn cve_2022_39253_local_repositories_and_paths_out_are_refused() {
        for address in ["file:///etc", "/etc", "ext::sh -c x", "--upload-pack=x"] {
            assert!(check_git(address, "main", "").is_err(), "{address}");
        }
        assert!(check_git("https://h/r.git", "main", "../x").is_err());
    }

    #[test]
    fn dates_of_http_are_read() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("never"), None);
    }
}
