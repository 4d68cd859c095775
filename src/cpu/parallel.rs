//! Work at load, on as many threads as the executor will have.

use std::sync::{Mutex, PoisonError};

/// Calls `work` with each item, on up to `threads` threads, each of which takes the next item when it is done with one.
pub fn each<T: Send>(threads: usize, items: &mut [T], work: impl Fn(&mut T) + Sync) {
    let helpers = threads.min(items.len()).saturating_sub(1);
    let items = Mutex::new(items.iter_mut());
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work_on = || {
        while let Some(item) = next() {
            work(item);
        }
    };
    std::thread::scope(|scope| {
        (0..helpers).for_each(|_| {
            scope.spawn(work_on);
        });
        work_on();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_has_its_turn_once() {
        for (threads, count) in [(0, 3), (1, 5), (2, 0), (2, 1), (3, 10), (16, 7)] {
            let mut items: Vec<usize> = (0..count).collect();
            each(threads, &mut items, |item| *item += 100);
            assert!(items.into_iter().eq(100..100 + count), "{threads} threads, {count} items");
        }
    }
}
