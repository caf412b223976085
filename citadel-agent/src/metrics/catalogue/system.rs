//! The host: `/metrics/system`, with node_exporter's names.

use super::{Desc, Field, Kind, Section, Since, Unit};

catalogue! {
    System;

    CPU_SECONDS: Counter(Before) Seconds "node_cpu_seconds_total" ["cpu", "mode"]
        "Seconds the CPUs spent in each mode.";
    CPU_GUEST_SECONDS: Counter(Before) Seconds "node_cpu_guest_seconds_total" ["cpu", "mode"]
        "Seconds the CPUs spent in guests (virtual machines) for each mode; included in user and nice.";
    CPU_ISOLATED: Gauge None "node_cpu_isolated" ["cpu"]
        "Always 1; one series per CPU that is isolated from the scheduler (isolcpus).";
    CPU_CORE_THROTTLES: Counter(Before) None "node_cpu_core_throttles_total" ["package", "core"]
        "Number of times this CPU core was throttled because of its temperature.";
    CPU_PACKAGE_THROTTLES: Counter(Before) None "node_cpu_package_throttles_total" ["package"]
        "Number of times this CPU package was throttled because of its temperature.";
    CPU_GOVERNOR: Gauge None "node_cpu_scaling_governor" ["cpu", "governor"]
        "1 for the current CPU frequency governor, 0 for the others.";
    BOOT_TIME: Gauge Seconds "node_boot_time_seconds" []
        "Boot time of the host, in seconds since the epoch.";
    CONTEXT_SWITCHES: Counter(Before) None "node_context_switches_total" []
        "Context switches on all CPUs.";
    FORKS: Counter(Before) None "node_forks_total" []
        "Processes and threads created.";
    INTERRUPTS: Counter(Before) None "node_intr_total" []
        "Interrupts served.";
    PROCS_BLOCKED: Gauge None "node_procs_blocked" []
        "Processes blocked waiting for I/O.";
    PROCS_RUNNING: Gauge None "node_procs_running" []
        "Processes in runnable state.";
    LOAD1: Gauge None "node_load1" []
        "1 minute load average.";
    LOAD5: Gauge None "node_load5" []
        "5 minute load average.";
    LOAD15: Gauge None "node_load15" []
        "15 minute load average.";
    PRESSURE_CPU_WAITING: Counter(Before) Seconds "node_pressure_cpu_waiting_seconds_total" []
        "Time in which at least one process waited for CPU time.";
    PRESSURE_IO_WAITING: Counter(Before) Seconds "node_pressure_io_waiting_seconds_total" []
        "Time in which at least one process waited for I/O.";
    PRESSURE_IO_STALLED: Counter(Before) Seconds "node_pressure_io_stalled_seconds_total" []
        "Time in which no process could make progress because of I/O.";
    PRESSURE_MEMORY_WAITING: Counter(Before) Seconds "node_pressure_memory_waiting_seconds_total" []
        "Time in which at least one process waited for memory.";
    PRESSURE_MEMORY_STALLED: Counter(Before) Seconds "node_pressure_memory_stalled_seconds_total" []
        "Time in which no process could make progress because of memory.";
    SCHED_RUNNING: Counter(Before) Seconds "node_schedstat_running_seconds_total" ["cpu"]
        "Seconds a CPU spent running processes.";
    SCHED_WAITING: Counter(Before) Seconds "node_schedstat_waiting_seconds_total" ["cpu"]
        "Seconds processes spent waiting for a CPU.";
    SCHED_TIMESLICES: Counter(Before) None "node_schedstat_timeslices_total" ["cpu"]
        "Timeslices executed by a CPU.";
    NETWORK_UP: Gauge None "node_network_up" ["device"]
        "1 if the device's operstate is up, else 0.";
    NETWORK_INFO: Gauge None "node_network_info" ["device", "address", "broadcast", "duplex", "operstate", "ifalias"]
        "Always 1; the labels are the non-numeric attributes of /sys/class/net/DEVICE.";
    NETWORK_SPEED: Gauge Bytes "node_network_speed_bytes" ["device"]
        "Speed of the device, in bytes per second.";
    SOFTNET_PROCESSED: Counter(Before) None "node_softnet_processed_total" ["cpu"]
        "Packets processed by a CPU.";
    SOFTNET_DROPPED: Counter(Before) None "node_softnet_dropped_total" ["cpu"]
        "Packets dropped by a CPU because its backlog was full.";
    SOFTNET_SQUEEZED: Counter(Before) None "node_softnet_times_squeezed_total" ["cpu"]
        "Number of times a CPU exhausted its packet processing budget.";
    UDP_QUEUES: Gauge None "node_udp_queues" ["queue", "ip"]
        "Bytes in the queues of UDP sockets.";
    ARP_ENTRIES: Gauge None "node_arp_entries" ["device"]
        "ARP entries of a device.";
    CONNTRACK_ENTRIES: Gauge None "node_nf_conntrack_entries" []
        "Entries in the connection tracking table.";
    CONNTRACK_LIMIT: Gauge None "node_nf_conntrack_entries_limit" []
        "Maximum size of the connection tracking table.";
    FILEFD_ALLOCATED: Gauge None "node_filefd_allocated" []
        "Allocated file descriptors.";
    FILEFD_MAXIMUM: Gauge None "node_filefd_maximum" []
        "Maximum number of file descriptors that can be allocated.";
    ENTROPY_AVAILABLE: Gauge None "node_entropy_available_bits" []
        "Bits of available entropy.";
    ENTROPY_POOL_SIZE: Gauge None "node_entropy_pool_size_bits" []
        "Size of the entropy pool in bits.";
    TIME: Gauge Seconds "node_time_seconds" []
        "System time of the host, in seconds since the epoch.";
    TIME_ZONE: Gauge Seconds "node_time_zone_offset_seconds" ["time_zone"]
        "The host's offset from UTC.";
    CLOCKSOURCE_AVAILABLE: Gauge None "node_time_clocksource_available_info" ["device", "clocksource"]
        "Always 1; one series per clock source available to the kernel.";
    CLOCKSOURCE_CURRENT: Gauge None "node_time_clocksource_current_info" ["device", "clocksource"]
        "Always 1; the clock source in use.";
    TIMEX_SYNC_STATUS: Gauge None "node_timex_sync_status" []
        "1 if the clock is synchronized to a reliable server, else 0.";
    TIMEX_OFFSET: Gauge Seconds "node_timex_offset_seconds" []
        "Offset between the local clock and its reference.";
    TIMEX_FREQUENCY: Gauge Ratio "node_timex_frequency_adjustment_ratio" []
        "Adjustment of the local clock's frequency.";
    TIMEX_MAXERROR: Gauge Seconds "node_timex_maxerror_seconds" []
        "Maximum error of the clock.";
    TIMEX_ESTERROR: Gauge Seconds "node_timex_estimated_error_seconds" []
        "Estimated error of the clock.";
    TIMEX_STATUS: Gauge None "node_timex_status" []
        "Status bits of the clock, as defined in adjtimex(2).";
    TIMEX_CONSTANT: Gauge None "node_timex_loop_time_constant" []
        "Time constant of the phase-locked loop.";
    TIMEX_TICK: Gauge Seconds "node_timex_tick_seconds" []
        "Seconds between clock ticks.";
    TIMEX_PPS_FREQUENCY: Gauge Hertz "node_timex_pps_frequency_hertz" []
        "Frequency of the pulse-per-second (PPS) signal.";
    TIMEX_PPS_JITTER: Gauge Seconds "node_timex_pps_jitter_seconds" []
        "Jitter of the pulse-per-second (PPS) signal.";
    TIMEX_PPS_SHIFT: Gauge Seconds "node_timex_pps_shift_seconds" []
        "Calibration interval of the pulse-per-second (PPS) signal.";
    TIMEX_PPS_STABILITY: Gauge Hertz "node_timex_pps_stability_hertz" []
        "Stability of the pulse-per-second (PPS) signal: average of recent frequency changes.";
    TIMEX_PPS_JITTER_COUNT: Counter(Before) None "node_timex_pps_jitter_total" []
        "Number of times the PPS jitter limit was exceeded.";
    TIMEX_PPS_CALIBRATIONS: Counter(Before) None "node_timex_pps_calibration_total" []
        "Number of PPS calibrations.";
    TIMEX_PPS_ERRORS: Counter(Before) None "node_timex_pps_error_total" []
        "Number of PPS calibration errors.";
    TIMEX_PPS_STABILITY_EXCEEDED: Counter(Before) None "node_timex_pps_stability_exceeded_total" []
        "Number of times the PPS stability limit was exceeded.";
    TIMEX_TAI_OFFSET: Gauge Seconds "node_timex_tai_offset_seconds" []
        "Offset of International Atomic Time (TAI) from UTC.";
    UNAME_INFO: Gauge None "node_uname_info" ["sysname", "release", "version", "machine", "nodename", "domainname"]
        "Always 1; the labels are the fields of uname(2).";
    OS_INFO: Gauge None "node_os_info" ["build_id", "id", "id_like", "image_id", "image_version", "name", "pretty_name", "variant", "variant_id", "version", "version_codename", "version_id"]
        "Always 1; the labels are the fields of /etc/os-release.";
    OS_VERSION: Gauge None "node_os_version" ["id", "id_like", "name"]
        "Version of the operating system, as major.minor.";
    THERMAL_ZONE_TEMP: Gauge None "node_thermal_zone_temp" ["zone", "type"]
        "Temperature of a thermal zone, in degrees Celsius.";
    COOLING_CURRENT: Gauge None "node_cooling_device_cur_state" ["name", "type"]
        "Current throttle state of a cooling device.";
    COOLING_MAX: Gauge None "node_cooling_device_max_state" ["name", "type"]
        "Maximum throttle state of a cooling device.";
    EDAC_CORRECTABLE: Counter(Before) None "node_edac_correctable_errors_total" ["controller"]
        "Memory errors that were corrected.";
    EDAC_UNCORRECTABLE: Counter(Before) None "node_edac_uncorrectable_errors_total" ["controller"]
        "Memory errors that could not be corrected.";
    EDAC_CSROW_CORRECTABLE: Counter(Before) None "node_edac_csrow_correctable_errors_total" ["controller", "csrow"]
        "Memory errors of a row that were corrected.";
    EDAC_CSROW_UNCORRECTABLE: Counter(Before) None "node_edac_csrow_uncorrectable_errors_total" ["controller", "csrow"]
        "Memory errors of a row that could not be corrected.";
    BONDING_SLAVES: Gauge None "node_bonding_slaves" ["master"]
        "Configured slaves of a bonding interface.";
    BONDING_ACTIVE: Gauge None "node_bonding_active" ["master"]
        "Slaves of a bonding interface that are up.";
}

