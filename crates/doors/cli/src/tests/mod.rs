//! Texts and bytes that clients and scripts depend on.

mod lines;
mod numbers;
mod streams;
mod tables;
