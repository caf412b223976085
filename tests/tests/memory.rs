//! What strangers can make the agent hold, in a cgroup with the shipped unit's `MemoryMax=`: it survives all of it.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use citadel_agent_common::abi::EndpointStats;
use citadel_agent_tests::agent::{Agent, Setup, free_port};
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::get::get;
use citadel_agent_tests::http::{answer, post};
use citadel_agent_tests::limit::{MEMORY_MAX, MemoryLimit};
use citadel_agent_tests::peer::Server;
use citadel_agent_tests::scrape::Page;
use citadel_agent_tests::truth::pause;

/// The default range of discovered ports.
const PORTS: std::ops::RangeInclusive<u16> = 11400..=11500;

/// An agent under the limit, with what it may take at most.
struct Limited {
    agent: Agent,
    limit: MemoryLimit,
}

impl Limited {
    fn start(setup: Setup) -> Self {
        let limit = MemoryLimit::new(MEMORY_MAX);
        let agent = setup.within(limit.entrance()).start();
        let entered = fs::read_to_string(limit.entrance()).unwrap();
        let pid = agent.pid().as_raw_nonzero().to_string();
        assert!(entered.lines().any(|line| line == pid), "the agent is in the cgroup, with its children: {entered}");
        Self { agent, limit }
    }

    /// A field of the agent's `/proc/PID/status`, in bytes.
    fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.agent.pid().as_raw_nonzero())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the agent lives");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Fails unless the agent has never been ended nor come near the limit, and answers.
    fn assert_survived(&self, what: &str, most: u64) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !get(self.agent.metrics_port(), "/metrics/system").is_ok_and(|answer| answer.code == 200) {
            assert!(Instant::now() < deadline, "{what}: the agent does not answer; its log:\n{}", self.agent.log());
            pause(100);
        }
        let peak = self.memory("VmHWM:");
        println!("{what}: {} MiB at most", peak >> 20);
        assert_eq!(self.limit.kills(), 0, "{what}");
        assert!(peak <= most, "{what}: {} MiB", peak >> 20);
    }
}

/// Loading the programs needs the names and IDs of the kernel's types, not all of its BTF in memory, three times.
#[test]
fn starting_takes_little_more_memory_than_running() {
    let limited = Limited::start(Setup::new().model("model", free_port()));
    limited.agent.assert_measuring();
    let (peak, resident) = (limited.memory("VmHWM:"), limited.memory("VmRSS:"));
    println!("started with {} KiB at most, {} KiB now", peak >> 10, resident >> 10);
    assert!(peak - resident < 14 << 20, "{} KiB at most, {} KiB now", peak >> 10, resident >> 10);
}

/// Mapped counters are resident memory: an endpoint's only once it has a request.
#[test]
fn counters_of_requested_endpoints() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let entries = || {
        let maps = fs::read_to_string(format!("/proc/{}/maps", agent.pid().as_raw_nonzero())).unwrap();
        let length = |line: &str| {
            let (start, end) = line.split_once(' ')?.0.split_once('-')?;
            Some(u64::from_str_radix(end, 16).ok()? - u64::from_str_radix(start, 16).ok()?)
        };
        maps.lines()
            .filter(|line| line.contains("bpf-map") && length(line) == Some(size_of::<EndpointStats>() as u64))
            .count()
    };
    let before = entries();
    let requests = [("/v1/chat/completions", 1), ("/v1/embeddings", 2), ("/v1/chat/completions", 2)];
    let response = answer("200 OK", "{}");
    let playing = server.answer_each(vec![(0, response.clone()); requests.len()]);
    let mut client = server.connect();
    for (count, (path, endpoints)) in (1..).zip(requests) {
        client.ask(post(path, "{}"), response.len());
        assert_eventually!(agent, |page| page.requests() == count);
        assert_eq!(entries(), before + endpoints, "after {count} requests");
    }
    playing.truth();
}

