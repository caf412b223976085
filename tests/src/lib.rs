//! What the integration tests share: servers and clients that know the truth, and a scrape to hold against it.
//!
//! A test binds its [`peer::Server`], starts an [`agent::Agent`] that measures the server's port, plays a script on
//! both ends of a connection, and compares the agent's page ([`scrape::Page`]) with the [`truth::Stamp`]s of the
//! script. Tests need root (for eBPF and network namespaces), and they fail without it: none is skipped.
//!
//! They run one at a time: `cargo test -p citadel-agent-tests -- --test-threads=1`. Without the option a lock that every
//! [`agent::Agent`] holds for its lifetime makes them wait for each other, which tests that begin before their agent
//! does may not outlast.
//!
//! They need: the agent's binary (built before, or named by `CITADEL_AGENT_BIN`), `/dev/net/tun`, and for
//! `real_servers.rs` Debian's `nginx`, `wrk` and `python3-venv`, and PyPI once. `llama.rs` needs a real engine, and runs only on demand:
//! `cargo xtask test --engine`.

pub mod agent;
pub mod bpf;
pub mod chance;
pub mod fd_store;
pub mod forward;
pub mod get;
pub mod gguf;
pub mod http;
pub mod limit;
pub mod names;
pub mod netns;
pub mod peer;
pub mod raw;
pub mod scrape;
pub mod systemd;
pub mod tools;
pub mod truth;
pub mod tun;
