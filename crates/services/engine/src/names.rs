//! Names for containers that were created without one: an adjective and a surname, as Docker's are formed.

/// Moods and manners; all lower-case ASCII without separators, because `_` joins the two halves.
const ADJECTIVES: &[&str] = &[
    "able", "agile", "airy", "ample", "ardent", "awake", "balanced", "bold", "brave", "breezy", "bright", "brisk",
    "busy", "calm", "candid", "careful", "cheery", "clear", "clever", "cosy", "crisp", "curious", "daring", "deft",
    "devoted", "eager", "earnest", "easy", "exact", "fair", "faithful", "fearless", "fine", "firm", "fleet", "fluent",
    "fond", "frank", "fresh", "frugal", "gentle", "glad", "golden", "good", "graceful", "grand", "handy", "hardy",
    "hearty", "honest", "hopeful", "humble", "jolly", "jovial", "just", "keen", "kind", "lively", "loyal", "lucid",
    "mellow", "merry", "mild", "modest", "neat", "nifty", "nimble", "noble", "open", "patient", "plucky", "polite",
    "prompt", "proud", "quick", "quiet", "ready", "robust", "serene", "sharp", "silent", "sincere", "snug", "sober",
    "steady", "stoic", "sturdy", "subtle", "sunny", "swift", "tender", "thrifty", "tidy", "trusty", "upbeat",
    "valiant", "vivid", "warm", "willing", "witty", "zesty",
];

/// People of science and computing.
const SURNAMES: &[&str] = &[
    "abel",
    "adleman",
    "agnesi",
    "allen",
    "anning",
    "archimedes",
    "aryabhata",
    "babbage",
    "backus",
    "banach",
    "bardeen",
    "bartik",
    "bell",
    "berners",
    "bernoulli",
    "bhabha",
    "bohr",
    "boltzmann",
    "boole",
    "born",
    "bose",
    "boyle",
    "brahe",
    "brouwer",
    "cantor",
    "carnot",
    "carson",
    "cauchy",
    "cerf",
    "chandra",
    "chatelet",
    "church",
    "clarke",
    "codd",
    "cohn",
    "copernicus",
    "cori",
    "coulomb",
    "curie",
    "dahl",
    "darwin",
    "dedekind",
    "diffie",
    "dijkstra",
    "dirac",
    "easley",
    "edison",
    "einstein",
    "eratosthenes",
    "erdos",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "feynman",
    "floyd",
    "fourier",
    "franklin",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "godel",
    "goldberg",
    "goodall",
    "hamilton",
    "hawking",
    "heisenberg",
    "hellman",
    "hertz",
    "hilbert",
    "hoare",
    "hodgkin",
    "hopper",
    "hubble",
    "huygens",
    "hypatia",
    "jacobi",
    "joliot",
    "joule",
    "kay",
    "keller",
    "kepler",
    "khayyam",
    "kirch",
    "kleene",
    "knuth",
    "kolmogorov",
    "kovalevskaya",
    "lagrange",
    "lamarr",
    "lamport",
    "laplace",
    "leavitt",
    "leibniz",
    "liskov",
    "lovelace",
    "lumiere",
    "maxwell",
    "mayer",
    "mccarthy",
    "mcclintock",
    "meitner",
    "mendel",
    "mendeleev",
    "milner",
    "minsky",
    "mirzakhani",
    "moore",
    "morse",
    "napier",
    "nash",
    "naur",
    "newton",
    "nobel",
    "noether",
    "nygaard",
    "ohm",
    "pare",
    "pascal",
    "pasteur",
    "pauling",
    "peano",
    "penrose",
    "perlman",
    "planck",
    "poincare",
    "ptolemy",
    "raman",
    "ramanujan",
    "rejewski",
    "rhodes",
    "riemann",
    "ritchie",
    "rivest",
    "rubin",
    "saha",
    "sammet",
    "shamir",
    "shannon",
    "snow",
    "somerville",
    "steiner",
    "swartz",
    "tarski",
    "tesla",
    "thompson",
    "torvalds",
    "turing",
    "vaughan",
    "volta",
    "wilkes",
    "wilson",
    "wirth",
    "wozniak",
    "wright",
    "wu",
    "yalow",
    "yonath",
    "zuse",
];

/// Makes a name of two random numbers; a third, when given, is appended as a digit to part names that collide.
pub fn compose(first: u32, second: u32, digit: Option<u8>) -> String {
    let adjective = ADJECTIVES[first as usize % ADJECTIVES.len()];
    let surname = SURNAMES[second as usize % SURNAMES.len()];
    match digit {
        None => format!("{adjective}_{surname}"),
        Some(d) => format!("{adjective}_{surname}{}", d % 10),
    }
}

/// Whether a text may be a container's name: Docker's `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub fn is_valid(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.len() >= 2
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_composed_name_is_a_valid_name() {
        for i in 0..ADJECTIVES.len().max(SURNAMES.len()) as u32 {
            let name = compose(i, i, (i % 3 == 0).then_some(i as u8));
            assert!(is_valid(&name), "{name}");
        }
    }

    #[test]
    fn one_letter_slashes_spaces_and_leading_dashes_are_no_names() {
        for name in ["", "a", "-a", "a/b", "a b", "_ab", "é2"] {
            assert!(!is_valid(name), "{name}");
        }
        for name in ["ab", "a.", "A-b_c.d", "0x"] {
            assert!(is_valid(name), "{name}");
        }
    }
}
