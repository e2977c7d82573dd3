//! Beside iptables-nft(8), which reads and writes the same tables as we do.

use std::process::Command;

use crate::lab::*;
use wharf_network::Networks;

/// Runs a shell command in this host; `None` if iptables is not installed.
fn iptables(script: &str) -> Option<String> {
    if Command::new("iptables-nft").arg("-V").output().is_err() {
        println!("skipped: iptables-nft is not installed");
        return None;
    }
    let output = Command::new("sh").args(["-e", "-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn iptables_lists_and_edits_the_chains_that_we_share() {
    on_a_host(|| {
        let far = remote("far", 2);
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        let c = container(&networks, &[tcp(8080, 80)]);
        serve(&c.netns, "0.0.0.0:80");
        let Some(list) = iptables("iptables-nft -S") else { return };
        assert!(list.contains("-A FORWARD -j DOCKER-USER") || list.contains("-j DOCKER-USER"), "{list}");
        assert!(list.contains("-A FORWARD -i w0") && list.contains("-A FORWARD -o w0"), "{list}");
        iptables("iptables-nft -P FORWARD DROP; iptables-nft -I DOCKER-USER -s 192.0.2.2 -j DROP");
        assert!(blocked(&far, "192.0.2.1:8080"));
        iptables("iptables-nft -D DOCKER-USER -s 192.0.2.2 -j DROP");
        assert_eq!(reaches(&far, "192.0.2.1:8080"), Some(ip("192.0.2.2")));
        // A reload, as ufw and iptables-restore do it.
        iptables("printf '*filter\n:INPUT ACCEPT\n:FORWARD DROP\n:OUTPUT ACCEPT\nCOMMIT\n' | iptables-nft-restore");
        eventually("rules are added again after a reload", || {
            ask(&far, at("192.0.2.1:8080"), BLOCKED) == Some(ip("192.0.2.2"))
        });
        let user = iptables("iptables-nft -S FORWARD").unwrap_or_default();
        let first = user.lines().find(|l| l.starts_with("-A")).unwrap_or_default();
        assert!(first.ends_with("-j DOCKER-USER"), "{user}");
    });
}
