//! Options of the local driver: Docker's `type`, `device`, `o` and `size`, and our `uid`, `gid`.

use std::collections::BTreeMap;

use crate::VolumeError;

/// What is behind a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// A folder.
    Folder,
    /// A file system of its own in an image file, so that it cannot grow beyond this many bytes.
    Disk {
        /// Bytes.
        size: u64,
    },
    /// Whatever mount(2) makes of this, while a container uses it.
    Device {
        /// File system type.
        kind: String,
        /// Source.
        device: String,
        /// Options, comma-separated.
        words: String,
    },
}

/// The options of one volume, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalOptions {
    /// What is behind it.
    pub backing: Backing,
    /// Owner of its root folder: user and group (Wharf extras `uid` and `gid`; asked of Docker in moby#7198).
    pub owner: (Option<u32>, Option<u32>),
}

impl LocalOptions {
    /// Checks options as a client gives them.
    ///
    /// Errors are Invalid, with Docker's texts.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<LocalOptions, VolumeError> {
        const KNOWN: &[&str] = &["type", "o", "device", "size", "uid", "gid"];
        if let Some(wrong) = options.keys().find(|k| !KNOWN.contains(&k.as_str())) {
            return Err(VolumeError::InvalidOption(wrong.clone()));
        }
        let get = |key: &str| options.get(key).map(String::as_str);
        let size = get("size").map(parse_size).transpose()?;
        let needs = [("device", "type"), ("type", "device"), ("o", "device"), ("o", "type")];
        if let Some((_, missing)) = needs.iter().find(|(have, needed)| get(have).is_some() && get(needed).is_none()) {
            return Err(VolumeError::MissingOption(missing));
        }
        let id = |option: &'static str| {
            let parse =
                |value: &str| value.parse::<u32>().map_err(|_| VolumeError::Owner { option, value: value.to_owned() });
            get(option).map(parse).transpose()
        };
        let owner = (id("uid")?, id("gid")?);
        let backing = match (get("device"), size.filter(|s| *s > 0)) {
            (Some(device), None) => Backing::Device {
                kind: get("type").unwrap_or_default().to_owned(),
                device: device.to_owned(),
                words: get("o").unwrap_or_default().to_owned(),
            },
            (Some(_), Some(_)) => {
                return Err(VolumeError::NoQuota("a size cannot be combined with a device".to_owned()));
            }
            (None, Some(size)) => Backing::Disk { size },
            (None, None) => Backing::Folder,
        };
        if matches!(backing, Backing::Device { .. }) {
            let given = [("uid", owner.0), ("gid", owner.1)];
            if let Some((option, _)) = given.into_iter().find(|(_, id)| id.is_some()) {
                return Err(VolumeError::OwnerOfDevice { option });
            }
        }
        Ok(LocalOptions { backing, owner })
    }
}

/// `10m`, `1.5g`, `512`: units are powers of 1024, as go-units' `RAMInBytes` has it.
pub fn parse_size(text: &str) -> Result<u64, VolumeError> {
    let wrong = || VolumeError::Size(text.to_owned());
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let shift = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(wrong()),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(wrong());
    }
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let bytes = number * f64::from(1_u32 << 10).powi(shift / 10);
    if bytes < 9e18 { Ok(bytes as u64) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<LocalOptions, String> {
        let map = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        LocalOptions::parse(&map).map_err(|e| e.to_string())
    }

    #[test]
    fn wrong_options_give_dockers_texts() {
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[("foo", "1")], "invalid option: \"foo\""),
            (&[("type", "tmpfs")], "missing required option: \"device\""),
            (&[("device", "x")], "missing required option: \"type\""),
            (&[("o", "x")], "missing required option: \"device\""),
            (&[("o", "x"), ("device", "y")], "missing required option: \"type\""),
            (&[("size", "xx")], "invalid size: 'xx'"),
            (&[("uid", "-1")], "invalid uid: '-1'"),
            (
                &[("uid", "1"), ("type", "tmpfs"), ("device", "tmpfs")],
                "option \"uid\" cannot be combined with a device: give it to the file system with \"o\"",
            ),
        ];
        for (options, text) in cases {
            assert_eq!(parse(options).expect_err("invalid"), *text);
        }
    }

    #[test]
    fn what_is_behind_a_volume_follows_from_its_options() {
        assert_eq!(parse(&[]).expect("valid").backing, Backing::Folder);
        assert_eq!(parse(&[("size", "0")]).expect("valid").backing, Backing::Folder);
        assert_eq!(parse(&[("size", "16m")]).expect("valid").backing, Backing::Disk { size: 16 << 20 });
        assert_eq!(parse(&[("uid", "7")]).expect("valid").owner, (Some(7), None));
    }

    #[test]
    fn sizes_have_dockers_units() {
        for (text, size) in [("1", 1), ("1k", 1024), ("1.5kb", 1536), ("2 MiB", 2 << 20), ("1g", 1 << 30)] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for text in ["", "m", "-1", "1q", "nan", "1e3", "inf", "99999999p", "1..2"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
