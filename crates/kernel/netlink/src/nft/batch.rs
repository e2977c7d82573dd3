//! A transaction: changes that take effect together.

use std::time::Duration;

use super::expression::value;
use super::{Expr, Family, SUBSYSTEM};
use crate::encode::{F_APPEND, F_CREATE, F_EXCL};
use crate::{NetlinkError, Requests, Socket};

const NEWTABLE: u16 = SUBSYSTEM;
const DELTABLE: u16 = SUBSYSTEM | 2;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const DELCHAIN: u16 = SUBSYSTEM | 5;
const NEWRULE: u16 = SUBSYSTEM | 6;
const DELRULE: u16 = SUBSYSTEM | 8;
const NEWSET: u16 = SUBSYSTEM | 9;
const NEWELEMENT: u16 = SUBSYSTEM | 12;
const DELELEMENT: u16 = SUBSYSTEM | 14;

/// Elements per message: a list is one attribute, and an attribute holds less than 64 KiB.
const CHUNK: usize = 400;

/// Where packets enter a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Every incoming packet, before routing.
    Prerouting,
    /// For this host.
    Input,
    /// Routed through this host.
    Forward,
    /// From this host.
    Output,
    /// Every outgoing packet, after routing.
    Postrouting,
}

impl Hook {
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
        }
    }
}

/// What a base chain does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Accepts and drops.
    Filter,
    /// Translates addresses; sees the first packet of each connection.
    Nat,
}

/// How a chain hangs on a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Base {
    /// Filter or NAT.
    pub kind: Kind,
    /// The hook.
    pub hook: Hook,
    /// Lower comes first: raw -300, dstnat -100, filter 0, srcnat 100.
    pub priority: i32,
    /// Whether packets that no rule decided are dropped.
    pub drop: bool,
}

/// Where a new rule goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the end of its chain.
    Last,
    /// At the start of its chain.
    First,
    /// After the rule with this handle.
    After(u64),
}

/// The type of a map from a key to an address and port, for lookups by hash. Lengths in bytes; the type numbers are
/// what `nft list` needs to print elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MapType {
    /// Type number of the key.
    pub key: u32,
    /// Its length, at most 64.
    pub key_length: u32,
    /// Type number of the value.
    pub value: u32,
    /// Its length, at most 64.
    pub value_length: u32,
}

/// The type of a set of keys, for lookups by hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SetType {
    /// Type number of the key.
    pub key: u32,
    /// Its length, at most 64.
    pub key_length: u32,
    /// Whether elements have a lifetime.
    pub timeout: bool,
    /// For keys that are ranges: the lengths of the fields of which they are joined, at least two; otherwise empty.
    pub fields: &'static [u32],
}

/// A key that is a range in each of its fields: from the first to the last, each part padded to four bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// The lowest of each field.
    pub first: Vec<u8>,
    /// The highest of each field.
    pub last: Vec<u8>,
}

/// One element of a map, or with an empty value of a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    /// Each part padded to four bytes.
    pub key: Vec<u8>,
    /// Each part padded to four bytes.
    pub value: Vec<u8>,
}

/// Changes that the kernel makes all together or not at all.
#[derive(Debug)]
pub struct Batch {
    requests: Requests,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// A batch without changes.
    pub fn new() -> Self {
        let mut requests = Requests::new();
        requests.begin("open batch", 0x10, 0);
        requests.put(&generic(0, SUBSYSTEM >> 8));
        Self { requests }
    }

    /// Whether it holds no change.
    pub fn is_empty(&self) -> bool {
        self.requests.len() == 1
    }

    fn begin(&mut self, name: &'static str, kind: u16, flags: u16, family: Family) -> &mut Requests {
        self.requests.begin(name, kind, flags);
        self.requests.put(&generic(family.number(), 0));
        &mut self.requests
    }

    /// Adds a table unless it exists.
    pub fn add_table(&mut self, family: Family, table: &str) {
        self.begin("add table", NEWTABLE, F_CREATE, family).attr_text(1, table);
    }

    /// Deletes a table with everything in it.
    pub fn delete_table(&mut self, family: Family, table: &str) {
        self.begin("delete table", DELTABLE, 0, family).attr_text(1, table);
    }

