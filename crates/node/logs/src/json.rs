//! json-file lines, exactly as Docker writes them, plus the additive key `raw` where a message is not UTF-8:
//!
//! ```text
//! {"log":"text\n","stream":"stdout","attrs":{"k":"v"},"time":"2026-11-21T18:54:14.049146Z","raw":"<base64>"}
//! ```
//!
//! Source: moby `daemon/logger/jsonfilelog/jsonlog/jsonlogbytes.go`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::Stream;
use crate::record::Record;

const HEAD: &[u8] = b"{\"log\":\"";

/// Bytes that stand for themselves inside a JSON string as Go's encoder writes it.
const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0x20;
    while b < 0x80 {
        table[b] = !matches!(b as u8, b'\\' | b'"' | b'<' | b'>' | b'&');
        b += 1;
    }
    table
};

/// Everything of a line behind the text: the same for all messages of a stream with one time.
pub(crate) fn tail(stream: Stream, attrs: &str, time: &str) -> Vec<u8> {
    let stream = match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    let attrs = if attrs.is_empty() { String::new() } else { format!("\"attrs\":{attrs},") };
    format!("\",\"stream\":\"{stream}\",{attrs}\"time\":\"{time}\"}}\n").into_bytes()
}

/// Appends one line.
pub(crate) fn encode(out: &mut Vec<u8>, message: &[u8], tail: &[u8]) {
    out.extend_from_slice(HEAD);
    if escape(out, message) {
        out.extend_from_slice(tail);
        return;
    }
    out.extend_from_slice(&tail[..tail.len() - 2]);
    out.extend_from_slice(b",\"raw\":\"");
    out.extend_from_slice(STANDARD.encode(message).as_bytes());
    out.extend_from_slice(b"\"}\n");
}

/// Appends a string's inside. Returns whether the bytes were valid UTF-8, so that the string holds all of them.
fn escape(out: &mut Vec<u8>, bytes: &[u8]) -> bool {
    let mut start = 0;
    let mut at = 0;
    while let Some(&b) = bytes.get(at) {
        if PLAIN[usize::from(b)] {
            at += 1;
            continue;
        }
        if b >= 0x80 {
            out.extend_from_slice(&bytes[start..at]);
            return escape_unicode(out, &bytes[at..]);
        }
        out.extend_from_slice(&bytes[start..at]);
        escape_ascii(out, b);
        at += 1;
        start = at;
    }
    out.extend_from_slice(&bytes[start..]);
    true
}

fn escape_ascii(out: &mut Vec<u8>, b: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match b {
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', b]),
        _ => out.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]),
    }
}

fn escape_unicode(out: &mut Vec<u8>, bytes: &[u8]) -> bool {
    let mut whole = true;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\u{2028}' => out.extend_from_slice(b"\\u2028"),
                '\u{2029}' => out.extend_from_slice(b"\\u2029"),
                c if c.is_ascii() && !PLAIN[c as usize & 0x7f] => escape_ascii(out, c as u8),
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
            whole = false;
        }
    }
    whole
}

/// Reads one line without its newline into `record`. Returns whether it is a log line of the form above; a foreign, torn or
/// damaged one is not.
pub(crate) fn decode(line: &[u8], record: &mut Record) -> bool {
    record.clear();
    let Some(rest) = line.strip_prefix(HEAD) else { return false };
    let Some(rest) = unescape(rest, &mut record.bytes) else { return false };
    let Some(rest) = rest.strip_prefix(b",\"stream\":\"") else { return false };
    let (stream, rest) = if let Some(rest) = rest.strip_prefix(b"stdout\"") {
        (Stream::Stdout, rest)
    } else if let Some(rest) = rest.strip_prefix(b"stderr\"") {
        (Stream::Stderr, rest)
    } else {
        return false;
    };
    record.stream = stream;
    let mut rest = rest;
    if let Some(attrs) = rest.strip_prefix(b",\"attrs\":") {
        let Some(end) = object_end(attrs) else { return false };
        record.attrs.extend_from_slice(&attrs[..end]);
        rest = &attrs[end..];
    }
    let Some(time) = rest.strip_prefix(b",\"time\":\"") else { return false };
    let Some(end) = memchr::memchr(b'"', time) else { return false };
    let Ok(text) = str::from_utf8(&time[..end]) else { return false };
    record.time.push_str(text);
    match &time[end + 1..] {
        b"}" => true,
        tail => tail
            .strip_prefix(b",\"raw\":\"")
            .and_then(|raw| raw.strip_suffix(b"\"}"))
            .and_then(|raw| STANDARD.decode(raw).ok())
            .is_some_and(|raw| {
                record.bytes = raw;
                true
            }),
    }
}

