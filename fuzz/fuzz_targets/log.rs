//! Bytes from outside: never a panic, a hang or an effect elsewhere.
#![no_main]

use std::os::fd::AsFd;

use libfuzzer_sys::fuzz_target;
use wharf_logs::{Config, Form, Progress, ReadOptions, Reader};

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("c-json.log"), bytes).expect("written");
    let dir = std::fs::File::open(folder.path()).expect("open");
    let config = Config::parse("json-file", []).expect("defaults");
    let tail = bytes.first().map(|n| u64::from(*n));
    let options = ReadOptions {
        since: None,
        until: None,
        tail,
        follow: false,
        stdout: true,
        stderr: true,
        timestamps: true,
        details: true,
        form: Form::Frames,
        before: None,
    };
    let mut reader = Reader::open(dir.as_fd(), "c", &config, options).expect("opened");
    let mut out = Vec::new();
    while matches!(reader.read(&mut out), Ok(Progress::More)) {
        out.clear();
    }
});
