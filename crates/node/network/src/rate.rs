//! How fast an endpoint may send and receive.

use std::str::FromStr;

use wharf_netlink::route::Bucket;

/// Bits each second, as tc(8) writes it: `500kbit`, `10mbit`, `1.5gbit`, or a number alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(u64);

/// What is no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid rate {0:?}: a number of bits each second, at least 8kbit, with kbit, mbit or gbit")]
pub struct RateError(String);

/// Less would not carry one packet in a second.
const LEAST: u64 = 8_000;
/// A burst that holds the largest packet which the kernel handles in one piece, lest it be cut.
const BURST: u64 = 64 << 10;

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let lower = text.to_ascii_lowercase();
        let units = [("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3), ("bit", 1.0), ("", 1.0)];
        let (number, unit) =
            units.into_iter().find_map(|(end, n)| Some((lower.strip_suffix(end)?, n))).unwrap_or(("", 1.0));
        let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let bits = number.parse::<f64>().ok().filter(|_| plain).map(|n| (n * unit) as u64);
        bits.filter(|b| (LEAST..=1_000_000_000_000).contains(b)).map(Rate).ok_or_else(|| RateError(text.to_owned()))
    }
}

impl Rate {
    /// A hundredth of a second may go at once, a twentieth may wait.
    pub(crate) fn bucket(self) -> Bucket {
        let rate = self.0 / 8;
        let burst = BURST.max(rate / 100);
        let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Bucket { rate, burst: narrow(burst), limit: narrow(burst + rate / 20) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_units_and_nonsense_is_refused() {
        let bits = |text: &str| text.parse::<Rate>().map(|r| r.0).ok();
        assert_eq!(bits("10mbit"), Some(10_000_000));
        assert_eq!(bits("1.5Gbit"), Some(1_500_000_000));
        assert_eq!(bits("64000"), Some(64_000));
        for wrong in ["", "mbit", "-1mbit", "inf", "1e9", "10mb", "1bit", "9999gbit0"] {
            assert_eq!(bits(wrong), None, "{wrong}");
        }
    }
}
