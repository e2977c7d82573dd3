//! Log drivers that send messages away, each against a small receiver: forms, and that nothing is lost when either side
//! restarts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use testkit::{DEADLINE, Daemon, eventually};
use wharf_forward::{Value, decode, encode};

fn next<T>(receiver: &Receiver<T>) -> T {
    receiver.recv_timeout(DEADLINE).expect("a message comes")
}

/// A TCP receiver of lines (or of what ends with `end`), which can be closed with all its connections.
struct Lines {
    listener: TcpListener,
    port: u16,
}

impl Lines {
    fn bind(port: u16) -> Lines {
        // A port that was just let go may be taken again at once: std sets SO_REUSEADDR.
        let listener = eventually("the port is free", || TcpListener::bind(("127.0.0.1", port)).ok());
        let port = listener.local_addr().expect("bound").port();
        Lines { listener, port }
    }

    /// Takes messages of one connection until `count` came, then closes everything.
    fn take(self, end: u8, count: usize) -> Vec<String> {
        let (connection, _) = self.listener.accept().expect("a connection");
        connection.set_read_timeout(Some(DEADLINE)).expect("set");
        let mut reader = BufReader::new(connection);
        let mut all = Vec::new();
        while all.len() < count {
            let mut bytes = Vec::new();
            reader.read_until(end, &mut bytes).expect("read");
            assert!(!bytes.is_empty(), "the connection ended after {all:?}");
            bytes.pop();
            all.push(String::from_utf8_lossy(&bytes).into_owned());
        }
        all
    }
}

