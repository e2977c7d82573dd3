//! From a query to an answer or to the decision to ask elsewhere: pure.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::{Client, Host, Names};

/// Seconds that clients may keep an answer, as in libnetwork.
const LIFETIME: u32 = 600;
/// What a client without EDNS takes over UDP (RFC 1035).
pub(crate) const PLAIN: usize = 512;
/// What we offer and send at most over UDP.
const OFFERED: u16 = 4096;

/// What to do with a query.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send this.
    Reply(Vec<u8>),
    /// Ask an upstream; `limit` is how long an answer the client takes over UDP.
    Forward {
        /// Bytes.
        limit: usize,
    },
    /// Say nothing: it was no query.
    Ignore,
}

/// Decides about a query. `turn` counts queries: answers are rotated by it.
pub fn answer(names: &Names, client: &Client, query: &[u8], over_tcp: bool, turn: usize) -> Decision {
    let Ok(message) = Message::from_vec(query) else { return malformed(query) };
    if message.message_type() != MessageType::Query {
        return Decision::Ignore;
    }
    let offered = message.extensions().as_ref().map(|e| usize::from(e.max_payload().clamp(512, OFFERED)));
    let limit = if over_tcp { usize::from(u16::MAX) } else { offered.unwrap_or(PLAIN) };
    let [question] = message.queries() else {
        return reply(&message, ResponseCode::FormErr, Vec::new(), limit);
    };
    if message.op_code() != OpCode::Query {
        return reply(&message, ResponseCode::NotImp, Vec::new(), limit);
    }
    if question.query_class() == DNSClass::IN {
        let name = question.name();
        if let Some(records) = local(names, client, name, question.query_type(), turn) {
            return reply(&message, ResponseCode::NoError, records, limit);
        }
    }
    if !client.external || client.upstreams.is_empty() {
        return reply(&message, ResponseCode::ServFail, Vec::new(), limit);
    }
    if let Some(permits) = &client.permits {
        let name = question.name().to_ascii().to_ascii_lowercase();
        // Not "refused", after which some clients go on asking until their time is over.
        if question.query_class() != DNSClass::IN || !permits(name.trim_end_matches('.')) {
            return reply(&message, ResponseCode::NXDomain, Vec::new(), limit);
        }
    }
    Decision::Forward { limit }
}

/// The reply that says that no upstream could answer.
pub(crate) fn failure(query: &[u8]) -> Option<Vec<u8>> {
    let message = Message::from_vec(query).ok()?;
    match reply(&message, ResponseCode::ServFail, Vec::new(), PLAIN) {
        Decision::Reply(bytes) => Some(bytes),
        Decision::Forward { .. } | Decision::Ignore => None,
    }
}

/// A query whose header can be read gets an error; anything else is not worth a packet.
fn malformed(query: &[u8]) -> Decision {
    match query.get(..12) {
        // QR is clear: it wants to be a query.
        Some(header) if header[2] & 0x80 == 0 => {
            let mut bytes = header.to_vec();
            bytes[2] |= 0x80;
            bytes[3] = 0x80 | ResponseCode::FormErr.low();
            bytes[4..].fill(0);
            Decision::Reply(bytes)
        }
        _ => Decision::Ignore,
    }
}

/// The records of a local name; empty if the name is known and has none of this type. `None` if it is not known.
fn local(names: &Names, client: &Client, name: &Name, kind: RecordType, turn: usize) -> Option<Vec<Record>> {
    if kind == RecordType::PTR {
        let network = name.parse_arpa_name().ok()?;
        let target = names.name_of(&client.networks, network.addr())?;
        let target = Name::from_ascii(format!("{target}.")).ok()?;
        return Some(vec![Record::from_rdata(name.clone(), LIFETIME, RData::PTR(PTR(target)))]);
    }
    let text = name.to_ascii().to_ascii_lowercase();
    let text = text.trim_end_matches('.');
    if kind == RecordType::SRV {
        return service(names, client, name, text, turn);
    }
    let hosts = find(names, client, text)?;
    let record = |data| Record::from_rdata(name.clone(), LIFETIME, data);
    let mut records: Vec<Record> = match kind {
        RecordType::A => hosts.iter().filter_map(|h| h.ipv4).map(|a| record(RData::A(A(a)))).collect(),
        RecordType::AAAA => hosts.iter().filter_map(|h| h.ipv6).map(|a| record(RData::AAAA(AAAA(a)))).collect(),
        _ => Vec::new(),
    };
    if records.len() > 1 {
        let by = turn % records.len();
        records.rotate_left(by);
    }
    Some(records)
}

