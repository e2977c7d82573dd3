//! Content digests (OCI image specification, descriptor.md, "Digests").

use std::fmt;

use serde::{Deserialize, Serialize};
use wharf_error::{HasKind, Kind};

/// A digest, `algorithm:hex`. Only `sha256` is taken: it is what every registry and client of the platform uses,
/// and the text is safe as a file name below a folder of the algorithm's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// A string that is not a digest we can hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Not `algorithm:hex`, or the hex part has the wrong length or letters.
    #[error("invalid digest {0:?}")]
    Malformed(String),
    /// A well-formed digest of an algorithm other than sha256.
    #[error("unsupported digest algorithm in {0:?}")]
    Algorithm(String),
}

impl HasKind for DigestError {
    fn kind(&self) -> Kind {
        match self {
            DigestError::Malformed(_) | DigestError::Algorithm(_) => Kind::Invalid,
        }
    }
}

impl Digest {
    /// Checks the text's form and takes it.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let shown = || text.chars().take(160).collect::<String>();
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| DigestError::Malformed(shown()))?;
        if algorithm != "sha256" {
            return Err(DigestError::Algorithm(shown()));
        }
        let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if hex.len() != 64 || !hex.bytes().all(lower_hex) {
            return Err(DigestError::Malformed(shown()));
        }
        Ok(Self(text.to_owned()))
    }

    /// Names the 32 bytes of a SHA-256 hash.
    pub fn from_sha256(hash: [u8; 32]) -> Self {
        use fmt::Write;
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for b in hash {
            let _ = write!(text, "{b:02x}");
        }
        Self(text)
    }

    /// The whole text, `sha256:…`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.0[7..]
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(d: Digest) -> String {
        d.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({}…)", &self.hex()[..12])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_sha256_is_taken() {
        let good = Digest::from_sha256([7; 32]);
        assert_eq!(Digest::parse(good.as_str()), Ok(good.clone()));
        let traversal = format!("sha256:../{}", "a".repeat(61));
        for bad in ["", "sha256:", "sha256:zz", traversal.as_str(), &good.as_str().to_uppercase()] {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
        let other = format!("sha512:{}", "a".repeat(128));
        assert!(matches!(Digest::parse(&other), Err(DigestError::Algorithm(_))));
    }
}