#[test]
fn syslog_over_udp_tcp_and_unix_sockets_in_all_forms() {
    let daemon = Daemon::with_image();
    let udp = UdpSocket::bind("127.0.0.1:0").expect("bound");
    udp.set_read_timeout(Some(DEADLINE)).expect("set");
    let address = format!("syslog-address=udp://{}", udp.local_addr().expect("bound"));
    let run = |options: &[&str], script: &str| {
        let mut line = vec!["run", "--rm", "--log-driver", "syslog"];
        options.iter().for_each(|o| line.extend(["--log-opt", *o]));
        line.extend(["busybox", "sh", "-c", script]);
        daemon.docker(&line).ok()
    };
    let mut buffer = [0; 4096];
    let mut datagram = || {
        let n = udp.recv(&mut buffer).expect("a datagram");
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    assert_eq!(run(&[&address, "tag={{.ImageName}}/x", "syslog-facility=local0"], "echo hello"), "hello");
    let text = datagram();
    assert!(text.starts_with("<134>") && text.contains(" busybox/x[") && text.ends_with("]: hello\n"), "{text}");
    run(&[&address, "syslog-format=rfc5424micro", "tag=t"], "echo oops >&2");
    let text = datagram();
    assert!(text.starts_with("<27>1 20") && text.contains(" t ") && text.ends_with(" - oops\n"), "{text}");

    let folder = daemon.folder().join("log.sock");
    let unix = UnixDatagram::bind(&folder).expect("bound");
    unix.set_read_timeout(Some(DEADLINE)).expect("set");
    run(&[&format!("syslog-address=unixgram://{}", folder.display()), "syslog-format=rfc3164"], "echo local");
    let n = unix.recv(&mut buffer).expect("a datagram");
    let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
    assert!(text.starts_with("<30>") && text.ends_with("]: local\n"), "{text}");

    let stream = daemon.folder().join("stream.sock");
    let listener = UnixListener::bind(&stream).expect("bound");
    let reader = std::thread::spawn(move || {
        let (connection, _) = listener.accept().expect("a connection");
        let mut line = String::new();
        BufReader::new(connection).read_line(&mut line).expect("read");
        line
    });
    run(&[&format!("syslog-address=unix://{}", stream.display())], "echo stream");
    assert!(reader.join().expect("the receiver").ends_with("]: stream\n"));
}

#[test]
fn a_collector_that_restarts_and_a_killed_engine_lose_no_line() {
    let mut daemon = Daemon::with_image();
    let first = Lines::bind(0);
    let port = first.port;
    let address = format!("syslog-address=tcp://127.0.0.1:{port}");
    // A line each 5 ms: both sides go and come while it writes.
    let script = "i=0; while [ $i -lt 600 ]; do i=$((i+1)); echo line$i; sleep 0.005; done";
    let line =
        ["run", "-d", "--name", "ww", "--log-driver", "syslog", "--log-opt", &address, "busybox", "sh", "-c", script];
    daemon.docker(&line).ok();
    let mut seen = first.take(b'\n', 40);
    // The collector is gone for a while; then the engine is, too.
    std::thread::sleep(Duration::from_millis(300));
    daemon.kill();
    let second = Lines::bind(port);
    daemon.launch();
    seen.extend(second.take(b'\n', 40));
    let third = Lines::bind(port);
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for connection in third.listener.incoming().flatten() {
            let sender: Sender<String> = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(connection).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let number = |line: &str| line.rsplit_once("line").and_then(|(_, n)| n.parse::<u32>().ok()).expect("a number");
    loop {
        let line = next(&receiver);
        let last = number(&line) == 600;
        seen.push(line);
        if last {
            break;
        }
    }
    let all: std::collections::BTreeSet<u32> = seen.iter().map(|l| number(l)).collect();
    let missing: Vec<u32> = (1..=600).filter(|n| !all.contains(n)).collect();
    assert!(missing.is_empty(), "lost: {missing:?}");
    // What the driver sends away can be read here as well.
    assert_eq!(daemon.docker(&["logs", "ww"]).ok().lines().count(), 600);
    assert_eq!(daemon.docker(&["inspect", "-f", "{{.LogPath}}", "ww"]).ok(), "");
}

#[test]
fn a_collector_that_comes_after_the_container_has_ended_gets_everything() {
    let mut daemon = Daemon::with_image();
    let port = Lines::bind(0).port;
    let address = format!("gelf-address=tcp://127.0.0.1:{port}");
    let line = ["run", "--name", "early", "--log-driver", "gelf", "--log-opt", &address, "busybox", "echo", "late"];
    assert_eq!(daemon.docker(&line).ok(), "late");
    daemon.kill();
    daemon.launch();
    let messages = Lines::bind(port).take(0, 1);
    let message: serde_json::Value = serde_json::from_str(&messages[0]).expect("JSON");
    assert_eq!((message["short_message"].as_str(), message["version"].as_str()), (Some("late"), Some("1.1")));
    assert_eq!((message["_container_name"].as_str(), message["level"].as_i64()), (Some("early"), Some(6)));
    assert_eq!((message["_image_name"].as_str(), message["_command"].as_str()), (Some("busybox"), Some("echo late")));
}

#[test]
fn gelf_over_udp_is_compressed_and_long_messages_come_in_chunks() {
    let daemon = Daemon::with_image();
    let udp = UdpSocket::bind("127.0.0.1:0").expect("bound");
    udp.set_read_timeout(Some(DEADLINE)).expect("set");
    let address = format!("gelf-address=udp://{}", udp.local_addr().expect("bound"));
    let run = |more: &str, script: &str| {
        let options = ["run", "--rm", "--log-driver", "gelf", "--log-opt", &address, "--log-opt", more];
        daemon.docker(&[&options[..], &["-e", "COLOUR=red", "busybox", "sh", "-c", script]].concat()).ok();
    };
    let mut buffer = vec![0; 9000];
    run("env=COLOUR", "echo packed");
    let n = udp.recv(&mut buffer).expect("a datagram");
    assert_eq!(&buffer[..2], [0x1f, 0x8b], "gzip");
    let text = gunzip(&daemon, &buffer[..n]);
    let message: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((message["short_message"].as_str(), message["_COLOUR"].as_str()), (Some("packed"), Some("red")));
    run("gelf-compression-type=none", "head -c 5000 /dev/zero | tr '\\0' x; echo");
    let mut parts: Vec<Vec<u8>> = Vec::new();
    loop {
        let n = udp.recv(&mut buffer).expect("a datagram");
        assert_eq!(&buffer[..2], [0x1e, 0x0f]);
        parts.push(buffer[..n].to_vec());
        if parts.len() == usize::from(buffer[11]) {
            break;
        }
    }
    parts.sort_by_key(|p| p[10]);
    let whole: Vec<u8> = parts.iter().flat_map(|p| p[12..].to_vec()).collect();
    let message: serde_json::Value = serde_json::from_slice(&whole).expect("JSON");
    assert_eq!(message["short_message"].as_str().map(str::len), Some(5000));
}

/// Unpacks with the host's gzip, so that the receiver is not our own code.
fn gunzip(daemon: &Daemon, bytes: &[u8]) -> String {
    let file = daemon.folder().join("packed.gz");
    std::fs::write(&file, bytes).expect("written");
    let out = std::process::Command::new("gzip").arg("-dc").arg(&file).output().expect("gzip runs");
    String::from_utf8(out.stdout).expect("text")
}

/// A Fluentd: hands every record on, and acknowledges where asked, except the first time.
fn fluentd(listener: TcpListener, forget_first: bool) -> Receiver<(String, Value)> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut forget = forget_first;
        for connection in listener.incoming().flatten() {
            if serve(connection, &sender, &mut forget).is_none() {
                return;
            }
        }
    });
    receiver
}

