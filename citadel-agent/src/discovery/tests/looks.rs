//! Whose a port is, in all the ways in which ports change hands.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use super::fake_proc::{FakeProc, Program};
use crate::config::resolved::{Config, Models};
use crate::discovery::inventory::Inventory;
use crate::discovery::look::{Around, Looker, Unseen};
use crate::discovery::readers::Reader;
use crate::discovery::server::Server;
use crate::host::pid::Pid;
use crate::host::sock_diag::Listener;

const KEEP: Duration = Duration::from_secs(60);

/// A host and what looks at it.
struct Host {
    proc: FakeProc,
    looker: Looker,
    /// Who has read requests.
    readers: Vec<Reader>,
    begun: Instant,
}

impl Host {
    fn new() -> Self {
        let proc = FakeProc::new();
        let looker = Looker::new(proc.roots(), Some(proc.cgroups().to_owned()));
        Self { proc, looker, readers: Vec::new(), begun: Instant::now() }
    }

    /// Looks while these sockets listen (port, inode) and these ports have connections, so many seconds after the beginning.
    fn look_at(&mut self, seconds: u64, listening: &[(u16, u32)], open: &[u16]) -> Unseen {
        let listener =
            |&(port, inode)| Listener { port, address: Ipv6Addr::UNSPECIFIED.into(), inode, reachable: true };
        let listeners: Vec<_> = listening.iter().map(listener).collect();
        let open: BTreeSet<u16> = open.iter().copied().collect();
        let around = Around {
            wanted: &|port| (11400..=11500).contains(&port),
            open: &|ports| ports & &open,
            readers: &self.readers,
            keep: KEEP,
            now: self.begun + Duration::from_secs(seconds),
        };
        self.looker.look(&listeners, &around).unwrap()
    }

    fn look(&mut self, listening: &[(u16, u32)]) {
        assert_eq!(self.look_at(0, listening, &[]), Unseen::default());
    }

    fn server(&self, port: u16) -> &Server {
        self.looker.servers().find(|server| server.port == port).unwrap_or_else(|| panic!("nothing on {port}"))
    }

    fn pids(&self, port: u16) -> Vec<Pid> {
        self.server(port).processes.iter().map(|process| process.pid).collect()
    }

    /// Names by port, nothing configured.
    fn names(&self) -> Vec<(u16, String)> {
        let models = Models { ports: [].into(), ..Config::default().models };
        let servers: Vec<_> = self.looker.servers().cloned().collect();
        Inventory::of(&models, &servers, |_| None).models.into_iter().map(|model| (model.port, model.name)).collect()
    }
}

fn holds(sockets: &[u32]) -> Program<'_> {
    Program { sockets, ..Program::default() }
}

#[test]
fn a_listener_is_its_process_and_all_below_it() {
    let mut host = Host::new();
    host.proc.starts(10, holds(&[]));
    host.proc.starts(20, holds(&[7]));
    host.proc.starts(21, Program { parent: 20, ..holds(&[]) });
    host.proc.starts(22, Program { parent: 21, ..holds(&[]) });
    host.look(&[(11400, 7)]);
    assert_eq!(host.pids(11400), [20, 21, 22]);
    let server = host.server(11400);
    assert_eq!(server.main.unwrap().pid, 20);
    assert_eq!(server.exe.as_deref(), Some("/bin/server".as_ref()));
    assert_eq!(host.names(), [(11400, "port-11400".to_owned())]);
}

#[test]
fn more_than_the_agent_looks_at_is_named() {
    let mut host = Host::new();
    host.proc.starts(20, holds(&[7]));
    let listening: Vec<_> = (7..7 + 256).map(|inode| (11400, inode)).collect();
    let more = host.look_at(0, &listening, &[]).more;
    assert_eq!(more.into_iter().collect::<Vec<_>>(), ["256 sockets that listen on port 11400"]);
    for pid in 100..2300 {
        host.proc.starts(pid, Program { parent: 20, ..holds(&[]) });
    }
    let more = host.look_at(0, &[(11400, 7)], &[]).more;
    assert_eq!(more.into_iter().collect::<Vec<_>>(), ["2048 processes of the model on port 11400"]);
    assert_eq!(host.pids(11400).len(), 2048);
}

