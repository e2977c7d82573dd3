//! `RUN --mount=…`.

/// One mount of a RUN step. Texts are not expanded yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// What it is.
    pub kind: MountKind,
    /// Stage, context or image that a bind or cache comes from.
    pub from: Option<String>,
    /// The path within that.
    pub source: Option<String>,
    /// Where it appears.
    pub target: Option<String>,
    /// Whether it cannot be written; `None` means the kind's default.
    pub read_only: Option<bool>,
    /// Name of a cache, secret or agent.
    pub id: Option<String>,
    /// How builds share a cache.
    pub sharing: Sharing,
    /// Whether a missing secret or agent is an error.
    pub required: bool,
    /// Size of a tmpfs in bytes.
    pub size: Option<i64>,
    /// Mode of what is made.
    pub mode: Option<u32>,
    /// Owner of what is made.
    pub uid: Option<u32>,
    /// Group of what is made.
    pub gid: Option<u32>,
    /// The variable that a secret is put into.
    pub env: Option<String>,
}

/// Kinds of mounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum MountKind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

/// How concurrent builds share a cache mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// All at once.
    #[default]
    Shared,
    /// Each gets a new one if it is in use.
    Private,
    /// One after another.
    Locked,
}

/// Reads the value of one `--mount` flag.
///
/// # Errors
/// Docker's texts.
pub fn parse_mount(text: &str) -> Result<Mount, String> {
    let fields = csv(text)?;
    let mut mount = Mount::default();
    let named = fields.iter().find_map(|f| f.split_once('=').filter(|(k, _)| k.eq_ignore_ascii_case("type")));
    mount.kind = match named.map(|(_, v)| v.to_ascii_lowercase()).as_deref() {
        None | Some("bind") => MountKind::Bind,
        Some("cache") => MountKind::Cache,
        Some("tmpfs") => MountKind::Tmpfs,
        Some("secret") => MountKind::Secret,
        Some("ssh") => MountKind::Ssh,
        Some(other) => return Err(format!("unsupported mount type {other:?}")),
    };
    for field in &fields {
        option(&mut mount, field)?;
    }
    finish(mount)
}

fn option(mount: &mut Mount, field: &str) -> Result<(), String> {
    let (key, value) = match field.split_once('=') {
        Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
        None => (field.to_ascii_lowercase(), None),
    };
    let switch = |value: Option<&str>| match value.map(str::to_ascii_lowercase).as_deref() {
        None => Ok(true),
        Some("true" | "1" | "t") => Ok(true),
        Some("false" | "0" | "f") => Ok(false),
        Some(other) => Err(format!("invalid value for {key}: {other}")),
    };
    match (key.as_str(), value) {
        ("readonly" | "ro", value) => {
            mount.read_only = Some(switch(value)?);
            return Ok(());
        }
        ("readwrite" | "rw", value) => {
            mount.read_only = Some(!switch(value)?);
            return Ok(());
        }
        ("required", value) => {
            if !matches!(mount.kind, MountKind::Secret | MountKind::Ssh) {
                return Err(format!("unexpected key '{key}' for mount type '{}'", mount.kind.name()));
            }
            mount.required = switch(value)?;
            return Ok(());
        }
        ("type", Some(_)) => return Ok(()),
        (_, None) => return Err(format!("invalid field '{field}' must be a key=value pair")),
        _ => {}
    }
    let value = value.unwrap_or_default().to_owned();
    match key.as_str() {
        "from" => mount.from = Some(value),
        "source" | "src" => mount.source = Some(value),
        "target" | "dst" | "destination" => mount.target = Some(value),
        "id" => mount.id = Some(value),
        "sharing" => {
            mount.sharing = match value.to_ascii_lowercase().as_str() {
                "shared" => Sharing::Shared,
                "private" => Sharing::Private,
                "locked" => Sharing::Locked,
                _ => return Err(format!("unsupported sharing value {value:?}")),
            }
        }
        "size" => mount.size = Some(bytes(&value).ok_or_else(|| format!("invalid value for {key}: {value}"))?),
        "mode" => {
            let mode = u32::from_str_radix(&value, 8).map_err(|_| format!("invalid value {value} for mode"))?;
            mount.mode = Some(mode);
        }
        "uid" => mount.uid = Some(value.parse().map_err(|_| format!("invalid value {value} for uid"))?),
        "gid" => mount.gid = Some(value.parse().map_err(|_| format!("invalid value {value} for gid"))?),
        "env" if mount.kind == MountKind::Secret => mount.env = Some(value),
        _ => return Err(format!("unexpected key '{key}' in '{field}'")),
    }
    Ok(())
}

