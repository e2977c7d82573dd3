//! As much of MessagePack as the forward protocol needs (github.com/msgpack/msgpack, spec.md).

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Nil,
    /// A truth value.
    Bool(bool),
    /// A number.
    Int(i64),
    /// Text; bytes that are no UTF-8 are kept as they are.
    Str(Vec<u8>),
    /// A list.
    Array(Vec<Value>),
    /// Pairs, in order.
    Map(Vec<(Value, Value)>),
    /// An extension: type and bytes.
    Ext(i8, Vec<u8>),
}

impl Value {
    /// Text.
    pub fn text(text: &str) -> Value {
        Value::Str(text.as_bytes().to_vec())
    }

    /// The value of a key of a map.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let Value::Map(pairs) = self else { return None };
        pairs.iter().find(|(k, _)| *k == Value::text(key)).map(|(_, v)| v)
    }
}

/// Nesting that is followed at most: answers come from elsewhere.
const DEPTH: usize = 32;

/// A length behind its head: in the head itself if it fits, else as 8 (where there is such a form), 16 or 32 bits.
fn head(out: &mut Vec<u8>, length: usize, small: Option<(u8, usize)>, codes: [Option<u8>; 3]) {
    match (small, codes) {
        (Some((code, limit)), _) if length < limit => out.push(code | length as u8),
        (_, [Some(code), ..]) if length <= 0xff => out.extend_from_slice(&[code, length as u8]),
        (_, [_, Some(code), _]) if length <= 0xffff => {
            out.push(code);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        (_, [.., code]) => {
            out.push(code.unwrap_or(0xc0));
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
}

/// Appends a value.
pub fn encode(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Nil => out.push(0xc0),
        Value::Bool(on) => out.push(if *on { 0xc3 } else { 0xc2 }),
        Value::Int(n @ 0..=127) => out.push(*n as u8),
        Value::Int(n @ 0..=0xffff_ffff) => {
            out.push(0xce);
            out.extend_from_slice(&(*n as u32).to_be_bytes());
        }
        Value::Int(n) => {
            out.push(0xd3);
            out.extend_from_slice(&n.to_be_bytes());
        }
        Value::Str(bytes) => {
            head(out, bytes.len(), Some((0xa0, 32)), [Some(0xd9), Some(0xda), Some(0xdb)]);
            out.extend_from_slice(bytes);
        }
        Value::Array(items) => {
            head(out, items.len(), Some((0x90, 16)), [None, Some(0xdc), Some(0xdd)]);
            items.iter().for_each(|item| encode(out, item));
        }
        Value::Map(pairs) => {
            head(out, pairs.len(), Some((0x80, 16)), [None, Some(0xde), Some(0xdf)]);
            pairs.iter().for_each(|(k, v)| {
                encode(out, k);
                encode(out, v);
            });
        }
        Value::Ext(kind, bytes) => {
            match bytes.len() {
                8 => out.push(0xd7),
                length => head(out, length, None, [Some(0xc7), Some(0xc8), Some(0xc9)]),
            }
            out.push(*kind as u8);
            out.extend_from_slice(bytes);
        }
    }
}

/// Reads the value at the start of some bytes: `Ok(None)` if more are needed, else the value and its length. The error says
/// that this is no MessagePack, or nested too deeply.
pub fn decode(bytes: &[u8]) -> Result<Option<(Value, usize)>, &'static str> {
    let mut at = 0;
    match (Reader { bytes, at: &mut at }).value(DEPTH) {
        Ok(value) => Ok(Some((value, at))),
        Err(Trouble::Short) => Ok(None),
        Err(Trouble::Wrong(text)) => Err(text),
    }
}

enum Trouble {
    Short,
    Wrong(&'static str),
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: &'a mut usize,
}

impl Reader<'_> {
    fn take(&mut self, n: usize) -> Result<&[u8], Trouble> {
        let end = self.at.checked_add(n).ok_or(Trouble::Wrong("a length beyond all bounds"))?;
        let part = self.bytes.get(*self.at..end).ok_or(Trouble::Short)?;
        *self.at = end;
        Ok(part)
    }

    fn number(&mut self, n: usize) -> Result<u64, Trouble> {
        Ok(self.take(n)?.iter().fold(0, |all, b| (all << 8) | u64::from(*b)))
    }

    fn string(&mut self, length: u64) -> Result<Value, Trouble> {
        Ok(Value::Str(self.take(length as usize)?.to_vec()))
    }

    fn array(&mut self, length: u64, depth: usize) -> Result<Value, Trouble> {
        // Nothing is allocated by the length alone: it may be a lie.
        let mut items = Vec::new();
        for _ in 0..length {
            items.push(self.value(depth)?);
        }
        Ok(Value::Array(items))
    }

    fn map(&mut self, length: u64, depth: usize) -> Result<Value, Trouble> {
        let mut pairs = Vec::new();
        for _ in 0..length {
            pairs.push((self.value(depth)?, self.value(depth)?));
        }
        Ok(Value::Map(pairs))
    }

    fn extension(&mut self, length: u64) -> Result<Value, Trouble> {
        let kind = self.number(1)? as i8;
        Ok(Value::Ext(kind, self.take(length as usize)?.to_vec()))
    }

    fn value(&mut self, depth: usize) -> Result<Value, Trouble> {
        let depth = depth.checked_sub(1).ok_or(Trouble::Wrong("nested too deeply"))?;
        let code = self.number(1)? as u8;
        match code {
            0x00..=0x7f => Ok(Value::Int(i64::from(code))),
            0x80..=0x8f => self.map(u64::from(code & 15), depth),
            0x90..=0x9f => self.array(u64::from(code & 15), depth),
            0xa0..=0xbf => self.string(u64::from(code & 31)),
            0xc0 => Ok(Value::Nil),
            0xc2 | 0xc3 => Ok(Value::Bool(code == 0xc3)),
            0xc4 | 0xd9 => self.number(1).and_then(|n| self.string(n)),
            0xc5 | 0xda => self.number(2).and_then(|n| self.string(n)),
            0xc6 | 0xdb => self.number(4).and_then(|n| self.string(n)),
            0xc7 => self.number(1).and_then(|n| self.extension(n)),
            0xc8 => self.number(2).and_then(|n| self.extension(n)),
            0xc9 => self.number(4).and_then(|n| self.extension(n)),
            0xcc => self.number(1).map(|n| Value::Int(n as i64)),
            0xcd => self.number(2).map(|n| Value::Int(n as i64)),
            0xce => self.number(4).map(|n| Value::Int(n as i64)),
            0xcf | 0xd3 => self.number(8).map(|n| Value::Int(n as i64)),
            0xd0 => self.number(1).map(|n| Value::Int(i64::from(n as i8))),
            0xd1 => self.number(2).map(|n| Value::Int(i64::from(n as i16))),
            0xd2 => self.number(4).map(|n| Value::Int(i64::from(n as i32))),
            0xd4..=0xd8 => self.extension(1 << (code - 0xd4)),
            0xdc => self.number(2).and_then(|n| self.array(n, depth)),
            0xdd => self.number(4).and_then(|n| self.array(n, depth)),
            0xde => self.number(2).and_then(|n| self.map(n, depth)),
            0xdf => self.number(4).and_then(|n| self.map(n, depth)),
            0xe0..=0xff => Ok(Value::Int(i64::from(code as i8))),
            _ => Err(Trouble::Wrong("a code that stands for nothing here")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            proptest::collection::vec(any::<u8>(), 0..300).prop_map(Value::Str),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(|b| Value::Ext(0, b)),
        ];
        leaf.prop_recursive(4, 40, 20, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..20).prop_map(Value::Array),
                proptest::collection::vec((inner.clone(), inner), 0..20).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again_and_a_part_of_it_is_short(value in value()) {
            let mut bytes = Vec::new();
            encode(&mut bytes, &value);
            prop_assert_eq!(decode(&bytes), Ok(Some((value, bytes.len()))));
            prop_assert_eq!(decode(&bytes[..bytes.len() - 1]), Ok(None));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
