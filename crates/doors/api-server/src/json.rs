//! Request bodies in JSON, with the errors that Go's decoder gives for wrong ones.
//!
//! The texts are those of dockerd 28.5 built with Go's second JSON decoder, in which the path of a field is a JSON
//! pointer with dots.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::ApiError;
use crate::gotypes;

/// Decodes a body into a value. `root` is how Go calls the type as a whole, and in front of a field.
pub fn decode<T: DeserializeOwned>(body: &[u8], root: gotypes::Root) -> Result<T, ApiError> {
    // serde fills a struct from a list too, Go does not; every body is an object.
    if body.trim_ascii_start().starts_with(b"[") {
        let text = syntax_error(body)
            .unwrap_or_else(|| format!("json: cannot unmarshal array into Go value of type {}", root.value));
        return Err(ApiError::invalid(format!("invalid JSON: {text}")));
    }
    let mut stream = serde_json::Deserializer::from_slice(body);
    let result = serde_path_to_error::deserialize::<_, T>(&mut stream);
    let value = match result {
        Ok(value) => value,
        Err(e) => return Err(ApiError::invalid(format!("invalid JSON: {}", explain(body, &e, root)))),
    };
    if stream.end().is_err() {
        return Err(ApiError::invalid("unexpected content after JSON"));
    }
    Ok(value)
}

fn explain(body: &[u8], error: &serde_path_to_error::Error<serde_json::Error>, root: gotypes::Root) -> String {
    if let Some(text) = syntax_error(body) {
        return text;
    }
    let mut first = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
    let Some(Ok(whole)) = first.next() else {
        // Valid for us and not for serde: nested deeper than its limit, which Go has too.
        return "exceeded max depth".to_owned();
    };
    gotypes::mismatch(&whole, error.path(), &error.inner().to_string(), root)
}

/// What is wrong with the form of a JSON text, in Go's words; `None` if the first value in it is well formed.
pub fn syntax_error(text: &[u8]) -> Option<String> {
    let mut scan = Scan { text, at: 0 };
    scan.space();
    if scan.peek().is_none() {
        return Some("got EOF while reading request body".to_owned());
    }
    scan.value().err()
}

/// A walk over JSON that only looks for the first error.
struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

const END: &str = "unexpected EOF";