fn serve(mut connection: TcpStream, sender: &Sender<(String, Value)>, forget: &mut bool) -> Option<()> {
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    loop {
        while let Ok(Some((Value::Array(message), used))) = decode(&bytes) {
            bytes.drain(..used);
            let [Value::Str(tag), _, record, option] = message.as_slice() else { panic!("{message:?}") };
            if std::mem::take(forget) {
                // The connection breaks before the acknowledgement: the message has to come again.
                return Some(());
            }
            if let Some(chunk) = option.get("chunk") {
                let mut ack = Vec::new();
                encode(&mut ack, &Value::Map(vec![(Value::text("ack"), chunk.clone())]));
                connection.write_all(&ack).ok()?;
            }
            sender.send((String::from_utf8_lossy(tag).into_owned(), record.clone())).ok()?;
        }
        match connection.read(&mut part) {
            Ok(0) | Err(_) => return Some(()),
            Ok(n) => bytes.extend_from_slice(&part[..n]),
        }
    }
}

#[test]
fn fluentd_gets_records_and_what_it_did_not_acknowledge_comes_again() {
    let daemon = Daemon::with_image();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = format!("fluentd-address={}", listener.local_addr().expect("bound"));
    let receiver = fluentd(listener, true);
    let options = [
        &address,
        "fluentd-request-ack=true",
        "fluentd-sub-second-precision=true",
        "tag=docker.{{.Name}}",
        "labels-regex=^team",
    ];
    let mut line = vec!["run", "--name", "ff", "--log-driver", "fluentd", "--label", "team.x=core"];
    options.iter().for_each(|o| line.extend(["--log-opt", *o]));
    line.extend(["busybox", "sh", "-c", "echo one; echo two >&2"]);
    daemon.docker(&line).ok();
    let mut logs = Vec::new();
    for _ in 0..2 {
        let (tag, record) = next(&receiver);
        assert_eq!(tag, "docker.ff");
        assert_eq!(record.get("container_name"), Some(&Value::text("/ff")));
        assert_eq!(record.get("team.x"), Some(&Value::text("core")));
        logs.push((record.get("log").cloned(), record.get("source").cloned()));
    }
    logs.sort_by_key(|l| format!("{l:?}"));
    let expected = [("one", "stdout"), ("two", "stderr")].map(|(l, s)| (Some(Value::text(l)), Some(Value::text(s))));
    for pair in expected {
        assert!(logs.contains(&pair), "{pair:?} in {logs:?}");
    }
}

