//! What node_exporter exports by default and the agent does not, each with its reason.

/// Families of node_exporter, or all others that begin with what stands before a `*`, and why the agent leaves them out.
pub const OMITTED: &[(&str, &str)] = &[
    (
        "node_scrape_collector_*",
        "The agent's sources say it themselves: `citadel_source_success` and `_duration_seconds`.",
    ),
    ("node_exporter_build_info", "The agent is another program: `citadel_agent_build_info`."),
    ("node_textfile_*", "The agent reads no metrics that others wrote into files."),
    (
        "node_dmi_info",
        "Its labels differ from machine to machine, and serial numbers stand in them; an inventory has them.",
    ),
    ("node_selinux_*", "A setting, not a measurement."),
    ("node_disk_ata_*", "Settings of SATA disks; their health is in `citadel_smart_*`."),
    ("node_disk_device_mapper_info", "Names of LVM volumes; the devices have their `node_disk_*`."),
    (
        "node_disk_filesystem_info",
        "Which file system is on a partition: `node_filesystem_*` say it of what is mounted.",
    ),
    ("node_edac_channel_*", "Errors are counted by controller and row; the channels add up to the row."),
    ("node_power_supply_*", "Batteries and chargers: a model host has neither."),
    (
        "node_hwmon_*",
        "Attributes beyond the kernel's common ones: settings (`*_enable`), fan curves (`pwm_auto_*`), the VID of a CPU, frequencies of integrated GPUs, and what a single driver has of its own.",
    ),
    ("node_rapl_*", "Readable by root alone since CVE-2020-8694, and the GPUs' energy is what a model host is about."),
    ("node_infiniband_*", "Needs an adapter to be held against node_exporter with; none was at hand."),
    ("node_fibrechannel_*", "Needs an adapter to be held against node_exporter with; none was at hand."),
    ("node_tape_*", "Tapes."),
    (
        "node_systemd_units",
        "All units of the host: the agent follows those that serve models, see `/metrics/services`.",
    ),
    (
        "node_systemd_socket_*",
        "All units of the host: the agent follows those that serve models, see `/metrics/services`.",
    ),
    (
        "node_systemd_timer_*",
        "All units of the host: the agent follows those that serve models, see `/metrics/services`.",
    ),
    (
        "node_systemd_system_running",
        "All units of the host: the agent follows those that serve models, see `/metrics/services`.",
    ),
    (
        "node_systemd_version",
        "All units of the host: the agent follows those that serve models, see `/metrics/services`.",
    ),
    (
        "node_bcache_*",
        "A file system's or cache's own counters; `node_disk_*` and `node_filesystem_*` are for all of them.",
    ),
    (
        "node_btrfs_*",
        "A file system's or cache's own counters; `node_disk_*` and `node_filesystem_*` are for all of them.",
    ),
    (
        "node_xfs_*",
        "A file system's or cache's own counters; `node_disk_*` and `node_filesystem_*` are for all of them.",
    ),
    (
        "node_zfs_*",
        "A file system's or cache's own counters; `node_disk_*` and `node_filesystem_*` are for all of them.",
    ),
    ("node_nfs_*", "Calls of the NFS client; a mount that hangs is seen by `node_filesystem_device_error`."),
    ("node_nfsd_*", "A model host is no file server."),
    ("node_ipvs_*", "A model host is no load balancer."),
];

/// Groups of which a part is exported: the catalogue says which.
const PARTLY: &[&str] = &["node_hwmon_*"];

/// Whether a family of node_exporter is left out on purpose.
#[must_use]
pub fn is_omitted(name: &str) -> bool {
    let is_exported = || super::all().any(|desc| desc.name == name);
    OMITTED.iter().filter(|(pattern, _)| !PARTLY.contains(pattern) || !is_exported()).any(|(pattern, _)| match pattern
        .strip_suffix('*')
    {
        Some(prefix) => name.starts_with(prefix),
        None => name == *pattern,
    })
}
