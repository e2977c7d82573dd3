//! Numbers, sizes, spans and times.

use proptest::prelude::*;

use crate::format::{moment, size};
use crate::value;

#[test]
fn sizes_are_read_and_printed_as_docker_does() {
    for (text, bytes) in [
        ("64m", 67_108_864),
        ("1.5g", 1_610_612_736),
        ("512", 512),
        ("1k", 1024),
        ("2MiB", 2_097_152),
        ("1 kb", 1024),
        ("3B", 3),
    ] {
        assert_eq!(value::parse_bytes("memory", text), Ok(bytes), "{text}");
    }
    assert_eq!(value::parse_bytes("memory-swap", "-1"), Ok(-1));
    assert_eq!(value::parse_bytes("memory", "x"), Err("invalid size: 'x'".into()));
    assert_eq!(value::parse_bytes("memory", "1x"), Err("invalid suffix: 'x'".into()));
    assert_eq!(size::decimal(3_148_000.0), "3.148MB");
    assert_eq!(size::decimal_short(3_120_000.0), "3.12MB");
    assert_eq!(size::decimal_short(0.0), "0B");
    assert_eq!(size::decimal_short(8190.0), "8.19kB");
    assert_eq!(size::binary(483_328.0), "472KiB");
    assert_eq!(size::binary(25_276_502_016.0), "23.54GiB");
}

#[test]
fn spans_are_printed_as_docker_does() {
    for (seconds, text) in [
        (0, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (150, "2 minutes"),
        (3600, "About an hour"),
        (7200, "2 hours"),
        (86_400 * 3, "3 days"),
        (86_400 * 21, "3 weeks"),
        (86_400 * 90, "3 months"),
        (86_400 * 365 * 3, "3 years"),
    ] {
        assert_eq!(moment::span(seconds), text);
    }
}

#[test]
fn durations_and_numbers_are_read_as_go_does() {
    assert_eq!(value::parse_duration("1m30s"), Ok(90_000_000_000));
    assert_eq!(value::parse_duration("1.5h"), Ok(5_400_000_000_000));
    assert_eq!(value::parse_duration("-2ms"), Ok(-2_000_000));
    assert_eq!(value::parse_duration("0"), Ok(0));
    assert_eq!(value::parse_duration("5"), Err("time: missing unit in duration \"5\"".into()));
    assert_eq!(value::parse_duration("5x"), Err("time: unknown unit \"x\" in duration \"5x\"".into()));
    assert_eq!(value::parse_int("-0x10"), Ok(-16));
    assert_eq!(value::parse_int("010"), Ok(8));
    assert_eq!(value::parse_int("-9223372036854775808"), Ok(i64::MIN));
    assert_eq!(value::parse_nano("1.5"), Ok(1_500_000_000));
    assert_eq!(value::parse_nano("0.0000000001"), Err("value is too precise".into()));
}

#[test]
fn times_are_read_as_docker_does() {
    assert_eq!(moment::since(""), Ok(String::new()));
    assert_eq!(moment::since("2020-01-01T00:00:00Z"), Ok("1577836800.000000000".into()));
    assert_eq!(moment::since("2020-01-01T00:00:00.5+01:00"), Ok("1577833200.500000000".into()));
    assert_eq!(moment::since("1577836800.25"), Ok("1577836800.25".into()));
    assert_eq!(moment::since("nosuch"), Err("failed to parse value as time or duration: \"nosuch\"".into()));
}

proptest! {
    #[test]
    fn readers_of_numbers_never_panic(text in "\\PC{0,12}", shaped in "[-+]?[0-9.]{0,24}[a-zµ ]{0,4}") {
        for t in [text.as_str(), shaped.as_str()] {
            let _ = value::parse_bytes("memory", t);
            let _ = value::parse_duration(t);
            let _ = value::parse_int(t);
            let _ = value::parse_uint(t, u64::MAX);
            let _ = value::parse_nano(t);
            let _ = value::parse_bool(t);
            let _ = value::split_csv(t);
            let _ = moment::since(t);
        }
    }

    #[test]
    fn printers_of_numbers_never_panic(n in any::<i64>(), f in any::<f64>()) {
        let _ = (moment::span(n), moment::go_local(n), moment::nanos_local(n));
        let _ = (size::decimal(f), size::decimal_short(f), size::binary(f));
    }
}
