//! Disks and file systems: `/metrics/storage`, with node_exporter's names where it has such a metric.

use super::{Desc, Field, Kind, Section, Since, Unit};

catalogue! {
    Storage;

    FS_SIZE: Gauge Bytes "node_filesystem_size_bytes" ["device", "fstype", "mountpoint"]
        "Size of the file system.";
    FS_FREE: Gauge Bytes "node_filesystem_free_bytes" ["device", "fstype", "mountpoint"]
        "Free space of the file system.";
    FS_AVAIL: Gauge Bytes "node_filesystem_avail_bytes" ["device", "fstype", "mountpoint"]
        "Bytes of the file system available to non-root users.";
    FS_FILES: Gauge None "node_filesystem_files" ["device", "fstype", "mountpoint"]
        "File nodes (inodes) of the file system.";
    FS_FILES_FREE: Gauge None "node_filesystem_files_free" ["device", "fstype", "mountpoint"]
        "Free file nodes (inodes) of the file system.";
    FS_READONLY: Gauge None "node_filesystem_readonly" ["device", "fstype", "mountpoint"]
        "1 if the file system is read-only, else 0.";
    FS_DEVICE_ERROR: Gauge None "node_filesystem_device_error" ["device", "fstype", "mountpoint"]
        "1 if querying the file system failed or timed out, else 0.";
    DISK_INFO: Gauge None "node_disk_info" ["device", "major", "minor", "path", "wwn", "model", "serial", "revision"]
        "Always 1; the labels describe the disk, from /sys and udev.";
    NVME_INFO: Gauge None "node_nvme_info" ["device", "firmware_revision", "model", "serial", "state"]
        "Always 1; the labels describe the device, from /sys/class/nvme.";
    MD_STATE: Gauge None "node_md_state" ["device", "state"]
        "1 for the current state of the RAID array, 0 for the others. container: member disks of a firmware RAID, not an array itself; broken: more disks failed than the array tolerates.";
    MD_DISKS: Gauge None "node_md_disks" ["device", "state"]
        "Disks of the RAID array by state; active is absent for a container.";
    MD_DISKS_REQUIRED: Gauge None "node_md_disks_required" ["device"]
        "Number of disks that the RAID array requires.";
    MD_BLOCKS: Gauge None "node_md_blocks" ["device"]
        "Blocks of the RAID array.";
    MD_BLOCKS_SYNCED: Gauge None "node_md_blocks_synced" ["device"]
        "Blocks of the RAID array that are in sync.";
    DISK_IO_NOW: Gauge None "node_disk_io_now" ["device"]
        "Reads and writes in progress.";
    SMART_INFO: Gauge None "citadel_smart_info" ["device", "protocol", "model", "serial", "firmware"]
        "Always 1; the labels describe the disk, from smartctl.";
    SMART_HEALTHY: Gauge None "citadel_smart_healthy" ["device"]
        "1 if the disk's own health assessment passes, else 0.";
    SMART_ASLEEP: Gauge None "citadel_smart_asleep" ["device"]
        "1 if the disk is in standby and was not woken for the query, else 0. While 1, the other values are from the last successful query.";
    SMART_TEMPERATURE: Gauge Celsius "citadel_smart_temperature_celsius" ["device"]
        "Temperature of the disk.";
    SMART_POWER_ON: Counter(Lifetime) Seconds "citadel_smart_power_on_seconds_total" ["device"]
        "Time the disk has been powered on.";
    SMART_POWER_CYCLES: Counter(Lifetime) None "citadel_smart_power_cycles_total" ["device"]
        "Number of times the disk was powered on.";
    SMART_USED: Gauge Ratio "citadel_smart_used_ratio" ["device"]
        "Fraction of the disk's rated endurance that is used; can exceed 1.";
    SMART_SPARE: Gauge Ratio "citadel_smart_available_spare_ratio" ["device"]
        "Fraction of the spare blocks that is left.";
    SMART_SPARE_THRESHOLD: Gauge Ratio "citadel_smart_available_spare_threshold_ratio" ["device"]
        "Fraction of spare blocks below which the disk raises a warning.";
    SMART_CRITICAL_WARNING: Gauge None "citadel_smart_critical_warning" ["device"]
        "Bits of the NVMe critical warning; 0 means no warning.";
    SMART_MEDIA_ERRORS: Counter(Lifetime) None "citadel_smart_media_errors_total" ["device"]
        "Media errors: as counted by an NVMe disk, or the uncorrectable sectors reported by a SATA disk.";
    SMART_REALLOCATED: Counter(Lifetime) None "citadel_smart_reallocated_sectors_total" ["device"]
        "Sectors reallocated by a SATA disk.";
    SMART_PENDING: Gauge None "citadel_smart_pending_sectors" ["device"]
        "Sectors that a SATA disk cannot read and has not reallocated yet.";
    SMART_UNSAFE_SHUTDOWNS: Counter(Lifetime) None "citadel_smart_unsafe_shutdowns_total" ["device"]
        "Number of times the disk lost power without a clean shutdown.";
    SMART_READ_BYTES: Counter(Lifetime) Bytes "citadel_smart_read_bytes_total" ["device"]
        "Bytes read by the host, as counted by the disk.";
    SMART_WRITTEN_BYTES: Counter(Lifetime) Bytes "citadel_smart_written_bytes_total" ["device"]
        "Bytes written by the host, as counted by the disk.";
    DIRECTORY_SIZE: Gauge Bytes "citadel_directory_size_bytes" ["path"]
        "Disk space used by the files of a configured directory.";
    DIRECTORY_FILES: Gauge None "citadel_directory_files" ["path"]
        "Number of files in a configured directory, at any depth.";
    DIRECTORY_NEWEST: Gauge Seconds "citadel_directory_newest_file_timestamp_seconds" ["path"]
        "Modification time of the newest file in a configured directory, in seconds since the epoch.";
    DIRECTORY_COMPLETE: Gauge None "citadel_directory_walk_complete" ["path"]
        "1 if the last walk of the directory saw every file; 0 if it reached a limit or was denied access, so that size and file count are lower bounds.";
}