fields! {
    System;

    /// Lines of `/proc/meminfo`, by name.
    MEMINFO: Gauge [] "node_memory_", "Memory information field ", "." {
        "Active" Bytes "Active_bytes"
        "Active(anon)" Bytes "Active_anon_bytes"
        "Active(file)" Bytes "Active_file_bytes"
        "AnonHugePages" Bytes "AnonHugePages_bytes"
        "AnonPages" Bytes "AnonPages_bytes"
        "Balloon" Bytes "Balloon_bytes"
        "Bounce" Bytes "Bounce_bytes"
        "Buffers" Bytes "Buffers_bytes"
        "Cached" Bytes "Cached_bytes"
        "CmaFree" Bytes "CmaFree_bytes"
        "CmaTotal" Bytes "CmaTotal_bytes"
        "CommitLimit" Bytes "CommitLimit_bytes"
        "Committed_AS" Bytes "Committed_AS_bytes"
        "DirectMap1G" Bytes "DirectMap1G_bytes"
        "DirectMap2M" Bytes "DirectMap2M_bytes"
        "DirectMap4M" Bytes "DirectMap4M_bytes"
        "DirectMap4k" Bytes "DirectMap4k_bytes"
        "Dirty" Bytes "Dirty_bytes"
        "FileHugePages" Bytes "FileHugePages_bytes"
        "FilePmdMapped" Bytes "FilePmdMapped_bytes"
        "HardwareCorrupted" Bytes "HardwareCorrupted_bytes"
        "HugePages_Free" None "HugePages_Free"
        "HugePages_Rsvd" None "HugePages_Rsvd"
        "HugePages_Surp" None "HugePages_Surp"
        "HugePages_Total" None "HugePages_Total"
        "Hugepagesize" Bytes "Hugepagesize_bytes"
        "Hugetlb" Bytes "Hugetlb_bytes"
        "Inactive" Bytes "Inactive_bytes"
        "Inactive(anon)" Bytes "Inactive_anon_bytes"
        "Inactive(file)" Bytes "Inactive_file_bytes"
        "KReclaimable" Bytes "KReclaimable_bytes"
        "KernelStack" Bytes "KernelStack_bytes"
        "Mapped" Bytes "Mapped_bytes"
        "MemAvailable" Bytes "MemAvailable_bytes"
        "MemFree" Bytes "MemFree_bytes"
        "MemTotal" Bytes "MemTotal_bytes"
        "Mlocked" Bytes "Mlocked_bytes"
        "NFS_Unstable" Bytes "NFS_Unstable_bytes"
        "PageTables" Bytes "PageTables_bytes"
        "Percpu" Bytes "Percpu_bytes"
        "SReclaimable" Bytes "SReclaimable_bytes"
        "SUnreclaim" Bytes "SUnreclaim_bytes"
        "SecPageTables" Bytes "SecPageTables_bytes"
        "ShadowCallStack" Bytes "ShadowCallStack_bytes"
        "Shmem" Bytes "Shmem_bytes"
        "ShmemHugePages" Bytes "ShmemHugePages_bytes"
        "ShmemPmdMapped" Bytes "ShmemPmdMapped_bytes"
        "Slab" Bytes "Slab_bytes"
        "SwapCached" Bytes "SwapCached_bytes"
        "SwapFree" Bytes "SwapFree_bytes"
        "SwapTotal" Bytes "SwapTotal_bytes"
        "Unaccepted" Bytes "Unaccepted_bytes"
        "Unevictable" Bytes "Unevictable_bytes"
        "VmallocChunk" Bytes "VmallocChunk_bytes"
        "VmallocTotal" Bytes "VmallocTotal_bytes"
        "VmallocUsed" Bytes "VmallocUsed_bytes"
        "Writeback" Bytes "Writeback_bytes"
        "WritebackTmp" Bytes "WritebackTmp_bytes"
        "Zswap" Bytes "Zswap_bytes"
        "Zswapped" Bytes "Zswapped_bytes"
        "GPUActive" Bytes "GPUActive_bytes"
        "GPUReclaim" Bytes "GPUReclaim_bytes"
    }
    /// Lines of `/sys/devices/system/node/node*/meminfo`; values in kB are converted to bytes.
    NUMA_MEMINFO: Gauge ["node"] "node_memory_numa_", "Memory information field ", " of a NUMA node." {
        "Active" None "Active"
        "Active(anon)" None "Active_anon"
        "Active(file)" None "Active_file"
        "AnonHugePages" None "AnonHugePages"
        "AnonPages" None "AnonPages"
        "Bounce" None "Bounce"
        "Dirty" None "Dirty"
        "FileHugePages" None "FileHugePages"
        "FilePages" None "FilePages"
        "FilePmdMapped" None "FilePmdMapped"
        "HugePages_Free" None "HugePages_Free"
        "HugePages_Surp" None "HugePages_Surp"
        "HugePages_Total" None "HugePages_Total"
        "Inactive" None "Inactive"
        "Inactive(anon)" None "Inactive_anon"
        "Inactive(file)" None "Inactive_file"
        "KReclaimable" None "KReclaimable"
        "KernelStack" None "KernelStack"
        "Mapped" None "Mapped"
        "MemFree" None "MemFree"
        "MemTotal" None "MemTotal"
        "MemUsed" None "MemUsed"
        "Mlocked" None "Mlocked"
        "NFS_Unstable" None "NFS_Unstable"
        "PageTables" None "PageTables"
        "SReclaimable" None "SReclaimable"
        "SUnreclaim" None "SUnreclaim"
        "SecPageTables" None "SecPageTables"
        "Shmem" None "Shmem"
        "ShmemHugePages" None "ShmemHugePages"
        "ShmemPmdMapped" None "ShmemPmdMapped"
        "Slab" None "Slab"
        "SwapCached" None "SwapCached"
        "Unevictable" None "Unevictable"
        "Writeback" None "Writeback"
        "WritebackTmp" None "WritebackTmp"
    }
    /// Lines of `/sys/devices/system/node/node*/numastat`.
    NUMA_STAT: Counter ["node"] "node_memory_numa_", "Memory allocations of a NUMA node, numastat field ", "." {
        "numa_hit" None "numa_hit_total"
        "numa_miss" None "numa_miss_total"
        "numa_foreign" None "numa_foreign_total"
        "interleave_hit" None "interleave_hit_total"
        "local_node" None "local_node_total"
        "other_node" None "other_node_total"
    }
    /// Lines of `/proc/vmstat`.
    VMSTAT: Unknown [] "node_vmstat_", "/proc/vmstat information field ", "." {
        "oom_kill" None "oom_kill"
        "pgfault" None "pgfault"
        "pgmajfault" None "pgmajfault"
        "pgpgin" None "pgpgin"
        "pgpgout" None "pgpgout"
        "pswpin" None "pswpin"
        "pswpout" None "pswpout"
    }
    /// Fields of `/proc/net/{snmp,netstat,snmp6}`, by protocol and name.
    NETSTAT: Unknown [] "node_netstat_", "Statistic ", "." {
        "Icmp6_InErrors" None "Icmp6_InErrors"
        "Icmp6_InMsgs" None "Icmp6_InMsgs"
        "Icmp6_OutMsgs" None "Icmp6_OutMsgs"
        "Icmp_InErrors" None "Icmp_InErrors"
        "Icmp_InMsgs" None "Icmp_InMsgs"
        "Icmp_OutMsgs" None "Icmp_OutMsgs"
        "Ip6_InOctets" None "Ip6_InOctets"
        "Ip6_OutOctets" None "Ip6_OutOctets"
        "IpExt_InOctets" None "IpExt_InOctets"
        "IpExt_OutOctets" None "IpExt_OutOctets"
        "Ip_Forwarding" None "Ip_Forwarding"
        "TcpExt_ListenDrops" None "TcpExt_ListenDrops"
        "TcpExt_ListenOverflows" None "TcpExt_ListenOverflows"
        "TcpExt_SyncookiesFailed" None "TcpExt_SyncookiesFailed"
        "TcpExt_SyncookiesRecv" None "TcpExt_SyncookiesRecv"
        "TcpExt_SyncookiesSent" None "TcpExt_SyncookiesSent"
        "TcpExt_TCPSynRetrans" None "TcpExt_TCPSynRetrans"
        "TcpExt_TCPTimeouts" None "TcpExt_TCPTimeouts"
        "Tcp_ActiveOpens" None "Tcp_ActiveOpens"
        "Tcp_CurrEstab" None "Tcp_CurrEstab"
        "Tcp_InErrs" None "Tcp_InErrs"
        "Tcp_InSegs" None "Tcp_InSegs"
        "Tcp_OutRsts" None "Tcp_OutRsts"
        "Tcp_OutSegs" None "Tcp_OutSegs"
        "Tcp_PassiveOpens" None "Tcp_PassiveOpens"
        "Tcp_RetransSegs" None "Tcp_RetransSegs"
        "Udp6_InDatagrams" None "Udp6_InDatagrams"
        "Udp6_InErrors" None "Udp6_InErrors"
        "Udp6_NoPorts" None "Udp6_NoPorts"
        "Udp6_OutDatagrams" None "Udp6_OutDatagrams"
        "Udp6_RcvbufErrors" None "Udp6_RcvbufErrors"
        "Udp6_SndbufErrors" None "Udp6_SndbufErrors"
        "UdpLite6_InErrors" None "UdpLite6_InErrors"
        "UdpLite_InErrors" None "UdpLite_InErrors"
        "Udp_InDatagrams" None "Udp_InDatagrams"
        "Udp_InErrors" None "Udp_InErrors"
        "Udp_NoPorts" None "Udp_NoPorts"
        "Udp_OutDatagrams" None "Udp_OutDatagrams"
        "Udp_RcvbufErrors" None "Udp_RcvbufErrors"
        "Udp_SndbufErrors" None "Udp_SndbufErrors"
    }
    /// Fields of `/proc/net/sockstat` and `sockstat6`, by protocol and name.
    SOCKSTAT: Gauge [] "node_sockstat_", "Socket statistic ", "." {
        "FRAG6_inuse" None "FRAG6_inuse"
        "FRAG6_memory" None "FRAG6_memory"
        "FRAG_inuse" None "FRAG_inuse"
        "FRAG_memory" None "FRAG_memory"
        "RAW6_inuse" None "RAW6_inuse"
        "RAW_inuse" None "RAW_inuse"
        "TCP6_inuse" None "TCP6_inuse"
        "TCP_alloc" None "TCP_alloc"
        "TCP_inuse" None "TCP_inuse"
        "TCP_mem" None "TCP_mem"
        "TCP_orphan" None "TCP_orphan"
        "TCP_tw" None "TCP_tw"
        "UDP6_inuse" None "UDP6_inuse"
        "UDPLITE6_inuse" None "UDPLITE6_inuse"
        "UDPLITE_inuse" None "UDPLITE_inuse"
        "UDP_inuse" None "UDP_inuse"
        "UDP_mem" None "UDP_mem"
        "sockets_used" None "sockets_used"
    }
    /// The fields of [`SOCKSTAT`] that count pages, converted to bytes.
    SOCKSTAT_BYTES: Gauge [] "node_sockstat_", "Socket statistic ", ", in bytes." {
        "TCP_mem" Bytes "TCP_mem_bytes"
        "UDP_mem" Bytes "UDP_mem_bytes"
    }
    /// Columns of `/proc/net/dev`, in order.
    NETDEV: Counter ["device"] "node_network_", "Network device statistic ", "." {
        "receive_bytes" Bytes "receive_bytes_total"
        "receive_packets" None "receive_packets_total"
        "receive_errs" None "receive_errs_total"
        "receive_drop" None "receive_drop_total"
        "receive_fifo" None "receive_fifo_total"
        "receive_frame" None "receive_frame_total"
        "receive_compressed" None "receive_compressed_total"
        "receive_multicast" None "receive_multicast_total"
        "transmit_bytes" Bytes "transmit_bytes_total"
        "transmit_packets" None "transmit_packets_total"
        "transmit_errs" None "transmit_errs_total"
        "transmit_drop" None "transmit_drop_total"
        "transmit_fifo" None "transmit_fifo_total"
        "transmit_colls" None "transmit_colls_total"
        "transmit_carrier" None "transmit_carrier_total"
        "transmit_compressed" None "transmit_compressed_total"
        "receive_nohandler" None "receive_nohandler_total"
    }
    /// Attributes of `/sys/class/net/*`.
    NETCLASS: Gauge ["device"] "node_network_", "Value of /sys/class/net/DEVICE/", "." {
        "addr_assign_type" None "address_assign_type"
        "carrier" None "carrier"
        "dev_id" None "device_id"
        "dormant" None "dormant"
        "flags" None "flags"
        "ifindex" None "iface_id"
        "iflink" None "iface_link"
        "link_mode" None "iface_link_mode"
        "mtu" Bytes "mtu_bytes"
        "name_assign_type" None "name_assign_type"
        "netdev_group" None "net_dev_group"
        "tx_queue_len" None "transmit_queue_length"
        "type" None "protocol_type"
    }
    /// Counters of `/sys/class/net/*`.
    NETCLASS_COUNTERS: Counter ["device"] "node_network_", "Value of /sys/class/net/DEVICE/", "." {
        "carrier_changes" None "carrier_changes_total"
        "carrier_up_count" None "carrier_up_changes_total"
        "carrier_down_count" None "carrier_down_changes_total"
    }
    /// Columns of `/proc/net/stat/nf_conntrack`, summed over the CPUs.
    CONNTRACK: Gauge [] "node_nf_conntrack_stat_", "Connection tracking statistic ", ", summed over all CPUs." {
        "found" None "found"
        "invalid" None "invalid"
        "ignore" None "ignore"
        "insert" None "insert"
        "insert_failed" None "insert_failed"
        "drop" None "drop"
        "early_drop" None "early_drop"
        "search_restart" None "search_restart"
    }
    /// Attributes of `/sys/devices/system/cpu/cpu*/cpufreq`, which are in kHz.
    CPUFREQ: Gauge ["cpu"] "node_cpu_", "CPU frequency attribute ", ", in hertz." {
        "cpuinfo_cur_freq" Hertz "frequency_hertz"
        "cpuinfo_min_freq" Hertz "frequency_min_hertz"
        "cpuinfo_max_freq" Hertz "frequency_max_hertz"
        "scaling_cur_freq" Hertz "scaling_frequency_hertz"
        "scaling_min_freq" Hertz "scaling_frequency_min_hertz"
        "scaling_max_freq" Hertz "scaling_frequency_max_hertz"
    }
}
