//! A stack as compose would make it: web, api and db by alias on two networks, a volume, a published port. The same script runs
//! on any engine (`WHARF_TEST_HOST=unix:///…`), and what it says must be the same; dockerd 28.5 says what stands here.

use std::process::Command;

use testkit::{Daemon, eventually};

const NETWORKS: [&str; 2] = ["st-front", "st-back"];
const CONTAINERS: [&str; 4] = ["st-web", "st-api", "st-api2", "st-db"];

/// A web server whose program asks the next one.
fn asks(own: &str, next: &str, path: &str) -> String {
    format!(
        "mkdir -p /www/cgi-bin; cat >/www/cgi-bin/ask <<'END'
#!/bin/sh
echo; echo -n {own},
printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {next} 80 | tail -n 1
END
chmod 755 /www/cgi-bin/ask; exec httpd -f -p 80 -h /www"
    )
}

struct Stack {
    daemon: Daemon,
}

impl Stack {
    /// Whatever an earlier run left on an engine that is not ours.
    fn clear(&self) {
        self.daemon.docker(&[&["rm", "-f", "-v"][..], &CONTAINERS].concat());
        self.daemon.docker(&[&["network", "rm"][..], &NETWORKS].concat());
        self.daemon.docker(&["volume", "rm", "st-data"]);
    }

    fn docker(&self, arguments: &[&str]) -> String {
        self.daemon.docker(arguments).ok()
    }

    fn up(&self, name: &str, more: &[&str], script: &str) {
        let first = ["run", "-d", "--name", name, "--hostname", name];
        self.docker(&[&first[..], more, &["busybox", "sh", "-c", script]].concat());
        eventually("it serves", || {
            (self.daemon.docker(&["exec", name, "nc", "-w", "1", "127.0.0.1", "80"]).code == 0).then_some(())
        });
    }

    fn db(&self) {
        let volume = "httpd -p 80 -h /data -f";
        self.up("st-db", &["--network", "st-back", "--network-alias", "db", "-v", "st-data:/data"], volume);
    }

    fn api(&self, name: &str) {
        self.up(name, &["--network", "st-front", "--network-alias", "api"], &asks("api", "db", "/"));
        self.docker(&["network", "connect", "--alias", "api-back", "st-back", name]);
    }

