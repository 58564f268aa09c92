//! Reading records, each checked against its checksum.

use super::chain::{Between, Entry};
use super::recover::{Summed, sum_while};
use super::ring::{HEADER, Ring};
use super::{Failure, Medium, PmemLog, Record, State, os};
use crate::abi::Direction;
use crate::copy::sums::Sums;
use crate::copy::{Outcome, copy_to_iter};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::iter::IovIter;
use crate::memory::{Backing, Memory, Segment};

impl<M: Medium> PmemLog<M> {
    /// The place of a record. Its data are not read.
    pub fn record(&self, sequence: u64) -> std::result::Result<Record, Failure> {
        let state = self.follow(self.lock()?)?;
        let State { chain, ring, .. } = &*state;
        let (first, end) = (chain.first.sequence, chain.end.sequence);
        match chain.entry(sequence) {
            None => Err(Failure::Missing { sequence, first, end }),
            Some(Err(between)) => Err(self.damaged(ring, sequence, between)?),
            Some(Ok(Entry { position, length, sums })) => {
                let offset = Self::region_offset(ring, position + HEADER);
                Ok(Record { sequence, offset, length: length as usize, sums })
            }
        }
    }

    /// Why a record has no header: the memory at one of its possible places is bad, or else its bytes have changed.
    fn damaged(&self, ring: &Ring, sequence: u64, Between { from, to }: Between) -> Result<Failure> {
        for position in ring.candidates(from, to) {
            let mut line = [0; HEADER as usize];
            if let (_, Some(mut fault)) = self.medium.read(Self::region_offset(ring, position), &mut line)? {
                fault.offset = 0;
                return Ok(Failure::Fault(fault, 0));
            }
        }
        let offset = Self::region_offset(ring, from);
        Ok(Failure::Corrupt { sequence, offset, length: HEADER as usize, what: "its header is damaged" })
    }

    /// The first record from `sequence` on whose header is good; `None` behind the last record.
    pub fn record_from(&self, sequence: u64) -> Result<Option<Record>> {
        let state = self.follow(self.lock()?)?;
        let State { chain, ring, .. } = &*state;
        let first = sequence.max(chain.first.sequence);
        Ok((first..chain.end.sequence).find_map(|sequence| {
            let Entry { position, length, sums } = chain.entry(sequence)?.ok()?;
            let offset = Self::region_offset(ring, position + HEADER);
            Some(Record { sequence, offset, length: length as usize, sums })
        }))
    }

    /// Copies the data of a record that [`Self::record`] returned into an iterator, which advances by the bytes copied.
    /// An error if they differ from those appended: then the iterator has not moved. Bad memory makes the count short.
    pub fn read_into(&self, record: &Record, i: &mut IovIter) -> std::result::Result<Outcome, Failure> {
        i.require(Direction::Dest, "read_into")?;
        if i.count() < record.length {
            let expected = format!("{} or more, as many as record {} has", record.length, record.sequence);
            return Err(Error::invalid("dst", format!("{} bytes", i.count()), expected).into());
        }
        let store = |part: &mut [u8]| {
            let seg = Segment::new(part.as_mut_ptr().expose_provenance(), part.len());
            // SAFETY: `part` is borrowed mutably and is not accessed until the copy is done.
            copy_to_iter(unsafe { Memory::new(seg, Backing::Heap) }, i, part.len())
        };
        match sum_while(&self.medium, record.offset, record.length, store)? {
            Summed::Short(done, fault) => {
                i.fault = fault.or_else(|| i.fault.take());
                // Both sides count from the start of the part that they were copying.
                if let Some(fault) = &mut i.fault {
                    fault.offset = done;
                }
                Ok((done, i.fault.clone()))
            }
            Summed::Whole(sums) => match self.confirm(record, sums) {
                Ok(()) => Ok((record.length, None)),
                Err(failure) => {
                    i.take_back(record.length)?;
                    Err(failure)
                }
            },
        }
    }

    /// Whether the data that were read, which have these sums, are those of the record: it is still there, so its space
    /// was not used again, and the sums are right. The sums alone would not do for a record of an earlier version,
    /// which has one only: data of another record that end in a CRC-32C of their own have the same.
    fn confirm(&self, record: &Record, sums: Sums) -> std::result::Result<(), Failure> {
        let Record { sequence, offset, length, sums: stored } = *record;
        if self.record(sequence)? != *record {
            return Err(Failure::Changed);
        }
        if sums.agree_with(stored) {
            return Ok(());
        }
        Err(Failure::Corrupt { sequence, offset, length, what: "the sum of its data is wrong" })
    }

    /// Reads a record. Returns the fault and its offset in the region if memory is bad; an error if the data differ
    /// from those appended.
    pub(super) fn check(&self, sequence: u64) -> std::result::Result<Option<(Box<Fault>, usize)>, Failure> {
        loop {
            let record = self.record(sequence)?;
            match sum_while(&self.medium, record.offset, record.length, |part| Ok(part.len()))? {
                Summed::Short(done, Some(fault)) => return Ok(Some((fault, record.offset + done))),
                Summed::Short(done, None) => {
                    return Err(os(libc::EIO, format!("{done} of {} bytes were read", record.length)));
                }
                Summed::Whole(sums) => match self.confirm(&record, sums) {
                    Ok(()) => return Ok(None),
                    Err(Failure::Changed) => {}
                    Err(failure) => return Err(failure),
                },
            }
        }
    }
}
