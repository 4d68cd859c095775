//! Work at load, on as many threads as the executor will have.

/// Calls `work` with each item, on up to `threads` threads, each with its share of neighbouring items.
pub fn each<T: Send>(threads: usize, items: &mut [T], work: impl Fn(&mut T) + Sync) {
    let share = items.len().div_ceil(threads.max(1)).max(1);
    let mut shares = items.chunks_mut(share);
    let Some(own) = shares.next() else { return };
    std::thread::scope(|scope| {
        let work = &work;
        for share in shares {
            scope.spawn(move || share.iter_mut().for_each(work));
        }
        own.iter_mut().for_each(work);
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
