//! Which ids of the host the ids of a user namespace are (user_namespaces(7)).

/// What ids that are not in a map are shown as, the kernel's overflow id.
const NOBODY: u32 = 65_534;

/// One run of consecutive ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first id in the namespace.
    pub inside: u32,
    /// The first id of the host.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// The ids of a user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMaps {
    /// Users.
    pub uids: Vec<IdRange>,
    /// Groups.
    pub gids: Vec<IdRange>,
}

fn outside(ranges: &[IdRange], id: u32) -> Option<u32> {
    let range = ranges.iter().find(|r| id >= r.inside && id - r.inside < r.count)?;
    Some(range.outside + (id - range.inside))
}

fn inside(ranges: &[IdRange], id: u32) -> Option<u32> {
    let range = ranges.iter().find(|r| id >= r.outside && id - r.outside < r.count)?;
    Some(range.inside + (id - range.outside))
}

/// The lines of `/proc/<pid>/uid_map`.
fn lines(ranges: &[IdRange]) -> String {
    ranges.iter().map(|r| format!("{} {} {}\n", r.inside, r.outside, r.count)).collect()
}

fn words(ranges: &[IdRange]) -> String {
    let all: Vec<String> = ranges.iter().map(|r| format!("{}:{}:{}", r.inside, r.outside, r.count)).collect();
    all.join(",")
}

impl IdMaps {
    /// The host's ids of a user and a group inside; none if they have none.
    pub fn outside(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        Some((outside(&self.uids, uid)?, outside(&self.gids, gid)?))
    }

    /// A user and a group of the host as they are seen inside.
    pub fn inside(&self, uid: u32, gid: u32) -> (u32, u32) {
        (inside(&self.uids, uid).unwrap_or(NOBODY), inside(&self.gids, gid).unwrap_or(NOBODY))
    }

    /// The host's ids of the namespace's root; its own where the map has none.
    pub fn root(&self) -> (u32, u32) {
        self.outside(0, 0).unwrap_or_default()
    }

    /// What is written to `uid_map` and `gid_map`.
    pub fn files(&self) -> (String, String) {
        (lines(&self.uids), lines(&self.gids))
    }

    /// The map that takes the host's ids back to those inside.
    pub fn reversed(&self) -> IdMaps {
        let turn = |ranges: &[IdRange]| {
            ranges.iter().map(|r| IdRange { inside: r.outside, outside: r.inside, count: r.count }).collect()
        };
        IdMaps { uids: turn(&self.uids), gids: turn(&self.gids) }
    }

    /// The mount options by which containerd's snapshotters ask for shifted owners (`uidmap=`, `gidmap=`).
    pub fn options(&self) -> [String; 2] {
        [format!("uidmap={}", words(&self.uids)), format!("gidmap={}", words(&self.gids))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_out_and_come_back_and_what_has_no_place_is_nobody() {
        let range = |inside, outside, count| IdRange { inside, outside, count };
        let uids = vec![range(0, 100_000, 10), range(10, 300_000, 5)];
        let maps = IdMaps { uids, gids: vec![range(0, 200_000, 65_536)] };
        assert_eq!(maps.outside(12, 7), Some((300_002, 200_007)));
        assert_eq!(maps.outside(15, 0), None);
        assert_eq!(maps.inside(300_002, 200_007), (12, 7));
        assert_eq!(maps.inside(0, 0), (65_534, 65_534));
        assert_eq!(maps.root(), (100_000, 200_000));
        assert_eq!(maps.reversed().outside(300_002, 200_007), Some((12, 7)));
        assert_eq!(maps.options()[0], "uidmap=0:100000:10,10:300000:5");
        assert_eq!(maps.files().0, "0 100000 10\n10 300000 5\n");
    }
}
