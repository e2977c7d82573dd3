//! Reading chains, rules and events.

use std::time::Duration;

use super::{Family, SUBSYSTEM};
use crate::decode::{Attribute, Message, attributes};
use crate::{NetlinkError, Socket};

const NEWCHAIN: u16 = SUBSYSTEM | 3;
const GETCHAIN: u16 = SUBSYSTEM | 4;
const NEWRULE: u16 = SUBSYSTEM | 6;
const GETRULE: u16 = SUBSYSTEM | 7;
const GETELEMENT: u16 = SUBSYSTEM | 13;

/// A chain that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainInfo {
    /// Family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Hook number and type for base chains.
    pub base: Option<(u32, String)>,
    /// Whether its policy is to drop.
    pub drop: bool,
    /// How many rules and references it has.
    pub uses: u32,
    /// The comment given when it was made.
    pub comment: Option<String>,
}

/// A rule that exists, as far as neighbours need to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    /// Its number in its table.
    pub handle: u64,
    /// Its comment.
    pub comment: Option<String>,
    /// The chains that it jumps or goes to.
    pub targets: Vec<String>,
    /// What its counters have seen; 0 without counter.
    pub packets: u64,
}

/// Somebody changed tables, chains or rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Family of the table.
    pub family: Family,
    /// The table.
    pub table: String,
}

/// Reads all chains of all families.
pub fn chains(socket: &mut Socket) -> Result<Vec<ChainInfo>, NetlinkError> {
    socket.dump(
        |r, flags| {
            r.begin("list chains", GETCHAIN, flags);
            r.put(&[0; 4]);
        },
        |all: &mut Vec<ChainInfo>, message| {
            all.extend(read_chain(message));
            Ok(())
        },
    )
}

/// Reads the rules of one chain, in order.
pub fn rules(socket: &mut Socket, family: Family, table: &str, chain: &str) -> Result<Vec<RuleInfo>, NetlinkError> {
    socket.dump(
        |r, flags| {
            r.begin("list rules", GETRULE, flags);
            r.put(&[family.number(), 0, 0, 0]);
            r.attr_text(1, table);
            r.attr_text(2, chain);
        },
        |all: &mut Vec<RuleInfo>, message| {
            all.extend(read_rule(message));
            Ok(())
        },
    )
}

/// Counts the elements of a set or map.
pub fn element_count(socket: &mut Socket, family: Family, table: &str, set: &str) -> Result<usize, NetlinkError> {
    socket.dump(
        |r, flags| {
            r.begin("list elements", GETELEMENT, flags);
            r.put(&[family.number(), 0, 0, 0]);
            r.attr_text(1, table);
            r.attr_text(2, set);
        },
        |count: &mut usize, message| {
            let list = body(message).and_then(|(_, b)| attributes(b).find(|a| a.kind == 3));
            *count += list.map_or(0, |l| l.nested().count());
            Ok(())
        },
    )
}

/// Reads the keys of a set's elements, with what is left of their lifetimes. A set that does not exist has none.
pub fn lifetimes(
    socket: &mut Socket,
    family: Family,
    table: &str,
    set: &str,
) -> Result<Vec<(Vec<u8>, Duration)>, NetlinkError> {
    let read = socket.dump(
        |r, flags| {
            r.begin("list elements", GETELEMENT, flags);
            r.put(&[family.number(), 0, 0, 0]);
            r.attr_text(1, table);
            r.attr_text(2, set);
        },
        |all: &mut Vec<(Vec<u8>, Duration)>, message| {
            let list = body(message).and_then(|(_, b)| attributes(b).find(|a| a.kind == 3));
            all.extend(list.iter().flat_map(Attribute::nested).filter_map(|e| lifetime(&e)));
            Ok(())
        },
    );
    match read {
        Err(e) if e.is(rustix::io::Errno::NOENT) => Ok(Vec::new()),
        other => other,
    }
}

/// An element's key and what is left of its lifetime.
fn lifetime(element: &Attribute<'_>) -> Option<(Vec<u8>, Duration)> {
    let key = element.nested().find(|a| a.kind == 1)?.nested().find(|a| a.kind == 1)?;
    let left = element.nested().find(|a| a.kind == 5)?.be64()?;
    Some((key.value.to_vec(), Duration::from_millis(left)))
}

