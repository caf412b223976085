//! Threads of models and what is known of them, each in a seat of its own or, where another one has that, in a map. A
//! look-up of a seat is some instructions in place, one in a hash is a third of what a program costs.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::maps::{Array, HashMap};
use citadel_agent_common::abi::seat;
use citadel_agent_common::shares::Owner;

use crate::shares::Shares;

/// What is known of a thread.
pub trait Entry: Copy + 'static {
    /// Nothing, and of no thread.
    const NONE: Self;

    /// The thread's number; 0: of no thread.
    fn tid(&self) -> u32;

    /// Whose it is.
    fn owner(&mut self) -> &mut Owner;
}

/// The threads that a family follows. What runs on a thread's behalf runs one at a time.
pub struct Threads<T: 'static> {
    /// [`seat`] of a thread -> its entry, or that of another thread that shares the seat, or none.
    pub seated: &'static Array<T>,
    /// Seat -> the thread that has it: to whom it goes is settled here, because a map takes a new key only once.
    pub taken: &'static HashMap<u32, u32>,
    /// Thread -> its entry, of those without a seat.
    pub others: &'static HashMap<u32, T>,
    /// What models hold of them.
    pub shares: Shares,
}

/// The maps of a family's threads, whose entries are of this type, and `THREADS`, which is all of them. `UNSEATED` has room for all
/// threads that models may have followed, of which each has its share.
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
        static UNSEATED: ::aya_ebpf::maps::HashMap<u32, $entry> = ::aya_ebpf::maps::HashMap::with_max_entries(1, 0);

        #[::aya_ebpf::macros::map]
        static THREADS_HELD: ::aya_ebpf::maps::Array<::citadel_agent_common::shares::Held> =
            ::aya_ebpf::maps::Array::with_max_entries(1, ::aya_ebpf::bindings::BPF_F_MMAPABLE);

        pub(crate) const THREADS: $crate::threads::Threads<$entry> = $crate::threads::Threads {
            seated: &SEATED,
            taken: &SEATS_TAKEN,
            others: &UNSEATED,
            shares: $crate::shares::Shares { held: &THREADS_HELD, own: ::citadel_agent_common::shares::THREADS.own },
        };
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

    /// Keeps the entry of a thread of the model with this slot, which has none; it, or `None` where there is no room.
    #[inline(always)]
    #[must_use]
    pub fn keep(&self, mut entry: T, slot: u32) -> Option<&'static mut T> {
        let owner = self.shares.take(slot)?;
        *entry.owner() = owner;
        let place = self.place(&entry);
        if place.is_none() {
            self.shares.fail(owner);
        }
        place
    }

    #[inline(always)]
    fn place(&self, entry: &T) -> Option<&'static mut T> {
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
        // SAFETY: a map value, the thread's own.
        Some(unsafe { &mut *place })
    }

    /// A thread has become another model's. Where that has no room for it, it is forgotten: false.
    #[inline(always)]
    #[must_use]
    pub fn change_owner(&self, thread: &mut T, slot: u32) -> bool {
        let Some(owner) = self.shares.take(slot) else {
            self.forget(thread.tid());
            return false;
        };
        self.shares.give(core::mem::replace(thread.owner(), owner));
        true
    }

    /// Forgets a thread.
    #[inline(always)]
    pub fn forget(&self, tid: u32) {
        let Some(seated) = self.seated.get_ptr_mut(seat(tid)) else { return };
        // SAFETY: a map value; written only if it is the thread's.
        unsafe {
            if (*seated).tid() == tid {
                let owner = *(*seated).owner();
                *seated = T::NONE;
                _ = self.taken.remove(seat(tid));
                self.shares.give(owner);
                return;
            }
        }
        let Some(other) = self.others.get_ptr_mut(tid) else { return };
        // SAFETY: a map value, the thread's own.
        let owner = unsafe { *(*other).owner() };
        if self.others.remove(tid).is_ok() {
            self.shares.give(owner);
        }
    }
}
