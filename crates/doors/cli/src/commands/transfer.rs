//! Images in and out: `import`, `load`, `save`, `pull`.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use wharf_api_client::{Query, Request, Streamed};

use super::progress;
use crate::exit::{Exit, go_text, path_error};
use crate::parse::Matches;
use crate::platform;
use crate::reference::{self, Reference};
use crate::shell::Shell;
use crate::{stream, terminal};

/// Writes a reference with its tag, `latest` by default; what is none stays as it is.
pub fn tagged(image: &str) -> String {
    reference::parse(image).map_or_else(|_| image.to_owned(), |r| r.tagged())
}

/// Reads `--platform` into the JSON that image calls take.
///
/// # Errors
/// The parser's text.
pub fn platform_json(text: &str) -> Result<String, Exit> {
    let full = platform::parse(text).map_err(|e| Exit::new(format!("invalid platform: {e}")))?;
    let mut parts = full.split('/');
    let (os, architecture, variant) = (parts.next(), parts.next(), parts.next());
    let mut object = serde_json::json!({ "architecture": architecture, "os": os });
    if let Some(v) = variant {
        object["variant"] = v.into();
    }
    Ok(object.to_string())
}

/// Asks the daemon to fetch an image; progress goes to standard error where `errors`.
///
/// # Errors
/// The daemon's error, and a reference that is none.
pub fn pull_image(shell: &Shell, image: &str, platform: &str, quiet: bool, errors: bool) -> Result<(), Exit> {
    let r = reference::parse(image).map_err(Exit::new)?;
    let tag = r.digest.clone().or_else(|| r.tag.clone()).unwrap_or_else(|| "latest".into());
    pull(shell, &r.full_name(), &tag, platform, quiet, errors)
}

fn pull(shell: &Shell, name: &str, tag: &str, platform: &str, quiet: bool, errors: bool) -> Result<(), Exit> {
    let query =
        Query::new().with("fromImage", name).with_some("platform", &platform.to_lowercase()).with_some("tag", tag);
    let auth = super::registry::auth_header(shell, name)?;
    let request = Request::post("/images/create").query(query).header("X-Registry-Auth", auth);
    let mut answer = shell.client()?.open(request)?;
    if quiet { progress::drain(&mut answer) } else { progress::show(shell, &mut answer, errors) }
}

/// `docker pull`.
pub fn pull_command(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let r = reference::parse(m.first()).map_err(Exit::new)?;
    let (all, quiet) = (m.bool("all-tags"), m.bool("quiet"));
    if all && (r.tag.is_some() || r.digest.is_some()) {
        return Err(Exit::new("tag can't be used with --all-tags/-a"));
    }
    let platform = match m.text("platform") {
        "" => String::new(),
        p => platform::parse(p).map_err(Exit::new)?,
    };
    if all {
        pull(shell, &r.full_name(), "", &platform, quiet, false)?;
        return shell.line(&r.full_name());
    }
    if r.tag.is_none() && r.digest.is_none() && !quiet {
        shell.line("Using default tag: latest")?;
    }
    pull_image(shell, m.first(), &platform, quiet, false)?;
    let full = Reference { name: r.full_name(), ..r }.tagged();
    shell.line(&full)
}

/// `docker import`.
pub fn import(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let source = m.first();
    let reference = m.args.get(1).map_or("", String::as_str);
    if !reference.is_empty() {
        reference::parse(reference).map_err(Exit::new)?;
    }
    let url = source.starts_with("http://") || source.starts_with("https://");
    let mut query = Query::new();
    for change in m.list("change") {
        query = query.with("changes", change);
    }
    query = query
        .with("fromSrc", if url { source } else { "-" })
        .with_some("message", m.text("message"))
        .with_some("platform", &m.text("platform").to_lowercase())
        .with_some("repo", reference);
    let request = Request::post("/images/create").query(query);
    let client = shell.client()?;
    let mut answer = if url {
        client.open(request)?
    } else if source == "-" {
        let mut input = std::io::stdin().lock();
        client.open(request.stream("text/plain", &mut input))?
    } else {
        let mut file = File::open(source).map_err(|e| path_error("open", source, &e))?;
        client.open(request.stream("text/plain", &mut file))?
    };
    progress::show(shell, &mut answer, false)
}

/// `docker load`.
pub fn load(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let quiet = m.bool("quiet") || !terminal::stdout_is();
    let mut query = Query::new();
    if !m.text("platform").is_empty() {
        query = query.with("platform", &platform_json(m.text("platform"))?);
    }
    let query = query.with("quiet", if quiet { "1" } else { "0" });
    let client = shell.client()?;
    let open = |source: &mut dyn Read| {
        client.open(Request::post("/images/load").query(query).stream("application/x-tar", source))
    };
    let mut answer: Streamed = match m.text("input") {
        "" if terminal::stdin_is() => {
            return Err(Exit::new("requested load from stdin, but stdin is empty"));
        }
        "" => open(&mut std::io::stdin().lock())?,
        file => open(&mut File::open(file).map_err(|e| path_error("open", file, &e))?)?,
    };
    if answer.head.header("content-type") == Some("application/json") {
        return progress::show(shell, &mut answer, false);
    }
    stream::copy(&mut answer, true)
}

/// `docker save`.
pub fn save(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let output = m.text("output");
    if output.is_empty() && terminal::stdout_is() {
        return Err(Exit::new("cowardly refusing to save to a terminal. Use the -o flag or redirect"));
    }
    check_output(output).map_err(|e| e.context("failed to save image: "))?;
    let mut query = Query::new();
    for name in &m.args {
        query = query.with("names", name);
    }
    if !m.text("platform").is_empty() {
        query = query.with("platform", &platform_json(m.text("platform"))?);
    }
    let mut answer = shell.client()?.open(Request::get("/images/get").query(query))?;
    write_output(&mut answer, output)
}

/// Checks that a file can be made at `path`: its folder is there, and it is no folder or device itself.
///
/// # Errors
/// Docker's text.
pub fn check_output(path: &str) -> Result<(), Exit> {
    let folder = match Path::new(path).parent() {
        Some(p) if !p.as_os_str().is_empty() && !path.is_empty() => p,
        _ => return Ok(()),
    };
    if let Err(e) = folder.metadata() {
        return Err(Exit::new(format!("invalid output path: stat {}: {}", folder.display(), go_text(&e))));
    }
    if Path::new(path).is_dir() {
        return Err(Exit::new(format!("invalid output path: {} must be a regular file", crate::value::quoted(path))));
    }
    Ok(())
}

/// Copies an answer to a file, which appears whole or not at all; to standard output where `path` is empty.
///
/// # Errors
/// Those of reading and writing.
pub fn write_output(source: &mut impl Read, path: &str) -> Result<(), Exit> {
    if path.is_empty() {
        return stream::copy(source, true);
    }
    let target = Path::new(path);
    if target.exists() && !target.is_file() {
        let mut file = File::options().write(true).open(target).map_err(|e| path_error("open", path, &e))?;
        return stream::copy_to(source, &mut file);
    }
    let name = target.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let partial = target.with_file_name(format!(".tmp-{name}{}", std::process::id()));
    let result =
        File::create(&partial).map_err(|e| path_error("open", &partial.to_string_lossy(), &e)).and_then(|mut file| {
            stream::copy_to(source, &mut file)?;
            file.flush()?;
            std::fs::rename(&partial, target).map_err(|e| path_error("rename", path, &e))
        });
    if result.is_err() {
        // Nothing was promised of the partial file.
        let _ = std::fs::remove_file(&partial);
    }
    result
}
