//! What kernel programs and userspace agree on, and nothing else.
//!
//! `no_std` and free of dependencies, because the very same code is compiled for the kernel (`bpfel-unknown-none`) and for
//! the host, where tests, a fuzzer and a reference parser check it.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod hist;