/// A process may show as its command line what it likes: here 64 MiB, of which the beginning names a model.
#[test]
fn a_command_line_without_end() {
    const LENGTH: usize = 64 << 20;
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    show_as_command_line(b"vllm\0serve\0shown\0", LENGTH).expect("prctl(PR_SET_MM_MAP)");
    assert_eq!(fs::read("/proc/self/cmdline").unwrap().len(), LENGTH);
    let limited = Limited::start(Setup::new().discovering_on(port).without_programs());
    let page = assert_eventually!(limited.agent, |page| page.gauge("citadel_model_info").is_present());
    assert!(page.gauge("citadel_model_info").label("model", "shown").is_present(), "{page}");
    // Some looks more.
    pause(3000);
    limited.assert_survived("a command line of 64 MiB", 64 << 20);
}

/// Makes this process show `begin` and then nothing but `x`, so many bytes in all; any process may (`PR_SET_MM_MAP` of `prctl(2)`).
fn show_as_command_line(begin: &[u8], length: usize) -> std::io::Result<()> {
    let mut bytes = vec![b'x'; length].into_boxed_slice();
    bytes[..begin.len()].copy_from_slice(begin);
    // Without this zero the kernel shows one page: it takes the line for a title that was written over it.
    bytes[length - 1] = 0;
    let bytes = Box::leak(bytes).as_ptr_range();
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // The first field here is number 3 of proc_pid_stat(5).
    let field = |number: usize| fields[number - 3].parse::<u64>().expect("a number");
    // SAFETY: with 0 it only says where the heap ends.
    let heap_end = unsafe { libc::sbrk(0) } as u64;
    let (from, to) = (bytes.start as u64, bytes.end as u64);
    // `struct prctl_mm_map` of <linux/prctl.h>: code, data, heap, stack, arguments, environment, no auxiliary vector, no file.
    let map: [u64; 13] = [
        field(26),
        field(27),
        field(45),
        field(46),
        field(47),
        heap_end,
        field(28),
        from,
        to,
        field(50),
        field(51),
        0,
        u64::from(u32::MAX) << 32,
    ];
    // SAFETY: the kernel reads the struct; what it changes is where /proc finds the arguments, which stay mapped.
    match unsafe {
        libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP as libc::c_ulong, &raw const map, size_of_val(&map), 0)
    } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// On every port of the range a server whose every answer is as long as any that is read, and made to take most memory.
#[test]
fn a_hundred_ports_with_long_answers() {
    let labels: String = (0..30).map(|n| format!("l{n:02}=\"\",")).collect();
    let sample = |n: usize| format!("metric_{n:06}{{{labels}}} 1\n");
    let mut page: String = (0..6000).map(sample).collect();
    page.truncate(page[..1_900_000.min(page.len())].rfind('\n').unwrap() + 1);
    let answered = Arc::new(AtomicUsize::new(0));
    for port in PORTS {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap_or_else(|error| panic!("{port}: {error}"));
        let (page, answered) = (page.clone(), Arc::clone(&answered));
        thread::spawn(move || {
            for stream in server.incoming().flatten() {
                let page = page.clone();
                answered.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || answer_slowly(stream, &page));
            }
        });
    }
    let limited = Limited::start(Setup::new().discovering().asking().relaying());
    let deadline = Instant::now() + Duration::from_secs(60);
    while answered.load(Ordering::Relaxed) < 3 * 101 {
        assert!(Instant::now() < deadline, "{} answers", answered.load(Ordering::Relaxed));
        pause(100);
    }
    // What has no room is named, port by port.
    limited.agent.wait_for_log("not relaying the model's own metrics");
    let page = limited.agent.scrape();
    let relayed = page.gauge("citadel_model_relay_success");
    assert!(relayed.is_present(), "{page}");
    limited.assert_survived("101 ports with answers of 2 MB", 112 << 20);
}

/// All of an answer but its end, and that a moment later: so that many are under way.
fn answer_slowly(mut stream: TcpStream, page: &str) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
        line.clear();
    }
    let (most, rest) = page.as_bytes().split_at(page.len() - 100);
    _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", page.len());
    _ = stream.write_all(most);
    pause(500);
    _ = stream.write_all(rest);
}

