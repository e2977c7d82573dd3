//! Address pools and allocation, as pure data.
//!
//! A [`Pool`] hands out the addresses of one network; [`choose_subnet`] finds a subnet that nothing on the host uses.
//! Nothing here asks the kernel: the caller passes in what is taken. State of a pool is rebuilt from the endpoints
//! that exist, so it is never stored.

mod cidr;
mod mac;
mod pool;
mod subnet;

pub use cidr::{Cidr, CidrError};
pub use mac::{MacAddress, MacError};
pub use pool::{Pool, PoolError};
pub use subnet::{AddressSpace, DEFAULT_SPACES, NoSubnet, choose_subnet};
