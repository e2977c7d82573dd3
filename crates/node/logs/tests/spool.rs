//! The spool as a whole: what the writer was given is what readers get, through rotation, crashes and following.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use wharf_logs::{
    Config, Cursor, Driver, Form, LogError, Position, Progress, ReadOptions, Reader, Rotations, Stream, Writer,
};
use wharf_types::Timestamp;

const ID: &str = "c0";

fn config(driver: &str, options: &[(&str, &str)]) -> Config {
    Config::parse(driver, options.iter().copied()).expect("valid options")
}

fn folder(path: &Path) -> OwnedFd {
    File::open(path).expect("folder").into()
}

fn writer(path: &Path, config: &Config) -> Writer {
    Writer::open(folder(path), ID, config.clone()).expect("writable").expect("keeps something")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix(1_700_000_000 + seconds, 120_000_000)
}

fn all() -> ReadOptions {
    ReadOptions {
        since: None,
        until: None,
        tail: None,
        follow: false,
        stdout: true,
        stderr: true,
        timestamps: false,
        details: false,
        form: Form::Raw,
        before: None,
    }
}

fn read(path: &Path, config: &Config, options: ReadOptions) -> Vec<u8> {
    let mut reader = Reader::open(folder(path).as_fd(), ID, config, options).expect("readable");
    let mut out = Vec::new();
    while reader.read(&mut out).expect("read") != Progress::End {}
    out
}

fn text(path: &Path, config: &Config, options: ReadOptions) -> String {
    String::from_utf8(read(path, config, options)).expect("text")
}

fn compress(writer: &mut Writer) {
    if let Some(compression) = writer.take_compression() {
        compression.run().expect("compressed");
        writer.compressed();
    }
}

fn unbounded() -> [Config; 2] {
    [config("json-file", &[("max-size", "-1")]), config("local", &[("max-size", "-1"), ("compress", "false")])]
}

/// Bytes that hit every path: text, control characters, bad UTF-8, long lines.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut out = Vec::with_capacity(len);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match state % 7 {
            0 => out.extend_from_slice(&state.to_le_bytes()),
            1 => out.extend_from_slice("grüße € 😀\u{2028}".as_bytes()),
            2 => out.push(b'\n'),
            3 if state % 1000 < 5 => out.extend(std::iter::repeat_n(b'x', 20_000)),
            _ => out.extend_from_slice(b"some plain <text> & \"quotes\"\t"),
        }
    }
    out
}

#[test]
fn every_byte_comes_back_from_both_formats() {
    for config in unbounded() {
        let dir = tempfile::tempdir().expect("folder");
        let bytes = noise(3_000_000);
        let mut w = writer(dir.path(), &config);
        for chunk in bytes.chunks(7_777) {
            w.write(Stream::Stdout, chunk, at(0), Rotations::Any).expect("written");
        }
        w.finish(at(1)).expect("written");
        assert!(read(dir.path(), &config, all()) == bytes, "{:?}", config.driver);
    }
}

#[test]
fn frames_carry_stream_and_length() {
    for config in unbounded() {
        let dir = tempfile::tempdir().expect("folder");
        let mut w = writer(dir.path(), &config);
        w.write(Stream::Stdout, b"out\n", at(0), Rotations::Any).expect("written");
        w.write(Stream::Stderr, b"err\n", at(0), Rotations::Any).expect("written");
        let framed = read(dir.path(), &config, ReadOptions { form: Form::Frames, ..all() });
        assert_eq!(framed, b"\x01\0\0\0\0\0\0\x04out\n\x02\0\0\0\0\0\0\x04err\n");
        assert_eq!(text(dir.path(), &config, ReadOptions { stdout: false, ..all() }), "err\n");
    }
}

#[test]
fn since_until_and_tail_select_messages_as_docker_does() {
    for config in unbounded() {
        let dir = tempfile::tempdir().expect("folder");
        let mut w = writer(dir.path(), &config);
        for n in 0..10 {
            w.write(Stream::Stdout, format!("{n}\n").as_bytes(), at(n), Rotations::Any).expect("written");
        }
        let lines = |options| text(dir.path(), &config, options).replace('\n', "");
        assert_eq!(lines(ReadOptions { since: Some(at(7)), ..all() }), "789");
        assert_eq!(lines(ReadOptions { until: Some(at(2)), ..all() }), "012");
        assert_eq!(lines(ReadOptions { since: Some(at(3)), until: Some(at(4)), ..all() }), "34");
        assert_eq!(lines(ReadOptions { tail: Some(3), ..all() }), "789");
        assert_eq!(lines(ReadOptions { tail: Some(0), ..all() }), "");
        assert_eq!(lines(ReadOptions { tail: Some(99), ..all() }), "0123456789");
        assert_eq!(lines(ReadOptions { tail: Some(5), since: Some(at(8)), ..all() }), "89");
        let stamped = text(dir.path(), &config, ReadOptions { tail: Some(1), timestamps: true, ..all() });
        assert_eq!(stamped, "2023-11-14T22:13:29.120000000Z 9\n");
    }
}

