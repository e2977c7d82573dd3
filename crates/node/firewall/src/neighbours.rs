//! Other programs' forwarding chains: DOCKER-USER, and accept rules where a policy drops.
//!
//! In `ip filter` and `ip6 filter` (iptables-nft's tables) the chain DOCKER-USER exists and is called from FORWARD,
//! because scripts run `iptables -I DOCKER-USER`. Every foreign base chain on the forward hook that drops by policy,
//! and FORWARD in any case, gets two rules per bridge that accept what goes through it; our own table has decided
//! about that. All rules carry the tag `wharf:<instance>` in their comment, by which they are found again.

use wharf_netlink::NetlinkError;
use wharf_netlink::nft::{self, Base, Batch, ChainInfo, Expr, Family, Hook, Kind, MetaKey, Place, RuleInfo, Verdict};

use crate::rules::interface;
use crate::{Families, FirewallError, Table};

const FILTER: &str = "filter";
const FORWARD: &str = "FORWARD";
const USER: &str = "DOCKER-USER";
const FORWARD_HOOK: u32 = 2;

/// What this daemon wants of its neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The instance's tag: `wharf:<instance>`.
    pub tag: String,
    /// Names of the bridges.
    pub bridges: Vec<String>,
    /// Which families we write rules for.
    pub families: Families,
    /// Forwarding of these families was off and we switched it on: what nobody accepts is dropped, as Docker does
    /// by the policy of FORWARD.
    pub drop_rest: Families,
}

/// A base chain on the forward hook with its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// The chain.
    pub chain: ChainInfo,
    /// Its rules in order.
    pub rules: Vec<RuleInfo>,
}

/// One change to a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Makes FORWARD and DOCKER-USER where they are missing.
    AddChains {
        /// `ip` or `ip6`.
        family: Family,
        /// FORWARD is missing.
        forward: bool,
        /// DOCKER-USER is missing.
        user: bool,
    },
    /// Calls DOCKER-USER first.
    CallUser {
        /// `ip` or `ip6`.
        family: Family,
    },
    /// Accepts what goes through a bridge.
    Accept {
        /// Family of the table.
        family: Family,
        /// The table.
        table: String,
        /// The chain.
        chain: String,
        /// The bridge.
        bridge: String,
        /// Coming from the bridge, or going to it.
        incoming: bool,
        /// The rule after which it goes; the chain's start if absent.
        after: Option<u64>,
    },
    /// Removes a rule of ours for a bridge that is gone.
    Remove {
        /// Family of the table.
        family: Family,
        /// The table.
        table: String,
        /// The chain.
        chain: String,
        /// The rule.
        handle: u64,
    },
    /// Makes FORWARD drop by policy.
    DropRest {
        /// `ip` or `ip6`.
        family: Family,
    },
}

/// Plans what is missing. A chain that has all it needs gives no change, so planning again after applying is empty.
pub fn plan(wish: &Wish, own_table: &str, chains: &[ChainInfo], forwarding: &[Forwarding]) -> Vec<Change> {
    let mut changes = Vec::new();
    for (family, on, drop) in
        [(Family::Ip, wish.families.ipv4, wish.drop_rest.ipv4), (Family::Ip6, wish.families.ipv6, wish.drop_rest.ipv6)]
    {
        if !on {
            continue;
        }
        let has = |name: &str| chains.iter().any(|c| c.family == family && c.table == FILTER && c.name == name);
        let present = forwarding.iter().find(|f| is_forward(&f.chain, family));
        let (forward, user) = (present.is_none(), !has(USER));
        if forward || user {
            changes.push(Change::AddChains { family, forward, user });
        }
        if forward {
            changes.extend(accepts(wish, family, FILTER, FORWARD, &[]));
        }
        if !present.is_some_and(|f| f.rules.iter().any(calls_user)) {
            changes.push(Change::CallUser { family });
        }
        if drop && !present.is_some_and(|f| f.chain.drop) {
            changes.push(Change::DropRest { family });
        }
    }
    for f in forwarding {
        let c = &f.chain;
        let wanted = match c.family {
            Family::Ip => wish.families.ipv4,
            Family::Ip6 => wish.families.ipv6,
            Family::Inet => wish.families.ipv4 || wish.families.ipv6,
            Family::Netdev | Family::Other(_) => false,
        };
        let ours = c.family == Family::Inet && c.table == own_table;
        if !ours {
            let stale = f.rules.iter().filter(|r| is_stale(wish, r));
            changes.extend(stale.map(|r| Change::Remove {
                family: c.family,
                table: c.table.clone(),
                chain: c.name.clone(),
                handle: r.handle,
            }));
        }
        if wanted && !ours && (c.drop || is_forward(c, c.family)) {
            // Before CallUser of the same chain, so that the call ends up first.
            let at =
                changes.iter().position(|p| *p == Change::CallUser { family: c.family } && is_forward(c, c.family));
            let found = accepts(wish, c.family, &c.table, &c.name, &f.rules);
            let at = at.unwrap_or(changes.len());
            changes.splice(at..at, found);
        }
    }
    changes
}

