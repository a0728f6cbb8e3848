//! One suite per trait at the bottom of the layers, run against every implementation of it, and what
//! each implementation promises beyond the trait.

mod blob;
mod catalog;
mod disk;
mod kv;
mod log;
