//! Checks of list and text flags as they are read, with Docker's texts.

use std::net::IpAddr;

use crate::create::resource;

/// Checks the value of a flag of a command by the flag's name.
///
/// # Errors
/// Returns what follows `invalid argument "x" for "--flag" flag: `.
pub fn check(command: &str, flag: &str, text: &str) -> Result<(), String> {
    let container = matches!(command, "run" | "create" | "container run" | "container create");
    match flag {
        "env" if text.is_empty() || text.starts_with('=') => Err(format!("invalid environment variable: {text}")),
        "label" if container || command.starts_with("network") || command.starts_with("volume") => label(text),
        "attach" if container => match text.to_lowercase().as_str() {
            "stdin" | "stdout" | "stderr" => Ok(()),
            _ => Err("valid streams are STDIN, STDOUT and STDERR".into()),
        },
        "add-host" => extra_host(text),
        "dns" => address(text),
        "dns-search" if container => domain(text),
        "link-local-ip" if container => address(text),
        "link" if container => link(text),
        "sysctl" => sysctl(text),
        "blkio-weight-device" => resource::parse_weight(text).map(drop),
        "device-read-bps" | "device-write-bps" => resource::parse_rate(text, true).map(drop),
        "device-read-iops" | "device-write-iops" => resource::parse_rate(text, false).map(drop),
        "device-cgroup-rule" => cgroup_rule(text),
        _ => Ok(()),
    }
}

fn label(text: &str) -> Result<(), String> {
    let name = text.split('=').next().unwrap_or_default();
    if name.trim().is_empty() {
        return Err(format!("invalid label '{text}': empty name"));
    }
    if name.contains(char::is_whitespace) {
        return Err(format!("label '{name}' contains whitespaces"));
    }
    Ok(())
}

fn extra_host(text: &str) -> Result<(), String> {
    let quoted = crate::value::quoted(text);
    let (name, ip) = host_parts(text);
    if name.is_empty() {
        return Err(format!("bad format for add-host: {quoted}"));
    }
    if ip == "host-gateway" {
        return Ok(());
    }
    match strip_brackets(ip).parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("invalid IP address in add-host: {}", crate::value::quoted(ip))),
    }
}

fn strip_brackets(ip: &str) -> &str {
    ip.strip_prefix('[').and_then(|i| i.strip_suffix(']')).unwrap_or(ip)
}

fn host_parts(text: &str) -> (&str, &str) {
    let (name, ip) = text.split_once('=').or_else(|| text.split_once(':')).unwrap_or(("", ""));
    if ip.is_empty() { ("", "") } else { (name, ip) }
}

/// Writes a line for the hosts file as the API wants it: `name:address`, the address without brackets.
pub fn extra_host_line(text: &str) -> String {
    let (name, ip) = host_parts(text);
    format!("{name}:{}", strip_brackets(ip))
}

fn address(text: &str) -> Result<(), String> {
    match text.trim().parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("IP address is not correctly formatted: {text}")),
    }
}

fn domain(text: &str) -> Result<(), String> {
    let name = text.trim();
    let fine = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let letters = name.bytes().any(|b| b.is_ascii_alphabetic());
    if name == "." || (name.len() < 255 && letters && name.trim_end_matches('.').split('.').all(fine)) {
        return Ok(());
    }
    Err(format!("{text} is not a valid domain"))
}

fn link(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("empty string specified for links".into());
    }
    if text.split(':').count() > 2 {
        return Err(format!("bad format for links: {text}"));
    }
    Ok(())
}

const SYSCTLS: &[&str] = &[
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

fn sysctl(text: &str) -> Result<(), String> {
    let refused = || format!("sysctl '{text}' is not allowed");
    let (name, _) = text.split_once('=').ok_or_else(refused)?;
    if SYSCTLS.contains(&name) || name.starts_with("net.") || name.starts_with("fs.mqueue.") {
        return Ok(());
    }
    Err(refused())
}

fn cgroup_rule(text: &str) -> Result<(), String> {
    let refused = || format!("invalid device cgroup format '{text}'");
    let (kind, rest) = text.split_once(' ').ok_or_else(refused)?;
    let (numbers, modes) = rest.split_once(' ').ok_or_else(refused)?;
    let (major, minor) = numbers.split_once(':').ok_or_else(refused)?;
    let number = |t: &str| t == "*" || (!t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()));
    let modes_fine = (1..=3).contains(&modes.len()) && modes.bytes().all(|b| b"rwm".contains(&b));
    if matches!(kind, "a" | "b" | "c") && number(major) && number(minor) && modes_fine {
        return Ok(());
    }
    Err(refused())
}