/// Clients that ask for everything and read nothing.
#[test]
fn scrapers_that_do_not_read() {
    let limited = Limited::start(Setup::new().discovering());
    let clients: Vec<TcpStream> = (0..200)
        .filter_map(|_| {
            let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, limited.agent.metrics_port())).ok()?;
            for _ in 0..20 {
                // A connection that had to make room for the next.
                client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
            }
            Some(client)
        })
        .collect();
    pause(3000);
    limited.assert_survived("200 clients that do not read", 96 << 20);
    drop(clients);
}

/// Connections as fast as they can be made, that say nothing or half a request.
#[test]
fn a_flood_of_connections() {
    let limited = Limited::start(Setup::new().discovering());
    let port = limited.agent.metrics_port();
    let end = Instant::now() + Duration::from_secs(5);
    let flooding: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                let mut made = 0;
                while Instant::now() < end {
                    let Ok(mut client) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
                    _ = client.write_all(b"GET /metrics HT");
                    made += 1;
                }
                made
            })
        })
        .collect();
    let made: usize = flooding.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!(made > 1000, "{made} connections are no flood");
    limited.assert_survived(&format!("a flood of {made} connections"), 96 << 20);
}

/// Any user can have the kernel log a line with an Xid in it: a mount option that tmpfs does not know is quoted. Each
/// names another GPU and another error, so that each would be a series of its own.
#[test]
fn forged_xids_in_the_kernels_log() {
    const LINES: u32 = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let nvml = folder.path().join("libnvidia-ml.so.1");
    let limited = Limited::start(Setup::new().nvml_library(nvml).without_programs());
    for line in 0..LINES {
        let (bus, device, xid) = (line >> 5 & 0xff, line & 0x1f, 1 + line % 160);
        let option = format!("NVRM: Xid (PCI:{:04x}:{bus:02x}:{device:02x}): {xid}", line >> 13);
        assert_refused_mount(folder.path(), &option);
        if line % 100 == 0 {
            // The kernel's log holds some thousands; what is overwritten is counted apart.
            pause(1);
        }
    }
    let page = || Page::parse(&limited.agent.metrics("/metrics/gpu"));
    let seen = || {
        let page = page();
        let refused = page.counter("citadel_gpu_xid_lines_refused_total");
        let refused = if refused.is_present() { refused.value() } else { 0 };
        (refused, page.counter("citadel_gpu_kmsg_records_lost_total").value())
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    // Other lines of the kernel may be lost among them, so that the sum can be more.
    while seen().0 + seen().1 < u64::from(LINES) {
        assert!(Instant::now() < deadline, "refused and lost: {:?} of {LINES}", seen());
        pause(100);
    }
    let (refused, lost) = seen();
    println!("{refused} refused, {lost} lost");
    assert!(refused > 0 && refused <= u64::from(LINES), "{refused}");
    let page = page();
    assert!(!page.counter("citadel_gpu_xid_errors_total").is_present(), "{page}");
    assert_eq!(page.counter("citadel_gpu_xid_lines_refused_total").by(["reason"]).len(), 1, "{page}");
    let warned = limited.agent.log().lines().filter(|line| line.contains("looks like an Xid")).count();
    assert_eq!(warned, 1, "{}", limited.agent.log());
    limited.assert_survived("20,000 forged Xids", 64 << 20);
}

/// Mounts nothing: tmpfs knows no such option, and says so in the kernel's log.
fn assert_refused_mount(folder: &Path, option: &str) {
    let [kind, folder, option] =
        [OsStr::new("tmpfs"), folder.as_os_str(), OsStr::new(option)].map(|it| CString::new(it.as_bytes()).unwrap());
    // SAFETY: strings that end with 0; the kernel copies them.
    let result = unsafe { libc::mount(kind.as_ptr(), folder.as_ptr(), kind.as_ptr(), 0, option.as_ptr().cast()) };
    assert_eq!((result, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EINVAL)), "{option:?}");
}