/// A byte as Go's `quoteChar` prints it.
fn quoted(text: &[u8]) -> String {
    let first = String::from_utf8_lossy(&text[..text.len().min(4)]).chars().next().unwrap_or('\u{fffd}');
    match first {
        '\'' => "'\\''".to_owned(),
        '"' => "'\"'".to_owned(),
        '\n' => "'\\n'".to_owned(),
        '\r' => "'\\r'".to_owned(),
        '\t' => "'\\t'".to_owned(),
        '\\' => "'\\\\'".to_owned(),
        c if c.is_control() => format!("'\\x{:02x}'", u32::from(c)),
        c => format!("'{c}'"),
    }
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn wrong(&self, place: &str) -> String {
        match self.text.get(self.at..) {
            Some(rest) if !rest.is_empty() => format!("invalid character {} {place}", quoted(rest)),
            _ => END.to_owned(),
        }
    }

    /// Checks one value without recursion, so that no input can exhaust the stack.
    fn value(&mut self) -> Result<(), String> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            self.space();
            match self.peek() {
                Some(b'{') => {
                    self.at += 1;
                    self.space();
                    if self.peek() == Some(b'}') {
                        self.at += 1;
                    } else {
                        open.push(b'}');
                        self.key()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.at += 1;
                    self.space();
                    if self.peek() == Some(b']') {
                        self.at += 1;
                    } else {
                        open.push(b']');
                        continue;
                    }
                }
                Some(b'"') => self.string()?,
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'n') => self.literal(b"null")?,
                Some(b'-' | b'0'..=b'9') => self.number()?,
                _ => return Err(self.wrong("looking for beginning of value")),
            }
            if !self.close(&mut open)? {
                return Ok(());
            }
        }
    }

    /// After a value: goes past all that ends here; true if another value follows.
    fn close(&mut self, open: &mut Vec<u8>) -> Result<bool, String> {
        while let Some(&end) = open.last() {
            self.space();
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    if end == b'}' {
                        self.space();
                        self.key()?;
                    }
                    return Ok(true);
                }
                Some(b) if b == end => {
                    self.at += 1;
                    open.pop();
                }
                _ if end == b'}' => return Err(self.wrong("after object key:value pair")),
                _ => return Err(self.wrong("after array element")),
            }
        }
        Ok(false)
    }

    fn key(&mut self) -> Result<(), String> {
        if self.peek() != Some(b'"') {
            return Err(self.wrong("looking for beginning of object key string"));
        }
        self.string()?;
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.wrong("after object key"));
        }
        self.at += 1;
        Ok(())
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), String> {
        for &b in word {
            if self.peek() != Some(b) {
                let word = String::from_utf8_lossy(word);
                return Err(self.wrong(&format!("in literal {word} (expecting '{}')", char::from(b))));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), String> {
        if !self.peek().is_some_and(|b| b.is_ascii_digit()) {
            return Err(self.wrong("in numeric literal"));
        }
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), String> {
        self.at += 1;
        loop {
            match self.peek() {
                None => return Err(END.to_owned()),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(0..=0x1f) => return Err(self.wrong("in string")),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), String> {
        let rest = &self.text[self.at..];
        let shown = |n: usize| format!("invalid escape sequence `{}` in string", String::from_utf8_lossy(&rest[..n]));
        match rest.get(1) {
            None => Err(END.to_owned()),
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => match rest.get(2..6) {
                None => Err(END.to_owned()),
                Some(hex) if hex.iter().all(u8::is_ascii_hexdigit) => {
                    self.at += 6;
                    Ok(())
                }
                Some(_) => Err(shown(6)),
            },
            Some(_) => Err(shown(2)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wharf_api_types as api;

    fn of(body: &str) -> String {
        match decode::<api::ContainerConfig>(body.as_bytes(), gotypes::CREATE) {
            Ok(_) => "ok".to_owned(),
            Err(e) => e.message,
        }
    }

    #[test]
    fn broken_json_is_explained_in_go_s_words() {
        for (body, text) in [
            ("", "got EOF while reading request body"),
            ("{", "unexpected EOF"),
            ("x", "invalid character 'x' looking for beginning of value"),
            ("{\"Image\":\"b\",}", "invalid character '}' looking for beginning of object key string"),
            ("{\"Image\" \"b\"}", "invalid character '\"' after object key"),
            ("{\"Image\":tru}", "invalid character '}' in literal true (expecting 'e')"),
            ("{\"Image\":\"\\x\"}", "invalid escape sequence `\\x` in string"),
            ("{\"Image\":\"a\nb\"}", "invalid character '\\n' in string"),
            ("{Image:\"a\"}", "invalid character 'I' looking for beginning of object key string"),
            ("{\"Image\":01}", "invalid character '1' after object key:value pair"),
            ("{\"a\":-}", "invalid character '}' in numeric literal"),
            ("{\"a\":[1 2]}", "invalid character '2' after array element"),
        ] {
            assert_eq!(of(body), format!("invalid JSON: {text}"), "{body}");
        }
    }

    #[test]
    fn content_after_the_value_is_refused() {
        assert_eq!(of("{} x"), "unexpected content after JSON");
        assert_eq!(of("{\"Image\":\"b\"}{}"), "unexpected content after JSON");
        assert_eq!(of("{} \n"), "ok");
    }

    #[test]
    fn deep_nesting_is_refused_and_harmless() {
        assert_eq!(of(&format!("{{\"a\":{}", "[".repeat(100_000))), "invalid JSON: unexpected EOF");
        let deep = format!("{{\"Image\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(of(&deep).starts_with("invalid JSON: "), "{}", of(&deep));
    }

    proptest! {
        #[test]
        fn decoding_never_panics(text in ".{0,120}") {
            let _ = of(&text);
        }

        #[test]
        fn decoding_almost_json_never_panics(text in "[\\[\\]{}:,\"0-9a-eE.ntrul \\\\-]{0,60}") {
            let ours = syntax_error(text.as_bytes()).is_none();
            let mut stream = serde_json::Deserializer::from_str(&text).into_iter::<serde_json::Value>();
            // serde_json refuses numbers beyond f64, which are a matter of range, not of form.
            match stream.next() {
                Some(Ok(_)) => prop_assert!(ours, "we refuse {text}"),
                Some(Err(e)) if e.to_string().contains("out of range") => {}
                // A raw number may be followed directly by what serde's stream refuses and Go calls further content.
                Some(Err(e)) if e.to_string().contains("trailing") || e.to_string().contains("expected `") => {}
                Some(Err(e)) => prop_assert!(!ours || e.to_string().contains("surrogate") || e.to_string().contains("invalid number"), "we accept {text}: {e}"),
                None => prop_assert!(!ours),
            }
        }
    }
}
