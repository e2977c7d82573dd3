//! Heads of HTTP/1.1 answers: parsing, and which framing their body has.

/// Heads longer than this are refused.
pub(crate) const MAX_HEAD: usize = 256 << 10;

/// Status line and headers of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The status, 100 to 999.
    pub status: u16,
    headers: Vec<(String, String)>,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

impl Head {
    /// Parses a head, which ends before the empty line.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Head> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.split("\r\n");
        let status_line = lines.next()?;
        let rest = status_line.strip_prefix("HTTP/1.")?;
        let mut words = rest.splitn(3, ' ');
        let _minor: u8 = words.next()?.parse().ok()?;
        let status: u16 = words.next()?.parse().ok().filter(|s| (100..1000).contains(s))?;
        let mut headers = Vec::new();
        for line in lines.filter(|l| !l.is_empty()) {
            let (name, value) = line.split_once(':')?;
            headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
        Some(Head { status, headers })
    }

    /// Returns a header by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|h| h.0 == name).map(|h| h.1.as_str())
    }

    pub(crate) fn framing(&self, head_request: bool) -> Option<Framing> {
        if head_request || self.status < 200 || self.status == 204 || self.status == 304 {
            return Some(Framing::Length(0));
        }
        if self.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
            return Some(Framing::Chunked);
        }
        match self.header("content-length") {
            Some(n) => n.parse().ok().map(Framing::Length),
            None => Some(Framing::UntilClose),
        }
    }

    pub(crate) fn closes(&self) -> bool {
        self.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"))
    }
}
