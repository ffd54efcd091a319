//! Replay buffers: the last transitions, trajectories or objects of training.

use rand::rngs::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::batch::Transitions;
use super::priority::{Places, Priorities, Priority};
use super::update::Kept;
use crate::{States, Trajectories};

/// The last `capacity` items, in a ring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Ring<T> {
    items: Vec<T>,
    /// Where the next item goes once all places are taken.
    next: usize,
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self { items: Vec::new(), next: 0 }
    }
}

impl<T> Ring<T> {
    /// Returns the place of the item.
    fn push(&mut self, item: T, capacity: usize) -> usize {
        let n = self.items.len();
        if n < capacity {
            if n == self.items.capacity() {
                // A full ring has no places in vain.
                self.items.reserve_exact(n.max(4).min(capacity - n));
            }
            self.items.push(item);
            self.items.len() - 1
        } else {
            let place = self.next;
            self.items[place] = item;
            self.next = (place + 1) % capacity;
            place
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Transition {
    /// s and s', one after the other.
    rows: Vec<i32>,
    action: u32,
    back_action: u32,
    log_reward: Option<f64>,
    /// log R of s and of s' as if they were finished there.
    along: Option<[f64; 2]>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Object {
    row: Vec<i32>,
    log_reward: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Items {
    Transitions(Ring<Transition>),
    Trajectories(Ring<Trajectories>),
    Objects(Ring<Object>),
}

/// What an update replays: the last `capacity` items.
///
/// Bytes of an item, with rows of w cells, beside what the allocator adds to each of its vectors:
///
/// | item | bytes | on the 20^4 hypergrid, w = 5 |
/// |---|---|---|
/// | transition | 72 + 8 w | 112 |
/// | object | 32 + 4 w | 52 |
/// | trajectory of l transitions | 168 + 4 w (l + 1) + 8 l, and 8 (l + 1) with rewards along it | 1,028 at l = 30 |
///
/// Priorities by loss take 16 more for each place, whose number is rounded up to a power of two.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Buffer {
    items: Items,
    capacity: usize,
    /// In checkpoints on their own, behind all buffers.
    #[serde(skip)]
    priorities: Option<Priorities>,
}

/// What has been drawn from a buffer.
#[derive(Clone, Debug, PartialEq)]
pub enum Drawn {
    /// Transitions.
    Transitions(Transitions),
    /// Whole trajectories with their rewards.
    Trajectories(Trajectories),
    /// Objects with their log R.
    Objects(States, Vec<f64>),
}

impl Buffer {
    /// An empty buffer for `capacity` items.
    pub fn new(of: Kept, capacity: usize, priority: Priority) -> Self {
        let items = match of {
            Kept::Transitions => Items::Transitions(Ring::default()),
            Kept::Trajectories => Items::Trajectories(Ring::default()),
            Kept::Objects => Items::Objects(Ring::default()),
        };
        Self { items, capacity, priorities: Some(Priorities::new(priority)) }
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        match &self.items {
            Items::Transitions(ring) => ring.items.len(),
            Items::Trajectories(ring) => ring.items.len(),
            Items::Objects(ring) => ring.items.len(),
        }
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds trajectories with their rewards; the oldest items give way.
    pub fn extend(&mut self, trajectories: &Trajectories) {
        let Self { items, capacity, priorities } = self;
        let mut added = |place| priorities.iter_mut().for_each(|known| known.added(place));
        for i in 0..trajectories.len() {
            let rows = trajectories.rows(i);
            match items {
                Items::Transitions(ring) => {
                    for (start, t) in rows.clone().zip(trajectories.transitions(i)) {
                        let is_last = start + 2 == rows.end;
                        let transition = Transition {
                            rows: trajectories.states.cells(start..start + 2).to_vec(),
                            action: trajectories.actions[t],
                            back_action: trajectories.back_actions[t],
                            log_reward: is_last.then(|| trajectories.log_reward[i]),
                            along: trajectories
                                .log_reward_along
                                .get(start..start + 2)
                                .map(|along| [along[0], along[1]]),
                        };
                        added(ring.push(transition, *capacity));
                    }
                }
                Items::Trajectories(ring) => {
                    added(ring.push(trajectories.only(i), *capacity));
                }
                Items::Objects(ring) => {
                    let row = trajectories.terminal(i).to_vec();
                    let object = Object { row, log_reward: trajectories.log_reward[i] };
                    added(ring.push(object, *capacity));
                }
            }
        }
    }

    /// Draws places of `n` items, with replacement.
    ///
    /// # Panics
    /// When the buffer is empty.
    pub fn draw(&self, n: usize, step: u64, rng: &mut ChaCha8Rng) -> Places {
        let log_reward = |place: usize| match &self.items {
            Items::Transitions(ring) => ring.items[place].log_reward.unwrap_or(f64::NEG_INFINITY),
            Items::Trajectories(ring) => ring.items[place].log_reward[0],
            Items::Objects(ring) => ring.items[place].log_reward,
        };
        let priorities = self.priorities.as_ref().expect("given when it was made or restored");
        priorities.draw(n, self.len(), step, log_reward, rng)
    }

    /// The items at places.
    pub fn at(&self, width: usize, places: &[usize]) -> Drawn {
        match &self.items {
            Items::Transitions(ring) => {
                let mut drawn = Transitions::new(width);
                for item in places.iter().map(|&place| &ring.items[place]) {
                    let (from, to) = item.rows.split_at(width);
                    drawn.push(from, to, item.action, item.back_action, item.log_reward);
                    drawn.log_reward_along.extend(item.along);
                }
                Drawn::Transitions(drawn)
            }
            Items::Trajectories(ring) => {
                let mut drawn = Trajectories::new(width);
                places.iter().for_each(|&place| drawn.push_of(&ring.items[place], 0));
                Drawn::Trajectories(drawn)
            }
            Items::Objects(ring) => {
                let (mut rows, mut log_reward) =
                    (States::new(width), Vec::with_capacity(places.len()));
                for item in places.iter().map(|&place| &ring.items[place]) {
                    rows.push(&item.row);
                    log_reward.push(item.log_reward);
                }
                Drawn::Objects(rows, log_reward)
            }
        }
    }

    /// The losses of the items at some places, just computed.
    pub fn learned(&mut self, places: &[usize], losses: &[f64]) {
        self.priorities.iter_mut().for_each(|known| known.learned(places, losses));
    }

    /// Priorities of all items, where they have any, for a checkpoint.
    pub fn save_priorities(&self) -> Option<Vec<f64>> {
        let by_loss = |known: &&Priorities| matches!(known.by, Priority::Loss(_));
        Some(self.priorities.as_ref().filter(by_loss)?.save(self.len()))
    }

    /// Takes over how items are drawn from the buffer that this one, read from a checkpoint, replaces.
    ///
    /// # Errors
    /// When priorities are missing, or of another buffer.
    pub fn restore_priorities(&mut self, replaced: &Self, saved: &[f64]) -> Result<(), String> {
        let by = replaced.priorities.as_ref().map_or(Priority::Uniform, |known| known.by);
        let mut priorities = Priorities::new(by);
        if let Priority::Loss(_) = by {
            priorities.load(self.len(), saved)?;
        }
        self.priorities = Some(priorities);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Streams};

    /// Trajectory `i` counts from 100 i up, one step of action i at a time.
    fn counting(lens: &[usize]) -> Trajectories {
        let mut trajectories = Trajectories::new(1);
        for (i, &len) in lens.iter().enumerate() {
            let rows: Vec<i32> = (0..=len as i32).map(|t| 100 * i as i32 + t).collect();
            let actions = vec![i as u32; len];
            trajectories.push(&rows, &actions, &actions);
            trajectories.log_reward.push(-(i as f64));
        }
        trajectories
    }

    fn rng() -> ChaCha8Rng {
        Streams::new(1).get(Purpose::Test, 0)
    }

    fn draw(buffer: &Buffer, n: usize) -> Drawn {
        buffer.at(1, &buffer.draw(n, 0, &mut rng()).of)
    }

    #[test]
    fn transitions_are_kept_whole_and_the_oldest_give_way() {
        let mut buffer = Buffer::new(Kept::Transitions, 4, Priority::Uniform);
        buffer.extend(&counting(&[2, 3]));
        assert_eq!(buffer.len(), 4);
        let Drawn::Transitions(drawn) = draw(&buffer, 400) else { panic!("of them") };
        let mut seen = std::collections::BTreeMap::new();
        for t in 0..400 {
            let (from, to) = (drawn.from.row(t)[0], drawn.to.row(t)[0]);
            assert_eq!(from + 1, to);
            assert_eq!(drawn.actions[t], from as u32 / 100);
            let end = match to {
                2 => Some(0.0),
                103 => Some(-1.0),
                _ => None,
            };
            assert_eq!(drawn.log_reward[t], end);
            *seen.entry(from).or_insert(0) += 1;
        }
        // The first of five has given way; the others are alike (chi^2 with 3 degrees of freedom,
        // 16.3 at 0.001).
        assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [1, 100, 101, 102]);
        let chi2: f64 = seen.values().map(|&n| f64::from(n - 100i32).powi(2) / 100.0).sum();
        assert!(chi2 < 16.3, "{seen:?}");
    }

    #[test]
    fn trajectories_and_objects_are_drawn_with_their_rewards() {
        let mut buffer = Buffer::new(Kept::Trajectories, 2, Priority::Uniform);
        buffer.extend(&counting(&[1, 2, 3]));
        let Drawn::Trajectories(drawn) = draw(&buffer, 50) else { panic!("of them") };
        assert_eq!(drawn.len(), 50);
        for i in 0..50 {
            let n = drawn.transitions(i).len();
            assert!(n == 2 || n == 3, "the first has given way");
            assert_eq!(drawn.log_reward[i], 1.0 - n as f64);
            assert_eq!(drawn.terminal(i)[0], 100 * (n as i32 - 1) + n as i32);
        }
        let mut buffer = Buffer::new(Kept::Objects, 2, Priority::Uniform);
        buffer.extend(&counting(&[1, 2, 3]));
        let Drawn::Objects(rows, log_reward) = draw(&buffer, 50) else { panic!("of them") };
        for (row, log_reward) in rows.rows().zip(log_reward) {
            assert!(row == [102] && log_reward == -1.0 || row == [203] && log_reward == -2.0);
        }
    }

    /// What the items of a buffer take, by the sizes of all vectors.
    fn bytes(buffer: &Buffer) -> usize {
        fn heap<T>(of: &Vec<T>) -> usize {
            of.capacity() * size_of::<T>()
        }
        let of_trajectories = |one: &Trajectories| {
            let states = one.states.len() * one.states.width() * size_of::<i32>();
            let actions = heap(&one.actions) + heap(&one.back_actions) + heap(&one.offsets);
            states + actions + heap(&one.log_reward) + heap(&one.log_reward_along)
        };
        match &buffer.items {
            Items::Transitions(ring) => {
                heap(&ring.items) + ring.items.iter().map(|item| heap(&item.rows)).sum::<usize>()
            }
            Items::Trajectories(ring) => {
                heap(&ring.items) + ring.items.iter().map(of_trajectories).sum::<usize>()
            }
            Items::Objects(ring) => {
                heap(&ring.items) + ring.items.iter().map(|item| heap(&item.row)).sum::<usize>()
            }
        }
    }

    /// Trajectories of `len` transitions between rows of `w` cells.
    fn of_width(w: usize, len: usize, n: usize, along: bool) -> Trajectories {
        let mut trajectories = Trajectories::new(w);
        for _ in 0..n {
            let actions = vec![0; len];
            trajectories.push(&vec![0; w * (len + 1)], &actions, &actions);
            trajectories.log_reward.push(0.0);
            trajectories.log_reward_along.extend(vec![0.0; if along { len + 1 } else { 0 }]);
        }
        trajectories
    }

    /// However it was filled, a full buffer holds its capacity, at the documented size of items.
    #[test]
    fn full_buffers_take_what_is_documented() {
        let most = 1000;
        for w in [1, 5, 33] {
            for along in [false, true] {
                let len = 7;
                let with_rewards = if along { 8 * (len + 1) } else { 0 };
                for (kept, of_item) in [
                    (Kept::Transitions, 72 + 8 * w),
                    (Kept::Objects, 32 + 4 * w),
                    (Kept::Trajectories, 168 + 4 * w * (len + 1) + 8 * len + with_rewards),
                ] {
                    let mut buffer = Buffer::new(kept, most, Priority::Uniform);
                    for n in [1, 2, 300, 1, 700, 50, 2000] {
                        buffer.extend(&of_width(w, len, n, along));
                        assert!(buffer.len() <= most);
                    }
                    assert_eq!(buffer.len(), most);
                    assert_eq!(bytes(&buffer), most * of_item, "{kept:?} {w} {along}");
                }
            }
        }
    }
}
