//! API versions: `1.44` and the like, in paths and in comparisons.

use std::cmp::Ordering;

/// A version as written: numbers with dots, compared number by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiVersion(Vec<u32>);

impl ApiVersion {
    /// Takes `1.51`.
    pub fn new(major: u32, minor: u32) -> Self {
        Self(vec![major, minor])
    }

    /// Parses digits and dots; parts that are missing or too large count as 0, as in moby's `versions.compare`.
    pub fn parse(text: &str) -> Self {
        Self(text.split('.').map(|part| part.parse().unwrap_or(0)).collect())
    }

    /// Whether it is older than `1.minor`.
    pub fn before(&self, minor: u32) -> bool {
        *self < Self::new(1, minor)
    }
}

impl PartialOrd for ApiVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ApiVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        let part = |v: &Self, i: usize| v.0.get(i).copied().unwrap_or(0);
        (0..self.0.len().max(other.0.len()))
            .map(|i| part(self, i).cmp(&part(other, i)))
            .find(|o| *o != Ordering::Equal)
            .unwrap_or(Ordering::Equal)
    }
}

/// Takes the `/v1.44` in front of a path away. Only digits and dots are a version; else the path stays whole.
pub fn split(path: &str) -> (Option<&str>, &str) {
    let Some(rest) = path.strip_prefix("/v") else { return (None, path) };
    let end = rest.find('/').unwrap_or(rest.len());
    let (version, rest) = rest.split_at(end);
    if version.is_empty() || !version.bytes().all(|b| b.is_ascii_digit() || b == b'.') || rest.is_empty() {
        return (None, path);
    }
    (Some(version), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        let v = ApiVersion::parse;
        assert!(v("1.9") < v("1.24") && v("1.51") < v("1.51.1") && v("2") > v("1.99"));
        assert_eq!(v("1.051").cmp(&v("1.51")), Ordering::Equal);
        assert!(v("1.47").before(48) && !v("1.48").before(48));
    }

    #[test]
    fn only_digits_and_dots_make_a_version_prefix() {
        assert_eq!(split("/v1.44/version"), (Some("1.44"), "/version"));
        for path in ["/version", "/volumes", "/v/info", "/vx/info", "/v1.44"] {
            assert_eq!(split(path), (None, path));
        }
    }
}