    fn browse(&self) -> String {
        let port = self.docker(&["port", "st-web", "80/tcp"]);
        let url = format!("http://{}/cgi-bin/ask", port.lines().next().unwrap_or_default());
        let out = Command::new("curl").args(["-sS", "--max-time", "9", &url]).output().expect("curl runs");
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    fn inside(&self, name: &str, script: &str) -> bool {
        self.daemon.docker(&["exec", name, "sh", "-c", script]).code == 0
    }

    fn field(&self, name: &str, format: &str) -> String {
        self.docker(&["inspect", "-f", format, name])
    }
}

#[test]
fn a_stack_of_web_api_and_db_on_two_networks_behaves_as_on_dockerd() {
    let stack = Stack { daemon: Daemon::with_image() };
    stack.clear();
    let mut said: Vec<(&str, String)> = Vec::new();
    stack.docker(&["network", "create", "st-front"]);
    stack.docker(&["network", "create", "--internal", "st-back"]);
    stack.docker(&["volume", "create", "st-data"]);
    stack.docker(&["run", "--rm", "-v", "st-data:/data", "busybox", "sh", "-c", "echo rows >/data/index.html"]);
    stack.db();
    stack.api("st-api");
    stack.up("st-web", &["--network", "st-front", "-p", "127.0.0.1::80"], &asks("web", "api", "/cgi-bin/ask"));
    let yes = |on: bool| if on { "yes" } else { "no" }.to_owned();
    said.push(("browsing", stack.browse()));
    said.push(("web knows db", yes(stack.inside("st-web", "nslookup db. 2>/dev/null | grep -q '^Name'"))));
    said.push(("web knows st-api", yes(stack.inside("st-web", "ping -c 1 -W 2 st-api"))));
    said.push(("api knows db", yes(stack.inside("st-api", "ping -c 1 -W 2 db"))));
    said.push(("db knows api-back", yes(stack.inside("st-db", "ping -c 1 -W 2 api-back"))));
    said.push(("db knows web", yes(stack.inside("st-db", "ping -c 1 -W 2 st-web"))));
    said.push(("db has a way out", yes(stack.inside("st-db", "ip route | grep -q default"))));
    let route = "test $(ip route | grep -c default) = 1 && ip route | grep default | grep -q eth0";
    said.push(("api goes out by the front", yes(stack.inside("st-api", route))));
    let web = stack.field("st-web", "{{(index .NetworkSettings.Networks \"st-front\").IPAddress}}");
    let db = stack.field("st-db", "{{(index .NetworkSettings.Networks \"st-back\").IPAddress}}");
    said.push(("web reaches db by address", yes(stack.inside("st-web", &format!("nc -w 1 {db} 80 </dev/null")))));
    said.push(("db reaches web by address", yes(stack.inside("st-db", &format!("nc -w 1 {web} 80 </dev/null")))));
    // Two of a kind behind one name.
    stack.api("st-api2");
    said.push(("browsing two", stack.browse()));
    let both = "nslookup api. 2>/dev/null | sed 1,2d | grep -c '^Address'";
    said.push(("addresses of api", stack.docker(&["exec", "st-web", "sh", "-c", both])));
    stack.docker(&["stop", "-t", "0", "st-api"]);
    said.push(("browsing with one stopped", stack.browse()));
    said.push(("addresses of api then", stack.docker(&["exec", "st-web", "sh", "-c", both])));
    stack.docker(&["start", "st-api"]);
    stack.docker(&["rm", "-f", "st-api2"]);
    eventually("api serves again", || stack.inside("st-api", "nc -w 1 127.0.0.1 80 </dev/null").then_some(()));
    said.push(("browsing after a restart", stack.browse()));
    // The database is made anew and has its rows.
    stack.docker(&["rm", "-f", "st-db"]);
    said.push(("browsing without db", stack.browse()));
    stack.db();
    said.push(("browsing with a new db", stack.browse()));
    stack.docker(&["network", "disconnect", "st-back", "st-api"]);
    said.push(("browsing without a way to db", stack.browse()));
    stack.docker(&["network", "connect", "st-back", "st-api"]);
    said.push(("browsing with it", stack.browse()));
    let names = "{{range .Containers}}{{.Name}} {{end}}";
    let mut on: Vec<String> =
        stack.docker(&["network", "inspect", "-f", names, "st-front"]).split_whitespace().map(str::to_owned).collect();
    on.sort();
    said.push(("on the front", on.join(" ")));
    let busy = stack.daemon.docker(&["network", "rm", "st-front"]);
    said.push(("removing a network in use", yes(busy.code != 0 && busy.stderr.contains("has active endpoints"))));
    let busy = stack.daemon.docker(&["volume", "rm", "st-data"]);
    said.push(("removing a volume in use", yes(busy.code != 0 && busy.stderr.contains("volume is in use"))));
    let internal = stack.docker(&["network", "inspect", "-f", "{{.Internal}} {{.Driver}} {{.Scope}}", "st-back"]);
    said.push(("the back", internal));
    stack.clear();
    said.push(("left", stack.docker(&["ps", "-aq", "--filter", "name=st-"])));
    let want = [
        ("browsing", "web,api,rows"),
        ("web knows db", "no"),
        ("web knows st-api", "yes"),
        ("api knows db", "yes"),
        ("db knows api-back", "yes"),
        ("db knows web", "no"),
        ("db has a way out", "no"),
        ("api goes out by the front", "yes"),
        ("web reaches db by address", "no"),
        ("db reaches web by address", "no"),
        ("browsing two", "web,api,rows"),
        ("addresses of api", "2"),
        ("browsing with one stopped", "web,api,rows"),
        ("addresses of api then", "1"),
        ("browsing after a restart", "web,api,rows"),
        ("browsing without db", "web,api,"),
        ("browsing with a new db", "web,api,rows"),
        ("browsing without a way to db", "web,api,"),
        ("browsing with it", "web,api,rows"),
        ("on the front", "st-api st-web"),
        ("removing a network in use", "yes"),
        ("removing a volume in use", "yes"),
        ("the back", "true bridge local"),
        ("left", ""),
    ];
    let said: Vec<(&str, &str)> = said.iter().map(|(what, text)| (*what, text.as_str())).collect();
    assert_eq!(said, want);
}