fn find<'a>(names: &'a Names, client: &Client, text: &str) -> Option<&'a [Host]> {
    let linked = client.links.get(text).map(|target| target.to_ascii_lowercase());
    names.find(&client.networks, linked.as_deref().unwrap_or(text))
}

/// `_<port>._<tcp|udp>.<name>`: where containers of that name listen, if they expose the port.
fn service(names: &Names, client: &Client, name: &Name, text: &str, turn: usize) -> Option<Vec<Record>> {
    let mut parts = text.splitn(3, '.');
    let port = parts.next()?.strip_prefix('_')?.parse::<u16>().ok()?;
    let protocol = parts.next()?.strip_prefix('_')?;
    let host = parts.next()?;
    let hosts = find(names, client, host)?;
    let target = Name::from_ascii(format!("{host}.")).ok()?;
    let exposed = hosts.iter().filter(|h| h.ports.iter().any(|(p, n)| p == protocol && *n == port));
    let record = |_| {
        let data = SRV::new(0, 0, port, target.clone());
        Record::from_rdata(name.clone(), LIFETIME, RData::SRV(data))
    };
    let mut records: Vec<Record> = exposed.map(record).take(1).collect();
    if records.len() > 1 {
        let by = turn % records.len();
        records.rotate_left(by);
    }
    Some(records)
}

fn reply(query: &Message, code: ResponseCode, records: Vec<Record>, limit: usize) -> Decision {
    let mut message = Message::new();
    message.set_id(query.id()).set_message_type(MessageType::Response).set_op_code(query.op_code());
    message.set_recursion_desired(query.recursion_desired()).set_recursion_available(true);
    message.set_response_code(code).add_queries(query.queries().iter().take(1).cloned());
    if query.extensions().is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(OFFERED).set_version(0);
        message.set_edns(edns);
    }
    message.insert_answers(records);
    match message.to_vec() {
        Ok(bytes) if bytes.len() <= limit => Decision::Reply(bytes),
        Ok(_) => {
            message.take_answers();
            message.set_truncated(true);
            message.to_vec().map_or(Decision::Ignore, Decision::Reply)
        }
        Err(_) => Decision::Ignore,
    }
}