/// Appends the inside of a JSON string up to its closing quote; returns what follows the quote.
fn unescape<'a>(mut text: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let at = memchr::memchr2(b'"', b'\\', text)?;
        out.extend_from_slice(&text[..at]);
        if text[at] == b'"' {
            return Some(&text[at + 1..]);
        }
        let plain = match text.get(at + 1)? {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 8,
            b'f' => 12,
            b @ (b'"' | b'\\' | b'/') => *b,
            b'u' => {
                text = unescape_code(&text[at + 2..], out)?;
                continue;
            }
            _ => return None,
        };
        out.push(plain);
        text = &text[at + 2..];
    }
}

fn unescape_code<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let code = |at: &[u8]| -> Option<u32> {
        let digits = str::from_utf8(at.get(..4)?).ok()?;
        digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
    };
    let first = code(text)?;
    let mut rest = &text[4..];
    let mut value = first;
    if (0xd800..0xdc00).contains(&first)
        && let Some(low) = rest.strip_prefix(b"\\u").and_then(code).filter(|low| (0xdc00..0xe000).contains(low))
    {
        value = 0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00);
        rest = &rest[6..];
    }
    let c = char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    Some(rest)
}

/// Length of the JSON object at the start of `text`; its strings may hold braces.
fn object_end(text: &[u8]) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for (at, &b) in text.iter().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' if !quoted => depth += 1,
            b'}' if !quoted => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2026-11-21T18:54:14.049146Z";

    fn line(message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out, message, &tail(Stream::Stdout, "", TIME));
        out
    }

    #[test]
    fn lines_are_byte_for_byte_what_docker_writes() {
        // Taken from a file written by dockerd 28.5 for the same output.
        for (message, text) in [
            (b"a\tb\"\\ <>& \r\n".as_slice(), r#"a\u0009b\"\\ \u003c\u003e\u0026 \r\n"#),
            ("\u{2028} x \u{1}\u{7f}\n".as_bytes(), "\\u2028 x \\u0001\u{7f}\\n"),
            ("é€\n".as_bytes(), "é€\\n"),
            (b"no newline", "no newline"),
        ] {
            let expected = format!("{{\"log\":\"{text}\",\"stream\":\"stdout\",\"time\":\"{TIME}\"}}\n");
            assert_eq!(String::from_utf8(line(message)).expect("text"), expected);
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_docker_shows_them_and_kept_exactly() {
        let text = String::from_utf8(line(b"\xff\xfebad\xe2\x80\n")).expect("text");
        let expected = format!(
            "{{\"log\":\"\\ufffd\\ufffdbad\\ufffd\\ufffd\\n\",\"stream\":\"stdout\",\"time\":\"{TIME}\",\"raw\":\"//5iYWTigAo=\"}}\n"
        );
        assert_eq!(text, expected);
        let mut record = Record::default();
        assert!(decode(text.trim_end().as_bytes(), &mut record));
        assert_eq!(record.bytes, b"\xff\xfebad\xe2\x80\n");
    }

    #[test]
    fn attributes_stand_before_the_time_and_are_read_back() {
        let mut out = Vec::new();
        encode(&mut out, b"x\n", &tail(Stream::Stderr, r#"{"a":"}\"{"}"#, TIME));
        assert_eq!(
            String::from_utf8_lossy(&out),
            format!(
                "{{\"log\":\"x\\n\",\"stream\":\"stderr\",\"attrs\":{{\"a\":\"}}\\\"{{\"}},\"time\":\"{TIME}\"}}\n"
            )
        );
        let mut record = Record::default();
        assert!(decode(out.trim_ascii_end(), &mut record));
        assert_eq!((record.stream, record.attrs.as_slice()), (Stream::Stderr, br#"{"a":"}\"{"}"#.as_slice()));
    }

    #[test]
    fn damaged_lines_are_refused() {
        let whole = line(b"text \xff\n");
        let whole = whole.trim_ascii_end();
        let mut record = Record::default();
        for end in 0..whole.len() {
            assert!(!decode(&whole[..end], &mut record), "{end}");
        }
        for text in [r#"{"log":"\ud8"}"#, r#"{"log":"\x","stream":"stdout","time":""}"#, "{}", "", "\0\0\0"] {
            assert!(!decode(text.as_bytes(), &mut record), "{text}");
        }
    }

    #[test]
    fn lines_are_json_for_every_other_reader() {
        let value: serde_json::Value = serde_json::from_slice(&line(b"\x00\xf0\x9f\x98\x80\xff\"\n")).expect("JSON");
        assert_eq!(value["log"], "\u{0}😀\u{fffd}\"\n");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_survive(message: Vec<u8>) {
            let out = line(&message);
            proptest::prop_assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok());
            let mut record = Record::default();
            proptest::prop_assert!(decode(&out[..out.len() - 1], &mut record));
            proptest::prop_assert_eq!(record.bytes, message);
            proptest::prop_assert_eq!(record.time, TIME);
        }

        #[test]
        fn foreign_lines_never_panic(text: Vec<u8>, cut in 0usize..120) {
            let mut record = Record::default();
            decode(&text, &mut record);
            let mut mixed = line(b"\\u12 <x>\n");
            mixed.truncate(cut);
            mixed.extend_from_slice(&text);
            decode(&mixed, &mut record);
        }
    }
}
