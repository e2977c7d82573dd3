//! Bytes from outside: never a panic, a hang or an effect elsewhere. gzip and zstd framing, and the bound on what inflates.
#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use wharf_archive::{Compression, Decoder, Inflation};

fuzz_target!(|bytes: &[u8]| {
    let inflation = Inflation { free: 1 << 20, ratio: 100 };
    let bound = inflation.free + inflation.ratio * bytes.len() as u64;
    // What the first bytes say, and each format whatever they say.
    let told = Compression::detect(bytes).ok();
    for compression in told.into_iter().chain([Compression::Gzip, Compression::Zstd]) {
        let Ok(mut decoder) = Decoder::bounded(compression, bytes, inflation) else { continue };
        let mut buffer = [0; 8192];
        let mut out = 0;
        while let Ok(n @ 1..) = decoder.read(&mut buffer) {
            out += n as u64;
        }
        assert!(compression == Compression::None || out <= bound, "{out} bytes of {}", bytes.len());
    }
});
