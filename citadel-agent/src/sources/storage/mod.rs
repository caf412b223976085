//! Disks, file systems and directories: node_exporter's names where it has such metrics, `citadel_*` for others.

mod command;
pub(super) mod directories;
pub(super) mod disks;
pub(super) mod filesystems;
pub(super) mod raid;
pub(super) mod smart;
pub(super) mod smart_report;