fn finish(mount: Mount) -> Result<Mount, String> {
    let kind = mount.kind;
    if mount.from.is_some() && !matches!(kind, MountKind::Bind | MountKind::Cache) {
        return Err(format!("mount type {} does not support from", kind.name()));
    }
    if mount.source.is_some() && matches!(kind, MountKind::Tmpfs) {
        return Err("mount type tmpfs does not support source".to_owned());
    }
    if mount.target.as_deref().unwrap_or_default().is_empty()
        && matches!(kind, MountKind::Bind | MountKind::Cache | MountKind::Tmpfs)
    {
        return Err("invalid mount config: target must be set".to_owned());
    }
    if kind == MountKind::Secret && mount.target.is_none() && mount.source.is_none() && mount.id.is_none() {
        return Err("invalid mount config: secret id or target must be set".to_owned());
    }
    Ok(mount)
}

impl MountKind {
    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

/// Fields between commas; a field in double quotes may hold commas, and doubled quotes mean one.
fn csv(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let field;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut value = String::new();
            let mut chars = quoted.char_indices().peekable();
            let end = loop {
                match chars.next() {
                    Some((_, '"')) if chars.peek().is_some_and(|(_, c)| *c == '"') => {
                        chars.next();
                        value.push('"');
                    }
                    Some((at, '"')) => break at + 1,
                    Some((_, c)) => value.push(c),
                    None => return Err("failed to parse csv mounts: extraneous or missing \" in quoted-field".into()),
                }
            };
            field = value;
            rest = &quoted[end..];
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            field = rest[..end].to_owned();
            rest = &rest[end..];
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return Ok(fields),
        }
    }
}

/// A size with a unit of 1024: `64m`, `1GB`.
fn bytes(text: &str) -> Option<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let number: f64 = lower[..digits].parse().ok()?;
    let scale = match lower[digits..].trim().trim_end_matches('b').trim_end_matches('i') {
        "" => 1u64,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return None,
    };
    Some((number * scale as f64) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_with_every_key() {
        let mount =
            parse_mount("type=cache,id=x,target=/c,sharing=locked,from=base,source=/s,mode=0700,uid=1,gid=2,ro")
                .expect("valid");
        assert_eq!(mount.kind, MountKind::Cache);
        assert_eq!((mount.sharing, mount.mode, mount.uid, mount.gid), (Sharing::Locked, Some(0o700), Some(1), Some(2)));
        assert_eq!(mount.read_only, Some(true));
        assert_eq!(parse_mount("type=tmpfs,target=/t,size=2k").expect("valid").size, Some(2048));
        assert_eq!(parse_mount("target=/t,\"source=a,b\"").expect("valid").source.as_deref(), Some("a,b"));
    }

    #[test]
    fn wrong_mounts_are_refused() {
        for (text, error) in [
            ("type=x", "unsupported mount type \"x\""),
            ("type=bind", "invalid mount config: target must be set"),
            ("type=cache,target=/a,foo=1", "unexpected key 'foo' in 'foo=1'"),
            ("type=secret,from=x,id=1", "mount type secret does not support from"),
        ] {
            assert_eq!(parse_mount(text).expect_err(text), error);
        }
    }
}
