//! Discovery: which model is behind a port, and which processes are its.

pub mod inventory;