#[test]
fn several_sockets_on_a_port_are_one_server() {
    let mut host = Host::new();
    // SO_REUSEPORT: a socket and a process each. IPv4 and IPv6: two sockets, one process.
    host.proc.starts(30, Program { start: 5, ..holds(&[1]) });
    host.proc.starts(20, Program { start: 9, ..holds(&[2, 3]) });
    host.look(&[(11400, 1), (11400, 2), (11400, 3)]);
    assert_eq!(host.pids(11400), [20, 30]);
    assert_eq!(host.server(11400).main.unwrap().pid, 30, "the one that has listened longest");
}

#[test]
fn a_unit_of_its_own_counts_as_a_whole() {
    let mut host = Host::new();
    let cgroup = "system.slice/citadel-phi3.service";
    host.proc.starts(20, Program { cgroup, ..holds(&[7]) });
    // Nobody's child any more, and in a cgroup that the server made.
    host.proc.starts(30, Program { cgroup: "system.slice/citadel-phi3.service/workers", ..holds(&[]) });
    host.proc.starts(40, Program { cgroup: "system.slice/other.service", ..holds(&[]) });
    host.look(&[(11403, 7)]);
    assert_eq!(host.pids(11403), [20, 30]);
    assert_eq!(host.server(11403).cgroup.as_deref(), Some(cgroup.as_ref()));
    assert_eq!(host.names(), [(11403, "phi3".to_owned())]);
}

#[test]
fn a_login_session_is_nobodys_unit() {
    let mut host = Host::new();
    let cgroup = "user.slice/user-0.slice/session-3.scope";
    host.proc.starts(10, Program { name: "bash", cgroup, ..holds(&[]) });
    host.proc.starts(20, Program { parent: 10, cgroup, ..holds(&[7]) });
    host.look(&[(11400, 7)]);
    assert_eq!(host.pids(11400), [20]);
    assert_eq!(host.server(11400).cgroup, None);
    assert_eq!(host.server(11400).unit.as_ref().unwrap().name, "session-3.scope");
}

#[test]
fn two_models_in_one_unit_have_their_own_processes_and_names() {
    let mut host = Host::new();
    let cgroup = "system.slice/citadel-both.service";
    let start = |host: &Host, pid, line, socket: u32| {
        host.proc.starts(pid, Program { parent: 10, cgroup, line, ..holds(&[socket]) });
    };
    host.proc.starts(10, Program { cgroup, line: "/bin/launcher", ..holds(&[]) });
    start(&host, 20, "/bin/llama-server --alias one", 1);
    host.proc.starts(21, Program { parent: 20, cgroup, ..holds(&[]) });
    start(&host, 30, "/bin/llama-server --alias two", 2);
    host.look(&[(11400, 1), (11401, 2)]);
    assert_eq!((host.pids(11400), host.pids(11401)), (vec![20, 21], vec![30]));
    assert_eq!(host.server(11400).cgroup, None);
    let names = [(11400, "one".to_owned()), (11401, "two".to_owned())];
    assert_eq!(host.names(), names);

    // While one of them restarts, the other's name stays.
    host.proc.ends(30);
    host.look(&[(11400, 1)]);
    assert_eq!(host.names(), names);
}

#[test]
fn a_second_port_of_a_servers_own_makes_no_second_model() {
    let mut host = Host::new();
    let cgroup = "system.slice/citadel-phi3.service";
    host.proc.starts(20, Program { cgroup, ..holds(&[1]) });
    host.proc.starts(21, Program { parent: 20, cgroup, ..holds(&[2]) });
    host.look(&[(11403, 1), (11410, 2)]);
    assert!(host.server(11403).cgroup.is_some());
    assert_eq!(host.names(), [(11403, "phi3".to_owned()), (11410, "phi3".to_owned())]);
}

