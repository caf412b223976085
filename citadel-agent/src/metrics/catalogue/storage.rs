//! Disks and file systems: `/metrics/storage`, under the names of node_exporter where it has the like.

use super::{Desc, Field, Kind, Section, Since, Unit};

catalogue! {
    Storage;

    FS_SIZE: Gauge Bytes "node_filesystem_size_bytes" ["device", "fstype", "mountpoint"]
        "Size of the file system.";
    FS_FREE: Gauge Bytes "node_filesystem_free_bytes" ["device", "fstype", "mountpoint"]
        "Free space of the file system.";
    FS_AVAIL: Gauge Bytes "node_filesystem_avail_bytes" ["device", "fstype", "mountpoint"]
        "Space of the file system that users other than root can have.";
    FS_FILES: Gauge None "node_filesystem_files" ["device", "fstype", "mountpoint"]
        "File nodes (inodes) of the file system.";
    FS_FILES_FREE: Gauge None "node_filesystem_files_free" ["device", "fstype", "mountpoint"]
        "Free file nodes (inodes) of the file system.";
    FS_READONLY: Gauge None "node_filesystem_readonly" ["device", "fstype", "mountpoint"]
        "1 if the file system is read-only, else 0.";
    FS_DEVICE_ERROR: Gauge None "node_filesystem_device_error" ["device", "fstype", "mountpoint"]
        "1 if the file system could not be asked, or did not answer in time, else 0.";
    DISK_INFO: Gauge None "node_disk_info" ["device", "major", "minor", "path", "wwn", "model", "serial", "revision"]
        "Always 1; what /sys and udev say of the disk.";
    NVME_INFO: Gauge None "node_nvme_info" ["device", "firmware_revision", "model", "serial", "state"]
        "Always 1; what /sys/class/nvme says of the device.";
    MD_STATE: Gauge None "node_md_state" ["device", "state"]
        "1 for the state of the RAID, else 0. container: disks of a firmware's RAID, no array itself; broken: it has lost more disks than it can do without.";
    MD_DISKS: Gauge None "node_md_disks" ["device", "state"]
        "Disks of the RAID by state; active only where it is an array.";
    MD_DISKS_REQUIRED: Gauge None "node_md_disks_required" ["device"]
        "Disks that the RAID should have.";
    MD_BLOCKS: Gauge None "node_md_blocks" ["device"]
        "Blocks of the RAID.";
    MD_BLOCKS_SYNCED: Gauge None "node_md_blocks_synced" ["device"]
        "Blocks of the RAID that are in sync.";
    DISK_IO_NOW: Gauge None "node_disk_io_now" ["device"]
        "Reads and writes under way.";
    SMART_INFO: Gauge None "citadel_smart_info" ["device", "protocol", "model", "serial", "firmware"]
        "Always 1; the disk as smartctl knows it.";
    SMART_HEALTHY: Gauge None "citadel_smart_healthy" ["device"]
        "1 if the disk's own health assessment passes, else 0.";
    SMART_ASLEEP: Gauge None "citadel_smart_asleep" ["device"]
        "1 if the disk sleeps and was not woken to be asked, else 0; the other values are then those of the last time.";
    SMART_TEMPERATURE: Gauge Celsius "citadel_smart_temperature_celsius" ["device"]
        "Temperature of the disk.";
    SMART_POWER_ON: Counter(Lifetime) Seconds "citadel_smart_power_on_seconds_total" ["device"]
        "Time that the disk was powered on.";
    SMART_POWER_CYCLES: Counter(Lifetime) None "citadel_smart_power_cycles_total" ["device"]
        "Times that the disk was powered on.";
    SMART_USED: Gauge Ratio "citadel_smart_used_ratio" ["device"]
        "Part of the disk's rated endurance that is used; can exceed 1.";
    SMART_SPARE: Gauge Ratio "citadel_smart_available_spare_ratio" ["device"]
        "Part of the spare blocks that is left.";
    SMART_SPARE_THRESHOLD: Gauge Ratio "citadel_smart_available_spare_threshold_ratio" ["device"]
        "Part of the spare blocks below which the disk warns.";
    SMART_CRITICAL_WARNING: Gauge None "citadel_smart_critical_warning" ["device"]
        "Bits of the NVMe critical warning; 0 is well.";
    SMART_MEDIA_ERRORS: Counter(Lifetime) None "citadel_smart_media_errors_total" ["device"]
        "Errors of the medium: NVMe's own count, or the sectors that SATA reports as uncorrectable.";
    SMART_REALLOCATED: Counter(Lifetime) None "citadel_smart_reallocated_sectors_total" ["device"]
        "Sectors that a SATA disk replaced.";
    SMART_PENDING: Gauge None "citadel_smart_pending_sectors" ["device"]
        "Sectors that a SATA disk cannot read and has not replaced yet.";
    SMART_UNSAFE_SHUTDOWNS: Counter(Lifetime) None "citadel_smart_unsafe_shutdowns_total" ["device"]
        "Times that the power went without notice.";
    SMART_READ_BYTES: Counter(Lifetime) Bytes "citadel_smart_read_bytes_total" ["device"]
        "Bytes read by the host, as the disk counts them.";
    SMART_WRITTEN_BYTES: Counter(Lifetime) Bytes "citadel_smart_written_bytes_total" ["device"]
        "Bytes written by the host, as the disk counts them.";
    DIRECTORY_SIZE: Gauge Bytes "citadel_directory_size_bytes" ["path"]
        "Bytes that the files of a configured directory take on the disk.";
    DIRECTORY_FILES: Gauge None "citadel_directory_files" ["path"]
        "Files of a configured directory, at any depth.";
    DIRECTORY_NEWEST: Gauge Seconds "citadel_directory_newest_file_timestamp_seconds" ["path"]
        "When the newest file of a configured directory was changed, in seconds since the epoch.";
    DIRECTORY_COMPLETE: Gauge None "citadel_directory_walk_complete" ["path"]
        "1 if the walk saw every file; 0 if it ended at one of its limits or met something that it may not read, so that size and files are at least what is said.";
}

fields! {
    Storage;

    /// Columns of `/proc/diskstats` that count, by name; times are in milliseconds there, bytes in sectors.
    DISKSTATS: Counter ["device"] "node_disk_", "Disk statistic ", "." {
        "reads_completed_total" None "reads_completed_total"
        "reads_merged_total" None "reads_merged_total"
        "read_bytes_total" Bytes "read_bytes_total"
        "read_time_seconds_total" Seconds "read_time_seconds_total"
        "writes_completed_total" None "writes_completed_total"
        "writes_merged_total" None "writes_merged_total"
        "written_bytes_total" Bytes "written_bytes_total"
        "write_time_seconds_total" Seconds "write_time_seconds_total"
        "io_time_seconds_total" Seconds "io_time_seconds_total"
        "io_time_weighted_seconds_total" Seconds "io_time_weighted_seconds_total"
        "discards_completed_total" None "discards_completed_total"
        "discards_merged_total" None "discards_merged_total"
        "discarded_sectors_total" None "discarded_sectors_total"
        "discard_time_seconds_total" Seconds "discard_time_seconds_total"
        "flush_requests_total" None "flush_requests_total"
        "flush_requests_time_seconds_total" Seconds "flush_requests_time_seconds_total"
    }
}