#[test]
fn attributes_are_shown_with_details() {
    let dir = tempfile::tempdir().expect("folder");
    let mut config = config("json-file", &[]);
    config.attrs = [("b".to_owned(), "x y".to_owned()), ("a".to_owned(), "1".to_owned())].into();
    let mut w = writer(dir.path(), &config);
    w.write(Stream::Stdout, b"m\n", at(0), Rotations::Any).expect("written");
    assert_eq!(text(dir.path(), &config, ReadOptions { details: true, ..all() }), "a=1,b=x+y m\n");
}

#[test]
fn rotation_keeps_the_newest_files_in_order() {
    for (driver, compressed) in [("json-file", "false"), ("json-file", "true"), ("local", "false"), ("local", "true")] {
        let dir = tempfile::tempdir().expect("folder");
        let config = config(driver, &[("max-size", "1k"), ("max-file", "3"), ("compress", compressed)]);
        let mut w = writer(dir.path(), &config);
        for n in 0..200 {
            w.write(Stream::Stdout, format!("line {n}\n").as_bytes(), at(n), Rotations::Any).expect("written");
            compress(&mut w);
        }
        let kept = text(dir.path(), &config, all());
        let first: i64 = kept.lines().next().and_then(|l| l.strip_prefix("line ")).expect("lines").parse().expect("n");
        let expected: String = (first..200).map(|n| format!("line {n}\n")).collect();
        assert_eq!(kept, expected, "{driver} {compressed}");
        assert!(first > 100 && first < 190, "{driver} {compressed}: {first}");
        let tail: String = (180..200).map(|n| format!("line {n}\n")).collect();
        assert_eq!(text(dir.path(), &config, ReadOptions { tail: Some(20), ..all() }), tail, "{driver} {compressed}");
        let name = config.file(ID).expect("kept");
        let suffix = if compressed == "true" { ".gz" } else { "" };
        assert!(dir.path().join(format!("{name}.2{suffix}")).exists());
        assert!(!dir.path().join(format!("{name}.3{suffix}")).exists());
        let size = dir.path().join(&name).metadata().expect("current").len();
        assert!(size < 1000 + 120, "{size}");
    }
}

#[test]
fn a_torn_last_line_is_passed_over_and_the_next_run_goes_on_after_it() {
    for config in unbounded() {
        let dir = tempfile::tempdir().expect("folder");
        let mut w = writer(dir.path(), &config);
        w.write(Stream::Stdout, b"one\ntwo\n", at(0), Rotations::Any).expect("written");
        drop(w);
        let path = dir.path().join(config.file(ID).expect("kept"));
        let len = path.metadata().expect("there").len();
        File::options().write(true).open(&path).and_then(|f| f.set_len(len - 5)).expect("torn");
        assert_eq!(text(dir.path(), &config, all()), "one\n");
        assert_eq!(text(dir.path(), &config, ReadOptions { tail: Some(1), ..all() }), "one\n");
        let mut w = writer(dir.path(), &config);
        w.write(Stream::Stdout, b"three\n", at(0), Rotations::Any).expect("written");
        assert_eq!(text(dir.path(), &config, all()), "one\nthree\n");
    }
}

#[test]
fn damage_in_the_middle_costs_only_itself() {
    for config in unbounded() {
        let dir = tempfile::tempdir().expect("folder");
        let mut w = writer(dir.path(), &config);
        w.write(Stream::Stdout, b"one\n", at(0), Rotations::Any).expect("written");
        let path = dir.path().join(config.file(ID).expect("kept"));
        File::options().append(true).open(&path).and_then(|mut f| f.write_all(b"\0\0\0\0\0 junk\n")).expect("damaged");
        drop(w);
        let mut f = File::options().append(true).open(&path).expect("there");
        // A writer would cut binary damage away; here it stays, so the record is written by a second log's bytes.
        let other = tempfile::tempdir().expect("folder");
        let mut w = writer(other.path(), &config);
        w.write(Stream::Stdout, b"two\n", at(0), Rotations::Any).expect("written");
        let bytes = std::fs::read(other.path().join(config.file(ID).expect("kept"))).expect("read");
        f.write_all(&bytes).expect("written");
        assert_eq!(text(dir.path(), &config, all()), "one\ntwo\n");
    }
}

#[test]
fn a_log_that_does_not_exist_is_empty_and_none_cannot_be_read() {
    let dir = tempfile::tempdir().expect("folder");
    for config in unbounded() {
        assert_eq!(text(dir.path(), &config, all()), "");
    }
    let none = config("none", &[]);
    assert!(matches!(Reader::open(folder(dir.path()).as_fd(), ID, &none, all()), Err(LogError::Unreadable)));
    assert!(Writer::open(folder(dir.path()), ID, none).expect("nothing to open").is_none());
}

