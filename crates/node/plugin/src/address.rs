//! Where a plugin is, and what its specification files say.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::PluginError;

/// The address of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
            Address::Tcp(host) => write!(f, "tcp://{host}"),
        }
    }
}

impl Address {
    /// Reads `unix:///path`, `tcp://host:port` or `http://host:port`. The error is the reason alone.
    pub fn parse(text: &str) -> Result<Address, String> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").ok_or_else(|| format!("unknown protocol in {text:?}"))?;
        let host = rest.trim_end_matches('/');
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Address::Unix(PathBuf::from(rest))),
            "tcp" | "http" if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
                Ok(Address::Tcp(host.to_owned()))
            }
            "tcp" | "http" => Err(format!("no port in {text:?}")),
            "https" => Err("plugins behind TLS are not supported".to_owned()),
            _ => Err(format!("unknown protocol in {text:?}")),
        }
    }

    /// Reads a `.spec` (one address) or `.json` file.
    pub(crate) fn of_file(path: &Path) -> Result<Address, PluginError> {
        let wrong = |reason: String| PluginError::Specification { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        let json = path.extension().is_some_and(|e| e == "json");
        if json { Self::of_json(&text).map_err(wrong) } else { Self::parse(&text).map_err(wrong) }
    }

    /// Reads the text of a `.json` specification: `{"Name": …, "Addr": …, "TLSConfig": {…}}`.
    pub fn of_json(text: &str) -> Result<Address, String> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let encrypted = value["TLSConfig"].as_object().is_some_and(|tls| !tls.is_empty());
        if encrypted {
            return Err("plugins behind TLS are not supported".to_owned());
        }
        Self::parse(value["Addr"].as_str().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_dockers_forms() {
        assert_eq!(Address::parse("unix:///run/x.sock\n"), Ok(Address::Unix("/run/x.sock".into())));
        assert_eq!(Address::parse("tcp://localhost:8080/"), Ok(Address::Tcp("localhost:8080".into())));
        assert_eq!(Address::of_json(r#"{"Name":"p","Addr":"http://h:1"}"#), Ok(Address::Tcp("h:1".into())));
        for wrong in ["", "unix://x", "tcp://h", "ftp://h:1", "https://h:1", "h:1"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Address::of_json(r#"{"Addr":"tcp://h:1","TLSConfig":{"CAFile":"x"}}"#).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,60}") {
            let _ = Address::parse(&text);
            let _ = Address::of_json(&text);
        }
    }
}
