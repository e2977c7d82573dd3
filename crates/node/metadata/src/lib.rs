//! The transactional store of one daemon, with group commit: typed tables of versioned JSON records in one redb file.
//!
//! Many threads [`Store::submit`] batches; one writer thread takes all that wait, applies each whole or not at all,
//! and commits them with one fsync. A [`Ticket`] tells when a batch is on disk: block on it, await it, or be called.
//!
//! ```text
//! <data-root>/wharf/meta.redb     one redb table per [`Table`]; key: text; value: {"v":<version>,"d":<record>}
//! ```
//!
//! Names are unique within their space: [`Batch::claim`] is checked inside the transaction, so two creates with one
//! name cannot both commit.

mod backend;
mod batch;
mod error;
mod record;
mod store;
mod ticket;
mod view;

pub use batch::Batch;
pub use error::StoreError;
pub use record::{Record, Table};
pub use store::Store;
pub use ticket::Ticket;
pub use view::View;
