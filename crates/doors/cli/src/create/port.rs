//! `-p` and `--expose`.

use std::net::IpAddr;

use wharf_api_types::go::Unit;
use wharf_api_types::{PortBinding, PortMap, PortSet};

/// Reads the published and exposed ports.
///
/// # Errors
/// Docker's text.
pub fn parse(publish: &[&str], expose: &[&str]) -> Result<(PortSet, PortMap), String> {
    let (mut ports, mut bindings) = (PortSet::new(), PortMap::new());
    for spec in publish {
        publish_one(&short_form(spec)?, &mut ports, &mut bindings)?;
    }
    for e in expose {
        if e.contains(':') {
            return Err(format!("invalid port format for --expose: {e}"));
        }
        let (protocol, port) = split_protocol(e);
        let (first, last) =
            range(port).map_err(|why| format!("invalid range format for --expose: {e}, error: {why}"))?;
        for n in first..=last {
            ports.entry(format!("{n}/{protocol}")).or_insert(Unit {});
        }
    }
    Ok((ports, bindings))
}

/// Turns `published=8080,target=80,protocol=tcp` into `8080:80/tcp`.
fn short_form(spec: &str) -> Result<String, String> {
    if !spec.contains('=') {
        return Ok(spec.to_owned());
    }
    let (mut published, mut target, mut protocol) = ("", "", "tcp");
    for part in spec.split(',') {
        match part.split_once('=') {
            Some(("published", v)) => published = v,
            Some(("target", v)) => target = v,
            Some(("protocol", v)) => protocol = v,
            Some((k, _)) if !k.is_empty() => {}
            _ => return Err(format!("invalid publish opts format (should be name=value but got '{part}')")),
        }
    }
    Ok(format!("{published}:{target}/{protocol}"))
}

fn split_protocol(text: &str) -> (&str, &str) {
    let mut parts = text.split('/');
    match (parts.next(), parts.next()) {
        (None | Some(""), _) => ("", ""),
        (Some(port), None | Some("")) => ("tcp", port),
        (Some(port), Some(protocol)) => (protocol, port),
    }
}

fn port(text: &str) -> Result<u16, String> {
    crate::value::parse_uint(text, u64::from(u16::MAX)).map(|n| u16::try_from(n).unwrap_or(u16::MAX))
}

fn range(text: &str) -> Result<(u16, u16), String> {
    if text.is_empty() {
        return Err("empty string specified for ports".into());
    }
    let Some((first, last)) = text.split_once('-') else {
        let n = port(text)?;
        return Ok((n, n));
    };
    let (first, last) = (port(first)?, port(last)?);
    if last < first { Err("invalid range specified for port: ".to_owned() + text) } else { Ok((first, last)) }
}

fn publish_one(spec: &str, ports: &mut PortSet, bindings: &mut PortMap) -> Result<(), String> {
    let parts: Vec<&str> = spec.split(':').collect();
    let (ip, host, container) = match parts.as_slice() {
        [c] => (String::new(), "", *c),
        [h, c] => (String::new(), *h, *c),
        [ip @ .., h, c] => (ip.join(":"), *h, *c),
        [] => (String::new(), "", ""),
    };
    let (protocol, container) = split_protocol(container);
    let address = match ip.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .ok_or_else(|| format!("invalid IP address {ip}: address {ip}:: missing ']' in address"))?,
        None => &ip,
    };
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {address}"));
    }
    if container.is_empty() {
        return Err(format!("no port specified: {spec}<empty>"));
    }
    let (first, last) = range(container).map_err(|_| format!("invalid containerPort: {container}"))?;
    let hosts =
        if host.is_empty() { None } else { Some(range(host).map_err(|_| format!("invalid hostPort: {host}"))?) };
    if let Some((a, b)) = hosts
        && last - first != b - a
        && last != first
    {
        return Err(format!("invalid ranges specified for container and host Ports: {container} and {host}"));
    }
    let protocol = protocol.to_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    for (i, n) in (first..=last).enumerate() {
        let host_port = match hosts {
            None => String::new(),
            Some((a, b)) if first == last && a != b => format!("{a}-{b}"),
            Some((a, _)) => (usize::from(a) + i).to_string(),
        };
        let key = format!("{n}/{protocol}");
        ports.entry(key.clone()).or_insert(Unit {});
        let binding = PortBinding { host_ip: address.to_owned(), host_port };
        bindings.entry(key).or_default().get_or_insert_default().push(binding);
    }
    Ok(())
}
