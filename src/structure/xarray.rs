//! An XArray: a map from page index to page, stored as a radix tree of nodes with 64 slots.
//!
//! Nodes are reference-counted and copied on write. So a snapshot costs one reference count, and a walk over it needs
//! no lock.

use crate::error::Result;
use crate::memory::{Backing, LeastSafe, Page};
use crate::sys::lock::Lock;
use std::sync::Arc;

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;

#[derive(Clone)]
enum Entry {
    Node(Arc<Node>),
    Page(Page),
}

#[derive(Clone)]
struct Node {
    /// The number of bits by which an index is shifted right to select a slot of this node; 0 in the nodes that hold
    /// pages.
    shift: u32,
    slots: [Option<Entry>; SLOTS],
}

impl Node {
    fn new(shift: u32) -> Self {
        Self { shift, slots: [const { None }; SLOTS] }
    }

    fn slot(&self, index: usize) -> usize {
        index >> self.shift & (SLOTS - 1)
    }

    /// The greatest index that a tree with this node as its root can hold.
    fn max_index(&self) -> usize {
        usize::MAX.checked_shr(usize::BITS.saturating_sub(self.shift + BITS)).unwrap_or(0)
    }

    fn store(&mut self, index: usize, page: Page) -> Option<Page> {
        let shift = self.shift;
        let slot = self.slot(index);
        let entry = &mut self.slots[slot];
        if shift == 0 {
            return match entry.replace(Entry::Page(page)) {
                Some(Entry::Page(old)) => Some(old),
                _ => None,
            };
        }
        let child = entry.get_or_insert_with(|| Entry::Node(Arc::new(Node::new(shift - BITS))));
        match child {
            Entry::Node(node) => Arc::make_mut(node).store(index, page),
            Entry::Page(_) => unreachable!("pages are stored at shift 0 only"),
        }
    }

    fn erase(&mut self, index: usize) -> Option<Page> {
        let slot = self.slot(index);
        let entry = &mut self.slots[slot];
        if let Some(Entry::Node(node)) = entry {
            let node = Arc::make_mut(node);
            let old = node.erase(index);
            if node.slots.iter().all(Option::is_none) {
                *entry = None;
            }
            return old;
        }
        match entry.take() {
            Some(Entry::Page(old)) => Some(old),
            _ => None,
        }
    }
}

/// A snapshot of the tree.
#[derive(Clone, Default)]
pub struct Tree {
    root: Option<Arc<Node>>,
}

impl Tree {
    /// The page at `index`; `None` for a hole.
    pub fn load(&self, index: usize) -> Option<&Page> {
        let mut node = self.root.as_deref()?;
        if index > node.max_index() {
            return None;
        }
        loop {
            match node.slots[node.slot(index)].as_ref()? {
                Entry::Node(child) => node = child,
                Entry::Page(page) => return Some(page),
            }
        }
    }

    fn store(&mut self, index: usize, page: Page) -> Option<Page> {
        let root = self.root.get_or_insert_with(|| Arc::new(Node::new(0)));
        while index > root.max_index() {
            let mut taller = Node::new(root.shift + BITS);
            taller.slots[0] = Some(Entry::Node(Arc::clone(root)));
            *root = Arc::new(taller);
        }
        Arc::make_mut(root).store(index, page)
    }

    fn erase(&mut self, index: usize) -> Option<Page> {
        let root = self.root.as_mut()?;
        if index > root.max_index() {
            return None;
        }
        Arc::make_mut(root).erase(index)
    }
}

/// An array that iterators and the code that fills it share.
pub struct XArray {
    tree: Lock<Tree>,
    /// The least safe [`Backing`] of all pages that were ever stored.
    backing: LeastSafe,
}

impl Default for XArray {
    fn default() -> Self {
        Self { tree: Lock::new(Tree::default()), backing: LeastSafe::default() }
    }
}

impl XArray {
    /// The tree as it is now. Later changes do not appear in the snapshot.
    pub fn snapshot(&self) -> Tree {
        self.tree.lock().clone()
    }

    /// Stores a page at `index`. Returns the page it replaces: the caller drops it with no lock held.
    pub fn store(&self, index: usize, page: Page) -> Result<Option<Page>> {
        super::headroom()?;
        self.backing.add(page.memory().backing());
        Ok(self.tree.lock().store(index, page))
    }

    /// How its pages may fail: the least safe backing of them.
    pub fn backing(&self) -> Backing {
        self.backing.get()
    }

    /// Removes the page at `index`. Returns it: the caller drops it with no lock held.
    pub fn erase(&self, index: usize) -> Result<Option<Page>> {
        super::headroom()?;
        Ok(self.tree.lock().erase(index))
    }
}

#[cfg(test)]
mod tests {
    use super::XArray;
    use crate::memory::{Backing, Memory, Page, Segment};
    use std::collections::HashMap;
    use std::sync::Arc;

    fn page(addr: usize) -> Page {
        // SAFETY: nothing touches the memory in these tests.
        let memory = unsafe { Memory::new(Segment::new(addr, 4096), Backing::Heap) };
        Page::new(memory, true, Arc::new(()))
    }

    #[test]
    fn agrees_with_a_map_at_every_height() {
        let array = XArray::default();
        let mut model = HashMap::new();
        let mut state = 1_usize;
        for round in 0..4000_usize {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let index = (state >> 11) & usize::MAX >> (state >> 57 & 63);
            if round % 3 == 0 {
                assert_eq!(array.erase(index).unwrap().map(|p| p.seg().addr), model.remove(&index));
            } else {
                assert_eq!(array.store(index, page(round)).unwrap().map(|p| p.seg().addr), model.insert(index, round));
            }
        }
        for extreme in [0, 63, 64, 4095, 4096, usize::MAX] {
            array.store(extreme, page(extreme)).unwrap();
            model.insert(extreme, extreme);
        }
        let tree = array.snapshot();
        for (index, addr) in &model {
            assert_eq!(tree.load(*index).map(|p| p.seg().addr), Some(*addr), "{index:#x}");
            assert_eq!(tree.load(index ^ 1 << 40).map(|p| p.seg().addr), model.get(&(index ^ 1 << 40)).copied());
        }
    }

    #[test]
    fn a_snapshot_does_not_see_later_changes() {
        let array = XArray::default();
        array.store(7, page(1)).unwrap();
        let before = array.snapshot();
        array.store(7, page(2)).unwrap();
        array.store(1 << 30, page(3)).unwrap();
        array.erase(7).unwrap();
        assert_eq!(before.load(7).map(|p| p.seg().addr), Some(1));
        assert!(before.load(1 << 30).is_none());
        assert!(array.snapshot().load(7).is_none());
        assert!(array.snapshot().load(1 << 30).is_some());
    }
}
