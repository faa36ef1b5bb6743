//! A list that numbers what is pushed and forgets its oldest beyond a limit.

use std::collections::VecDeque;

/// See the module.
pub(super) struct Ring<T> {
    first: u64,
    items: VecDeque<T>,
    limit: usize,
}

impl<T> Ring<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self { first: 0, items: VecDeque::new(), limit: limit.max(1) }
    }
    /// The number the next push gets.
    pub(super) fn next(&self) -> u64 {
        self.first + self.items.len() as u64
    }
    /// Adds one; gives back what had to go.
    pub(super) fn push(&mut self, item: T) -> Option<T> {
        self.items.push_back(item);
        if self.items.len() <= self.limit {
            return None;
        }
        self.first += 1;
        self.items.pop_front()
    }
    pub(super) fn get(&self, number: u64) -> Option<&T> {
        self.items.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        self.items.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.items.iter()
    }
    /// Those numbered `number` and above, oldest first.
    pub(super) fn iter_from(&self, number: u64) -> impl Iterator<Item = &T> {
        let start = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.items.len());
        self.items.range(start..)
    }
}
