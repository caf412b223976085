//! Threads of models and what is known of them, each in a seat of its own or, where another one has that, in a map. A
//! look-up of a seat is some instructions in place, one in a hash is a third of what a program costs.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::maps::{Array, HashMap};
use citadel_agent_common::abi::seat;

use crate::count::add;

/// What is known of a thread.
pub trait Entry: Copy + 'static {
    /// Nothing, and of no thread.
    const NONE: Self;

    /// The thread's number; 0: of no thread.
    fn tid(&self) -> u32;
}

/// The threads that a family follows. What runs on a thread's behalf runs one at a time.
pub struct Threads<T: 'static> {
    /// [`seat`] of a thread -> its entry, or that of another thread that shares the seat, or none.
    pub seated: &'static Array<T>,
    /// Seat -> the thread that has it: to whom it goes is settled here, because a map takes a new key only once.
    pub taken: &'static HashMap<u32, u32>,
    /// Thread -> its entry, of those without a seat.
    pub others: &'static HashMap<u32, T>,
    /// How many threads are followed: userspace would have to walk through both maps.
    pub followed: &'static Array<u64>,
}

/// The maps of a family's threads, whose entries are of this type, and `THREADS`, which is all three. When `UNSEATED` is full, new
/// threads without a seat are not followed: the family counts them.
#[macro_export]
macro_rules! threads {
    ($entry:ty) => {
        #[::aya_ebpf::macros::map]
        static SEATED: ::aya_ebpf::maps::Array<$entry> =
            ::aya_ebpf::maps::Array::with_max_entries(::citadel_agent_common::abi::SEATS, 0);

        #[::aya_ebpf::macros::map]
        static SEATS_TAKEN: ::aya_ebpf::maps::HashMap<u32, u32> =
            ::aya_ebpf::maps::HashMap::with_max_entries(::citadel_agent_common::abi::SEATS, 0);

        #[::aya_ebpf::macros::map]
        static UNSEATED: ::aya_ebpf::maps::HashMap<u32, $entry> =
            ::aya_ebpf::maps::HashMap::with_max_entries(::citadel_agent_common::abi::MAX_THREADS, 0);

        #[::aya_ebpf::macros::map]
        static FOLLOWED: ::aya_ebpf::maps::Array<u64> =
            ::aya_ebpf::maps::Array::with_max_entries(1, ::aya_ebpf::bindings::BPF_F_MMAPABLE);

        pub(crate) const THREADS: $crate::threads::Threads<$entry> =
            $crate::threads::Threads { seated: &SEATED, taken: &SEATS_TAKEN, others: &UNSEATED, followed: &FOLLOWED };
    };
}

impl<T: Entry> Threads<T> {
    /// A thread's entry.
    #[inline(always)]
    #[must_use]
    pub fn find(&self, tid: u32) -> Option<&'static mut T> {
        // SAFETY: a map value, the thread's own or that of one that shares the seat: then it is only looked at.
        let seated = unsafe { &mut *self.seated.get_ptr_mut(seat(tid))? };
        if seated.tid() == tid {
            return Some(seated);
        }
        // SAFETY: a map value, the thread's own.
        self.others.get_ptr_mut(tid).map(|entry| unsafe { &mut *entry })
    }

    /// Keeps the entry of a thread that has none; it, or `None` where there is no room.
    #[inline(always)]
    #[must_use]
    pub fn keep(&self, entry: &T) -> Option<&'static mut T> {
        let (tid, seat) = (entry.tid(), seat(entry.tid()));
        let place = if self.taken.insert(seat, tid, u64::from(BPF_NOEXIST)).is_ok() {
            let seated = self.seated.get_ptr_mut(seat)?;
            // SAFETY: a map value, from now on the thread's.
            unsafe { *seated = *entry };
            seated
        } else {
            self.others.insert(tid, entry, 0).ok()?;
            self.others.get_ptr_mut(tid)?
        };
        self.count(1);
        // SAFETY: a map value, the thread's own.
        Some(unsafe { &mut *place })
    }

    /// Forgets a thread.
    #[inline(always)]
    pub fn forget(&self, tid: u32) {
        let Some(seated) = self.seated.get_ptr_mut(seat(tid)) else { return };
        // SAFETY: a map value; written only if it is the thread's.
        unsafe {
            if (*seated).tid() == tid {
                *seated = T::NONE;
                _ = self.taken.remove(seat(tid));
                self.count(-1);
                return;
            }
        }
        if self.others.remove(tid).is_ok() {
            self.count(-1);
        }
    }

    #[inline(always)]
    fn count(&self, change: i64) {
        if let Some(cell) = self.followed.get_ptr_mut(0) {
            // SAFETY: a map value; other CPUs only add atomically.
            add(unsafe { &mut *cell }, change as u64);
        }
    }
}