/// A rule with our tag for a bridge that we no longer have.
fn is_stale(wish: &Wish, rule: &RuleInfo) -> bool {
    let Some(rest) = rule.comment.as_deref().and_then(|c| c.strip_prefix(wish.tag.as_str())) else { return false };
    let bridge = rest.strip_prefix(":from:").or_else(|| rest.strip_prefix(":to:"));
    bridge.is_some_and(|bridge| !wish.bridges.iter().any(|b| b == bridge))
}

fn is_forward(chain: &ChainInfo, family: Family) -> bool {
    chain.family == family
        && matches!(family, Family::Ip | Family::Ip6)
        && chain.table == FILTER
        && chain.name == FORWARD
}

fn calls_user(rule: &RuleInfo) -> bool {
    rule.targets.iter().any(|t| t == USER)
}

fn comment(tag: &str, bridge: &str, incoming: bool) -> String {
    format!("{tag}:{}:{bridge}", if incoming { "from" } else { "to" })
}

fn accepts(wish: &Wish, family: Family, table: &str, chain: &str, rules: &[RuleInfo]) -> Vec<Change> {
    let after = rules.iter().find(|r| calls_user(r)).map(|r| r.handle);
    let mut missing = Vec::new();
    for bridge in &wish.bridges {
        for incoming in [true, false] {
            let wanted = comment(&wish.tag, bridge, incoming);
            if rules.iter().all(|r| r.comment.as_ref() != Some(&wanted)) {
                missing.push(Change::Accept {
                    family,
                    table: table.to_owned(),
                    chain: chain.to_owned(),
                    bridge: bridge.clone(),
                    incoming,
                    after,
                });
            }
        }
    }
    missing
}

fn write(change: &Change, tag: &str, batch: &mut Batch) {
    match change {
        Change::AddChains { family, forward, user } => {
            batch.add_table(*family, FILTER);
            if *forward {
                let base = Base { kind: Kind::Filter, hook: Hook::Forward, priority: 0, drop: false };
                batch.add_chain(*family, FILTER, FORWARD, Some(base), Some(tag));
            }
            if *user {
                batch.add_chain(*family, FILTER, USER, None, Some(tag));
            }
        }
        Change::CallUser { family } => {
            let rule = [Expr::Counter, Expr::Verdict(Verdict::Jump(USER.to_owned()))];
            batch.add_rule(*family, FILTER, FORWARD, Place::First, &rule, &format!("{tag}:user"));
        }
        Change::Accept { family, table, chain, bridge, incoming, after } => {
            let key = if *incoming { MetaKey::InputName } else { MetaKey::OutputName };
            let mut rule = interface(key, bridge, true);
            rule.extend([Expr::Counter, Expr::Verdict(Verdict::Accept)]);
            let place = after.map_or(Place::First, Place::After);
            batch.add_rule(*family, table, chain, place, &rule, &comment(tag, bridge, *incoming));
        }
        Change::Remove { family, table, chain, handle } => batch.delete_rule(*family, table, chain, *handle),
        Change::DropRest { family } => batch.set_policy(*family, FILTER, FORWARD, true),
    }
}

