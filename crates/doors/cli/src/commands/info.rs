//! `docker info`.

use std::fmt::Write;

use wharf_api_client::Request;
use wharf_api_types::Info;
use wharf_template::{FunctionSet, MissingKey, Template};

use crate::exit::Exit;
use crate::format::size;
use crate::parse::Matches;
use crate::shape::Json;
use crate::shell::Shell;

/// `docker info`.
pub fn info(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let format = match m.text("format") {
        "json" => "{{json .}}",
        f => f,
    };
    let template = match format {
        "" => None,
        f => Some(
            Template::parse("", f).map_err(|e| Exit { message: format!("template parsing error: {e}"), code: 64 })?,
        ),
    };
    let client = shell.client()?;
    let answer = client.call(Request::get("/info"));
    if let Some(template) = template {
        let mut fields = match answer?.parse()? {
            Json::Object(fields) => fields,
            _ => Vec::new(),
        };
        fields.push(("ClientInfo".into(), client_info(shell)));
        let data = Json::Object(fields).typed("system.dockerInfo");
        let mut out = String::new();
        let executed = template.execute(&data, FunctionSet::Docker, MissingKey::NoValue, &mut out);
        out.push('\n');
        shell.print(&out)?;
        return executed.map_err(|e| Exit::new(e.to_string()));
    }
    let mut out = String::new();
    let _ = write!(
        out,
        "Client: {}\n Version:    {}\n Context:    {}\n Debug Mode: false\n\nServer:\n",
        crate::PRODUCT,
        crate::VERSION,
        shell.context()
    );
    match answer.and_then(|r| r.parse::<Info>()) {
        Ok(i) => {
            let problems = server(&mut out, &i);
            shell.print(&format!("{out}\n"))?;
            for p in problems {
                shell.warn(&p);
            }
            Ok(())
        }
        Err(e) => {
            shell.print(&out)?;
            Err(Exit::new(format!("{e}\nerrors pretty printing info")))
        }
    }
}

fn client_info(shell: &Shell) -> Json {
    let text = |t: &str| Json::Plain(t.into());
    Json::Object(vec![
        ("Debug".into(), Json::Plain(false.into())),
        ("Version".into(), text(crate::VERSION)),
        ("Context".into(), text(&shell.context())),
        ("Plugins".into(), Json::List(Vec::new())),
        ("Warnings".into(), Json::Null),
    ])
}

/// Appends ` label: value`.
fn say(out: &mut String, label: &str, value: impl std::fmt::Display) {
    let _ = writeln!(out, " {label}: {value}");
}

fn say_some(out: &mut String, label: &str, value: &str) {
    if !value.is_empty() {
        say(out, label, value);
    }
}

/// Prints the daemon's part; returns its warnings.
fn server(out: &mut String, i: &Info) -> Vec<String> {
    say(out, "Containers", i.containers);
    say(out, " Running", i.containers_running);
    say(out, " Paused", i.containers_paused);
    say(out, " Stopped", i.containers_stopped);
    say(out, "Images", i.images);
    say_some(out, "Server Version", &i.server_version);
    say_some(out, "Storage Driver", &i.driver);
    for [k, v] in &i.driver_status {
        say(out, &format!(" {k}"), v);
    }
    say_some(out, "Logging Driver", &i.logging_driver);
    say_some(out, "Cgroup Driver", &i.cgroup_driver);
    say_some(out, "Cgroup Version", &i.cgroup_version);
    let _ = writeln!(out, " Plugins:");
    let names = |list: &Option<Vec<String>>| list.clone().unwrap_or_default().join(" ");
    say(out, " Volume", names(&i.plugins.volume));
    say(out, " Network", names(&i.plugins.network));
    say_some(out, " Authorization", &names(&i.plugins.authorization));
    say(out, " Log", names(&i.plugins.log));
    lines(out, "CDI spec directories", &i.cdi_spec_dirs);
    say(out, "Swarm", &i.swarm.local_node_state);
    if !i.runtimes.is_empty() {
        say(out, "Runtimes", i.runtimes.keys().cloned().collect::<Vec<_>>().join(" "));
        say(out, "Default Runtime", &i.default_runtime);
    }
    if i.os_type == "linux" {
        linux(out, i);
    }
    say_some(out, "Kernel Version", &i.kernel_version);
    say_some(out, "Operating System", &i.operating_system);
    say_some(out, "OSType", &i.os_type);
    say_some(out, "Architecture", &i.architecture);
    say(out, "CPUs", i.n_cpu);
    say(out, "Total Memory", size::binary(i.mem_total as f64));
    say_some(out, "Name", &i.name);
    say_some(out, "ID", &i.id);
    say(out, "Docker Root Dir", &i.docker_root_dir);
    say(out, "Debug Mode", i.debug);
    if i.debug {
        say(out, " File Descriptors", i.n_fd);
        say(out, " Goroutines", i.n_goroutines);
        say(out, " System Time", &i.system_time);
        say(out, " EventsListeners", i.n_events_listener);
    }
    say_some(out, "HTTP Proxy", &i.http_proxy);
    say_some(out, "HTTPS Proxy", &i.https_proxy);
    say_some(out, "No Proxy", &i.no_proxy);
    lines(out, "Labels", &i.labels);
    say(out, "Experimental", i.experimental_build);
    if let Some(r) = &i.registry_config {
        let mut insecure: Vec<String> =
            r.index_configs.values().filter(|c| !c.secure).map(|c| c.name.clone()).collect();
        insecure.extend(r.insecure_registry_cidrs.iter().cloned());
        lines(out, "Insecure Registries", &insecure);
        lines(out, "Registry Mirrors", &r.mirrors.clone().unwrap_or_default());
    }
    say(out, "Live Restore Enabled", i.live_restore_enabled);
    if let Some(firewall) = &i.firewall_backend {
        say(out, "Firewall Backend", &firewall.driver);
        for [name, value] in firewall.info.iter().flatten() {
            say(out, &format!(" {name}"), value);
        }
    }
    say_some(out, "Product License", &i.product_license);
    let pools = i.default_address_pools.clone().unwrap_or_default();
    let pools: Vec<String> = pools.iter().map(|p| format!("Base: {}, Size: {}", p.base, p.size)).collect();
    lines(out, "Default Address Pools", &pools);
    i.warnings.clone().unwrap_or_default()
}

fn lines(out: &mut String, title: &str, values: &[String]) {
    if !values.is_empty() {
        let _ = writeln!(out, " {title}:");
        for v in values {
            let _ = writeln!(out, "  {v}");
        }
    }
}

fn linux(out: &mut String, i: &Info) {
    say(out, "Init Binary", &i.init_binary);
    say(out, "containerd version", &i.containerd_commit.id);
    say(out, "runc version", &i.runc_commit.id);
    say(out, "init version", &i.init_commit.id);
    if i.security_options.is_empty() {
        return;
    }
    let _ = writeln!(out, " Security Options:");
    for option in &i.security_options {
        let mut parts = option.split(',').filter_map(|p| p.split_once('='));
        let name = parts.next().map_or(option.as_str(), |p| p.1);
        let _ = writeln!(out, "  {name}");
        for (k, v) in parts {
            let k = if k == "profile" { "Profile" } else { k };
            let _ = writeln!(out, "   {k}: {v}");
        }
    }
}
