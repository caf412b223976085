//! A machine with systemd as PID 1: the agent runs as its shipped unit, models as `citadel-NAME.service`.

pub(super) mod check;
pub(super) mod image;
pub(super) mod init;
pub(super) mod server;
mod units;
