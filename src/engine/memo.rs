//! What was made before, by everything that it depends on; what was asked for longest ago is let go.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

/// Everything that a value depends on, as bytes. What is hashed into it is kept whole, so that keys are equal where all of that is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    pub fn of(what: impl Hash) -> Self {
        let mut key = Self::default();
        key.add(what);
        key
    }

    pub fn add(&mut self, what: impl Hash) {
        what.hash(self);
    }
}

impl Hasher for Key {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        self.0.len() as u64
    }
}

/// Values that are kept, no more than so many.
#[derive(Debug)]
pub(crate) struct Memo<V> {
    most: usize,
    kept: Mutex<Kept<V>>,
}

#[derive(Debug)]
struct Kept<V> {
    values: HashMap<Key, (Arc<V>, u64)>,
    /// Counts what was asked for.
    clock: u64,
    /// Counts what was made.
    made: u64,
}

impl<V> Memo<V> {
    pub fn new(most: usize) -> Self {
        Self { most, kept: Mutex::new(Kept { values: HashMap::new(), clock: 0, made: 0 }) }
    }

    pub fn get(&self, key: &Key) -> Option<Arc<V>> {
        self.locked(|kept| {
            kept.clock += 1;
            let (value, used) = kept.values.get_mut(key)?;
            *used = kept.clock;
            Some(value.clone())
        })
    }

    /// Keeps a value, unless another thread was faster, and returns the one that is kept.
    pub fn insert(&self, key: Key, value: V) -> Arc<V> {
        self.locked(|kept| {
            (kept.clock, kept.made) = (kept.clock + 1, kept.made + 1);
            if kept.values.len() >= self.most && !kept.values.contains_key(&key) {
                kept.let_go(self.most);
            }
            let clock = kept.clock;
            kept.values.entry(key).or_insert_with(|| (Arc::new(value), clock)).0.clone()
        })
    }

    /// How many values were made so far.
    pub fn made(&self) -> u64 {
        self.locked(|kept| kept.made)
    }

    /// Lets go of what is not wanted.
    #[cfg(any(test, all(feature = "eval", not(target_family = "wasm"))))]
    pub fn retain(&self, wanted: impl Fn(&V) -> bool) {
        self.locked(|kept| kept.values.retain(|_, (value, _)| wanted(value)));
    }

    fn locked<T>(&self, act: impl FnOnce(&mut Kept<V>) -> T) -> T {
        act(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<V> Kept<V> {
    /// Lets go of a quarter: looking for the oldest takes as long as there are values.
    fn let_go(&mut self, most: usize) {
        let mut used: Vec<u64> = self.values.values().map(|(_, used)| *used).collect();
        used.sort_unstable();
        let bound = used.get(most / 4).copied().unwrap_or(u64::MAX);
        self.values.retain(|_, (_, used)| *used >= bound);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_everything_apart() {
        let mut one = Key::of((1_u32, "a", Some(2.0_f32.to_bits())));
        assert_eq!(one, Key::of((1_u32, "a", Some(2.0_f32.to_bits()))));
        assert_ne!(one, Key::of((1_u32, "b", Some(2.0_f32.to_bits()))));
        // Where one value ends and the next begins is part of it.
        assert_ne!(Key::of(("ab", "c")), Key::of(("a", "bc")));
        assert_ne!(Key::of((vec![1_u8], vec![2_u8, 3])), Key::of((vec![1_u8, 2], vec![3_u8])));
        one.add(3_u8);
        assert_ne!(one, Key::of((1_u32, "a", Some(2.0_f32.to_bits()))));
    }

    #[test]
    fn what_was_used_last_stays() {
        let memo = Memo::new(8);
        for value in 0..100_u32 {
            assert_eq!(*memo.insert(Key::of(value), value), value);
            assert!(memo.get(&Key::of(0_u32)).is_some(), "asked for all along, after {value}");
        }
        assert!(memo.get(&Key::of(99_u32)).is_some() && memo.get(&Key::of(50_u32)).is_none());
        memo.locked(|kept| assert!(kept.values.len() <= 8));
        assert_eq!(*memo.insert(Key::of(99_u32), 7), 99, "the first stays");
        memo.retain(|value| *value != 99);
        assert!(memo.get(&Key::of(99_u32)).is_none() && memo.get(&Key::of(0_u32)).is_some());
    }
}
