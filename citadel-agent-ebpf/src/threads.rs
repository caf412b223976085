//! Threads of models and their entries, each in a seat of its own or, if another thread has that seat, in a map.
//! Looking up a seat takes a few inlined instructions, a hash look-up a third of the cost of a program.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::maps::{Array, HashMap};
use citadel_agent_common::abi::seat;
use citadel_agent_common::threads::Thread;

use crate::shares::Shares;

/// The threads that a family follows. Programs running on behalf of a thread run one at a time.
pub struct Threads<T: 'static> {
    /// [`seat`] of a thread -> its entry, or that of another thread with the same seat, or none.
    pub seated: &'static Array<T>,
    /// Seat -> the thread that has it: decides who gets it, because a map accepts a new key only once.
    pub taken: &'static HashMap<u32, u32>,
    /// Thread -> its entry, for threads without a seat.
    pub others: &'static HashMap<u32, T>,
    /// Usage by model.
    pub shares: Shares,
}

/// Declares the maps of a family's threads, whose entries have this type, and `THREADS`, which combines them.
/// `UNSEATED` has room for all threads of models that can be followed, shared between them.
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

impl<T: Thread> Threads<T> {
    /// The entry of a thread.
    #[inline(always)]
    #[must_use]
    pub fn find(&self, tid: u32) -> Option<&'static mut T> {
        // SAFETY: a map value, of the thread or of another one with the same seat: then it is only read.
        let seated = unsafe { &mut *self.seated.get_ptr_mut(seat(tid))? };
        if seated.tid() == tid {
            return Some(seated);
        }
        // SAFETY: a map value of the thread.
        self.others.get_ptr_mut(tid).map(|entry| unsafe { &mut *entry })
    }

    /// Stores the entry of a thread of the model with this slot, which has none yet; returns it, or `None` if there is
    /// no room.
    #[inline(always)]
    #[must_use]
    pub fn keep(&self, mut entry: T, slot: u32) -> Option<&'static mut T> {
        let owner = self.shares.take(slot)?;
        *entry.owner() = owner;
        let stored = self.store(&entry);
        if stored.is_none() {
            self.shares.fail(owner);
        }
        stored
    }

    #[inline(always)]
    fn store(&self, entry: &T) -> Option<&'static mut T> {
        let (tid, seat) = (entry.tid(), seat(entry.tid()));
        let stored = if self.taken.insert(seat, tid, u64::from(BPF_NOEXIST)).is_ok() {
            let seated = self.seated.get_ptr_mut(seat)?;
            // SAFETY: a map value, owned by the thread from now on.
            unsafe { *seated = *entry };
            seated
        } else {
            self.others.insert(tid, entry, 0).ok()?;
            self.others.get_ptr_mut(tid)?
        };
        // SAFETY: a map value of the thread.
        Some(unsafe { &mut *stored })
    }

    /// Charges a thread to another model. If that has no room for it, it is removed, and the result is false.
    #[inline(always)]
    #[must_use]
    pub fn change_owner(&self, thread: &mut T, slot: u32) -> bool {
        let Some(owner) = self.shares.take(slot) else {
            self.remove(thread.tid());
            return false;
        };
        self.shares.give(core::mem::replace(thread.owner(), owner));
        true
    }

    /// Removes the entry of a thread.
    #[inline(always)]
    pub fn remove(&self, tid: u32) {
        let Some(seated) = self.seated.get_ptr_mut(seat(tid)) else { return };
        // SAFETY: a map value; written only if it belongs to the thread.
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
        // SAFETY: a map value of the thread.
        let owner = unsafe { *(*other).owner() };
        if self.others.remove(tid).is_ok() {
            self.shares.give(owner);
        }
    }
}
