//! Discovery of real servers on this host: this very program, started again, is the server.

mod server;

use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use citadel_agent::config::{self, Config};
use citadel_agent::discovery::inventory::{Inventory, Model};
use citadel_agent::discovery::usage::ProcessMemory;
use citadel_agent::discovery::watch::{Discovered, Discovery};
use citadel_agent::ebpf::readers::RequestReaders;
use citadel_agent::host::Roots;

use server::{Server, free_port};

/// Within this time what must become true is true, on a busy machine too.
const SOON: Duration = Duration::from_secs(20);

/// The running discovery of one port, which nobody has configured.
struct Looking {
    discovery: Discovery,
    config: Config,
    port: u16,
}

impl Looking {
    fn at(port: u16) -> Self {
        let yaml = format!(
            "local_collection: {{ collection_interval: 200ms }}\nmodel_monitoring:\n  ports: {{}}\n  discover: \"{port}\"\n"
        );
        let config = config::parse("test", &yaml).unwrap();
        let discovery = Discovery::start(&config, &Roots::default(), RequestReaders::default()).unwrap();
        Self { discovery, config, port }
    }

    fn model(&self, discovered: &Discovered) -> Option<Model> {
        Inventory::of(&self.config.models, &discovered.servers, |_| None).model_at(self.port).cloned()
    }

