//! Signal names and numbers as Docker takes them: `9`, `KILL`, `SIGKILL`, `sigkill`, `RTMIN+3`, `SIGRTMAX-1`.
//!
//! Source: signal(7) and moby/sys `signal.ParseSignal`. Numbers are those of x86_64 and aarch64, which agree.

use wharf_error::{HasKind, Kind};

/// A signal number between 1 and 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(u8);

/// A text that names no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid signal: {0}")]
pub struct SignalError(pub String);

impl HasKind for SignalError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

const NAMES: &[(&str, u8)] = &[
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
];

const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

impl Signal {
    /// SIGKILL.
    pub const KILL: Signal = Signal(9);
    /// SIGTERM.
    pub const TERM: Signal = Signal(15);

    /// Takes a number from 1 to 64.
    pub fn from_number(n: i64) -> Option<Signal> {
        (1..=i64::from(RTMAX)).contains(&n).then_some(Signal(n as u8))
    }

    /// Takes a name or a number, in any case, with or without `SIG`.
    pub fn parse(text: &str) -> Result<Signal, SignalError> {
        let wrong = || SignalError(text.chars().take(80).collect());
        if let Ok(n) = text.parse::<i64>() {
            return Signal::from_number(n).ok_or_else(wrong);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some((_, n)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(Signal(*n));
        }
        let offset = |digits: &str| digits.parse::<u8>().ok().filter(|n| *n <= RTMAX - RTMIN);
        let n = match name {
            "RTMIN" => Some(RTMIN),
            "RTMAX" => Some(RTMAX),
            _ => match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
                (Some(d), _) => offset(d).map(|n| RTMIN + n),
                (_, Some(d)) => offset(d).map(|n| RTMAX - n),
                _ => None,
            },
        };
        n.map(Signal).ok_or_else(wrong)
    }

    /// The number, 1 to 64.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The name without `SIG`, or the number where the kernel has no name.
    pub fn name(self) -> String {
        if self.0 >= RTMIN {
            return match self.0 - RTMIN {
                0 => "RTMIN".to_owned(),
                _ if self.0 == RTMAX => "RTMAX".to_owned(),
                n => format!("RTMIN+{n}"),
            };
        }
        let known = NAMES.iter().find(|(name, n)| *n == self.0 && !matches!(*name, "CLD" | "IOT" | "POLL"));
        known.map_or_else(|| self.0.to_string(), |(name, _)| (*name).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_real_time_signals_parse() {
        for (text, n) in [("9", 9), ("KILL", 9), ("SIGKILL", 9), ("sigterm", 15), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)] {
            assert_eq!(Signal::parse(text).map(Signal::number), Ok(n), "{text}");
        }
    }

    #[test]
    fn what_names_no_signal_is_refused() {
        for text in ["", "0", "65", "-1", "SIG", "NOPE", "RTMIN+31", "RTMIN+x"] {
            assert!(Signal::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_parses_back_to_its_signal() {
        for n in 1..=64 {
            let signal = Signal::from_number(n).expect("in range");
            assert_eq!(Signal::parse(&signal.name()), Ok(signal));
        }
    }
}
