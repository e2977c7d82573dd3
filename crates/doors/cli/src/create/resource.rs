//! Limits: `--ulimit`, block input and output.

use wharf_api_types::{ThrottleDevice, Ulimit, WeightDevice};

use crate::value;

const ULIMITS: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Reads one `--ulimit`, `name=soft[:hard]`.
///
/// # Errors
/// Docker's text.
pub fn parse_ulimit(text: &str) -> Result<Ulimit, String> {
    let (name, limits) = text.split_once('=').ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
    if !ULIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let parts: Vec<&str> = limits.split(':').collect();
    if parts.len() > 2 {
        return Err(format!("too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`"));
    }
    let soft = value::parse_int(parts[0])?;
    let hard = match parts.get(1) {
        Some(h) => value::parse_int(h)?,
        None => soft,
    };
    if hard != -1 {
        if soft == -1 {
            return Err(format!(
                "ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {hard}"
            ));
        }
        if soft > hard {
            return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
        }
    }
    Ok(Ulimit { name: name.to_owned(), hard, soft })
}

/// Reads one `--device-read-bps` and the like; rates in bytes may have a unit.
///
/// # Errors
/// Docker's text.
pub fn parse_rate(text: &str, bytes: bool) -> Result<ThrottleDevice, String> {
    let (path, rate) =
        text.split_once(':').filter(|(p, _)| !p.is_empty()).ok_or_else(|| format!("bad format: {text}"))?;
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    let parsed = if bytes {
        value::parse_bytes("", rate).ok().and_then(|r| u64::try_from(r).ok())
    } else {
        rate.parse::<u64>().ok()
    };
    match (parsed, bytes) {
        (Some(rate), _) => Ok(ThrottleDevice { path: path.to_owned(), rate }),
        (None, true) => Err(format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. \
             Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        )),
        (None, false) => Err(format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>. \
             Number must be a positive integer"
        )),
    }
}

/// Reads one `--blkio-weight-device`.
///
/// # Errors
/// Docker's text.
pub fn parse_weight(text: &str) -> Result<WeightDevice, String> {
    let (path, weight) =
        text.split_once(':').filter(|(p, _)| !p.is_empty()).ok_or_else(|| format!("bad format: {text}"))?;
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    match weight.parse::<u16>() {
        Ok(weight) if weight == 0 || (10..=1000).contains(&weight) => {
            Ok(WeightDevice { path: path.to_owned(), weight })
        }
        _ => Err(format!("invalid weight for device: {text}")),
    }
}