#[test]
fn reading_before_a_position_and_attaching_from_it_neither_misses_nor_repeats() {
    for config in unbounded() {
        let dir = tempfile::tempdir().expect("folder");
        let mut w = writer(dir.path(), &config);
        w.write(Stream::Stdout, b"1\n2\n", at(0), Rotations::Any).expect("written");
        let position: Position = w.position();
        let mut cursor = Cursor::at_end(&w, config.driver).expect("kept");
        w.write(Stream::Stdout, b"3\n4\n", at(0), Rotations::Any).expect("written");
        assert_eq!(text(dir.path(), &config, ReadOptions { before: Some(position), ..all() }), "1\n2\n");
        let mut rest = Vec::new();
        while cursor.read(&w, |_, bytes| rest.extend_from_slice(bytes)).expect("read") {}
        assert_eq!(rest, b"3\n4\n");
        assert!(cursor.is_caught_up(&w));
    }
}

#[test]
fn a_cursor_reads_on_through_one_rotation() {
    for driver in [Driver::JsonFile, Driver::Local] {
        let dir = tempfile::tempdir().expect("folder");
        let options = [("max-size", "200"), ("max-file", "1"), ("compress", "false")];
        let config = config(driver.name(), &options);
        let mut w = writer(dir.path(), &config);
        let mut cursor = Cursor::at_end(&w, driver).expect("kept");
        let mut expected = Vec::new();
        for n in 0..50 {
            let line = format!("line {n}\n");
            let allowed = if cursor.is_current(&w) { Rotations::One } else { Rotations::None };
            w.write(Stream::Stdout, line.as_bytes(), at(0), allowed).expect("written");
            expected.extend_from_slice(line.as_bytes());
        }
        // Without leave for a second rotation the file has grown instead.
        assert!(w.is_full() && w.position().offset > 1000);
        let mut got = Vec::new();
        while cursor.read(&w, |_, bytes| got.extend_from_slice(bytes)).expect("read") {}
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(&expected));
    }
}

#[test]
fn following_sees_everything_through_rotations_until_the_container_is_done() {
    for options in [
        [("max-size", "20k"), ("max-file", "50"), ("compress", "false")],
        [("max-size", "20k"), ("max-file", "50"), ("compress", "true")],
        [("max-size", "-1"), ("max-file", "2"), ("compress", "false")],
    ] {
        for driver in ["json-file", "local"] {
            let dir = tempfile::tempdir().expect("folder");
            let config = config(driver, &options);
            let options = ReadOptions { follow: true, ..all() };
            let mut reader = Reader::open(folder(dir.path()).as_fd(), ID, &config, options).expect("readable");
            let ending = reader.ending().expect("following");
            let expected: Vec<u8> = (0..5000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
            let feeder = {
                let (path, config, bytes) = (dir.path().to_owned(), config.clone(), expected.clone());
                std::thread::spawn(move || {
                    let mut w = writer(&path, &config);
                    for chunk in bytes.chunks(333) {
                        w.write(Stream::Stdout, chunk, at(0), Rotations::Any).expect("written");
                        compress(&mut w);
                    }
                    w.finish(at(0)).expect("written");
                    ending.finish();
                })
            };
            let mut out = Vec::new();
            let deadline = Instant::now() + Duration::from_secs(30);
            loop {
                match reader.read(&mut out).expect("read") {
                    Progress::End => break,
                    Progress::More => {}
                    Progress::Idle => {
                        assert!(Instant::now() < deadline, "following ended never");
                        reader.wait(Some(Duration::from_secs(30))).expect("waited");
                    }
                }
            }
            feeder.join().expect("fed");
            assert!(out == expected, "{driver} {options:?}: {} of {}", out.len(), expected.len(), options = config);
        }
    }
}

#[test]
fn a_full_disk_loses_output_but_no_line_is_torn() {
    // /dev/full gives ENOSPC for every write; the log's name is a link that a writer would not follow, so a small
    // file-size limit does it here: RLIMIT_FSIZE is per process, so this runs in a child.
    let dir = tempfile::tempdir().expect("folder");
    let config = config("json-file", &[("max-size", "-1")]);
    let exe = std::env::current_exe().expect("self");
    if std::env::var_os("WHARF_LOGS_FULL_DISK").is_none() {
        let status = std::process::Command::new("sh")
            .args([
                "-c",
                "ulimit -f 16; trap '' XFSZ; exec \"$0\" --exact a_full_disk_loses_output_but_no_line_is_torn",
            ])
            .arg(exe)
            .env("WHARF_LOGS_FULL_DISK", dir.path())
            .stdout(std::process::Stdio::null())
            .status()
            .expect("sh");
        assert!(status.success());
        let lines = text(dir.path(), &config, all());
        assert!(lines.lines().count() > 10 && lines.lines().all(|l| l.starts_with("line ") && l.ends_with(" end")));
        return;
    }
    let path = std::env::var("WHARF_LOGS_FULL_DISK").expect("set");
    let mut w = writer(Path::new(&path), &config);
    let mut failed = 0;
    for n in 0..1000 {
        let line = format!("line {n} end\n");
        failed += u32::from(w.write(Stream::Stdout, line.as_bytes(), at(0), Rotations::Any).is_err());
    }
    assert!(failed > 100 && w.lost() > 0);
}
