//! `--mount` and `-v`.

use wharf_api_types::{BindOptions, ImageOptions, Mount, StringMap, TmpfsOptions, VolumeDriver, VolumeOptions};

use crate::value;

/// Reads one `--mount`.
///
/// # Errors
/// Docker's text.
pub fn parse(text: &str) -> Result<Mount, String> {
    let mut mount = Mount { r#type: "volume".into(), ..Mount::default() };
    for field in value::split_csv(text)? {
        let (key, val) = match field.split_once('=') {
            Some((k, v)) => (k.to_lowercase(), Some(v)),
            None => (field.to_lowercase(), None),
        };
        match val {
            Some(val) => keyed(&mut mount, &key, val, &field)?,
            None => match key.as_str() {
                "readonly" | "ro" => mount.read_only = true,
                "volume-nocopy" => volume(&mut mount).no_copy = true,
                "bind-nonrecursive" => nonrecursive(&mut mount, true),
                _ => return Err(format!("invalid field '{field}' must be a key=value pair")),
            },
        }
    }
    finish(mount)
}

/// The old form, which Docker takes with a warning.
fn nonrecursive(m: &mut Mount, on: bool) {
    eprintln!("WARNING: bind-nonrecursive is deprecated, use bind-recursive=disabled instead");
    bind(m).non_recursive = on;
}

fn volume(m: &mut Mount) -> &mut VolumeOptions {
    m.volume_options.get_or_insert_default()
}

fn bind(m: &mut Mount) -> &mut BindOptions {
    m.bind_options.get_or_insert_default()
}

fn tmpfs(m: &mut Mount) -> &mut TmpfsOptions {
    m.tmpfs_options.get_or_insert_default()
}

fn insert(map: &mut Option<StringMap>, text: &str) {
    let (k, v) = text.split_once('=').unwrap_or((text, ""));
    if !k.is_empty() {
        map.get_or_insert_default().insert(k.to_owned(), v.to_owned());
    }
}

fn keyed(m: &mut Mount, key: &str, val: &str, field: &str) -> Result<(), String> {
    let invalid = || format!("invalid value for {key}: {val}");
    match key {
        "type" => m.r#type = val.to_lowercase(),
        "source" | "src" => m.source = absolute(val),
        "target" | "dst" | "destination" => m.target = val.to_owned(),
        "readonly" | "ro" => m.read_only = value::parse_bool(val).map_err(|_| invalid())?,
        "consistency" => m.consistency = val.to_lowercase(),
        "bind-propagation" => bind(m).propagation = val.to_lowercase(),
        "bind-nonrecursive" => nonrecursive(m, value::parse_bool(val).map_err(|_| invalid())?),
        "bind-recursive" => match val {
            "enabled" => {}
            "disabled" => bind(m).non_recursive = true,
            "writable" => bind(m).read_only_non_recursive = true,
            "readonly" => bind(m).read_only_force_recursive = true,
            _ => {
                return Err(format!(
                    "{} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")",
                    invalid()
                ));
            }
        },
        "volume-subpath" => volume(m).subpath = val.to_owned(),
        "volume-nocopy" => volume(m).no_copy = value::parse_bool(val).map_err(|_| invalid())?,
        "volume-label" => insert(&mut volume(m).labels, val),
        "volume-driver" => {
            volume(m).driver_config.get_or_insert_with(VolumeDriver::default).name = val.to_owned();
        }
        "volume-opt" => insert(&mut volume(m).driver_config.get_or_insert_with(VolumeDriver::default).options, val),
        "image-subpath" => m.image_options.get_or_insert_with(ImageOptions::default).subpath = val.to_owned(),
        "tmpfs-size" => tmpfs(m).size_bytes = value::parse_bytes("", val).map_err(|_| invalid())?,
        "tmpfs-mode" => tmpfs(m).mode = u32::from_str_radix(val, 8).map_err(|_| invalid())?,
        _ => return Err(format!("unexpected key '{key}' in '{field}'")),
    }
    Ok(())
}

fn finish(m: Mount) -> Result<Mount, String> {
    if m.r#type.is_empty() {
        return Err("type is required".into());
    }
    if m.target.is_empty() {
        return Err("target is required".into());
    }
    for (options, kind) in [
        (m.bind_options.is_some(), "bind"),
        (m.volume_options.is_some(), "volume"),
        (m.image_options.is_some(), "image"),
        (m.tmpfs_options.is_some(), "tmpfs"),
    ] {
        if options && m.r#type != kind {
            return Err(format!("cannot mix '{kind}-*' options with mount type '{}'", m.r#type));
        }
    }
    if let Some(b) = &m.bind_options {
        let needs = |mode: &str, what: &str| {
            Err(format!("option 'bind-recursive={mode}' requires '{what}' to be specified in conjunction"))
        };
        if b.read_only_non_recursive && !m.read_only {
            return needs("writable", "readonly");
        }
        if b.read_only_force_recursive && !m.read_only {
            return needs("readonly", "readonly");
        }
        if b.read_only_force_recursive && b.propagation != "rprivate" {
            return needs("readonly", "bind-propagation=rprivate");
        }
    }
    Ok(m)
}

/// Makes a path that starts with a point absolute, as the shell's user means it.
fn absolute(path: &str) -> String {
    if !path.starts_with('.') {
        return path.to_owned();
    }
    let Ok(mut here) = std::env::current_dir() else { return path.to_owned() };
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                here.pop();
            }
            part => here.push(part),
        }
    }
    here.to_string_lossy().into_owned()
}

/// What a `-v` asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Volume {
    /// A volume without a name at this place.
    Anonymous(String),
    /// A bind or a named volume, as `HostConfig.Binds` writes it.
    Bind(String),
}

/// Splits at colons. One letter before a colon is a drive, as Docker reads it on every system.
fn split_spec(spec: &str) -> Vec<&str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    for (at, _) in spec.match_indices(':') {
        let part = &spec[start..at];
        if part.len() == 1 && part.bytes().all(|b| b.is_ascii_alphabetic()) {
            continue;
        }
        parts.push(part);
        start = at + 1;
    }
    parts.push(&spec[start..]);
    parts
}

/// Reads one `-v`.
///
/// # Errors
/// Docker's text.
pub fn parse_volume(spec: &str) -> Result<Volume, String> {
    if spec.is_empty() {
        return Err("invalid empty volume spec".into());
    }
    if spec.len() <= 2 {
        return Ok(Volume::Anonymous(spec.to_owned()));
    }
    let parts = split_spec(spec);
    if parts.iter().any(|p| p.is_empty()) {
        return Err(format!("invalid spec: {spec}: empty section between colons"));
    }
    match parts.as_slice() {
        [_] => Ok(Volume::Anonymous(spec.to_owned())),
        [source, rest @ ..] if rest.len() <= 2 => Ok(Volume::Bind(format!("{}:{}", absolute(source), rest.join(":")))),
        _ => Err(format!("invalid spec: {spec}: too many colons")),
    }
}
