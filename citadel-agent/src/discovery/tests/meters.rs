//! CPU time against a model of processes that fork, work, end, and are waited for or not.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::discovery::meter::{Meter, Reading, Used};
use crate::host::cgroup::CpuTime;
use crate::host::pid::{Pid, Process};

fn time(user_us: u64, system_us: u64) -> CpuTime {
    CpuTime { user_us, system_us }
}

fn sum(a: CpuTime, b: CpuTime) -> CpuTime {
    time(a.user_us + b.user_us, a.system_us + b.system_us)
}

#[test]
fn a_cgroup_counts_on_when_it_is_made_anew() {
    let mut meter = Meter::default();
    let read = |id, user, system| Reading::Cgroup { id, time: time(user, system) };
    assert_eq!(meter.take(read(1, 10, 5)), time(10, 5));
    assert_eq!(meter.take(read(1, 12, 5)), time(12, 5));
    assert_eq!(meter.take(read(2, 3, 1)), time(15, 6));
    assert_eq!(meter.take(read(2, 3, 2)), time(15, 7));
}

#[test]
fn another_way_of_counting_counts_nothing_twice() {
    let mut meter = Meter::default();
    meter.take(Reading::Cgroup { id: 1, time: time(10, 0) });
    let process = |user| {
        let used = Used { parent: 1, own: time(user, 0), children: time(0, 0) };
        Reading::Processes(BTreeMap::from([(Process { pid: 2, start_ticks: 1 }, used)]))
    };
    assert_eq!(meter.take(process(9)), time(10, 0));
    assert_eq!(meter.take(process(11)), time(12, 0));
    assert_eq!(meter.take(Reading::Cgroup { id: 1, time: time(13, 0) }), time(12, 0));
}

/// What happens to the processes.
#[derive(Clone, Debug)]
enum Event {
    /// One, chosen by number, begins another.
    Fork(usize),
    /// One works.
    Work(usize, u8, u8),
    /// One ends, and its parent waits for it.
    End(usize),
    /// One ends, and nobody waits: what it used is gone with it.
    Vanish(usize),
    /// The agent reads.
    Read,
}

fn event(unwaited: bool) -> impl Strategy<Value = Event> {
    let end = any::<usize>().prop_map(move |which| if unwaited { Event::Vanish(which) } else { Event::End(which) });
    prop_oneof![
        2 => any::<usize>().prop_map(Event::Fork),
        4 => (any::<usize>(), any::<u8>(), any::<u8>()).prop_map(|(which, user, system)| Event::Work(which, user, system)),
        1 => any::<usize>().prop_map(Event::End),
        1 => end,
        2 => Just(Event::Read),
    ]
}

/// The processes: the first is the server, which stays.
struct Tree {
    processes: BTreeMap<Process, Used>,
    next: Pid,
    /// All that was ever used.
    truth: CpuTime,
}

impl Tree {
    fn new() -> Self {
        let mut tree = Self { processes: BTreeMap::new(), next: 1, truth: time(0, 0) };
        tree.begin(0);
        tree
    }

    fn begin(&mut self, parent: Pid) {
        // Few numbers, so that they come again.
        let pid = (1..).find(|pid| self.processes.keys().all(|other| other.pid != *pid)).unwrap_or(1);
        let used = Used { parent, own: time(0, 0), children: time(0, 0) };
        self.processes.insert(Process { pid, start_ticks: u64::from(self.next) }, used);
        self.next += 1;
    }

    fn choose(&self, which: usize) -> Process {
        *self.processes.keys().nth(which % self.processes.len()).unwrap()
    }

    fn end(&mut self, process: Process, waited: bool) {
        if process.start_ticks == 1 {
            return;
        }
        let used = self.processes.remove(&process).unwrap();
        if let Some((_, parent)) = self.processes.iter_mut().find(|(other, _)| waited && other.pid == used.parent) {
            parent.children = sum(parent.children, sum(used.own, used.children));
        }
        // As the kernel does with orphans, where the server is the next reaper.
        for child in self.processes.values_mut().filter(|child| child.parent == process.pid) {
            child.parent = 1;
        }
    }

    fn step(&mut self, event: &Event) {
        match *event {
            Event::Fork(which) => self.begin(self.choose(which).pid),
            Event::Work(which, user, system) => {
                let more = time(user.into(), system.into());
                let used = self.processes.get_mut(&self.choose(which)).unwrap();
                used.own = sum(used.own, more);
                self.truth = sum(self.truth, more);
            }
            Event::End(which) => self.end(self.choose(which), true),
            Event::Vanish(which) => self.end(self.choose(which), false),
            Event::Read => {}
        }
    }
}

proptest! {
    #[test]
    fn what_processes_hand_up_is_counted_once(events in prop::collection::vec(event(false), 0..120)) {
        let (mut tree, mut meter) = (Tree::new(), Meter::default());
        for event in events.iter().chain([&Event::Read]) {
            tree.step(event);
            if matches!(event, Event::Read) {
                prop_assert_eq!(meter.take(Reading::Processes(tree.processes.clone())), tree.truth);
            }
        }
    }

    #[test]
    fn what_they_take_along_never_makes_it_go_back(events in prop::collection::vec(event(true), 0..120)) {
        let (mut tree, mut meter) = (Tree::new(), Meter::default());
        let mut last = time(0, 0);
        for event in events.iter().chain([&Event::Read]) {
            tree.step(event);
            if matches!(event, Event::Read) {
                let now = meter.take(Reading::Processes(tree.processes.clone()));
                prop_assert!(now.user_us >= last.user_us && now.system_us >= last.system_us);
                prop_assert!(now.user_us <= tree.truth.user_us && now.system_us <= tree.truth.system_us);
                last = now;
            }
        }
    }

    #[test]
    fn nothing_is_lost_that_was_read_before_the_end(events in prop::collection::vec(event(true), 0..120)) {
        let (mut tree, mut meter) = (Tree::new(), Meter::default());
        for event in &events {
            tree.step(event);
            let total = meter.take(Reading::Processes(tree.processes.clone()));
            prop_assert_eq!(total, tree.truth);
        }
    }
}