    /// Adds a chain unless it exists. The policy of an existing base chain becomes the given one.
    pub fn add_chain(&mut self, family: Family, table: &str, chain: &str, base: Option<Base>, comment: Option<&str>) {
        let r = self.begin("add chain", NEWCHAIN, F_CREATE, family);
        r.attr_text(1, table);
        r.attr_text(3, chain);
        if let Some(base) = base {
            r.nest(4, |r| {
                r.attr_be32(1, base.hook.number());
                r.attr_be32(2, base.priority as u32);
            });
            r.attr_be32(5, u32::from(!base.drop));
            r.attr_text(7, if base.kind == Kind::Nat { "nat" } else { "filter" });
        }
        if let Some(comment) = comment {
            r.attr(12, &note(comment));
        }
    }

    /// Sets the policy of an existing base chain and changes nothing else.
    pub fn set_policy(&mut self, family: Family, table: &str, chain: &str, drop: bool) {
        let r = self.begin("set chain policy", NEWCHAIN, 0, family);
        r.attr_text(1, table);
        r.attr_text(3, chain);
        r.attr_be32(5, u32::from(!drop));
    }

    /// Deletes a chain.
    pub fn delete_chain(&mut self, family: Family, table: &str, chain: &str) {
        let r = self.begin("delete chain", DELCHAIN, 0, family);
        r.attr_text(1, table);
        r.attr_text(3, chain);
    }

    /// Adds a rule, with a comment that `nft list` shows.
    pub fn add_rule(&mut self, family: Family, table: &str, chain: &str, place: Place, rule: &[Expr], comment: &str) {
        let flags = if matches!(place, Place::First) { F_CREATE } else { F_CREATE | F_APPEND };
        let r = self.begin("add rule", NEWRULE, flags, family);
        r.attr_text(1, table);
        r.attr_text(2, chain);
        r.nest(4, |r| {
            for expression in rule {
                r.nest(1, |r| expression.write(r));
            }
        });
        if let Place::After(handle) = place {
            r.attr(6, &handle.to_be_bytes());
        }
        if !comment.is_empty() {
            r.attr(7, &note(comment));
        }
    }

    /// Deletes one rule.
    pub fn delete_rule(&mut self, family: Family, table: &str, chain: &str, handle: u64) {
        let r = self.begin("delete rule", DELRULE, 0, family);
        r.attr_text(1, table);
        r.attr_text(2, chain);
        r.attr(3, &handle.to_be_bytes());
    }

    /// Deletes all rules of a chain.
    pub fn flush_chain(&mut self, family: Family, table: &str, chain: &str) {
        let r = self.begin("flush chain", DELRULE, 0, family);
        r.attr_text(1, table);
        r.attr_text(2, chain);
    }

    /// Adds a set. `id` is any number that no other set or map of this batch has. Elements of one with `timeout` may
    /// carry a lifetime.
    pub fn add_set(&mut self, family: Family, table: &str, set: &str, kind: SetType, id: u32) {
        const TIMEOUT: u32 = 0x10;
        const INTERVAL_CONCAT: u32 = 0x4 | 0x80;
        let r = self.begin("add set", NEWSET, F_CREATE | F_EXCL, family);
        r.attr_text(1, table);
        r.attr_text(2, set);
        let ranges = if kind.fields.is_empty() { 0 } else { INTERVAL_CONCAT };
        r.attr_be32(3, ranges | if kind.timeout { TIMEOUT } else { 0 });
        r.attr_be32(4, kind.key);
        r.attr_be32(5, kind.key_length);
        if !kind.fields.is_empty() {
            r.nest(9, |r| {
                r.nest(2, |r| kind.fields.iter().for_each(|length| r.nest(1, |r| r.attr_be32(1, *length))));
            });
        }
        r.attr_be32(10, id);
    }

    /// Adds elements to a set, or gives those that are there this lifetime.
    pub fn refresh_elements(&mut self, family: Family, table: &str, set: &str, keys: &[Vec<u8>], lifetime: Duration) {
        for chunk in keys.chunks(CHUNK) {
            let r = self.begin("add set elements", NEWELEMENT, F_CREATE, family);
            r.attr_text(1, table);
            r.attr_text(2, set);
            r.nest(3, |r| {
                for key in chunk {
                    r.nest(1, |r| {
                        value(r, 1, key);
                        r.attr(4, &(lifetime.as_millis() as u64).to_be_bytes());
                    });
                }
            });
        }
    }

    /// Adds ranges to a set of such.
    ///
    /// # Errors
    /// At commit, `EEXIST` if one is there already, `ENOTEMPTY` if one begins or ends in another.
    pub fn add_ranges(&mut self, family: Family, table: &str, set: &str, ranges: &[Range]) {
        self.put_ranges("add ranges", NEWELEMENT, F_CREATE | F_EXCL, family, (table, set), ranges);
    }

