//! A folio queue: folios in order, in nodes of a fixed number of slots (`struct folio_queue`).

use crate::memory::{Backing, LeastSafe, Page};
use std::sync::{Arc, PoisonError, RwLock};

/// Slots of a node unless told otherwise: what fits the kernel's folio batch.
pub const FOLIOS_PER_NODE: usize = 31;

/// The queue as it was at one moment: nodes that are all full but the last.
#[derive(Clone)]
pub struct Folios {
    nodes: Vec<Arc<Vec<Page>>>,
    slots_per_node: usize,
}

impl Folios {
    /// The folio at a slot counted from the head of the queue, over all nodes.
    pub fn get(&self, slot: usize) -> Option<&Page> {
        self.nodes.get(slot / self.slots_per_node)?.get(slot % self.slots_per_node)
    }

    /// How many folios there are.
    pub fn len(&self) -> usize {
        self.nodes.last().map_or(0, |last| (self.nodes.len() - 1) * self.slots_per_node + last.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A slot at the end of the queue is the next one, even if a node ends there: nodes are invisible from outside.
    fn append(&mut self, folio: Page) {
        match self.nodes.last_mut() {
            Some(last) if last.len() < self.slots_per_node => Arc::make_mut(last).push(folio),
            _ => {
                let mut node = Vec::with_capacity(self.slots_per_node);
                node.push(folio);
                self.nodes.push(Arc::new(node));
            }
        }
    }
}

/// The queue as it is, to be shared between iterators and whoever appends to it.
pub struct FolioQueue {
    folios: RwLock<Arc<Folios>>,
    /// The least safe [`Backing`] that a folio ever had.
    backing: LeastSafe,
}

impl FolioQueue {
    /// An empty queue of nodes with that many slots (at least one).
    pub fn new(slots_per_node: usize) -> Self {
        let folios = Folios { nodes: Vec::new(), slots_per_node: slots_per_node.max(1) };
        Self { folios: RwLock::new(Arc::new(folios)), backing: LeastSafe::default() }
    }

    /// The queue now; later folios do not show in it.
    pub fn snapshot(&self) -> Arc<Folios> {
        Arc::clone(&self.folios.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How its folios may fail.
    pub fn backing(&self) -> Backing {
        self.backing.get()
    }

    /// Adds a folio at the end.
    pub fn append(&self, folio: Page) {
        self.backing.add(folio.memory().backing());
        Arc::make_mut(&mut self.folios.write().unwrap_or_else(PoisonError::into_inner)).append(folio);
    }
}

#[cfg(test)]
mod tests {
    use super::FolioQueue;
    use crate::memory::{Backing, Memory, Page, Segment};
    use std::sync::Arc;

    #[test]
    fn slots_run_on_over_nodes_and_snapshots_stay() {
        for slots_per_node in [1, 2, 31] {
            let queue = FolioQueue::new(slots_per_node);
            assert!(queue.snapshot().is_empty());
            let early = queue.snapshot();
            for addr in 0..70 {
                // SAFETY: nothing touches the memory in this test.
                let memory = unsafe { Memory::new(Segment::new(addr, 1), Backing::Heap) };
                queue.append(Page::new(memory, true, Arc::new(())));
                assert_eq!(queue.snapshot().len(), addr + 1);
            }
            let now = queue.snapshot();
            assert!((0..70).all(|slot| now.get(slot).is_some_and(|f| f.seg().addr == slot)));
            assert!(now.get(70).is_none() && early.get(0).is_none());
        }
    }
}
