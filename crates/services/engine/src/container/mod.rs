//! Containers: their records, what is published about them, and the registry that finds them.

mod record;
mod records;
mod registry;
mod sandbox;
mod view;

pub use record::{ContainerRecord, LastRun};
pub(crate) use records::Records;
pub use registry::{LookupError, Registry};
pub use sandbox::Sandbox;
pub use view::{Container, Reading, RunState, Status, Task, View};
