//! The well-known protobuf types that the task service uses.

/// `google.protobuf.Any`: a message or JSON document together with the name of its type.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Any {
    /// The type's name.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded value.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// `google.protobuf.Empty`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Empty {}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Timestamp {
    /// Seconds since the epoch.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds within the second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl From<wharf_types::Timestamp> for Timestamp {
    fn from(time: wharf_types::Timestamp) -> Self {
        Timestamp { seconds: time.seconds(), nanos: time.subsec_nanos() as i32 }
    }
}

impl From<Timestamp> for wharf_types::Timestamp {
    fn from(time: Timestamp) -> Self {
        wharf_types::Timestamp::from_unix(time.seconds, u32::try_from(time.nanos).unwrap_or(0))
    }
}
