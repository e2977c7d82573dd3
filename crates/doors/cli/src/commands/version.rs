//! `docker version`.

use std::fmt::Write;

use wharf_api_client::{Request, Version as ApiVersion};
use wharf_api_types::Version;
use wharf_template::{FunctionSet, MissingKey, Template, Value};

use crate::exit::Exit;
use crate::format::moment;
use crate::parse::Matches;
use crate::shape::Json;
use crate::shell::Shell;

/// What there is to say about this program, as `(Go's field, JSON's key, value)`.
fn client(shell: &Shell, api: &str) -> Vec<(&'static str, String)> {
    vec![
        ("Version", crate::VERSION.to_owned()),
        ("ApiVersion", api.to_owned()),
        ("DefaultAPIVersion", ApiVersion::NEWEST.to_string()),
        ("GitCommit", crate::COMMIT.to_owned()),
        ("GoVersion", crate::COMPILER.to_owned()),
        ("Os", "linux".to_owned()),
        ("Arch", crate::platform::host_architecture().to_owned()),
        ("BuildTime", crate::BUILT.to_owned()),
        ("Context", shell.context()),
    ]
}

/// `docker version`.
pub fn version(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let format = match m.text("format") {
        "json" => "{{json .}}",
        f => f,
    };
    let wrong = |e: &dyn std::fmt::Display, code| Exit { message: format!("template parsing error: {e}"), code };
    let template = match format {
        "" => None,
        f => Some(Template::parse("version", f).map_err(|e| wrong(&e, 64))?),
    };
    let connection = shell.client()?;
    let answer = connection.call(Request::get("/version"));
    let api = connection.version().to_string();
    let (server, failure) = match &answer {
        Ok(reply) => (Some(reply), None),
        Err(e) => (None, Some(e.to_string())),
    };
    if let Some(template) = template {
        let typed = match server {
            Some(reply) => {
                let mut json: Json = reply.parse()?;
                build_times(&mut json);
                json.typed("*types.Version")
            }
            None => Value::Nil(wharf_template::Nil::Pointer),
        };
        let fields = client(shell, &api).into_iter().map(|(k, v)| (k.to_owned(), Json::Plain(v.into()))).collect();
        let ours = Json::Object(fields).typed("system.clientVersion");
        let data = Value::row("system.versionInfo", vec![("Client".into(), ours), ("Server".into(), typed)]);
        let mut out = String::new();
        let executed = template.execute(&data, FunctionSet::Docker, MissingKey::NoValue, &mut out);
        out.push('\n');
        shell.print(&out)?;
        executed.map_err(|e| Exit::new(e.to_string()))?;
    } else {
        let mut out = String::new();
        print_client(&mut out, &client(shell, &api));
        if let Some(reply) = server {
            print_server(&mut out, &reply.parse()?);
        }
        shell.print(&out)?;
    }
    match failure {
        Some(e) => Err(Exit::new(e)),
        None => Ok(()),
    }
}

/// Rewrites the components' build times as Docker shows them.
fn build_times(json: &mut Json) {
    match json {
        Json::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Json::Plain(Value::Str(text)) if key == "BuildTime" => *text = moment::ansi(text),
                    Json::List(items) if key == "Components" => items.iter_mut().for_each(build_times),
                    value if key == "Details" => build_times(value),
                    _ => {}
                }
            }
        }
        Json::Null | Json::Plain(_) | Json::List(_) => {}
    }
}

fn print_client(out: &mut String, fields: &[(&str, String)]) {
    let get = |name: &str| fields.iter().find(|f| f.0 == name).map_or("", |f| f.1.as_str());
    let mut api = get("ApiVersion").to_owned();
    if api != get("DefaultAPIVersion") {
        let _ = write!(api, " (downgraded from {})", get("DefaultAPIVersion"));
    }
    let _ = write!(
        out,
        "Client: {}\n Version:           {}\n API version:       {api}\n Go version:        {}\n Git commit:        {}\n \
         Built:             {}\n OS/Arch:           {}/{}\n Context:           {}\n",
        crate::PRODUCT,
        get("Version"),
        get("GoVersion"),
        get("GitCommit"),
        get("BuildTime"),
        get("Os"),
        get("Arch"),
        get("Context"),
    );
}

fn print_server(out: &mut String, v: &Version) {
    let name = if v.platform.name.is_empty() { String::new() } else { format!(" {}", v.platform.name) };
    let _ = write!(out, "\nServer:{name}\n");
    for c in &v.components {
        let details = c.details.clone().unwrap_or_default();
        let get = |name: &str| details.get(name).map_or("", String::as_str);
        let _ = write!(out, " {}:\n  {:<18}{}\n", c.name, "Version:", c.version);
        if c.name != "Engine" {
            for (k, v) in &details {
                let _ = writeln!(out, "  {:<18}{v}", format!("{k}:"));
            }
            continue;
        }
        let built = moment::ansi(get("BuildTime"));
        let rows = [
            ("API version:", format!("{} (minimum version {})", get("ApiVersion"), get("MinAPIVersion"))),
            ("Go version:", get("GoVersion").to_owned()),
            ("Git commit:", get("GitCommit").to_owned()),
            ("Built:", built),
            ("OS/Arch:", format!("{}/{}", get("Os"), get("Arch"))),
            ("Experimental:", get("Experimental").to_owned()),
        ];
        for (k, v) in rows {
            let _ = writeln!(out, "  {k:<18}{v}");
        }
    }
}
