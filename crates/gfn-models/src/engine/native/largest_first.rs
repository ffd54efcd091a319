//! Pieces of work of different sizes, side by side.

use std::sync::Mutex;

use rayon::prelude::*;

/// How many numbers of a parameter or its gradient are worth a thread.
pub(in crate::engine) const PER_THREAD: usize = 1 << 14;

/// Runs every piece once, on all threads of the pool: the largest first, each next one on the thread
/// that is free first. `work` gives the size of a piece, in any unit, with it.
///
/// Parallel iterators halve what there is by number; a few pieces of very different sizes would leave
/// one thread with most of the work.
pub fn largest_first<T: Send>(mut work: Vec<(usize, T)>, run: impl Fn(T) + Sync) {
    let threads = rayon::current_num_threads().min(work.len());
    if threads < 2 {
        work.into_iter().for_each(|(_, piece)| run(piece));
        return;
    }
    work.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    let queue = Mutex::new(work.into_iter());
    let next = || queue.lock().expect("nothing panics while it is held").next();
    (0..threads).into_par_iter().with_max_len(1).for_each(|_| {
        while let Some((_, piece)) = next() {
            run(piece);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_run_once() {
        for (threads, n) in [(1, 50), (3, 0), (3, 1), (3, 2), (3, 50)] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let taken = Mutex::new(Vec::new());
            let pieces: Vec<_> = (0..n).map(|i| (i * 7 % 11, i)).collect();
            pool.install(|| largest_first(pieces, |i| taken.lock().unwrap().push(i)));
            let mut taken = taken.into_inner().unwrap();
            taken.sort_unstable();
            assert_eq!(taken, (0..n).collect::<Vec<_>>());
        }
    }
}
