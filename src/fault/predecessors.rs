//! The handlers that ours replaced: one for each time that ours was installed over somebody else's.
//!
//! Our handler exists at [`LEVELS`] addresses. Each time it replaces a handler that it has not replaced before, it is
//! installed at an unused one of these, a level, which remembers that handler as its predecessor. A library that later
//! restores "the handler that was there before", as `faulthandler.disable` does, thus restores one level, and with it
//! that level's own predecessor. So we behave like as many libraries as there are levels, each installed once.

use super::dispositions::Action;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};

/// How many different predecessors a signal can have. Any more take the place of the last.
pub(super) const LEVELS: usize = 16;

/// The predecessor of one level.
struct Level {
    /// The number, counted from 1, of the installation that last used this level; 0 if none has.
    installed: AtomicU64,
    handler: AtomicUsize,
    flags: AtomicI32,
    mask: AtomicU64,
}

impl Level {
    const fn new() -> Self {
        Self {
            installed: AtomicU64::new(0),
            handler: AtomicUsize::new(libc::SIG_DFL),
            flags: AtomicI32::new(0),
            mask: AtomicU64::new(0),
        }
    }

    fn action(&self) -> Action {
        Action {
            handler: self.handler.load(Ordering::Acquire),
            flags: self.flags.load(Ordering::Relaxed),
            mask: self.mask.load(Ordering::Relaxed),
        }
    }

    fn is_used(&self) -> bool {
        self.installed.load(Ordering::Acquire) != 0
    }
}

/// The predecessors of one signal. One thread at a time installs; handlers may read at any time.
pub(super) struct Predecessors {
    levels: [Level; LEVELS],
    installs: AtomicU64,
}

impl Predecessors {
    pub(super) const fn new() -> Self {
        Self { levels: [const { Level::new() }; LEVELS], installs: AtomicU64::new(0) }
    }

    /// The level that is to replace `below`: the one that replaced it before, else an unused one. Remembers `below`.
    pub(super) fn remember(&self, below: Action) -> usize {
        let known = self.levels.iter().position(|level| level.is_used() && level.action() == below);
        let free = || self.levels.iter().position(|level| !level.is_used());
        let index = known.or_else(free).unwrap_or(LEVELS - 1);
        let level = &self.levels[index];
        if known.is_none() {
            // If the last level is reused, a handler that reads it between these stores finds the default action.
            level.handler.store(libc::SIG_DFL, Ordering::Release);
            level.flags.store(below.flags, Ordering::Relaxed);
            level.mask.store(below.mask, Ordering::Relaxed);
            level.handler.store(below.handler, Ordering::Release);
        }
        level.installed.store(self.installs.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Release);
        index
    }

    /// The predecessor of a level.
    pub(super) fn below(&self, level: usize) -> Action {
        self.levels[level].action()
    }

    /// The level whose last installation came right before that of this one.
    pub(super) fn older(&self, level: usize) -> Option<usize> {
        let installed = |level: &usize| self.levels[*level].installed.load(Ordering::Acquire);
        let before = installed(&level);
        (0..LEVELS).filter(|other| (1..before).contains(&installed(other))).max_by_key(installed)
    }

    /// Replaces the predecessor by the default action, as the kernel does for a handler with `SA_RESETHAND`.
    pub(super) fn reset(&self, level: usize) {
        self.levels[level].handler.store(libc::SIG_DFL, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::{LEVELS, Predecessors};
    use crate::fault::dispositions::Action;

    fn somebody(handler: usize) -> Action {
        Action { handler, flags: 4, mask: 0 }
    }

    #[test]
    fn each_predecessor_keeps_the_level_it_was_given() {
        let predecessors = Predecessors::new();
        let [first, second] = [Action::DEFAULT, somebody(7)].map(|below| predecessors.remember(below));
        assert_ne!(first, second);
        assert_eq!((predecessors.below(first), predecessors.below(second)), (Action::DEFAULT, somebody(7)));
        assert_eq!(predecessors.remember(Action::DEFAULT), first);
        assert_eq!(predecessors.remember(somebody(7)), second);
        assert_ne!(predecessors.remember(Action { mask: 1, ..somebody(7) }), second, "another mask is another handler");
    }

    #[test]
    fn older_follows_the_order_of_installs() {
        let predecessors = Predecessors::new();
        let [first, second, third] = [1, 2, 3].map(|handler| predecessors.remember(somebody(handler)));
        assert_eq!([third, second, first].map(|level| predecessors.older(level)), [Some(second), Some(first), None]);
        predecessors.remember(somebody(1));
        assert_eq!([first, third, second].map(|level| predecessors.older(level)), [Some(third), Some(second), None]);
    }

    #[test]
    fn one_too_many_leaves_the_first_ones_alone() {
        let predecessors = Predecessors::new();
        let levels: Vec<usize> = (1..LEVELS + 5).map(|handler| predecessors.remember(somebody(handler))).collect();
        for (level, handler) in levels.iter().zip(1..LEVELS) {
            assert_eq!(predecessors.below(*level), somebody(handler));
        }
        assert_eq!(predecessors.below(LEVELS - 1), somebody(LEVELS + 4));
    }

    #[test]
    fn a_handler_for_one_signal_is_the_default_action_afterwards() {
        let predecessors = Predecessors::new();
        let level = predecessors.remember(somebody(7));
        predecessors.reset(level);
        assert_eq!(predecessors.below(level).handler, libc::SIG_DFL);
        assert_ne!(predecessors.remember(somebody(7)), level);
    }
}
