//! Image references in Docker's grammar, normalised: `ubuntu` is `docker.io/library/ubuntu`.
//!
//! Source: `github.com/distribution/reference` (`reference.go`, `regexp.go`, `normalize.go`):
//!
//! ```text
//! reference  := name [ ":" tag ] [ "@" digest ]          name := [ domain "/" ] path, at most 255 characters
//! domain     := (label *("." label) | "[" ipv6 "]") [ ":" port ]
//! path       := component *("/" component)                component := alnum+ *(separator alnum+)
//! separator  := "_" | "." | "__" | "-"+                   tag := [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};
use wharf_error::{HasKind, Kind};

use crate::Digest;

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const NAME_LIMIT: usize = 255;
const TAG_LIMIT: usize = 128;

/// A normalised image reference: domain and path, and perhaps a tag, a digest or both.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    name: String,
    path_at: usize,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text that is no reference. The texts are those of Docker, which clients print and compare.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The text does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// Only the case of letters is wrong; carries the remote name.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// 64 hexadecimal digits would be mistaken for an id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    /// The name is longer than 255 characters.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    /// The digest part is of an algorithm that is not supported.
    #[error("unsupported digest algorithm")]
    DigestAlgorithm,
    /// The tag does not follow the grammar.
    #[error("invalid tag format")]
    Tag,
}

impl HasKind for ReferenceError {
    fn kind(&self) -> Kind {
        match self {
            ReferenceError::Format
            | ReferenceError::Uppercase(_)
            | ReferenceError::LooksLikeId(_)
            | ReferenceError::TooLong
            | ReferenceError::DigestAlgorithm
            | ReferenceError::Tag => Kind::Invalid,
        }
    }
}

impl Reference {
    /// Parses what a person typed (`ParseNormalizedNamed`): adds `docker.io` and `library/`, but no tag.
    ///
    /// # Errors
    /// See [`ReferenceError`]; all of kind [`Kind::Invalid`].
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.len() == 64 && text.bytes().all(is_lower_hex) {
            return Err(ReferenceError::LooksLikeId(text.to_owned()));
        }
        let (domain, remainder) = split_domain(text);
        let remote = remainder.split(':').next().unwrap_or_default();
        let remote = remote.split('@').next().unwrap_or_default();
        if remote.bytes().any(|b| b.is_ascii_uppercase()) && is_name_but_for_case(domain, remote) {
            return Err(ReferenceError::Uppercase(remote.to_owned()));
        }
        Self::from_parts(domain, &remainder)
    }

    fn from_parts(domain: &str, remainder: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match remainder.split_once('@') {
            Some((rest, digest)) => (rest, Some(parse_digest(digest)?)),
            None => (remainder, None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if !is_domain(domain) || !is_path(path) || tag.is_some_and(|t| !is_tag(t)) {
            return Err(ReferenceError::Format);
        }
        // The reference package counts the path alone against the limit.
        if path.len() > NAME_LIMIT {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self { name: format!("{domain}/{path}"), path_at: domain.len() + 1, tag: tag.map(str::to_owned), digest })
    }

    /// Adds the tag `latest` where there is neither tag nor digest (`TagNameOnly`).
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// Replaces the tag and drops the digest.
    ///
    /// # Errors
    /// [`ReferenceError::Tag`] when the tag does not follow the grammar.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Tag);
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// Replaces the digest and drops the tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The registry's host, perhaps with a port: `docker.io`.
    pub fn domain(&self) -> &str {
        &self.name[..self.path_at - 1]
    }

    /// The path within the registry: `library/ubuntu`.
    pub fn path(&self) -> &str {
        &self.name[self.path_at..]
    }

    /// Domain and path: `docker.io/library/ubuntu`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The name without what is default: `ubuntu`, `user/app`, `host:5000/app`.
    pub fn familiar_name(&self) -> &str {
        if self.domain() != DEFAULT_DOMAIN {
            return &self.name;
        }
        let path = self.path();
        path.strip_prefix(OFFICIAL).filter(|rest| !rest.contains('/')).unwrap_or(path)
    }

    /// The familiar name with tag and digest, as Docker shows references.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    fn with_suffix(&self, name: &str) -> String {
        let mut text = name.to_owned();
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }
}

/// Splits at the first slash if what is before it can be a host; everything else is on Docker Hub.
fn split_domain(text: &str) -> (&str, String) {
    let (domain, remainder) = match text.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" || has_upper(first) => (first, rest),
        _ => (DEFAULT_DOMAIN, text),
    };
    let domain = if domain == LEGACY_DOMAIN { DEFAULT_DOMAIN } else { domain };
    if domain == DEFAULT_DOMAIN && !remainder.contains('/') {
        return (domain, format!("{OFFICIAL}{remainder}"));
    }
    (domain, remainder.to_owned())
}

