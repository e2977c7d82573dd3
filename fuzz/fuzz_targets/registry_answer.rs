//! Bytes from outside: never a panic, a hang or an effect elsewhere. What a registry answers, head and body as they come.
#![no_main]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use wharf_distribution::{Client, Config, Credentials, Purpose};
use wharf_types::Reference;

/// What every request is answered with now.
static ANSWER: Mutex<Vec<u8>> = Mutex::new(Vec::new());

static PORT: LazyLock<u16> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // The client may leave before the end.
            let _ = stream.read(&mut [0; 8192]);
            let answer = ANSWER.lock().expect("nobody panics here").clone();
            let _ = stream.write_all(&answer);
        }
    });
    port
});

fuzz_target!(|bytes: &[u8]| {
    *ANSWER.lock().expect("nobody panics here") = bytes.to_vec();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = Config { attempts: 1, stall: Duration::from_secs(1), ..Config::default() };
        let reference = Reference::parse(&format!("127.0.0.1:{}/a:b", *PORT)).expect("a reference");
        let client = Client::new(config);
        let repository = client.repository(&reference, Credentials::default(), Purpose::Pull).expect("no settings");
        if let Ok(found) = repository.resolve(&reference).await {
            // What is fetched by digest is what was asked for, or an error.
            if let Ok(document) = repository.document(found.digest.as_str(), "input").await {
                assert_eq!(document.descriptor.digest, found.digest);
            }
        }
        let _ = repository.document("b", "input").await;
    });
});
