//! What the eBPF programs and userspace share, and nothing else.
//!
//! `no_std` and without dependencies, because the same code is compiled for the kernel (`bpfel-unknown-none`) and for
//! the host, where tests, a fuzzer and a reference parser check it.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod calls;
pub mod connection;
pub mod hist;
pub mod http;
pub mod shares;
pub mod threads;
pub mod trace;
