//! A machine whose first process is systemd: the agent is installed from its package, models as `citadel-NAME.service`.

pub(super) mod check;
pub(super) mod image;
pub(super) mod init;
mod lifecycle;
mod logs;
mod machine;
mod restart;
pub(super) mod server;
mod units;
