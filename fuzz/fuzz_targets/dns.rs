//! Packets to the resolver: never a panic, never an answer longer than the client takes.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use wharf_dns::{Client, Decision, Host, Names, answer};

static NAMES: OnceLock<Names> = OnceLock::new();

fn names() -> Names {
    let mut names = Names::default();
    for n in 1..40u8 {
        let host = Host { key: n.to_string(), ipv4: Some([10, 0, 0, n].into()), ipv6: None, ports: vec![("tcp".into(), 80)] };
        names.zone("n", "net").set(&["web".into(), format!("web{n}")], &host);
    }
    names
}

fuzz_target!(|packet: &[u8]| {
    let client = Client { networks: vec!["n".into()], ..Client::default() };
    for over_tcp in [false, true] {
        match answer(NAMES.get_or_init(names), &client, packet, over_tcp, 1) {
            Decision::Reply(reply) => assert!(over_tcp || reply.len() <= 4096),
            Decision::Forward { .. } => panic!("a client without upstreams asks nobody"),
            Decision::Ignore => {}
        }
    }
});
