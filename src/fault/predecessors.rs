//! The handlers that ours replaced: one for each time that ours was installed over somebody else's.
//!
//! Our handler exists at [`LEVELS`] addresses. Each time it replaces a handler that it has not replaced before, it is
//! installed at an unused one of these, a level, which remembers that handler as its predecessor. A library that later
//! restores "the handler that was there before", as `faulthandler.disable` does, thus restores one level, and with it
//! that level's own predecessor. So we behave like as many libraries as there are levels, each installed once.

use super::dispositions::Action;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering, fence};

/// How many different predecessors a signal can have. Any more take the place of the last.
pub(super) const LEVELS: usize = 16;

/// An action whose parts can be read and written by any thread.
struct Stored {
    handler: AtomicUsize,
    flags: AtomicI32,
    mask: AtomicU64,
}

impl Stored {
    const fn new() -> Self {
        Self { handler: AtomicUsize::new(libc::SIG_DFL), flags: AtomicI32::new(0), mask: AtomicU64::new(0) }
    }

    fn load(&self) -> Action {
        Action {
            handler: self.handler.load(Ordering::Relaxed),
            flags: self.flags.load(Ordering::Relaxed),
            mask: self.mask.load(Ordering::Relaxed),
        }
    }

    fn store(&self, action: Action) {
        self.handler.store(action.handler, Ordering::Relaxed);
        self.flags.store(action.flags, Ordering::Relaxed);
        self.mask.store(action.mask, Ordering::Relaxed);
    }
}

/// The predecessor of one level.
struct Level {
    /// The number, counted from 1, of the installation that last used this level; 0 if none has.
    installed: AtomicU64,
    /// How often the predecessor was replaced. By turns it is in the one and in the other of `actions`.
    replaced: AtomicUsize,
    actions: [Stored; 2],
}

impl Level {
    const fn new() -> Self {
        Self { installed: AtomicU64::new(0), replaced: AtomicUsize::new(0), actions: [const { Stored::new() }; 2] }
    }

    /// All of one predecessor. A handler that interrupts `replace` reads the previous one, which is complete. It reads
    /// again only if the predecessor was replaced meanwhile, so it never waits for the thread that it interrupts.
    fn action(&self) -> Action {
        loop {
            let replaced = self.replaced.load(Ordering::Acquire);
            let action = self.actions[replaced % 2].load();
            // The next but one `replace` writes to what was read here, and increments the count before that.
            fence(Ordering::Acquire);
            if self.replaced.load(Ordering::Relaxed) == replaced {
                return action;
            }
        }
    }

    fn replace(&self, action: Action) {
        let replaced = self.replaced.load(Ordering::Relaxed) + 1;
        // Whoever sees a part of what is stored now sees that the other action had become the current one before.
        fence(Ordering::Release);
        self.actions[replaced % 2].store(action);
        self.replaced.store(replaced, Ordering::Release);
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
            level.replace(below);
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
        let level = &self.levels[level];
        level.actions[level.replaced.load(Ordering::Acquire) % 2].handler.store(libc::SIG_DFL, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{LEVELS, Predecessors};
    use crate::fault::dispositions::Action;
    use std::sync::atomic::{AtomicBool, Ordering};

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

    /// Each handler has the flags of its own number. The last level is replaced with every other installation.
    #[test]
    fn a_handler_is_never_read_with_the_flags_or_the_mask_of_another() {
        let predecessors = Predecessors::new();
        let like = |number: usize| Action { handler: number, flags: number as i32, mask: number as u64 };
        let levels: Vec<usize> = (1..=LEVELS).map(|number| predecessors.remember(like(number))).collect();
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let mixed = scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    let found = predecessors.below(levels[LEVELS - 1]);
                    if (found.flags, found.mask) != (found.handler as i32, found.handler as u64) {
                        return Some(found);
                    }
                }
                None
            });
            for number in LEVELS + 1..1_000_000 {
                assert_eq!(predecessors.remember(like(number)), levels[LEVELS - 1]);
            }
            is_done.store(true, Ordering::Relaxed);
            assert_eq!(mixed.join().unwrap(), None);
        });
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