fn has_upper(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_name_but_for_case(domain: &str, remote: &str) -> bool {
    is_domain(domain) && is_path(&remote.to_ascii_lowercase())
}

fn is_lower_hex(b: u8) -> bool {
    b.is_ascii_digit() || (b'a'..=b'f').contains(&b)
}

fn parse_digest(text: &str) -> Result<Digest, ReferenceError> {
    use crate::DigestError;
    Digest::parse(text).map_err(|e| match e {
        DigestError::Malformed(_) => ReferenceError::Format,
        DigestError::Algorithm(_) => ReferenceError::DigestAlgorithm,
    })
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((inside, after)) = rest.split_once(']') else { return false };
            if inside.is_empty() || !inside.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
                return false;
            }
            return after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_label(text: &str) -> bool {
    let alnum = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    alnum(bytes.first()) && alnum(bytes.last()) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

fn is_path(text: &str) -> bool {
    text.split('/').all(is_component)
}

fn is_component(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        let start = at;
        while at < bytes.len() && alnum(bytes[at]) {
            at += 1;
        }
        if at == start {
            return false;
        }
        if at == bytes.len() {
            return true;
        }
        let separator = at;
        while at < bytes.len() && !alnum(bytes[at]) {
            at += 1;
        }
        let separator = &bytes[separator..at];
        if !matches!(separator, b"." | b"_" | b"__") && !separator.iter().all(|b| *b == b'-') {
            return false;
        }
    }
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    bytes.len() <= TAG_LIMIT
        && bytes.first().is_some_and(|b| word(*b))
        && bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'-'))
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;
    fn try_from(text: String) -> Result<Self, ReferenceError> {
        Self::parse(&text)
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

/// Prints the canonical form, `docker.io/library/ubuntu:latest`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(&self.name))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reference({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn short_names_are_completed_and_shown_short_again() {
        for (text, canonical, familiar) in [
            ("ubuntu", "docker.io/library/ubuntu", "ubuntu"),
            ("ubuntu:22.04", "docker.io/library/ubuntu:22.04", "ubuntu:22.04"),
            ("docker.io/ubuntu", "docker.io/library/ubuntu", "ubuntu"),
            ("index.docker.io/library/ubuntu", "docker.io/library/ubuntu", "ubuntu"),
            ("user/app", "docker.io/user/app", "user/app"),
            ("library/a", "docker.io/library/a", "a"),
            ("library/a/b", "docker.io/library/a/b", "library/a/b"),
            ("localhost/app", "localhost/app", "localhost/app"),
            ("host:5000/app:1", "host:5000/app:1", "host:5000/app:1"),
            ("example.com/a/b__c-d", "example.com/a/b__c-d", "example.com/a/b__c-d"),
            ("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app"),
            ("a---b", "docker.io/library/a---b", "a---b"),
        ] {
            let r = Reference::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((r.to_string().as_str(), r.familiar().as_str()), (canonical, familiar), "{text}");
            assert_eq!(Reference::parse(canonical), Ok(r));
        }
    }

    #[test]
    fn tag_and_digest_may_stand_together() {
        let r = Reference::parse(&format!("a:1@{DIGEST}")).expect("valid");
        assert_eq!((r.tag(), r.digest().map(Digest::as_str)), (Some("1"), Some(DIGEST)));
        assert_eq!(r.familiar(), format!("a:1@{DIGEST}"));
        assert_eq!(Reference::parse("a").map(|r| r.with_default_tag().familiar()), Ok("a:latest".to_owned()));
    }

    #[test]
    fn malformed_texts_get_dockers_message() {
        for text in [
            "",
            ":",
            "a:",
            "a:b:c",
            "/a",
            "a/",
            "a//b",
            "-a",
            "a-",
            "a._b",
            "a..b",
            "a___b",
            "a b",
            "../a",
            "a@",
            "a@sha256:12",
            "https://a/b",
            "a:-1",
            "é",
            "[::1/app",
            "[x]/app",
            "a:5000x/b",
        ] {
            let e = Reference::parse(text).expect_err(text);
            assert_eq!(e.to_string(), "invalid reference format", "{text}");
        }
    }

    #[test]
    fn upper_case_names_are_told_apart() {
        let e = Reference::parse("Ubuntu:x").expect_err("upper");
        assert_eq!(e.to_string(), "invalid reference format: repository name (library/Ubuntu) must be lowercase");
    }

    #[test]
    fn sixty_four_hex_digits_are_no_name() {
        let e = Reference::parse(&"a".repeat(64)).expect_err("id");
        assert!(e.to_string().contains("cannot specify 64-byte hexadecimal strings"));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_texts_never_panic_and_what_parses_prints_so_that_it_parses_again(
            text in "[a-cA-C0-9._:/@\\[\\]é-]{0,24}",
        ) {
            if let Ok(r) = Reference::parse(&text) {
                assert_eq!(Reference::parse(&r.to_string()), Ok(r.clone()));
                assert_eq!(Reference::parse(&r.familiar()), Ok(r));
            }
        }
    }

    #[test]
    fn limits_of_length_are_held() {
        assert!(Reference::parse(&"a".repeat(240)).is_ok());
        assert_eq!(Reference::parse(&"a".repeat(300)), Err(ReferenceError::TooLong));
        assert!(Reference::parse(&format!("a:{}", "b".repeat(128))).is_ok());
        assert_eq!(Reference::parse(&format!("a:{}", "b".repeat(129))), Err(ReferenceError::Format));
    }
}
