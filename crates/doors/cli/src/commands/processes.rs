//! `docker top` and `docker port`.

use wharf_api_client::{Query, Request};
use wharf_api_types::{ContainerInspect, ContainerTopResponse, PortBinding};

use super::path;
use crate::exit::Exit;
use crate::parse::Matches;
use crate::shell::Shell;
use crate::value;

/// `docker top`: columns twenty wide, as text/tabwriter lays them out in Docker.
pub fn top(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let query = Query::new().with_some("ps_args", &m.args[1..].join(" "));
    let reply = shell.client()?.call(Request::get(path("containers", m.first(), "/top")).query(query))?;
    let table: ContainerTopResponse = reply.parse()?;
    let lines: Vec<&[String]> =
        std::iter::once(table.titles.as_slice()).chain(table.processes.iter().map(Vec::as_slice)).collect();
    let columns = table.titles.len();
    let widths: Vec<usize> = (0..columns.saturating_sub(1))
        .map(|i| lines.iter().filter_map(|l| l.get(i)).map(|c| c.chars().count() + 3).max().unwrap_or(0).max(20))
        .collect();
    let mut out = String::new();
    for line in lines {
        for (i, cell) in line.iter().enumerate() {
            match widths.get(i) {
                Some(w) => out.push_str(&format!("{cell:<w$}")),
                None => out.push_str(cell),
            }
        }
        out.push('\n');
    }
    shell.print(&out)
}

/// `docker port`.
pub fn port(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let container: ContainerInspect =
        shell.client()?.call(Request::get(path("containers", m.first(), "/json")))?.parse()?;
    let ports = &container.network_settings.ports;
    let mut out = Vec::new();
    if let Some(wanted) = m.args.get(1).filter(|w| !w.is_empty()) {
        let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
        let number = value::parse_uint(number, u64::from(u16::MAX))
            .map_err(|e| Exit::new(format!("Error: invalid port ({number}): {e}")))?;
        let bindings = ports.get(&format!("{number}/{protocol}")).and_then(Option::as_ref);
        match bindings.filter(|b| !b.is_empty()) {
            Some(bindings) => out.extend(bindings.iter().map(address)),
            None => {
                return Err(Exit::new(format!("Error: No public port '{wanted}' published for {}", m.first())));
            }
        }
    } else {
        for (port, bindings) in ports {
            out.extend(bindings.iter().flatten().map(|b| format!("{port} -> {}", address(b))));
        }
    }
    // Docker sorts the lines, numbers by their value.
    out.sort_by_key(|l| (l.split('/').next().and_then(|n| n.parse::<u16>().ok()), l.clone()));
    if out.is_empty() { Ok(()) } else { shell.line(&out.join("\n")) }
}

fn address(b: &PortBinding) -> String {
    if b.host_ip.contains(':') {
        format!("[{}]:{}", b.host_ip, b.host_port)
    } else {
        format!("{}:{}", b.host_ip, b.host_port)
    }
}