/// Reads the neighbours, plans and applies. Returns the changes that were made.
///
/// A chain that refuses (its table belongs to another program: `NFT_TABLE_F_OWNER`) does not keep the others from
/// being changed.
///
/// # Errors
/// The first refusal, after everything else was tried.
pub fn settle(table: &Table, wish: &Wish) -> Result<Vec<Change>, FirewallError> {
    let fail = |source| FirewallError { action: "adding rules beside table", table: table.name().to_owned(), source };
    let (chains, forwarding) = read(table).map_err(fail)?;
    let changes = plan(wish, table.name(), &chains, &forwarding);
    // All of one table in one batch: a chain, then the rules in it.
    let mut groups: Vec<((Family, String), Batch)> = Vec::new();
    for change in &changes {
        let key = match change {
            Change::Accept { family, table, .. } | Change::Remove { family, table, .. } => (*family, table.clone()),
            Change::AddChains { family, .. } | Change::CallUser { family } | Change::DropRest { family } => {
                (*family, FILTER.to_owned())
            }
        };
        let at = groups.iter().position(|g| g.0 == key).unwrap_or_else(|| {
            groups.push((key, Batch::new()));
            groups.len() - 1
        });
        write(change, &wish.tag, &mut groups[at].1);
    }
    let mut refusal = None;
    for (_, batch) in groups {
        if let Err(e) = table.with(|socket| batch.commit(socket)) {
            refusal.get_or_insert(e);
        }
    }
    refusal.map_or(Ok(changes), |e| Err(fail(e)))
}

fn read(table: &Table) -> Result<(Vec<ChainInfo>, Vec<Forwarding>), NetlinkError> {
    table.with(|socket| {
        let chains = nft::chains(socket)?;
        let mut forwarding = Vec::new();
        for chain in &chains {
            if chain.base.as_ref().is_some_and(|(hook, kind)| *hook == FORWARD_HOOK && kind == "filter") {
                let rules = nft::rules(socket, chain.family, &chain.table, &chain.name)?;
                forwarding.push(Forwarding { chain: chain.clone(), rules });
            }
        }
        Ok((chains, forwarding))
    })
}

/// Removes every rule that carries the tag, and chains that carry it and that nobody uses. A DOCKER-USER that someone
/// else made or filled stays, with the call to it; a FORWARD that drops by policy stays, since forwarding stays on.
pub fn leave(table: &Table, tag: &str) -> Result<(), FirewallError> {
    let fail = |source| FirewallError { action: "removing rules beside table", table: table.name().to_owned(), source };
    let (chains, forwarding) = read(table).map_err(fail)?;
    for f in &forwarding {
        let batch = farewell(tag, &chains, f);
        table.with(|socket| batch.commit(socket)).map_err(fail)?;
    }
    Ok(())
}

