//! Work of which each piece takes one core.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Result;

/// Does `work` with each item, in their order, as many at a time as there are cores.
///
/// # Errors
/// The first error; items that nobody has begun by then are left.
pub(crate) fn share<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let take = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(item).inspect_err(|_| next.store(items.len(), Ordering::Relaxed))?;
        }
        Ok(())
    };
    let workers = thread::available_parallelism().map_or(1, usize::from).min(items.len());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(take)).collect();
        let ended = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        ended.collect::<Result<Vec<()>>>()
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use anyhow::bail;

    use super::*;

    #[test]
    fn each_item_is_worked_on_once_and_an_error_ends_it() {
        let done = Mutex::new(Vec::new());
        let numbers: Vec<u32> = (0..100).collect();
        let note = |number: &u32| {
            done.lock().unwrap().push(*number);
            Ok(())
        };
        share(&numbers, note).unwrap();
        let mut all = done.into_inner().unwrap();
        all.sort_unstable();
        assert_eq!(all, numbers);
        let error = share(&numbers, |number| if *number == 7 { bail!("seven") } else { Ok(()) });
        assert_eq!(error.unwrap_err().to_string(), "seven");
        share(&[], |_: &u32| bail!("there is nothing to do")).unwrap();
    }
}