    /// What is known as soon as `condition` holds.
    #[track_caller]
    fn when(&self, condition: impl Fn(Option<&Model>, &Discovered) -> bool) -> (Option<Model>, Arc<Discovered>) {
        let begun = Instant::now();
        loop {
            let newest = self.discovery.newest();
            let model = self.model(&newest);
            if condition(model.as_ref(), &newest) {
                return (model, newest);
            }
            assert!(begun.elapsed() < SOON, "not within {SOON:?}: {newest:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn model_when(&self, condition: impl Fn(&Model) -> bool) -> Model {
        self.when(|model, _| model.is_some_and(&condition)).0.unwrap()
    }

    /// CPU time in seconds, user and system together, as soon as `condition` holds for it.
    #[track_caller]
    fn cpu_when(&self, condition: impl Fn(f64) -> bool) -> f64 {
        let seconds = |discovered: &Discovered| {
            let cpu = discovered.usage.get(&self.port)?.cpu?;
            Some((cpu.user_us + cpu.system_us) as f64 / 1e6)
        };
        seconds(&self.when(|_, discovered| seconds(discovered).is_some_and(&condition)).1).unwrap()
    }

    /// Waits for a reading that begins after this call: the second from now, since the first may be under way already.
    fn next_reading(&self) {
        for _ in 0..2 {
            let before = self.discovery.newest();
            self.when(|_, _| !Arc::ptr_eq(&before, &self.discovery.newest()));
        }
    }
}

#[test]
fn a_server_that_comes_is_found_with_its_process_and_its_name() {
    let looking = Looking::at(free_port());
    assert!(looking.discovery.newest().servers.is_empty());
    let server = Server::start(looking.port, &["serve", "some/model"]);
    let model = looking.model_when(|model| model.listens);
    assert_eq!((model.name.as_str(), model.main), ("some/model", Some(server.pid())));
    assert!(model.pids.contains(&server.pid()));
    assert_eq!(model.exe, std::env::current_exe().ok());
}

#[test]
fn a_server_that_goes_is_forgotten_and_one_that_restarts_is_not() {
    let looking = Looking::at(free_port());
    let first = Server::start(looking.port, &["serve", "some/model"]);
    looking.model_when(|model| model.main == Some(first.pid()));
    drop(first);
    let second = Server::start(looking.port, &["serve", "some/model"]);
    let model = looking.model_when(|model| model.main == Some(second.pid()));
    assert_eq!(model.name, "some/model");
    drop(second);
    looking.when(|model, _| model.is_none());
}

#[test]
fn a_connection_that_is_still_open_keeps_the_model() {
    let looking = Looking::at(free_port());
    let mut server = Server::start(looking.port, &[]);
    looking.model_when(|model| model.listens);
    let _client = TcpStream::connect(("127.0.0.1", looking.port)).unwrap();
    server.ask("accept");
    server.ask("close");
    let draining = looking.model_when(|model| !model.listens);
    assert!(draining.pids.contains(&server.pid()));
    // Several times as long as it is kept without connections.
    std::thread::sleep(Duration::from_secs(1));
    looking.model_when(|model| !model.listens);
    server.ask("hang up");
    looking.when(|model, _| model.is_none());
}

#[test]
fn two_processes_with_a_socket_each_on_one_port_are_one_model() {
    let looking = Looking::at(free_port());
    let servers = [Server::start(looking.port, &[]), Server::start(looking.port, &[])];
    let pids = servers.each_ref().map(Server::pid);
    let model = looking.model_when(|model| pids.iter().all(|pid| model.pids.contains(pid)));
    assert_eq!(model.main, Some(pids[0]));
}

#[test]
fn ipv4_and_ipv6_on_one_port_are_one_model() {
    let looking = Looking::at(free_port());
    let servers = ["127.0.0.1", "::1"].map(|address| Server::on(address, looking.port, &[]));
    let pids = servers.each_ref().map(Server::pid);
    looking.model_when(|model| pids.iter().all(|pid| model.pids.contains(pid)));
}

#[test]
fn a_socket_that_a_process_inherits_is_its_own_once_the_heir_is_alone() {
    let looking = Looking::at(free_port());
    let mut old = Server::start(looking.port, &[]);
    looking.model_when(|model| model.main == Some(old.pid()));
    let heir: u32 = old.ask("hand over").parse().unwrap();
    let model = looking.model_when(|model| model.main == Some(heir));
    // It has closed the socket, but it is still there.
    assert!(model.listens && model.pids.contains(&old.pid()));
    old.ask("stop the heir");
}

/// What a process can be late or early by: the kernel counts in ticks of 10 ms, and the server itself works a little.
const CPU_SLACK: f64 = 0.06;

/// What each further process can be late by: its user time and its system time are each rounded down to a tick.
const TICKS: f64 = 0.02;

#[test]
fn cpu_time_is_that_of_the_whole_tree() {
    let looking = Looking::at(free_port());
    let mut server = Server::start(looking.port, &[]);
    let start = looking.cpu_when(|_| true);
    assert!(start < 0.5, "{start}");
    let own: f64 = server.ask("burn 300").parse().unwrap();
    let child: f64 = server.ask("child burns 400 and stays").parse().unwrap();
    let truth = own + child;
    assert!((0.7..1.0).contains(&truth), "{truth}");
    let cpu = looking.cpu_when(|cpu| cpu >= start + truth - CPU_SLACK);
    assert!(cpu <= start + truth + CPU_SLACK, "{cpu} s, of which {start} before and {truth} burnt");
}

#[test]
fn cpu_time_of_ended_children_stays_whether_or_not_anyone_waits() {
    for end in ["is waited for", "is ignored"] {
        let looking = Looking::at(free_port());
        let mut server = Server::start(looking.port, &[]);
        let start = looking.cpu_when(|_| true);
        let mut truth = 0.0;
        let mut last = start;
        for child in 1..=3 {
            truth += server.ask("child burns 200 and stays").parse::<f64>().unwrap();
            // Read while it is there: what nobody waits for is gone with the process. One more reading, because what
            // was read shortly before the child's last work may already be within the slack.
            let slack = CPU_SLACK + f64::from(child) * TICKS;
            looking.cpu_when(|cpu| cpu >= last.max(start + truth - slack));
            looking.next_reading();
            last = looking.cpu_when(|cpu| cpu >= last);
            server.ask(&format!("child ends and {end}"));
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(800) {
            let now = looking.cpu_when(|_| true);
            assert!(now >= last, "it went back from {last} to {now}: {end}");
            last = now;
        }
        assert!(last <= start + truth + CPU_SLACK, "{last} s, of which {start} before and {truth} burnt: {end}");
    }
}

#[test]
fn cpu_time_counts_on_after_a_restart() {
    let looking = Looking::at(free_port());
    let mut first = Server::start(looking.port, &[]);
    let burnt: f64 = first.ask("burn 300").parse().unwrap();
    let before = looking.cpu_when(|cpu| cpu >= burnt - CPU_SLACK);
    drop(first);
    let mut second = Server::start(looking.port, &[]);
    looking.model_when(|model| model.main == Some(second.pid()));
    assert!(looking.cpu_when(|_| true) >= before);
    let more: f64 = second.ask("burn 300").parse().unwrap();
    looking.cpu_when(|cpu| cpu >= before + more - CPU_SLACK);
}

#[test]
fn memory_is_what_the_processes_have_touched() {
    const MIB: u64 = 1 << 20;
    let looking = Looking::at(free_port());
    let mut server = Server::start(looking.port, &[]);
    let memory = |discovered: &Discovered| discovered.usage.get(&looking.port)?.memory;
    // The two are not read at the same times: as soon as both have grown so much.
    let when_grown = |before: ProcessMemory, rss: u64, pss: u64| {
        let grown = |it: ProcessMemory| it.rss >= before.rss + rss && it.pss >= before.pss.map(|before| before + pss);
        memory(&looking.when(|_, discovered| memory(discovered).is_some_and(grown)).1).unwrap()
    };
    let before = when_grown(ProcessMemory { rss: 1, pss: Some(1), swap: 0 }, 0, 0);
    // The program's own pages are shared with the other tests' servers, which come and go: all of them may change hands.
    let slack = before.rss + 2 * MIB;
    server.ask("touch 128");
    let own = when_grown(before, 128 * MIB, 128 * MIB - slack);
    assert!(own.rss < before.rss + 130 * MIB, "{before:?} {own:?}");
    assert!(own.pss.unwrap() < before.pss.unwrap() + 128 * MIB + slack, "{before:?} {own:?}");

    // A child shares the 128 MiB: twice in rss, once in pss.
    server.ask("child burns 0 and stays");
    looking.when(|_, discovered| memory(discovered).is_some_and(|it| it.rss >= own.rss + 128 * MIB));
    // Until pss has been read again, too.
    std::thread::sleep(Duration::from_secs(2));
    let shared = memory(&looking.discovery.newest()).unwrap();
    assert!(shared.rss < own.rss + 128 * MIB + slack, "{own:?} {shared:?}");
    assert!(shared.pss.unwrap().abs_diff(own.pss.unwrap()) < slack, "{own:?} {shared:?}");
    server.ask("child ends and is waited for");
    looking.when(|_, discovered| memory(discovered).is_some_and(|it| it.rss < own.rss + slack));
}

#[test]
#[ignore = "the server's side of the other tests, which start this program again for it"]
fn be_a_server() {
    server::be_one();
}