#[test]
fn splunk_gets_events_with_its_token_and_a_refusal_is_tried_again() {
    let daemon = Daemon::with_image();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let url = format!("splunk-url=http://{}", listener.local_addr().expect("bound"));
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut refusals = 1;
        for connection in listener.incoming().flatten() {
            let mut reader = BufReader::new(connection);
            while let Some((head, body)) = request(&mut reader) {
                let status = if refusals > 0 { "503 busy" } else { "200 OK" };
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}");
                reader.get_mut().write_all(answer.as_bytes()).expect("answered");
                if refusals == 0 && sender.send((head, body)).is_err() {
                    return;
                }
                refusals = 0;
            }
        }
    });
    let options = ["splunk-token=secret", &url, "splunk-format=json", "splunk-index=main", "tag=t"];
    let mut line = vec!["run", "--name", "ss", "--log-driver", "splunk"];
    options.iter().for_each(|o| line.extend(["--log-opt", *o]));
    line.extend(["busybox", "echo", "{\"a\":1}"]);
    daemon.docker(&line).ok();
    let (head, body) = next(&receiver);
    assert!(head.starts_with("POST /services/collector/event/1.0 HTTP/1.1"), "{head}");
    assert!(head.contains("Authorization: Splunk secret"), "{head}");
    let event: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((event["event"]["line"]["a"].as_i64(), event["index"].as_str()), (Some(1), Some("main")));
    assert_eq!((event["event"]["source"].as_str(), event["event"]["tag"].as_str()), (Some("stdout"), Some("t")));
    daemon
        .docker(&["run", "--rm", "--log-driver", "splunk", "busybox", "true"])
        .fails(125, "splunk: splunk-url is expected");
}

fn request(reader: &mut BufReader<TcpStream>) -> Option<(String, String)> {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8_lossy(&body).into_owned()))
}

#[test]
fn wrong_drivers_and_options_are_refused_in_dockers_words() {
    let daemon = Daemon::with_image();
    let create = |options: &[&str]| daemon.docker(&[&["create"], options, &["busybox", "true"]].concat());
    let run = |options: &[&str]| daemon.docker(&[&["run", "--rm"], options, &["busybox", "true"]].concat());
    let cases: &[(&[&str], &str)] = &[
        (&["--log-driver", "syslog", "--log-opt", "foo=1"], "unknown log opt 'foo' for syslog log driver"),
        (&["--log-driver", "gelf"], "gelf-address is a required parameter"),
        (&["--log-driver", "syslog", "--log-opt", "syslog-address=foo://x"], "unsupported scheme: 'foo'"),
        (
            &["--log-driver", "fluentd", "--log-opt", "fluentd-async=x"],
            "strconv.ParseBool: parsing \"x\": invalid syntax",
        ),
        (&["--log-opt", "mode=foo"], "logger: logging mode not supported: foo"),
        (
            &["--log-opt", "max-buffer-size=1m"],
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        (&["--log-driver", "awslogs"], "log driver \"awslogs\" is not built into Wharf"),
    ];
    for (options, message) in cases {
        create(options).fails(1, message);
    }
    let failed = "failed to create task for container: failed to initialize logging driver: ";
    run(&["--log-opt", "labels-regex=("]).fails(125, &format!("{failed}error parsing regexp: "));
    run(&["--log-opt", "tag={{.Foo"]).fails(125, &format!("{failed}template: log-tag:1: unclosed action"));
    let field = "template: log-tag:1:2: executing \"log-tag\" at <.Foo>: can't evaluate field Foo in type *logger.Info";
    run(&["--log-opt", "tag={{.Foo}}"]).fails(125, &format!("{failed}{field}"));
}

#[test]
fn json_file_lines_carry_labels_variables_and_the_tag() {
    let daemon = Daemon::with_image();
    let options = ["labels=one", "labels-regex=^t", "env=A", "env-regex=^B.", "tag={{.Name}}/{{.ImageName}}"];
    let mut line = vec!["run", "--name", "jj", "--label", "one=1", "--label", "two=2", "--label", "x=3"];
    line.extend(["-e", "A=a", "-e", "BC=b", "-e", "C=c"]);
    options.iter().for_each(|o| line.extend(["--log-opt", *o]));
    line.extend(["busybox", "echo", "hi"]);
    daemon.docker(&line).ok();
    let path = daemon.docker(&["inspect", "-f", "{{.LogPath}}", "jj"]).ok();
    let text = std::fs::read_to_string(path).expect("the log");
    let record: serde_json::Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    let expected = serde_json::json!({"A": "a", "BC": "b", "one": "1", "tag": "jj/busybox", "two": "2"});
    assert_eq!(record["attrs"], expected);
    let details = daemon.docker(&["logs", "--details", "jj"]).ok();
    assert_eq!(details, "A=a,BC=b,one=1,tag=jj%2Fbusybox,two=2 hi");
}