    /// Deletes ranges of a set.
    ///
    /// # Errors
    /// At commit, `ENOENT` if one is not there.
    pub fn delete_ranges(&mut self, family: Family, table: &str, set: &str, ranges: &[Range]) {
        self.put_ranges("delete ranges", DELELEMENT, 0, family, (table, set), ranges);
    }

    fn put_ranges(
        &mut self,
        name: &'static str,
        kind: u16,
        flags: u16,
        family: Family,
        (table, set): (&str, &str),
        ranges: &[Range],
    ) {
        for chunk in ranges.chunks(CHUNK / 2) {
            let r = self.begin(name, kind, flags, family);
            r.attr_text(1, table);
            r.attr_text(2, set);
            r.nest(3, |r| {
                for range in chunk {
                    r.nest(1, |r| {
                        value(r, 1, &range.first);
                        value(r, 10, &range.last);
                    });
                }
            });
        }
    }

    /// Adds a chain that sees what comes in by one link, before anything else does (table family netdev). What no rule
    /// accepts is dropped.
    pub fn add_ingress(&mut self, table: &str, chain: &str, link: &str) {
        let r = self.begin("add ingress chain", NEWCHAIN, F_CREATE, Family::Netdev);
        r.attr_text(1, table);
        r.attr_text(3, chain);
        r.nest(4, |r| {
            r.attr_be32(1, 0);
            r.attr_be32(2, 0);
            r.attr_text(3, link);
        });
        r.attr_be32(5, 0);
        r.attr_text(7, "filter");
    }

    /// Adds a map. `id` is any number that no other map of this batch has.
    pub fn add_map(&mut self, family: Family, table: &str, map: &str, kind: MapType, id: u32) {
        const MAP: u32 = 0x8;
        let r = self.begin("add map", NEWSET, F_CREATE | F_EXCL, family);
        r.attr_text(1, table);
        r.attr_text(2, map);
        r.attr_be32(3, MAP);
        r.attr_be32(4, kind.key);
        r.attr_be32(5, kind.key_length);
        r.attr_be32(6, kind.value);
        r.attr_be32(7, kind.value_length);
        r.attr_be32(10, id);
    }

    /// Adds elements to a map.
    ///
    /// # Errors
    /// At commit, `EEXIST` if a key is there already.
    pub fn add_elements(&mut self, family: Family, table: &str, map: &str, elements: &[Element]) {
        for chunk in elements.chunks(CHUNK) {
            let r = self.begin("add map elements", NEWELEMENT, F_CREATE | F_EXCL, family);
            put_elements(r, table, map, chunk, true);
        }
    }

    /// Deletes elements of a map by their keys.
    ///
    /// # Errors
    /// At commit, `ENOENT` if a key is not there.
    pub fn delete_elements(&mut self, family: Family, table: &str, map: &str, elements: &[Element]) {
        for chunk in elements.chunks(CHUNK) {
            let r = self.begin("delete map elements", DELELEMENT, 0, family);
            put_elements(r, table, map, chunk, false);
        }
    }

    /// Makes the changes.
    ///
    /// # Errors
    /// The first refusal; then nothing has changed.
    pub fn commit(mut self, socket: &mut Socket) -> Result<(), NetlinkError> {
        if self.is_empty() {
            return Ok(());
        }
        self.requests.begin("commit batch", 0x11, 0);
        self.requests.put(&generic(0, SUBSYSTEM >> 8));
        socket.batch(&mut self.requests)
    }
}

fn put_elements(r: &mut Requests, table: &str, map: &str, elements: &[Element], values: bool) {
    r.attr_text(1, table);
    r.attr_text(2, map);
    r.nest(3, |r| {
        for element in elements {
            r.nest(1, |r| {
                value(r, 1, &element.key);
                if values && !element.value.is_empty() {
                    value(r, 2, &element.value);
                }
            });
        }
    });
}

/// `struct nfgenmsg`.
fn generic(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// A comment as nft(8) keeps it: type 0, length, text, NUL.
fn note(comment: &str) -> Vec<u8> {
    let text = &comment.as_bytes()[..comment.len().min(128)];
    let mut bytes = vec![0, text.len() as u8 + 1];
    bytes.extend_from_slice(text);
    bytes.push(0);
    bytes
}
