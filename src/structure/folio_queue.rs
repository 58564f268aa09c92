//! A folio queue: folios in order, in nodes of a fixed number of slots (`struct folio_queue`).

use crate::error::{Error, Result};
use crate::memory::{Backing, LeastSafe, Page};
use crate::sys::lock::Lock;
use std::sync::Arc;

/// The default number of slots in a node: that of the kernel's folio batch.
pub const FOLIOS_PER_NODE: usize = 31;

/// A snapshot of the queue. All nodes but the last are full.
pub struct Folios {
    nodes: Vec<Arc<Vec<Page>>>,
    slots_per_node: usize,
}

impl Folios {
    /// The folio in a slot. Slots are numbered from the head of the queue, over all nodes.
    pub fn get(&self, slot: usize) -> Option<&Page> {
        self.nodes.get(slot / self.slots_per_node)?.get(slot % self.slots_per_node)
    }

    /// The number of folios.
    pub fn len(&self) -> usize {
        self.nodes.last().map_or(0, |last| (self.nodes.len() - 1) * self.slots_per_node + last.len())
    }

    /// Whether the queue has no folio.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A copy of the node list, with room for one more node. The nodes themselves are shared.
    fn try_clone(&self) -> Result<Self> {
        Ok(Self { nodes: try_copy(&self.nodes, self.nodes.len() + 1)?, slots_per_node: self.slots_per_node })
    }

    /// Adds a folio at the end. A node that a snapshot shares is copied first. If an allocation fails, the queue stays
    /// as it was.
    fn append(&mut self, folio: Page) -> Result<()> {
        match self.nodes.last_mut() {
            Some(last) if last.len() < self.slots_per_node => {
                let node = sole(last, |node| try_copy(node, node.len() + 1))?;
                reserve_one(node)?;
                node.push(folio);
            }
            _ => {
                reserve_one(&mut self.nodes)?;
                let mut node = Vec::new();
                reserve_one(&mut node)?;
                node.push(folio);
                self.nodes.push(Arc::new(node));
            }
        }
        Ok(())
    }
}

/// Mutable access to a reference-counted value. If others share it, `shared` first gets a copy of its own.
fn sole<T>(shared: &mut Arc<T>, copy: impl FnOnce(&T) -> Result<T>) -> Result<&mut T> {
    if Arc::get_mut(shared).is_none() {
        *shared = Arc::new(copy(shared)?);
    }
    Arc::get_mut(shared).ok_or(Error::NoMemory(size_of::<T>()))
}

fn try_copy<T: Clone>(items: &[T], capacity: usize) -> Result<Vec<T>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(capacity).map_err(|_| Error::NoMemory(capacity.saturating_mul(size_of::<T>())))?;
    copy.extend_from_slice(items);
    Ok(copy)
}

/// Reserves room for one more item. The capacity grows by doubling.
fn reserve_one<T>(items: &mut Vec<T>) -> Result<()> {
    items.try_reserve(1).map_err(|_| Error::NoMemory(items.len().saturating_mul(size_of::<T>())))
}

/// A queue that iterators and the code that appends to it share.
pub struct FolioQueue {
    folios: Lock<Arc<Folios>>,
    /// The least safe [`Backing`] of all folios that were ever appended.
    backing: LeastSafe,
}

impl FolioQueue {
    /// An empty queue of nodes with `slots_per_node` slots (at least 1).
    pub fn new(slots_per_node: usize) -> Self {
        let folios = Folios { nodes: Vec::new(), slots_per_node: slots_per_node.max(1) };
        Self { folios: Lock::new(Arc::new(folios)), backing: LeastSafe::default() }
    }

    /// The queue as it is now. Folios appended later do not appear in the snapshot.
    pub fn snapshot(&self) -> Arc<Folios> {
        Arc::clone(&self.folios.lock())
    }

    /// How its folios may fail: the least safe backing of them.
    pub fn backing(&self) -> Backing {
        self.backing.get()
    }

    /// Adds a folio at the end.
    pub fn append(&self, folio: Page) -> Result<()> {
        super::headroom()?;
        self.backing.add(folio.memory().backing());
        let mut folios = self.folios.lock();
        sole(&mut folios, Folios::try_clone)?.append(folio)
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
                queue.append(Page::new(memory, true, Arc::new(()))).unwrap();
                assert_eq!(queue.snapshot().len(), addr + 1);
            }
            let now = queue.snapshot();
            assert!((0..70).all(|slot| now.get(slot).is_some_and(|f| f.seg().addr == slot)));
            assert!(now.get(70).is_none() && early.get(0).is_none());
        }
    }
}