/// The addresses in an upstream's answer, with their lifetimes, and the name that was asked for.
pub(crate) fn addresses(answer: &[u8]) -> Option<(String, Vec<(IpAddr, u32)>)> {
    let message = Message::from_vec(answer).ok()?;
    let name = message.queries().first()?.name().to_ascii().to_ascii_lowercase();
    let address = |r: &Record| match r.data() {
        RData::A(a) => Some((IpAddr::V4(a.0), r.ttl())),
        RData::AAAA(a) => Some((IpAddr::V6(a.0), r.ttl())),
        _ => None,
    };
    Some((name.trim_end_matches('.').to_owned(), message.answers().iter().filter_map(address).collect()))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use hickory_proto::op::Query;

    use super::*;
    use crate::Upstream;

    fn client(external: bool) -> Client {
        let upstream = Upstream { address: SocketAddr::from(([192, 0, 2, 1], 53)), from_host: true };
        Client { networks: vec!["n".into()], upstreams: vec![upstream], external, ..Client::default() }
    }

    fn names(count: u8) -> Names {
        let mut names = Names::default();
        for n in 0..count {
            let host = Host {
                key: n.to_string(),
                ipv4: Some([10, 0, n / 250, n % 250 + 1].into()),
                ipv6: None,
                ports: vec![("tcp".into(), 80)],
            };
            names.zone("n", "net").set(&["web".to_owned(), format!("web{n}")], &host);
        }
        names
    }

    fn query(name: &str, kind: RecordType, edns: Option<u16>) -> Vec<u8> {
        let mut message = Message::new();
        message.set_id(7).set_recursion_desired(true);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        if let Some(size) = edns {
            let mut e = Edns::new();
            e.set_max_payload(size);
            message.set_edns(e);
        }
        message.to_vec().unwrap()
    }

    fn ask(names: &Names, client: &Client, query: &[u8]) -> Message {
        match answer(names, client, query, false, 0) {
            Decision::Reply(bytes) => Message::from_vec(&bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_known_name_is_answered_whatever_its_case_and_without_the_other_family() {
        let got = ask(&names(1), &client(true), &query("WEB.", RecordType::A, None));
        assert_eq!((got.id(), got.answers().len(), got.recursion_available()), (7, 1, true));
        assert_eq!(got.answers()[0].name().to_ascii(), "WEB.");
        let got = ask(&names(1), &client(true), &query("web.net.", RecordType::AAAA, None));
        assert_eq!((got.response_code(), got.answers().len()), (ResponseCode::NoError, 0));
    }

    #[test]
    fn several_containers_take_turns_at_the_front() {
        let first = |turn| match answer(&names(3), &client(true), &query("web.", RecordType::A, None), false, turn) {
            Decision::Reply(bytes) => Message::from_vec(&bytes).unwrap().answers()[0].clone(),
            other => panic!("{other:?}"),
        };
        assert_ne!(first(0), first(1));
        assert_eq!(first(0), first(3));
    }

    #[test]
    fn addresses_and_services_are_resolved_too() {
        let got = ask(&names(1), &client(true), &query("1.0.0.10.in-addr.arpa.", RecordType::PTR, None));
        assert_eq!(got.answers()[0].data().to_string(), "web.net.");
        let got = ask(&names(1), &client(true), &query("_80._tcp.web.", RecordType::SRV, None));
        assert_eq!(got.answers()[0].data().to_string(), "0 0 80 web.");
        let got = ask(&names(1), &client(true), &query("_81._tcp.web.", RecordType::SRV, None));
        assert!(got.answers().is_empty());
    }

    #[test]
    fn an_answer_that_is_too_long_is_truncated_unless_edns_or_tcp_allow_it() {
        let names = names(100);
        let plain = ask(&names, &client(true), &query("web.", RecordType::A, None));
        assert!(plain.truncated() && plain.answers().is_empty());
        let edns = ask(&names, &client(true), &query("web.", RecordType::A, Some(4096)));
        assert!(!edns.truncated() && edns.answers().len() == 100 && edns.extensions().is_some());
        let Decision::Reply(tcp) = answer(&names, &client(true), &query("web.", RecordType::A, None), true, 0) else {
            panic!("a reply")
        };
        assert_eq!(Message::from_vec(&tcp).unwrap().answers().len(), 100);
    }

    #[test]
    fn unknown_names_are_forwarded_and_cve_2024_29018_never_from_internal_networks() {
        let unknown = query("example.com.", RecordType::A, None);
        assert_eq!(answer(&names(1), &client(true), &unknown, false, 0), Decision::Forward { limit: PLAIN });
        assert_eq!(ask(&names(1), &client(false), &unknown).response_code(), ResponseCode::ServFail);
    }

    #[test]
    fn names_that_may_not_be_asked_do_not_exist_and_local_ones_are_not_judged() {
        let mut bound = client(true);
        bound.permits = Some(std::sync::Arc::new(|name| name == "api.example.com"));
        let ask_for = |name: &str| answer(&names(1), &bound, &query(name, RecordType::A, None), false, 0);
        assert_eq!(ask_for("API.example.com."), Decision::Forward { limit: PLAIN });
        assert_eq!(
            ask(&names(1), &bound, &query("a.evil.", RecordType::TXT, None)).response_code(),
            ResponseCode::NXDomain
        );
        assert_eq!(ask(&names(1), &bound, &query("web.", RecordType::A, None)).answers().len(), 1);
    }

    #[test]
    fn a_link_is_a_name_for_this_client_only() {
        let mut linked = client(true);
        linked.links.insert("db".into(), "web0".into());
        assert_eq!(ask(&names(1), &linked, &query("db.", RecordType::A, None)).answers().len(), 1);
        assert!(matches!(
            answer(&names(1), &client(true), &query("db.", RecordType::A, None), false, 0),
            Decision::Forward { .. }
        ));
    }

    #[test]
    fn what_is_no_query_gets_an_error_or_nothing() {
        assert_eq!(answer(&names(1), &client(true), &[], false, 0), Decision::Ignore);
        assert_eq!(answer(&names(1), &client(true), &[0xff; 40], false, 0), Decision::Ignore);
        let mut cut = query("web.", RecordType::A, None);
        cut.truncate(15);
        let Decision::Reply(bytes) = answer(&names(1), &client(true), &cut, false, 0) else { panic!("a reply") };
        assert_eq!((bytes.len(), bytes[3] & 0xf), (12, 1));
    }

    proptest::proptest! {
        #[test]
        fn hostile_packets_never_panic_and_answers_are_never_longer_than_allowed(
            packet in proptest::collection::vec(0u8.., 0..200)
        ) {
            if let Decision::Reply(bytes) = answer(&names(3), &client(true), &packet, false, 1) {
                proptest::prop_assert!(bytes.len() <= 4096);
            }
            let _ = addresses(&packet);
        }
    }
}