#[test]
fn systemd_holds_a_socket_for_the_service_that_it_starts() {
    let mut host = Host::new();
    host.proc.opens(1, 7);
    host.look(&[(11403, 7)]);
    assert_eq!(host.pids(11403), [0; 0], "nobody serves yet");
    assert_eq!(host.server(11403).unit, None);
    assert!(host.server(11403).dormant, "a connection would start it");

    // The service gets the same socket, and systemd keeps it.
    let cgroup = "system.slice/citadel-phi3.service";
    host.proc.starts(20, Program { cgroup, ..holds(&[7]) });
    host.look(&[(11403, 7)]);
    assert_eq!(host.pids(11403), [20]);
    assert_eq!(host.names(), [(11403, "phi3".to_owned())]);
    assert!(!host.server(11403).dormant);

    host.proc.ends(20);
    host.look(&[(11403, 7)]);
    assert_eq!(host.pids(11403), [0; 0]);
}

#[test]
fn a_socket_goes_from_one_process_to_another() {
    let mut host = Host::new();
    host.proc.starts(20, holds(&[7]));
    host.proc.starts(30, holds(&[]));
    host.look(&[(11400, 7)]);
    assert_eq!(host.server(11400).main.unwrap().pid, 20);
    // To one that was there before, over a Unix socket.
    host.proc.opens(30, 7);
    host.proc.closes(20, 7);
    host.look(&[(11400, 7)]);
    assert_eq!(host.server(11400).main.unwrap().pid, 30);
}

#[test]
fn a_number_that_another_process_has_now_means_nothing() {
    let mut host = Host::new();
    host.proc.starts(20, holds(&[7]));
    host.proc.starts(21, Program { parent: 20, ..holds(&[]) });
    host.look(&[(11400, 7)]);
    assert_eq!(host.pids(11400), [20, 21]);
    // Within an interval both end, others get their numbers, and the server begins anew under a third.
    host.proc.starts(20, Program { start: 200, line: "/bin/cat", ..holds(&[]) });
    host.proc.starts(21, Program { start: 200, parent: 20, ..holds(&[]) });
    host.proc.starts(30, Program { start: 201, ..holds(&[8]) });
    host.look(&[(11400, 8)]);
    assert_eq!(host.pids(11400), [30]);

    // Or the other one even holds a socket of the same port under the same descriptor.
    host.proc.starts(30, Program { start: 300, line: "/bin/llama-server --alias other", ..holds(&[8]) });
    host.look(&[(11400, 8)]);
    assert_eq!(host.server(11400).main.unwrap().start_ticks, 300);
    assert_eq!(host.names(), [(11400, "other".to_owned())]);
}

#[test]
fn a_child_that_outlives_its_parent_stays_the_servers() {
    let mut host = Host::new();
    host.proc.starts(20, holds(&[7]));
    host.proc.starts(21, Program { parent: 20, ..holds(&[7]) });
    host.proc.starts(22, Program { parent: 20, start: 300, ..holds(&[]) });
    host.look(&[(11400, 7)]);
    host.proc.ends(20);
    host.proc.ends(22);
    host.proc.starts(22, Program { parent: 1, start: 300, ..holds(&[]) });
    host.look(&[(11400, 7)]);
    assert_eq!(host.pids(11400), [21, 22]);
}

#[test]
fn a_restart_keeps_the_name_and_an_end_is_an_end() {
    let mut host = Host::new();
    let line = "/bin/llama-server --alias mine";
    host.proc.starts(20, Program { line, ..holds(&[7]) });
    host.look(&[(11400, 7)]);
    host.proc.ends(20);
    host.look_at(10, &[], &[]);
    assert_eq!(host.names(), [(11400, "mine".to_owned())]);
    assert!(!host.server(11400).listens);
    assert_eq!(host.pids(11400), [0; 0]);

    host.proc.starts(30, Program { line, ..holds(&[8]) });
    host.look_at(20, &[(11400, 8)], &[]);
    assert!(host.server(11400).listens);
    assert_eq!((host.names(), host.pids(11400)), (vec![(11400, "mine".to_owned())], vec![30]));

    host.proc.ends(30);
    host.look_at(30, &[], &[]);
    host.look_at(30 + 59, &[], &[]);
    assert_eq!(host.names().len(), 1, "what it counted last can still be scraped");
    host.look_at(30 + 60, &[], &[]);
    assert_eq!(host.names(), []);
}

#[test]
fn a_process_that_goes_to_another_port_is_that_ones_alone() {
    let mut host = Host::new();
    host.proc.starts(20, holds(&[7, 8]));
    host.proc.starts(21, Program { parent: 20, ..holds(&[]) });
    host.look(&[(11400, 7)]);
    host.proc.closes(20, 7);
    host.look_at(10, &[(11401, 8)], &[11400]);
    assert_eq!((host.pids(11400), host.pids(11401)), (vec![], vec![20, 21]));
}

