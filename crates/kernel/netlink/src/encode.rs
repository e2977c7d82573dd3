//! Encoding of netlink messages (netlink(7), `include/uapi/linux/netlink.h`).

pub(crate) const HEADER: usize = 16;
pub(crate) const F_REQUEST: u16 = 0x1;
pub(crate) const F_ACK: u16 = 0x4;
pub(crate) const F_DUMP: u16 = 0x300;
pub(crate) const F_EXCL: u16 = 0x200;
pub(crate) const F_REPLACE: u16 = 0x100;
pub(crate) const F_CREATE: u16 = 0x400;
pub(crate) const F_APPEND: u16 = 0x800;
pub(crate) const NESTED: u16 = 0x8000;

/// Messages for one send. Each is begun, filled and thereby closed when the next begins or the buffer is sent.
#[derive(Debug, Default)]
pub struct Requests {
    bytes: Vec<u8>,
    names: Vec<&'static str>,
    open: Option<usize>,
}

impl Requests {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Begins a message; `name` says what it asks for, in errors.
    pub fn begin(&mut self, name: &'static str, kind: u16, flags: u16) {
        self.close();
        self.open = Some(self.bytes.len());
        self.names.push(name);
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
    }

    /// Appends the fixed header of the message's family.
    pub fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    /// Appends an attribute. Values longer than an attribute can hold are cut by the protocol's 16-bit length, so
    /// callers split lists before that.
    pub fn attr(&mut self, kind: u16, value: &[u8]) {
        debug_assert!(value.len() <= usize::from(u16::MAX) - 4, "attribute too long");
        self.bytes.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// Appends a number in host byte order.
    pub fn attr_u32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_ne_bytes());
    }

    /// Appends a number in network byte order, as nfnetlink wants.
    pub fn attr_be32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// Appends a NUL-terminated text.
    pub fn attr_text(&mut self, kind: u16, text: &str) {
        let mut value = Vec::with_capacity(text.len() + 1);
        value.extend_from_slice(text.as_bytes());
        value.push(0);
        self.attr(kind, &value);
    }

    /// Appends an attribute made of attributes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        let length = self.bytes.len() - start;
        debug_assert!(length <= usize::from(u16::MAX), "nested attribute too long");
        self.bytes[start..start + 2].copy_from_slice(&(length as u16).to_ne_bytes());
    }

    pub(crate) fn name(&self, index: usize) -> &'static str {
        self.names.get(index).copied().unwrap_or("request")
    }

    /// Writes lengths and sequence numbers (`first`, `first + 1`, …) and returns what goes to the kernel.
    pub(crate) fn seal(&mut self, first: u32, acknowledge: impl Fn(usize) -> bool) -> &[u8] {
        self.close();
        let mut at = 0;
        let mut index = 0;
        while let Some(header) = self.bytes.get_mut(at..at + HEADER) {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            if acknowledge(index) {
                let flags = u16::from_ne_bytes([header[6], header[7]]) | F_ACK;
                header[6..8].copy_from_slice(&flags.to_ne_bytes());
            }
            header[8..12].copy_from_slice(&first.wrapping_add(index as u32).to_ne_bytes());
            at += align(length);
            index += 1;
        }
        &self.bytes
    }

    fn close(&mut self) {
        if let Some(start) = self.open.take() {
            let length = (self.bytes.len() - start) as u32;
            self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        }
    }

    fn pad(&mut self) {
        self.bytes.resize(align(self.bytes.len()), 0);
    }
}

pub(crate) fn align(length: usize) -> usize {
    (length + 3) & !3
}
