//! Image references, as far as the command line must understand them: what is said for a bad one, name, tag, digest.
//!
//! Source: distribution/reference, whose texts these are.

/// A reference in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The name as people write it, without the default registry.
    pub name: String,
    /// The tag, if it has one.
    pub tag: Option<String>,
    /// The digest, if it has one.
    pub digest: Option<String>,
}

/// Reads a reference.
///
/// # Errors
/// `invalid reference format…`.
pub fn parse(text: &str) -> Result<Reference, String> {
    let format = || "invalid reference format".to_owned();
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err(format!("invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"));
    }
    let (rest, digest) = match text.split_once('@') {
        Some((r, d)) => (r, Some(d)),
        None => (text, None),
    };
    if digest.is_some_and(|d| !is_digest(d)) {
        return Err(format());
    }
    let (domain, path) = match rest.split_once('/') {
        Some((d, p)) if names_registry(d) => (Some(d), p),
        _ => (None, rest),
    };
    let (path, tag) = match path.rsplit_once(':') {
        Some((p, t)) => (p, Some(t)),
        None => (path, None),
    };
    if path != path.to_lowercase() {
        let library = if domain.is_none() && !path.contains('/') { "library/" } else { "" };
        return Err(format!("{}: repository name ({library}{path}) must be lowercase", format()));
    }
    if path.is_empty() || !path.split('/').all(is_component) || tag.is_some_and(|t| !is_tag(t)) {
        return Err(format());
    }
    if domain.is_some_and(|d| !is_domain(d)) {
        return Err(format());
    }
    let name = match domain {
        Some("docker.io" | "index.docker.io") => path.strip_prefix("library/").unwrap_or(path).to_owned(),
        Some(d) => format!("{d}/{path}"),
        None => path.to_owned(),
    };
    Ok(Reference { name, tag: tag.map(str::to_owned), digest: digest.map(str::to_owned) })
}

/// Whether the first part of a name is a registry's address.
fn names_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first != first.to_lowercase()
}

fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty()
            && algorithm.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-_".contains(&b))
            && hex.len() >= 32
            && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

fn is_tag(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    first && text.len() <= 128 && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn is_component(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    word(*first)
        && word(*last)
        && bytes.iter().all(|b| word(*b) || b"._-".contains(b))
        && !text.contains("..")
        && !text.contains("___")
        && !text.contains("._")
        && !text.contains("_.")
        && !text.contains(".-")
        && !text.contains("-.")
}

fn is_domain(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((n, p)) if !p.ends_with(']') => (n, Some(p)),
        _ => (text, None),
    };
    let digits = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit());
    !name.is_empty()
        && port.is_none_or(digits)
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_[]:".contains(&b))
}

impl Reference {
    /// Writes the name in full, with the default registry.
    pub fn full_name(&self) -> String {
        match self.name.split_once('/') {
            Some((first, _)) if names_registry(first) => self.name.clone(),
            Some(_) => format!("docker.io/{}", self.name),
            None => format!("docker.io/library/{}", self.name),
        }
    }

    /// Writes it with the tag `latest` where it has neither tag nor digest.
    pub fn tagged(&self) -> String {
        let mut text = self.name.clone();
        match (&self.tag, &self.digest) {
            (None, None) => text.push_str(":latest"),
            (Some(t), _) => {
                text.push(':');
                text.push_str(t);
            }
            _ => {}
        }
        if let Some(d) = &self.digest {
            text.push('@');
            text.push_str(d);
        }
        text
    }
}
