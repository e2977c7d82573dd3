//! Typed identifiers. Docker's ids are 256 random bits in lower-case hex; the short form is the first 12 digits.

use std::fmt;

use serde::{Deserialize, Serialize};
use wharf_error::{HasKind, Kind};

/// A string that is not an id of the asked-for form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {text:?}: expected {digits} lower-case hexadecimal digits")]
pub struct IdError {
    what: &'static str,
    text: String,
    digits: usize,
}

impl HasKind for IdError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

fn check(what: &'static str, text: &str, digits: usize) -> Result<(), IdError> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() == digits && text.bytes().all(hex) {
        return Ok(());
    }
    Err(IdError { what, text: text.chars().take(80).collect(), digits })
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks the text's form and takes it.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check($what, text, $bytes * 2)?;
                Ok(Self(text.to_owned()))
            }

            /// Makes an id of random bytes, which the caller provides because this crate does no I/O.
            pub fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(hex(&bytes))
            }

            /// The whole id.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first 12 digits, as Docker shows ids.
            pub fn short(&self) -> &str {
                &self.0[..12]
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                check($what, &text, $bytes * 2)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }
    };
}

id!(
    /// A container, from create to remove.
    ContainerId, "container id", 32
);
id!(
    /// One exec session in a container.
    ExecId, "exec id", 32
);
id!(
    /// A network.
    NetworkId, "network id", 32
);
id!(
    /// One dockerd with its data root. Every kernel object carries it (cgroup parent, link alias, table), and
    /// reconcile touches nothing that carries another. Made at the first start, kept in the data root.
    InstanceId, "instance id", 6
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_random_bytes_parses_again_and_has_a_short_form() {
        let id = ContainerId::from_bytes([0xab; 32]);
        assert_eq!(ContainerId::parse(id.as_str()), Ok(id.clone()));
        assert_eq!(id.short(), "abababababab");
    }

    #[test]
    fn path_like_upper_case_and_short_texts_are_no_ids() {
        for text in ["", "../../etc", &"A".repeat(64), &"a".repeat(63), &"é".repeat(32)] {
            assert!(ContainerId::parse(text).is_err(), "{text}");
        }
    }
}
