//! What a create request must be like, before anything is done for it.

pub mod mounts;
pub mod request;
pub mod validate;

pub use validate::{CreateError, Host};

#[cfg(test)]
mod tests;