fn farewell(tag: &str, chains: &[ChainInfo], forwarding: &Forwarding) -> Batch {
    let mut batch = Batch::new();
    let Forwarding { chain, rules } = forwarding;
    let is_tagged = |c: &Option<String>| c.as_deref().is_some_and(|c| c == tag || c.starts_with(&format!("{tag}:")));
    let user = chains.iter().find(|c| c.family == chain.family && c.table == chain.table && c.name == USER);
    // Its only use is the call that goes.
    let unused = |c: &ChainInfo| is_tagged(&c.comment) && c.uses <= 1;
    let drop_user = user.is_some_and(unused);
    let goes = |r: &RuleInfo| is_tagged(&r.comment) && (!calls_user(r) || drop_user || user.is_none());
    for rule in rules.iter().filter(|r| goes(r)) {
        batch.delete_rule(chain.family, &chain.table, &chain.name, rule.handle);
    }
    let drop_forward = is_tagged(&chain.comment) && !chain.drop && rules.iter().all(goes);
    if drop_user {
        batch.delete_chain(chain.family, &chain.table, USER);
    }
    if drop_forward {
        batch.delete_chain(chain.family, &chain.table, &chain.name);
        let left = chains.iter().filter(|c| c.family == chain.family && c.table == chain.table).count();
        if left == 1 + usize::from(drop_user) {
            batch.delete_table(chain.family, &chain.table);
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Families = Families { ipv4: true, ipv6: true };
    const NONE: Families = Families { ipv4: false, ipv6: false };

    fn wish(families: Families) -> Wish {
        Wish { tag: "wharf:0123456789ab".into(), bridges: vec!["w0".into()], families, drop_rest: NONE }
    }

    fn chain(family: Family, table: &str, name: &str, drop: bool) -> ChainInfo {
        let base = Some((FORWARD_HOOK, "filter".to_owned()));
        ChainInfo { family, table: table.into(), name: name.into(), base, drop, uses: 0, comment: None }
    }

    fn rule(handle: u64, comment: Option<&str>, target: Option<&str>) -> RuleInfo {
        RuleInfo {
            handle,
            comment: comment.map(str::to_owned),
            targets: target.map(str::to_owned).into_iter().collect(),
            packets: 0,
        }
    }

    fn only4() -> Families {
        Families { ipv4: true, ipv6: false }
    }

    #[test]
    fn on_an_empty_host_the_chains_are_made_and_docker_user_is_called_first() {
        let changes = plan(&wish(only4()), "t", &[], &[]);
        assert_eq!(changes.len(), 4);
        assert_eq!(changes[0], Change::AddChains { family: Family::Ip, forward: true, user: true });
        assert_eq!(changes[3], Change::CallUser { family: Family::Ip });
    }

    #[test]
    fn accepts_go_after_an_existing_call_of_docker_user() {
        let forward = chain(Family::Ip, FILTER, FORWARD, true);
        let user = ChainInfo { base: None, name: USER.into(), ..forward.clone() };
        let f = Forwarding { chain: forward.clone(), rules: vec![rule(5, None, Some("x")), rule(7, None, Some(USER))] };
        let changes = plan(&wish(only4()), "t", &[forward, user], &[f]);
        assert_eq!(changes.len(), 2);
        assert!(changes.iter().all(|c| matches!(c, Change::Accept { after: Some(7), .. })), "{changes:?}");
    }

    #[test]
    fn foreign_chains_get_accepts_only_if_they_drop_and_ours_never() {
        let forwarding: Vec<_> = [("user", true), ("other", false), ("t", true)]
            .map(|(table, drop)| Forwarding { chain: chain(Family::Inet, table, "forward", drop), rules: vec![] })
            .into();
        let changes = plan(&wish(BOTH), "t", &[], &forwarding);
        let inet = |c: &&Change| matches!(c, Change::Accept { family: Family::Inet, table, .. } if table == "user");
        assert_eq!(changes.iter().filter(inet).count(), 2);
        assert!(!changes.iter().any(|c| matches!(c, Change::Accept { table, .. } if table == "other" || table == "t")));
    }

    #[test]
    fn a_settled_neighbour_needs_no_change_and_a_reload_needs_all_again() {
        let forward = chain(Family::Ip, FILTER, FORWARD, true);
        let user = ChainInfo { base: None, name: USER.into(), ..forward.clone() };
        let tag = wish(BOTH).tag;
        let rules = vec![
            rule(1, None, Some(USER)),
            rule(2, Some(&comment(&tag, "w0", true)), None),
            rule(3, Some(&comment(&tag, "w0", false)), None),
        ];
        let settled = Forwarding { chain: forward.clone(), rules };
        let chains = [forward.clone(), user];
        assert_eq!(plan(&wish(only4()), "t", &chains, &[settled]), []);
        let reloaded = Forwarding { chain: forward, rules: vec![] };
        assert_eq!(plan(&wish(only4()), "t", &chains[..1], &[reloaded]).len(), 4);
    }

    #[test]
    fn forwarding_that_we_switched_on_is_dropped_by_policy_unless_someone_accepts_it() {
        let wish = Wish { drop_rest: only4(), ..wish(only4()) };
        assert!(plan(&wish, "t", &[], &[]).contains(&Change::DropRest { family: Family::Ip }));
        let f = Forwarding { chain: chain(Family::Ip, FILTER, FORWARD, true), rules: vec![] };
        let again = plan(&wish, "t", std::slice::from_ref(&f.chain), std::slice::from_ref(&f));
        assert!(!again.contains(&Change::DropRest { family: Family::Ip }));
    }

    #[test]
    fn one_instances_tag_does_not_match_another_that_begins_alike() {
        let mut forward = chain(Family::Inet, "x", "forward", true);
        forward.comment = None;
        let f = Forwarding { chain: forward, rules: vec![rule(9, Some("wharf:0123456789abc:from:w0"), None)] };
        assert!(farewell("wharf:0123456789ab", &[], &f).is_empty());
    }
}
