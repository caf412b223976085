//! Metric families that node_exporter exports by default and the agent omits, with the reason.

/// Families of node_exporter (a trailing `*` matches any suffix), each with why the agent omits it.
pub const OMITTED: &[(&str, &str)] = &[
    (
        "node_scrape_collector_*",
        "The agent has its own: `citadel_source_success` and `citadel_source_duration_seconds`.",
    ),
    ("node_exporter_build_info", "The agent has its own: `citadel_agent_build_info`."),
    ("node_textfile_*", "The agent does not read metrics from text files."),
    ("node_dmi_info", "Labels differ between machines and contain serial numbers; this belongs in an inventory."),
    ("node_selinux_*", "A setting, not a measurement."),
    ("node_disk_ata_*", "Settings of SATA disks; for their health see `citadel_smart_*`."),
    ("node_disk_device_mapper_info", "Names of LVM volumes; the devices are in `node_disk_*`."),
    ("node_disk_filesystem_info", "File system of a partition; for mounted ones see `node_filesystem_*`."),
    ("node_edac_channel_*", "Errors are exported by controller and row; a row is the sum of its channels."),
    ("node_power_supply_*", "Batteries and chargers, which a model host does not have."),
    (
        "node_hwmon_*",
        "Attributes beyond the kernel's common ones: settings (`*_enable`), fan curves (`pwm_auto_*`), CPU VID, frequencies of integrated GPUs, and attributes of a single driver.",
    ),
    ("node_rapl_*", "Readable only by root since CVE-2020-8694; on a model host the energy of the GPUs matters most."),
    ("node_infiniband_*", "Not implemented: no adapter was available to compare with node_exporter."),
    ("node_fibrechannel_*", "Not implemented: no adapter was available to compare with node_exporter."),
    ("node_tape_*", "Tape drives, which a model host does not have."),
    (
        "node_systemd_units",
        "Covers all units of the host; the agent monitors only the units that serve models, see `/metrics/services`.",
    ),
    (
        "node_systemd_socket_*",
        "Covers all units of the host; the agent monitors only the units that serve models, see `/metrics/services`.",
    ),
    (
        "node_systemd_timer_*",
        "Covers all units of the host; the agent monitors only the units that serve models, see `/metrics/services`.",
    ),
    (
        "node_systemd_system_running",
        "Covers all units of the host; the agent monitors only the units that serve models, see `/metrics/services`.",
    ),
    (
        "node_systemd_version",
        "Covers all units of the host; the agent monitors only the units that serve models, see `/metrics/services`.",
    ),
    ("node_bcache_*", "Specific to one file system or cache; `node_disk_*` and `node_filesystem_*` cover all of them."),
    ("node_btrfs_*", "Specific to one file system or cache; `node_disk_*` and `node_filesystem_*` cover all of them."),
    ("node_xfs_*", "Specific to one file system or cache; `node_disk_*` and `node_filesystem_*` cover all of them."),
    ("node_zfs_*", "Specific to one file system or cache; `node_disk_*` and `node_filesystem_*` cover all of them."),
    ("node_nfs_*", "NFS client calls; a hung mount is visible in `node_filesystem_device_error`."),
    ("node_nfsd_*", "A model host is not a file server."),
    ("node_ipvs_*", "A model host is not a load balancer."),
];

/// Patterns of which the catalogue exports some families.
const PARTLY: &[&str] = &["node_hwmon_*"];

/// Whether a family of node_exporter is omitted on purpose.
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
