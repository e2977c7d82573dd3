//! Bytes from outside: never a panic, a hang or an effect elsewhere.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use wharf_distribution::{Capabilities, Endpoint, Scheme, TlsSettings, hosts_toml};

fuzz_target!(|text: &str| {
    let own = Endpoint {
        host: "registry.invalid".to_owned(),
        scheme: Scheme::Https,
        prefix: "/v2".to_owned(),
        tls: TlsSettings::default(),
        headers: Vec::new(),
        capabilities: Capabilities::ALL,
        own: true,
    };
    if let Ok(hosts) = hosts_toml::parse(text, Path::new("/settings"), own) {
        assert!(hosts.last().is_some_and(|host| host.own), "the registry itself is the last");
    }
});
