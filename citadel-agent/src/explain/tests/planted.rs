//! What each cause changes.

use super::*;

/// A cause, the verdict with it, what it changes, and words that its sentence has.
pub(super) type Planted = (&'static str, Verdict, fn(&mut World), &'static str);

/// Each response stops for 300 ms in its middle.
fn stalls(world: &mut World) {
    world.histogram("inter_token", mixed(120, 0.319, 2280, 0.019)).histogram("duration.success", spread(120, 0.8));
}

pub(super) const PLANTED: &[Planted] = &[
    // 800 ms now and then, during which the loop sleeps.
    (
        "event_loop",
        Verdict::Slow,
        |world| {
            let stalled = |other| mixed(30, 0.5, 90, other);
            world.histogram("first_token", stalled(0.12)).histogram("receive_queue", stalled(0.001));
            world.histogram("first_byte", stalled(0.12)).histogram("inter_token", mixed(30, 0.4, 2370, 0.019));
        },
        "a sleep, a lock",
    ),
    (
        "event_loop",
        Verdict::Slow,
        |world| {
            world.first_token(1.9).histogram("receive_queue", spread(120, 1.7));
            world.sum("on_cpu_seconds", 200.0).sum("cpu_seconds.user", 200.0);
        },
        "computing",
    ),
    // In the middle of responses: 300 ms each, and no other request comes meanwhile.
    (
        "event_loop",
        Verdict::Slow,
        |world| {
            stalls(world);
            world.sum("syscall_seconds.epoll_wait", 60.0 - 36.0 - 2.0);
        },
        "blocked 60 % of the time",
    ),
    // The engine in another process takes as much longer: the loop waits for it.
    ("model_itself", Verdict::Slow, stalls, "The model itself takes longer"),
    (
        "cpu_starvation",
        Verdict::Slow,
        |world| {
            world.first_token(0.4).histogram("receive_queue", spread(120, 0.1));
            world.histogram("run_queue", spread(4800, 0.008)).histogram("inter_token", spread(2400, 0.03));
            world.other_sum("cpu_seconds.user", 55.0).host_gauge("process_cpus.stress-ng", 3.5);
        },
        "stress-ng uses 3.5 CPUs, other uses 0.92 CPUs",
    ),
    (
        "cgroup_throttling",
        Verdict::Slow,
        |world| {
            world.first_token(0.6).sum("throttled_seconds", 30.0).histogram("run_queue", spread(4800, 0.01));
        },
        "50 % of the time",
    ),
    (
        "slow_disk",
        Verdict::Slow,
        |world| {
            world.first_token(0.5).histogram("receive_queue", spread(120, 0.2)).gauge("syscall_longest.fsync", 0.9);
            world.sum("syscall_seconds.fsync", 40.0).histogram("run_queue", spread(4800, 0.001));
            world.host_sum("pressure_seconds.io_waiting", 30.0);
        },
        "333 ms per request in fsync",
    ),
    (
        "memory_pressure",
        Verdict::Slow,
        |world| {
            world.first_token(0.9).sum("major_faults", 30_000.0);
            world.host_sum("swapped_in_pages", 60_000.0);
            world.host_sum("pressure_seconds.memory_waiting", 20.0);
        },
        "33 % of the time",
    ),
    (
        "network_loss",
        Verdict::Slow,
        |world| {
            world.sum("retransmits", 300.0);
        },
        "2.5 segments per request",
    ),
    // What a paused client does to the counters: probes of its window look like loss.
    (
        "slow_reader",
        Verdict::Slow,
        |world| {
            world.sum("retransmits", 5000.0).gauge("held_back_connections", 3.0).gauge("longest_wait_seconds", 60.0);
            world.histogram("inter_token", spread(2400, 0.2)).histogram("duration.success", spread(120, 5.0));
        },
        "3 of 4 connections wait",
    ),
    (
        "listen_overflow",
        Verdict::Slow,
        |world| {
            world.first_token(0.5).gauge("accept_queue", 128.0).gauge("accept_queue_limit", 128.0);
            world.host_sum("listen_overflows", 40.0);
        },
        "128 wait to be accepted",
    ),
    (
        "clients_give_up",
        Verdict::Failing,
        |world| {
            world.sum("requests.chat_completions.200", 80.0).sum("aborted.client.streaming", 40.0);
        },
        "in the middle of the response; the server is as fast as before",
    ),
    (
        "server_aborts",
        Verdict::Failing,
        |world| {
            world.sum("requests.chat_completions.200", 80.0).sum("aborted.server.streaming", 40.0);
        },
        "closes the connection",
    ),
    (
        "server_errors",
        Verdict::Failing,
        |world| {
            world.sum("requests.chat_completions.200", 60.0).sum("requests.chat_completions.503", 60.0);
            // Fast errors make latency look better.
            world
                .histogram("first_byte", mixed(60, 0.12, 60, 0.0004))
                .histogram("duration.success", mixed(60, 0.5, 60, 0.0004));
        },
        "60 with 503",
    ),
    (
        "engine_queue",
        Verdict::Slow,
        |world| {
            world.first_token(2.1).sum("phase_seconds.queue", 230.0).gauge("engine_waiting", 8.0);
        },
        "8 wait (0 before)",
    ),
    (
        "kv_cache_full",
        Verdict::Slow,
        |world| {
            world.first_token(0.8).gauge("kv_cache_ratio", 0.99);
        },
        "99 % full",
    ),
    (
        "preemptions",
        Verdict::Slow,
        |world| {
            world.first_token(0.8).gauge("kv_cache_ratio", 0.99).sum("preemptions", 60.0);
        },
        "0.5 preemptions per request",
    ),
    (
        "prefix_cache_cold",
        Verdict::Slow,
        |world| {
            world.first_token(0.3).sum("prefix_hits", 500.0);
        },
        "60 % before",
    ),
    (
        "longer_prompts",
        Verdict::Slow,
        |world| {
            world.first_token(0.35).sum("bytes_in", 120.0 * 20_000.0);
        },
        "20 k bytes per request",
    ),
    (
        "longer_answers",
        Verdict::Slow,
        |world| {
            world.histogram("duration.success", spread(120, 2.0)).sum("chunks", 120.0 * 95.0);
        },
        "95 chunks per request",
    ),
    (
        "more_load",
        Verdict::Slow,
        |world| {
            world.now.sums.values_mut().for_each(|sum| *sum *= 10.0);
            world.histogram("first_token", spread(1200, 0.26)).histogram("first_byte", spread(1200, 0.26));
            world.histogram("run_queue", spread(48_000, 0.000_02)).histogram("duration.success", spread(1200, 0.64));
        },
        "1200 per minute, 120 before",
    ),
    (
        "model_itself",
        Verdict::Slow,
        |world| {
            world.first_token(0.36);
        },
        "of the 240 ms more, 240 ms",
    ),
    (
        "gpu_throttled",
        Verdict::Slow,
        |world| {
            world.first_token(0.3).histogram("inter_token", spread(2400, 0.04));
            world.gpu_sum("throttle_seconds.hw_thermal_slowdown", 54.0);
            world.gpu_gauge("clock_hertz.sm", 6e8);
        },
        "because of heat 90 % of the time, 0 % before, at 600 MHz, 1980 MHz before",
    ),
    (
        "gpu_shared",
        Verdict::Slow,
        |world| {
            world.first_token(0.3).gauge("gpu_sm_ratio.GPU-1", 0.3);
            world.gpu_gauge("other_gpu_sm_ratio", 0.6);
        },
        "a process that belongs to no model, which has 60 %",
    ),
    (
        "gpu_errors",
        Verdict::Slow,
        |world| {
            world.first_token(0.3);
            world.gpu_sum("pcie_replays", 4000.0);
        },
        "4000 replayed PCIe packets",
    ),
    (
        "gpu_lost",
        Verdict::Failing,
        |world| {
            world.sum("requests.chat_completions.200", 0.0).sum("requests.chat_completions.500", 100.0);
            world.gpu_gauge("up", 0.0);
            world.gpu_sum("xid.79", 1.0);
        },
        "Xid 79",
    ),
    (
        "restart",
        Verdict::Slow,
        |world| {
            world.first_token(0.6).gauge("pid", 4800.0);
        },
        "PID 4711 before, 4800 now",
    ),
    (
        "out_of_memory_kill",
        Verdict::Failing,
        |world| {
            world.sum("requests.chat_completions.200", 60.0).sum("aborted.server.waiting", 20.0);
            world.sum("log_events.oom_kill", 1.0).gauge("pid", 4800.0);
        },
        "killed a process of the model",
    ),
    (
        "engine_error",
        Verdict::Failing,
        |world| {
            world.sum("requests.chat_completions.200", 20.0).sum("requests.chat_completions.500", 100.0);
            world.sum("log_events.engine_dead", 1.0);
        },
        "the engine died",
    ),
    // One hangs, the others are answered.
    (
        "hanging_request",
        Verdict::Stalled,
        |world| {
            world.gauge("longest_wait_seconds", 42.0);
        },
        "1 request hangs in the model: it has read it and sends nothing for 42 s",
    ),
    // The same where the times of requests that run are not known.
    (
        "hanging_request",
        Verdict::Stalled,
        |world| {
            world.now.gauges.insert("in_flight".to_owned(), Gauge { mean: 3.0, min: 2.0, max: 5.0, last: 2.0 });
        },
        "1 request hangs",
    ),
    // All hang, and the health check is green.
    (
        "hanging_request",
        Verdict::Stalled,
        |world| {
            for key in ["requests.chat_completions.200", "bytes_out", "chunks", "bytes_in"] {
                world.now.sums.remove(key);
            }
            world.now.histograms.clear();
            world.gauge("in_flight", 4.0);
        },
        "4 requests hang",
    ),
];