fields! {
    Storage;

    /// Counters in `/proc/diskstats`, by name; there, times are in milliseconds and bytes in sectors.
    DISKSTATS: Counter ["device"] "node_disk_", "Disk statistic ", "." {
        "reads_completed_total" None "reads_completed_total" = "Reads completed successfully."
        "reads_merged_total" None "reads_merged_total" = "Reads merged with adjacent ones before being sent to the device."
        "read_bytes_total" Bytes "read_bytes_total" = "Bytes read successfully."
        "read_time_seconds_total" Seconds "read_time_seconds_total" = "Seconds spent by all reads."
        "writes_completed_total" None "writes_completed_total" = "Writes completed successfully."
        "writes_merged_total" None "writes_merged_total" = "Writes merged with adjacent ones before being sent to the device."
        "written_bytes_total" Bytes "written_bytes_total" = "Bytes written successfully."
        "write_time_seconds_total" Seconds "write_time_seconds_total" = "Seconds spent by all writes."
        "io_time_seconds_total" Seconds "io_time_seconds_total" = "Seconds in which at least one I/O was in progress."
        "io_time_weighted_seconds_total" Seconds "io_time_weighted_seconds_total" = "Weighted number of seconds spent doing I/O: time multiplied by the number of I/Os in progress."
        "discards_completed_total" None "discards_completed_total" = "Discards completed successfully."
        "discards_merged_total" None "discards_merged_total" = "Discards merged with adjacent ones before being sent to the device."
        "discarded_sectors_total" None "discarded_sectors_total" = "Sectors discarded successfully."
        "discard_time_seconds_total" Seconds "discard_time_seconds_total" = "Seconds spent by all discards."
        "flush_requests_total" None "flush_requests_total" = "Flush requests completed successfully."
        "flush_requests_time_seconds_total" Seconds "flush_requests_time_seconds_total" = "Seconds spent by all flush requests."
    }
}
