//! A machine whose first process is systemd: the agent runs as its shipped unit, models as `citadel-NAME.service`.

pub(super) mod check;
pub(super) mod image;
pub(super) mod init;
pub(super) mod server;
mod units;
