//! The models' threads, each in a seat of its own or, where another one has that, in a map.

use aya_ebpf::bindings::BPF_NOEXIST;

use citadel_agent_common::abi::seat;

use super::maps::{SEATED, SEATS_TAKEN, THREADS, Thread};

/// A thread's entry.
#[inline(always)]
pub(crate) fn find(tid: u32) -> Option<&'static mut Thread> {
    // SAFETY: a map value, of the thread that runs or of one that shares the seat's number: that one's is only read.
    let seated = unsafe { &mut *SEATED.get_ptr_mut(seat(tid))? };
    if seated.tid == tid {
        return Some(seated);
    }
    // SAFETY: a map value, of the thread that runs.
    THREADS.get_ptr_mut(tid).map(|thread| unsafe { &mut *thread })
}

/// Keeps an entry for a thread that has none. False when there is no room.
#[inline(always)]
pub(crate) fn keep(thread: &Thread) -> bool {
    let seat = seat(thread.tid);
    if SEATS_TAKEN.insert(seat, thread.tid, u64::from(BPF_NOEXIST)).is_err() {
        return THREADS.insert(thread.tid, thread, 0).is_ok();
    }
    let Some(seated) = SEATED.get_ptr_mut(seat) else { return false };
    // SAFETY: a map value, which is now the thread's that runs.
    unsafe { *seated = *thread };
    true
}

/// Forgets a thread that has ended.
#[inline(always)]
pub(crate) fn forget(tid: u32) {
    let Some(seated) = SEATED.get_ptr_mut(seat(tid)) else { return };
    // SAFETY: a map value; written only if it is that thread's.
    unsafe {
        if (*seated).tid == tid {
            *seated = Thread { since_ns: 0, slot: 0, mark: 0, place: 0, tid: 0 };
            _ = SEATS_TAKEN.remove(seat(tid));
            return;
        }
    }
    _ = THREADS.remove(tid);
}