#[test]
fn a_server_that_has_stopped_listening_is_there_until_its_last_answer() {
    let mut host = Host::new();
    host.proc.starts(20, holds(&[7]));
    host.look(&[(11400, 7)]);
    host.proc.closes(20, 7);
    host.look_at(10, &[], &[11400]);
    host.look_at(1000, &[], &[11400]);
    assert_eq!(host.pids(11400), [20], "its answers are still under way");
    host.look_at(1010, &[], &[]);
    host.look_at(1010 + 60, &[], &[]);
    assert_eq!(host.names(), []);
}

#[test]
fn a_listener_of_nobody_that_can_be_seen_is_told() {
    let mut host = Host::new();
    let unseen = host.look_at(0, &[(11400, 7)], &[]);
    assert_eq!(unseen.ports, BTreeSet::from([11400]));
    assert_eq!(host.names(), [(11400, "port-11400".to_owned())], "it is measured all the same");
}

/// A process that read a request on a port when the machine had run for so many ticks of 10 ms.
fn reads(port: u16, pid: Pid, ticks: u64) -> Reader {
    Reader { port, pid, read_ns: ticks * 10_000_000 }
}

#[test]
fn who_reads_a_servers_requests_serves_it_wherever_it_comes_from() {
    let mut host = Host::new();
    host.proc.starts(20, Program { cgroup: "system.slice/citadel-a.service", ..holds(&[7]) });
    host.proc.starts(30, Program { cgroup: "user.slice/worker.scope", ..holds(&[]) });
    host.proc.starts(31, Program { parent: 30, ..holds(&[]) });
    host.proc.starts(40, holds(&[]));
    host.look(&[(11400, 7)]);
    assert_eq!(host.pids(11400), [20]);
    assert!(host.server(11400).cgroup.is_some());

    host.readers = vec![reads(11400, 30, 100)];
    host.look(&[(11400, 7)]);
    assert_eq!(host.pids(11400), [20, 30, 31]);
    assert_eq!(host.server(11400).cgroup, None, "the unit's cgroup does not hold all of it");
    assert_eq!(host.server(11400).main.unwrap().pid, 20);
}

#[test]
fn readers_of_the_servers_own_tree_leave_its_cgroup_whole() {
    let mut host = Host::new();
    host.proc.starts(20, Program { cgroup: "system.slice/citadel-a.service", ..holds(&[7]) });
    host.proc.starts(21, Program { parent: 20, cgroup: "system.slice/citadel-a.service", ..holds(&[]) });
    host.readers = vec![reads(11400, 21, 100)];
    host.look(&[(11400, 7)]);
    assert_eq!(host.pids(11400), [20, 21]);
    assert!(host.server(11400).cgroup.is_some());
}

#[test]
fn a_reader_that_has_ended_is_told_and_its_number_means_nothing() {
    let mut host = Host::new();
    host.proc.starts(20, holds(&[7]));
    // A process that took the number after the request was read.
    host.proc.starts(30, Program { start: 200, ..holds(&[]) });
    host.readers = vec![reads(11400, 30, 199), reads(11400, 50, 100), reads(11400, 20, 100)];
    let unseen = host.look_at(0, &[(11400, 7)], &[]);
    assert_eq!(unseen.gone, [reads(11400, 30, 199), reads(11400, 50, 100)]);
    assert_eq!(host.pids(11400), [20]);
}

#[test]
fn brokers_and_other_servers_do_not_become_a_servers_by_reading() {
    let mut host = Host::new();
    host.proc.starts(20, holds(&[7]));
    host.proc.starts(25, holds(&[8]));
    host.proc.starts(30, Program { name: "docker-proxy", ..holds(&[]) });
    host.readers = vec![reads(11400, 25, 150), reads(11400, 30, 150), reads(11400, 1, 150), reads(11410, 25, 150)];
    host.look(&[(11400, 7), (11401, 8)]);
    assert_eq!(host.pids(11400), [20]);
    assert_eq!(host.pids(11401), [25]);
}
