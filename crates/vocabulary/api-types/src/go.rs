//! How Go's `encoding/json` reads and writes, as far as clients notice it.

use std::collections::BTreeMap;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// Defines body types: every field public, readable from a missing or `null` value. Names are written in Go's way
/// (`PascalCase`) unless another case stands after `as`.
macro_rules! bodies {
    ($( $(#[$outer:meta])* pub struct $name:ident $(as $case:literal)? { $($fields:tt)* } )*) => {
        $( bodies!(@case [$($case)?] [$(#[$outer])*] $name { $($fields)* }); )*
    };
    (@case [] $outer:tt $name:ident $fields:tt) => {
        bodies!(@case ["PascalCase"] $outer $name $fields);
    };
    (@case [$case:literal] [$($outer:tt)*] $name:ident {
        $( $(#[$inner:meta])* $field:ident : $ty:ty, )*
    }) => {
        $($outer)*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, rename_all = $case)]
        // Field names are those of the API reference, which documents them.
        #[allow(missing_docs)]
        pub struct $name {
            $( $(#[$inner])* #[serde(deserialize_with = "crate::go::nullable")] pub $field: $ty, )*
        }
    };
}

/// Reads a value where `null` means the zero value, as Go's decoder does for every type.
pub fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// What Go's `omitempty` leaves out.
pub trait Empty {
    /// Whether the value is Go's zero value or an empty collection.
    fn is_empty_value(&self) -> bool;
}

impl Empty for String {
    fn is_empty_value(&self) -> bool {
        self.is_empty()
    }
}

impl Empty for bool {
    fn is_empty_value(&self) -> bool {
        !*self
    }
}

macro_rules! empty_numbers {
    ($($t:ty)*) => {$(impl Empty for $t {
        fn is_empty_value(&self) -> bool {
            *self == 0
        }
    })*};
}
empty_numbers!(i32 i64 u16 u32 u64);

impl<T> Empty for Vec<T> {
    fn is_empty_value(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Empty for BTreeMap<K, V> {
    fn is_empty_value(&self) -> bool {
        self.is_empty()
    }
}

/// A pointer in Go: `omitempty` leaves out nil only. Collections that have a nil of their own are [`nil_or_empty`].
impl<T> Empty for Option<T> {
    fn is_empty_value(&self) -> bool {
        self.is_none()
    }
}

/// Go's `omitempty` as serde's `skip_serializing_if`.
pub fn empty<T: Empty>(value: &T) -> bool {
    value.is_empty_value()
}

/// Go's `omitempty` for a collection that is also `null` elsewhere.
pub fn nil_or_empty<T: Empty>(value: &Option<T>) -> bool {
    value.as_ref().is_none_or(Empty::is_empty_value)
}

/// An empty JSON object, the value type of Go's `map[string]struct{}`; reads any object and `null`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unit {}

impl<'de> Deserialize<'de> for Unit {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct AnyObject;
        impl<'de> Visitor<'de> for AnyObject {
            type Value = Unit;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("struct {}")
            }
            fn visit_unit<E>(self) -> Result<Unit, E> {
                Ok(Unit {})
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Unit, A::Error> {
                while map.next_entry::<serde::de::IgnoredAny, serde::de::IgnoredAny>()?.is_some() {}
                Ok(Unit {})
            }
        }
        d.deserialize_any(AnyObject)
    }
}

/// A list of words that may also be written as one string (moby's `strslice`): a command or an entrypoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Words(pub Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Words;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E>(self, s: &str) -> Result<Words, E> {
                Ok(Words(vec![s.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Words, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = seq.next_element::<Option<String>>()? {
                    words.push(word.unwrap_or_default());
                }
                Ok(Words(words))
            }
        }
        d.deserialize_any(OneOrMany)
    }
}

impl Empty for Words {
    fn is_empty_value(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<String>> for Words {
    fn from(words: Vec<String>) -> Self {
        Self(words)
    }
}

impl std::ops::Deref for Words {
    type Target = Vec<String>;
    fn deref(&self) -> &Vec<String> {
        &self.0
    }
}

/// Go's `[2]uint`: missing elements are 0, further ones are dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Pair(pub [u32; 2]);

impl<'de> Deserialize<'de> for Pair {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct UpToTwo;
        impl<'de> Visitor<'de> for UpToTwo {
            type Value = Pair;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("[2]uint")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Pair, A::Error> {
                let mut pair = [0; 2];
                let mut filled = 0;
                while let Some(n) = seq.next_element::<u32>()? {
                    if let Some(slot) = pair.get_mut(filled) {
                        *slot = n;
                        filled += 1;
                    }
                }
                Ok(Pair(pair))
            }
        }
        d.deserialize_seq(UpToTwo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_be_one_string_a_list_or_null() {
        let read = |s: &str| serde_json::from_str::<Option<Words>>(s).expect(s).map(|w| w.0);
        assert_eq!(read("\"echo hi\""), Some(vec!["echo hi".to_owned()]));
        assert_eq!(read("[\"a\",\"b\"]"), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(read("null"), None);
        assert!(serde_json::from_str::<Words>("3").is_err());
    }

    #[test]
    fn a_console_size_of_any_length_is_two_numbers() {
        let read = |s: &str| serde_json::from_str::<Pair>(s).expect(s).0;
        assert_eq!((read("[]"), read("[1]"), read("[1,2,3]")), ([0, 0], [1, 0], [1, 2]));
    }
}
