//! The OCI runtimes of the configuration: `--add-runtime name=path`, and `runtimes` in `daemon.json` with `path` and `runtimeArgs`,
//! or with `runtimeType` and `options`. Rules and texts are those of moby (`daemon/runtime_unix.go`).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use wharf_engine::config::{Runtime, Runtimes};

use crate::settings::{Settings, SettingsError};

/// The one name that moby reserves.
const STOCK: &str = "runc";

/// The only kind of containerd shim whose work ours can do: that of runc and what is like it.
const RUNC_SHIM: &str = "io.containerd.runc.v2";

/// One entry of `runtimes`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    path: String,
    #[serde(rename = "runtimeArgs")]
    args: Vec<String>,
    #[serde(rename = "runtimeType")]
    kind: String,
    options: BTreeMap<String, Value>,
}

fn wrong(text: String) -> SettingsError {
    SettingsError::Runtime(text)
}

/// Reads all runtimes and checks that the default is one of them.
pub fn read(settings: &Settings) -> Result<Runtimes, SettingsError> {
    let mut runtimes = Runtimes { default: settings.text("default-runtime").to_owned(), others: BTreeMap::new() };
    for (name, text) in settings.map("add-runtime") {
        let runtime = if text.starts_with('{') { of_entry(&name, &text)? } else { of_flag(&name, &text)? };
        runtimes.others.insert(name, runtime);
    }
    if runtimes.default.is_empty() {
        STOCK.clone_into(&mut runtimes.default);
    }
    if !runtimes.has(&runtimes.default) {
        return Err(wrong(format!("specified default runtime '{}' does not exist", runtimes.default)));
    }
    Ok(runtimes)
}

fn of_flag(name: &str, path: &str) -> Result<Runtime, SettingsError> {
    let value = || format!("{name}={path}");
    let refused = |reason| SettingsError::Value { flag: "add-runtime", value: value(), reason };
    if name.is_empty() || path.is_empty() {
        return Err(refused(format!("invalid runtime argument: {}", value())));
    }
    if name == STOCK {
        return Err(refused(format!("runtime name '{STOCK}' is reserved")));
    }
    Ok(Runtime { path: path.to_owned(), ..Runtime::default() })
}

fn of_entry(name: &str, text: &str) -> Result<Runtime, SettingsError> {
    let entry: Entry = serde_json::from_str(text).map_err(|e| wrong(format!("runtime {name}: {e}")))?;
    let refused = |reason: &str| Err(wrong(format!("runtime {name}: {reason}")));
    if name == STOCK {
        return Err(wrong(format!("runtime name '{STOCK}' is reserved")));
    }
    match (entry.path.is_empty(), entry.kind.is_empty()) {
        (true, true) => return refused("either a runtimeType or a path must be configured"),
        (false, false) => return refused("cannot configure both path and runtimeType for the same runtime"),
        (false, true) if !entry.options.is_empty() => return refused("options cannot be used with a path runtime"),
        (false, true) => return Ok(Runtime { path: entry.path, args: entry.args, kind: String::new() }),
        (true, false) if !entry.args.is_empty() => return refused("args cannot be used with a runtimeType runtime"),
        (true, false) => {}
    }
    if entry.kind != RUNC_SHIM {
        let reason = format!(
            "runtimeType {:?} is not supported: shims of containerd do not run under Wharf; configure the path of the OCI runtime",
            entry.kind
        );
        return refused(&reason);
    }
    let mut runtime = Runtime { path: STOCK.to_owned(), args: Vec::new(), kind: entry.kind };
    for (key, value) in entry.options {
        match (key.as_str(), &value) {
            ("BinaryName", Value::String(path)) if !path.is_empty() => runtime.path.clone_from(path),
            ("TypeUrl", _) | ("BinaryName", _) => {}
            // What the other options ask for is off here as it is off in Docker without them.
            (_, Value::Bool(false) | Value::Null) => {}
            (_, Value::String(text)) if text.is_empty() => {}
            _ => return refused(&format!("option {key:?} is not supported")),
        }
    }
    Ok(runtime)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, text: &str) -> Result<Runtime, String> {
        of_entry(name, text).map_err(|e| e.to_string().replace("failed to start daemon: ", ""))
    }

    #[test]
    fn entries_are_read_and_refused_in_dockers_words() {
        let crun = of("crun", r#"{"path": "/usr/bin/crun", "runtimeArgs": ["--debug"]}"#).expect("valid");
        assert_eq!((crun.path.as_str(), crun.args.as_slice()), ("/usr/bin/crun", &["--debug".to_owned()][..]));
        let by_type =
            r#"{"runtimeType": "io.containerd.runc.v2", "options": {"BinaryName": "/x", "SystemdCgroup": false}}"#;
        assert_eq!(of("x", by_type).expect("valid").path, "/x");
        for (name, text, message) in [
            ("runc", r#"{"path": "/x"}"#, "runtime name 'runc' is reserved"),
            ("a", "{}", "runtime a: either a runtimeType or a path must be configured"),
            (
                "a",
                r#"{"path": "x", "runtimeType": "y"}"#,
                "runtime a: cannot configure both path and runtimeType for the same runtime",
            ),
            ("a", r#"{"path": "x", "options": {"b": 1}}"#, "runtime a: options cannot be used with a path runtime"),
            (
                "a",
                r#"{"runtimeType": "y", "runtimeArgs": ["z"]}"#,
                "runtime a: args cannot be used with a runtimeType runtime",
            ),
            (
                "a",
                r#"{"runtimeType": "io.containerd.runc.v2", "options": {"SystemdCgroup": true}}"#,
                "runtime a: option \"SystemdCgroup\" is not supported",
            ),
        ] {
            assert_eq!(of(name, text), Err(message.to_owned()));
        }
        let kata = of("kata", r#"{"runtimeType": "io.containerd.kata.v2"}"#);
        assert!(kata.is_err_and(|e| e.contains("runtimeType \"io.containerd.kata.v2\" is not supported")));
        assert!(of_flag("", "/x").is_err() && of_flag("x", "").is_err() && of_flag("runc", "/x").is_err());
    }
}
