//! The image `wharf/hello`, made of a program inside this library when it is first asked for.

use wharf_archive::{Entry, EntryKind, Time, Writer};
use wharf_oci::image::Config;
use wharf_types::{Reference, Timestamp};

use crate::import::{Shape, this_platform};
use crate::{ImageError, Images};

/// Its name, as people type it once the tag is added.
pub(crate) const NAME: &str = "wharf/hello:latest";

const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hello"));

/// 2026-01-01: a fixed time, so that the same program always gives the same image.
const CREATED: i64 = 1_767_225_600;

impl Images {
    /// Makes the image out of this library's own bytes.
    pub(crate) fn make_hello(&self) -> Result<(), ImageError> {
        let time = Time { seconds: CREATED, nanoseconds: 0 };
        let mut layer = Vec::new();
        let mut writer = Writer::new(&mut layer);
        let entry = Entry::plain("hello", EntryKind::File, 0o755, PROGRAM.len() as u64, time);
        writer.entry(&entry, &mut &*PROGRAM).map_err(ImageError::Extract)?;
        writer.finish().map_err(ImageError::Extract)?;
        let shape = Shape {
            names: vec![Reference::parse(NAME)?],
            config: Config {
                env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
                cmd: Some(vec!["/hello".to_owned()]),
                ..Config::default()
            },
            message: "Carried by dockerd".to_owned(),
            platform: this_platform(),
            created: Timestamp::from_unix(CREATED, 0),
        };
        self.import_as(shape, &mut layer.as_slice()).map(drop)
    }
}
