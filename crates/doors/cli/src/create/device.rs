//! `--device` and `--gpus`.

use wharf_api_types::{DeviceMapping, DeviceRequest, StringMap};

use crate::value;

fn is_mode(text: &str) -> bool {
    let mut seen = String::new();
    !text.is_empty()
        && text.chars().all(|c| {
            let fresh = "rwm".contains(c) && !seen.contains(c);
            seen.push(c);
            fresh
        })
}

/// Whether a device names one by CDI: `vendor/class=name`.
pub fn is_cdi(text: &str) -> bool {
    match text.split_once('=') {
        Some((kind, name)) => !kind.starts_with('/') && kind.contains('/') && !name.is_empty(),
        None => false,
    }
}

/// Reads one `--device`, `path[:path][:mode]`.
///
/// # Errors
/// Docker's text.
pub fn parse(text: &str) -> Result<DeviceMapping, String> {
    let parts: Vec<&str> = text.split(':').collect();
    if parts.len() > 3 || parts.iter().any(|p| p.is_empty()) {
        return Err(format!("bad format for path: {text}"));
    }
    let (source, target, mode) = match parts.as_slice() {
        [s] => (*s, *s, "rwm"),
        [s, m] if is_mode(m) => (*s, *s, *m),
        [s, t] => (*s, *t, "rwm"),
        [s, t, m] if is_mode(m) => (*s, *t, *m),
        [_, _, m] => return Err(format!("bad mode specified: {m}")),
        _ => return Err(format!("bad format for path: {text}")),
    };
    if !target.starts_with('/') {
        return Err(format!("{target} is not an absolute path"));
    }
    Ok(DeviceMapping {
        path_on_host: source.to_owned(),
        path_in_container: target.to_owned(),
        cgroup_permissions: mode.to_owned(),
    })
}

/// Reads one `--gpus`: `all`, a number, or `device=…,count=…,driver=…,capabilities=…,options=…`.
///
/// # Errors
/// Docker's text.
pub fn parse_gpus(text: &str) -> Result<DeviceRequest, String> {
    let mut request = DeviceRequest { options: Some(StringMap::new()), ..DeviceRequest::default() };
    let mut seen: Vec<String> = Vec::new();
    for field in value::split_csv(text)? {
        let (key, val) = field.split_once('=').unwrap_or(("count", &field));
        if seen.iter().any(|s| s == key) {
            return Err(format!("gpu request key '{key}' can be specified only once"));
        }
        seen.push(key.to_owned());
        match key {
            "driver" => request.driver = val.to_owned(),
            "count" => request.count = count(val)?,
            "device" => request.device_ids = Some(val.split(',').map(str::to_owned).collect()),
            "capabilities" => request.capabilities = Some(vec![val.split(',').map(str::to_owned).collect()]),
            "options" => {
                let mut options = StringMap::new();
                for option in value::split_csv(val).map_err(|_| "failed to read gpu options".to_owned())? {
                    let (k, v) = option.split_once('=').unwrap_or((&option, ""));
                    options.insert(k.to_owned(), v.to_owned());
                }
                request.options = Some(options);
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if !seen.iter().any(|s| s == "count" || s == "device") {
        request.count = 1;
    }
    let capabilities = request.capabilities.get_or_insert_with(|| vec![Vec::new()]);
    if let Some(first) = capabilities.first_mut()
        && !first.iter().any(|c| c == "gpu")
    {
        first.push("gpu".into());
    }
    Ok(request)
}

fn count(text: &str) -> Result<i64, String> {
    if text == "all" {
        return Ok(-1);
    }
    text.parse()
        .map_err(|_| format!("invalid count ({text}): value must be either \"all\" or an integer: invalid syntax"))
}
