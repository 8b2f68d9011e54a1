//! Words everyone shares. A thing belongs here when three layers speak of it and it needs no I/O to exist.
//!
//! What does not belong here: anything that waits, reads a clock, or knows HTTP or the disk layout.

pub mod codec;
pub mod hash;
pub mod limits;
pub mod member;
pub mod planted;
pub mod record;
pub mod rows;
pub mod sealed;
pub mod slices;
pub mod time;
pub mod version;
