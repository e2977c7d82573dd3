//! Who a process runs as: Docker's user texts (`user`, `uid`, `user:group`, …) looked up in the container's own
//! passwd and group files, never in the host's.

use wharf_error::{HasKind, Kind};

use crate::rootfs::Root;
use crate::spec::Identity;

/// A user or group that does not exist in the container. Docker's texts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// No such user.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    User(String),
    /// No such group.
    #[error("unable to find group {0}: no matching entries in group file")]
    Group(String),
    /// Too large for the kernel's signed interfaces, where it would wrap around to root (CVE-2024-40635).
    #[error("uids and gids must be in range 0-2147483647")]
    Range,
}

impl HasKind for IdentityError {
    fn kind(&self) -> Kind {
        match self {
            // moby leaves these unclassified: status 500.
            IdentityError::User(_) | IdentityError::Group(_) | IdentityError::Range => Kind::System,
        }
    }
}

/// Whole numbers are ids; a number too large is an error and not a name.
fn number(text: &str) -> Result<Option<u32>, IdentityError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(n) if n <= i32::MAX as u32 => Ok(Some(n)),
        _ => Err(IdentityError::Range),
    }
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn passwd(text: &str) -> impl Iterator<Item = Passwd<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let (_, home) = (fields.next(), fields.next().unwrap_or_default());
        Some(Passwd { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
    })
}

fn groups(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
        Some((name, gid.parse().ok()?, fields.next().unwrap_or_default()))
    })
}

/// Looks a user text and additional groups up in the texts of passwd and group.
pub fn resolve(user: &str, add: &[String], passwd_text: &str, group_text: &str) -> Result<Identity, IdentityError> {
    let (user, group) = user.split_once(':').map_or((user, ""), |(u, g)| (u, g));
    let user = if user.is_empty() { "0" } else { user };
    let wanted = number(user)?;
    // A number is an id and never a name: a passwd entry called "1000" with uid 0 must not match (CVE-2016-3697).
    let entry = passwd(passwd_text).find(|p| wanted.map_or(p.name == user, |uid| p.uid == uid));
    let (uid, mut gid, home) = match (&entry, wanted) {
        (Some(p), _) => (p.uid, p.gid, Some(p.home).filter(|h| !h.is_empty()).map(str::to_owned)),
        (None, Some(uid)) => (uid, 0, None),
        (None, None) => return Err(IdentityError::User(user.to_owned())),
    };
    let find_group = |text: &str| match number(text)? {
        Some(gid) => Ok(gid),
        None => {
            let found = groups(group_text).find(|(name, ..)| *name == text);
            found.map(|(_, gid, _)| gid).ok_or_else(|| IdentityError::Group(text.to_owned()))
        }
    };
    let mut all = Vec::new();
    if group.is_empty() {
        if let Some(p) = &entry {
            let member = |list: &str| list.split(',').any(|m| m == p.name);
            all.extend(groups(group_text).filter(|(.., members)| member(members)).map(|(_, gid, _)| gid));
        }
    } else {
        gid = find_group(group)?;
    }
    for name in add {
        all.push(find_group(name)?);
    }
    if [uid, gid].iter().chain(&all).any(|id| *id > i32::MAX as u32) {
        return Err(IdentityError::Range);
    }
    let mut list = vec![gid];
    all.into_iter().for_each(|g| {
        if !list.contains(&g) {
            list.push(g);
        }
    });
    Ok(Identity { uid, gid, groups: list, home })
}

/// Looks a user text up in a root file system.
pub fn look_up(user: &str, add: &[String], root: &Root) -> Result<Identity, IdentityError> {
    let text = |path| root.read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    resolve(user, add, &text("/etc/passwd"), &text("/etc/group"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:\nweb:x:1000:100::/home/web:/bin/sh\n\
                          1234:x:0:0::/root:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\nwheel:x:10:root,web\naudio:x:29:web\n";

    fn of(user: &str) -> Result<(u32, u32, Vec<u32>), String> {
        resolve(user, &[], PASSWD, GROUP).map(|i| (i.uid, i.gid, i.groups)).map_err(|e| e.to_string())
    }

    #[test]
    fn names_numbers_and_groups_are_found() {
        assert_eq!(of(""), Ok((0, 0, vec![0, 10])));
        assert_eq!(of("web"), Ok((1000, 100, vec![100, 10, 29])));
        assert_eq!(of("1000"), Ok((1000, 100, vec![100, 10, 29])));
        assert_eq!(of("1:2"), Ok((1, 2, vec![2])));
        assert_eq!(of("web:audio"), Ok((1000, 29, vec![29])));
        assert_eq!(resolve("web", &["wheel".into(), "77".into()], PASSWD, GROUP).expect("found").groups.len(), 4);
    }

    #[test]
    fn who_does_not_exist_is_named_in_dockers_words() {
        assert_eq!(of("x").unwrap_err(), "unable to find user x: no matching entries in passwd file");
        assert_eq!(of("0:x").unwrap_err(), "unable to find group x: no matching entries in group file");
        assert_eq!(of("99999999999").unwrap_err(), "uids and gids must be in range 0-2147483647");
    }

    #[test]
    fn cve_2016_3697_a_number_is_never_a_name() {
        assert_eq!(of("1234"), Ok((1234, 0, vec![0])));
    }

    #[test]
    fn cve_2024_40635_ids_beyond_31_bits_are_refused() {
        for user in ["2147483648", "4294967295", "4294967296", "0:4294967296", "18446744073709551616"] {
            assert!(of(user).is_err(), "{user}");
        }
        let passwd = "big:x:4294967295:0::/:\n";
        assert!(resolve("big", &[], passwd, "").is_err());
    }

    #[test]
    fn cve_2022_36109_an_explicit_group_brings_no_others() {
        assert_eq!(of("web:100"), Ok((1000, 100, vec![100])));
    }
}