/// Understands an event; `None` for those about elements, sets and generations, which change no chain.
pub fn event(message: &Message<'_>) -> Option<Event> {
    let about_chains = message.kind & 0xff00 == SUBSYSTEM && message.kind & 0xff <= 8;
    let (family, body) = body(message).filter(|_| about_chains)?;
    let table = attributes(body).find(|a| a.kind == 1)?.text();
    Some(Event { family, table })
}

fn body<'a>(message: &Message<'a>) -> Option<(Family, &'a [u8])> {
    Some((Family::of(*message.payload.first()?), message.payload.get(4..)?))
}

fn read_chain(message: &Message<'_>) -> Option<ChainInfo> {
    let (family, body) = body(message).filter(|_| message.kind == NEWCHAIN)?;
    let mut chain = ChainInfo {
        family,
        table: String::new(),
        name: String::new(),
        base: None,
        drop: false,
        uses: 0,
        comment: None,
    };
    let mut hook = None;
    let mut kind = String::new();
    for attribute in attributes(body) {
        match attribute.kind {
            1 => chain.table = attribute.text(),
            3 => chain.name = attribute.text(),
            4 => hook = attribute.nested().find(|a| a.kind == 1).and_then(|a| a.be32()),
            5 => chain.drop = attribute.be32() == Some(0),
            6 => chain.uses = attribute.be32().unwrap_or(0),
            7 => kind = attribute.text(),
            12 => chain.comment = comment(&attribute),
            _ => {}
        }
    }
    chain.base = hook.map(|h| (h, kind));
    Some(chain)
}

fn read_rule(message: &Message<'_>) -> Option<RuleInfo> {
    let (_, body) = body(message).filter(|_| message.kind == NEWRULE)?;
    let mut rule = RuleInfo { handle: 0, comment: None, targets: Vec::new(), packets: 0 };
    for attribute in attributes(body) {
        match attribute.kind {
            3 => rule.handle = attribute.be64().unwrap_or(0),
            4 => {
                rule.targets = attribute.nested().filter_map(|e| target(&e)).collect();
                rule.packets = attribute.nested().filter_map(|e| counted(&e)).sum();
            }
            7 => rule.comment = comment(&attribute),
            _ => {}
        }
    }
    Some(rule)
}

/// The data of an expression of the given name.
fn data<'a>(expression: &Attribute<'a>, name: &[u8]) -> Option<Attribute<'a>> {
    let found = expression.nested().find(|a| a.kind == 1)?.value;
    let matches = found.strip_suffix(b"\0").unwrap_or(found) == name;
    expression.nested().find(|a| a.kind == 2 && matches)
}

/// The chain named by the verdict of an `immediate` expression.
fn target(expression: &Attribute<'_>) -> Option<String> {
    let value = data(expression, b"immediate")?.nested().find(|a| a.kind == 2)?;
    let verdict = value.nested().find(|a| a.kind == 2)?;
    verdict.nested().find(|a| a.kind == 2).map(|a| a.text())
}

/// The packets that a `counter` expression has seen.
fn counted(expression: &Attribute<'_>) -> Option<u64> {
    data(expression, b"counter")?.nested().find(|a| a.kind == 2)?.be64()
}

/// The comment among type-length-value notes (see `note` in the batch).
fn comment(attribute: &Attribute<'_>) -> Option<String> {
    let mut rest = attribute.value;
    while let [kind, length, tail @ ..] = rest {
        let value = tail.get(..usize::from(*length))?;
        if *kind == 0 {
            return Some(Attribute { kind: 0, value }.text());
        }
        rest = &tail[value.len()..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn reading_hostile_chains_rules_and_events_never_panics(
            low in 0u16..20, payload in proptest::collection::vec(0u8.., 0..200)
        ) {
            let message = Message { kind: SUBSYSTEM | low, flags: 0, sequence: 0, payload: &payload };
            let _ = (read_chain(&message), read_rule(&message), event(&message));
        }

        #[test]
        fn reading_a_comment_never_panics(value in proptest::collection::vec(0u8.., 0..40)) {
            let _ = comment(&Attribute { kind: 7, value: &value });
        }
    }
}
