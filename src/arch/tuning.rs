//! The lengths from which a copy uses another method. Each is a pure function of the CPU's [`Facts`]. For experiments
//! they can be set by name; they affect speed alone, never a result.

use super::LINE;
use super::facts::{Facts, Vendor};
use crate::error::Excerpt;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The size, in bytes, that the last-level cache is taken to have where the CPU does not report it.
const USUAL_CACHE: usize = 32 << 20;

/// However large the last-level cache is, a copy of this many bytes is not expected to stay in it.
const MOST_KEPT: usize = 32 << 20;

// Where AMD's `rep movsb` is used between any two addresses, the chunks that it copies stay in the caches as long as
// the last-level cache holds the whole copy, one of exactly its size included. Zen 5, last-level cache of 32 MiB,
// chunks of 1 MiB or more, time relative to non-temporal stores, from a cached source, alone and together with a read
// of the destination right after it: 16 MiB 0.9 to 1.17 and 0.74 to 0.77; 24 MiB 1.12 and 0.76; 32 MiB 1.01 to 1.09 and
// 0.83 to 0.87; 48 MiB 1.09 and 0.95; 64 MiB 1.14 and 1.01. From a cold source: 16 MiB 1.15 and 1.0; 32 MiB 1.16 and
// 1.05 to 1.12; 48 MiB 1.2 and 1.03.

/// Of a last-level cache that many cores share, one core is taken to get this many times the size of its second-level
/// cache. Measured as the length at which a copy and a read of its destination right after it together take equally
/// long with and without non-temporal stores: 8 times L2 on Emerald Rapids, half the last-level cache on Zen 5.
const SHARE: usize = 8;

/// In a copy that long, chunks of whole lines are stored non-temporally from this many bytes on. On Zen 5, the time
/// relative to stores through the caches is 1.15 at 64 bytes, 1 at 256, and 0.75 to 0.85 at 512. On Intel it is less at
/// any length.
const WHOLE_LINES_FROM: usize = 256;

/// Other chunks are from this many bytes on. In shorter ones, the partial lines at both ends cost more than the whole
/// lines gain.
const USUAL_RAGGED_FROM: usize = 1 << 10;

/// From this many bytes on, beyond the first-level cache, `rep movsb` is faster than any vector loop if both addresses
/// agree modulo a line. A loop's loads may also have to wait for its stores, where source and destination are a few
/// lines apart modulo 4 KiB: on Zen 4 a copy of 16 KiB at a distance of 64 bytes takes 740 ns in a loop, 380 ns by
/// `rep movsb`.
const STRINGS_FROM: usize = 32 << 10;
/// The same for AMD's CPUs whose first-level cache has 32 KiB, which source and destination fill.
const STRINGS_FROM_SMALL_L1: usize = 16 << 10;
/// The same for AMD's CPUs whose first-level cache has 48 KiB, which source and destination fill. There `rep movsb` is
/// faster between any two addresses: on Zen 5, against the AVX-512 loop at seven distances, it takes 1.1 to 1.5 times
/// the loop's time at 22 KiB, 0.9 to 1.25 at 24 KiB, 0.65 to 1.1 at 26 KiB, and 0.65 to 0.95 from 28 KiB on.
const STRINGS_FROM_MIDDLE_L1: usize = 24 << 10;
/// From this many bytes on, Intel's `rep movsb` is faster between any two addresses: source and destination together
/// fill half of L2. On AMD's earlier CPUs it is never used for any two addresses, since it is many times slower if the
/// destination lies 1 to 15 bytes behind the source modulo 4 KiB.
const STRINGS_ANY_FROM: usize = 512 << 10;

/// The first-level caches of AMD's CPUs, in bytes.
const SMALL_L1: usize = 32 << 10;
const MIDDLE_L1: usize = 48 << 10;

/// From this many bytes on, non-temporal copies on Intel prefetch far ahead. The speed, relative to the short prefetch,
/// of copies from cold memory: Emerald Rapids, 16 KiB to 1 GiB, 1.1 to 1.2. Zen 5: 0.92 at 16 KiB, 0.98 to 1.02 from 64
/// KiB to 16 MiB.
const FAR_FROM: usize = 8 << 10;

/// From this many bytes on, non-temporal copies on AMD's CPUs whose first-level cache has 48 KiB leave all but the
/// beginning of their source to the hardware. The time, relative to the short prefetch, from cold memory on Zen 5, with
/// AVX-512: 1.15 at 4 KiB, 1 at 6 KiB, 0.98 at 8 KiB, 0.92 at 16 KiB, 0.88 at 32 KiB, 0.86 at 64 KiB, 0.8 to 0.82 from
/// 1 MiB on; from a cached source level. Zen 4 needs the prefetch at any length.
const UNAIDED_FROM: usize = 8 << 10;

/// Below this many bytes, Intel's CPUs take less time to prefetch a line for writing, store to it and write it back
/// than to store it non-temporally.
const CLAIMED_UP_TO: usize = 640;

/// The lengths, in bytes. `usize::MAX` stands for never.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tuning {
    /// Copies of at least this many bytes store their long chunks non-temporally.
    pub nontemporal_from: usize,
    /// In such a copy, a chunk of whole lines is long from this many bytes on.
    pub lines_from: usize,
    /// In such a copy, any other chunk is long from this many bytes on.
    pub ragged_from: usize,
    /// A chunk of at least `strings_any_from` bytes is long only in a copy of at least this many bytes.
    pub string_chunks_from: usize,
    /// Plain copies between addresses that agree modulo a line use `rep movsb` from this many bytes on.
    pub strings_from: usize,
    /// Plain copies between any addresses use `rep movsb` from this many bytes on.
    pub strings_any_from: usize,
    /// Non-temporal copies of at least this many bytes prefetch their source far ahead, into the second-level cache
    /// only.
    pub far_from: usize,
    /// Other non-temporal copies of at least this many bytes prefetch only the beginning of their source, and leave
    /// the rest to the hardware prefetcher.
    pub unaided_from: usize,
    /// A durable copy to one range is stored non-temporally from this many bytes on. A shorter one is stored through
    /// the caches and written back.
    pub durable_from: usize,
}

type Field = fn(&mut Tuning) -> &mut usize;

/// Each length: its name, its field, and the value in use. `nontemporal_from` is 0 until the CPU has been asked.
static SETTINGS: [(&str, Field, AtomicUsize); 9] = [
    ("nontemporal_from", |tuning| &mut tuning.nontemporal_from, AtomicUsize::new(0)),
    ("lines_from", |tuning| &mut tuning.lines_from, AtomicUsize::new(0)),
    ("ragged_from", |tuning| &mut tuning.ragged_from, AtomicUsize::new(0)),
    ("string_chunks_from", |tuning| &mut tuning.string_chunks_from, AtomicUsize::new(0)),
    ("strings_from", |tuning| &mut tuning.strings_from, AtomicUsize::new(0)),
    ("strings_any_from", |tuning| &mut tuning.strings_any_from, AtomicUsize::new(0)),
    ("far_from", |tuning| &mut tuning.far_from, AtomicUsize::new(0)),
    ("unaided_from", |tuning| &mut tuning.unaided_from, AtomicUsize::new(0)),
    ("durable_from", |tuning| &mut tuning.durable_from, AtomicUsize::new(0)),
];
const NONTEMPORAL_FROM: usize = 0;
const LINES_FROM: usize = 1;
const RAGGED_FROM: usize = 2;
const STRING_CHUNKS_FROM: usize = 3;
const STRINGS_ANY_FROM_NOW: usize = 5;
const DURABLE_FROM: usize = 8;

/// The names by which a text asks for the rules of a vendor.
const VENDORS: [(&str, Vendor); 3] = [("intel", Vendor::Intel), ("amd", Vendor::Amd), ("other", Vendor::Other)];

const NEVER: &str = "never";

/// The environment variable that sets the lengths in use when the process starts.
pub const VARIABLE: &str = "IOVEC_RS_TUNING";

impl Tuning {
    /// The lengths that suit a CPU.
    pub fn of(facts: &Facts) -> Self {
        let last = facts.last_cache.unwrap_or(USUAL_CACHE);
        // Source and destination share the cache.
        let kept = (last / 2).min(MOST_KEPT);
        let share = facts.second_cache.map_or(kept, |second| second.saturating_mul(SHARE));
        let strings_from = match (facts.vendor, facts.first_cache) {
            (Vendor::Amd, Some(SMALL_L1)) => STRINGS_FROM_SMALL_L1,
            (Vendor::Amd, Some(MIDDLE_L1)) => STRINGS_FROM_MIDDLE_L1,
            (Vendor::Amd | Vendor::Intel | Vendor::Other, _) => STRINGS_FROM,
        };
        let is_intel = facts.vendor == Vendor::Intel;
        let has_middle_l1 = facts.vendor == Vendor::Amd && facts.first_cache == Some(MIDDLE_L1);
        let nontemporal_from = match facts.vendor {
            Vendor::Amd => kept,
            Vendor::Intel | Vendor::Other => kept.min(share),
        };
        let strings_any_from = match facts.vendor {
            Vendor::Intel if facts.fast_strings => STRINGS_ANY_FROM,
            Vendor::Amd if facts.fast_strings && has_middle_l1 => STRINGS_FROM_MIDDLE_L1,
            Vendor::Intel | Vendor::Amd | Vendor::Other => usize::MAX,
        };
        let keeps_strings = facts.vendor == Vendor::Amd && strings_any_from != usize::MAX;
        Self {
            nontemporal_from,
            lines_from: if is_intel { LINE } else { WHOLE_LINES_FROM },
            ragged_from: USUAL_RAGGED_FROM,
            string_chunks_from: if keeps_strings { last.min(MOST_KEPT).max(kept) + 1 } else { nontemporal_from },
            strings_from: if facts.fast_strings { strings_from } else { usize::MAX },
            strings_any_from,
            far_from: if is_intel { FAR_FROM } else { usize::MAX },
            unaided_from: if has_middle_l1 { UNAIDED_FROM } else { usize::MAX },
            durable_from: if is_intel { CLAIMED_UP_TO } else { 0 },
        }
    }

    /// Parses a text: parts separated by commas, of which the first may be `intel`, `amd` or `other` for the rules of
    /// that vendor, and each other one is `name=bytes` or `name=never`, each name once. The error says what is wrong
    /// with the text.
    pub fn parse(text: &str, facts: &Facts) -> Result<Self, String> {
        let mut tuning = Self::of(facts);
        for (index, part) in text.split(',').enumerate() {
            let Some((name, value)) = part.split_once('=') else {
                match VENDORS.iter().find(|(name, _)| *name == part) {
                    Some((_, vendor)) if index == 0 => tuning = Self::of(&Facts { vendor: *vendor, ..*facts }),
                    Some(_) => return Err(format!("{} comes first or not at all", Excerpt(part))),
                    None => return Err(format!("{} is none of {} and no name=bytes", Excerpt(part), vendors())),
                }
                continue;
            };
            let Some((_, field, _)) = SETTINGS.iter().find(|(known, ..)| *known == name) else {
                return Err(format!("{} is none of {}", Excerpt(name), names().collect::<Vec<_>>().join(", ")));
            };
            let mut earlier = text.split(',').take(index).filter_map(|part| part.split_once('='));
            if earlier.any(|(earlier, _)| earlier == name) {
                return Err(format!("{name} is there twice"));
            }
            *field(&mut tuning) = match value {
                NEVER => usize::MAX,
                digits => {
                    digits.parse().map_err(|_| format!("{name} is {}: expected bytes, or {NEVER}", Excerpt(value)))?
                }
            };
        }
        Ok(tuning)
    }

    /// The text from which [`Tuning::parse`] makes the same lengths on any CPU.
    pub fn text(mut self) -> String {
        let mut one = |(name, field, _): &(&str, Field, AtomicUsize)| match *field(&mut self) {
            usize::MAX => format!("{name}={NEVER}"),
            bytes => format!("{name}={bytes}"),
        };
        SETTINGS.iter().map(&mut one).collect::<Vec<_>>().join(",")
    }
}

fn names() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|(name, ..)| *name)
}

fn vendors() -> String {
    VENDORS.map(|(name, _)| name).join(", ")
}

/// The lengths in use.
pub fn current() -> Tuning {
    if SETTINGS[NONTEMPORAL_FROM].2.load(Ordering::Relaxed) == 0 {
        detect();
    }
    let mut tuning = Tuning::of(&super::native::facts());
    for (_, field, kept) in &SETTINGS {
        *field(&mut tuning) = kept.load(Ordering::Relaxed);
    }
    tuning
}

/// Uses these lengths from now on, in all threads.
pub fn set(tuning: Tuning) {
    let mut tuning = Tuning { nontemporal_from: tuning.nontemporal_from.max(1), ..tuning };
    super::native::use_strings(tuning.strings_from, tuning.strings_any_from);
    super::native::use_far(tuning.far_from);
    super::native::use_unaided(tuning.unaided_from);
    // `nontemporal_from`, whose 0 means that nothing is set yet, is stored last, and readers load it first.
    for (_, field, kept) in SETTINGS.iter().rev() {
        kept.store(*field(&mut tuning), Ordering::Release);
    }
}

/// Uses the lengths that a text sets from now on, in all threads. The error says what is wrong with the text; then
/// nothing changes.
pub fn choose(text: &str) -> Result<(), String> {
    Tuning::parse(text, &super::native::facts()).map(set)
}

/// What is wrong with the text in the environment variable, which is then ignored. `None` if it is unset or valid.
pub fn refusal() -> Option<String> {
    let text = requested()?;
    let why = Tuning::parse(&text, &super::native::facts()).err()?;
    Some(format!("{VARIABLE} is {text:?}: {why}"))
}

fn requested() -> Option<String> {
    let text = std::env::var_os(VARIABLE).filter(|text| text != OsStr::new(""))?;
    Some(text.to_string_lossy().into_owned())
}

#[cold]
fn detect() {
    let facts = super::native::facts();
    let asked_for = requested().and_then(|text| Tuning::parse(&text, &facts).ok());
    set(asked_for.unwrap_or_else(|| Tuning::of(&facts)));
}

#[inline(always)]
#[allow(clippy::inline_always)] // once per call
fn load(setting: usize) -> usize {
    SETTINGS[setting].2.load(Ordering::Acquire)
}

/// The length, in bytes, from which a chunk of a copy of `nbytes` may be stored non-temporally; [`is_streamed`]
/// decides. `usize::MAX` if none may.
#[inline]
pub fn chunks_from(nbytes: usize) -> usize {
    let mut from = load(NONTEMPORAL_FROM);
    if from == 0 {
        detect();
        from = load(NONTEMPORAL_FROM);
    }
    if nbytes < from { usize::MAX } else { load(LINES_FROM).min(load(RAGGED_FROM)) }
}

/// Whether a chunk of at least [`chunks_from`] bytes is stored non-temporally in a copy of `nbytes`.
#[inline]
pub fn is_streamed(dst: usize, len: usize, nbytes: usize) -> bool {
    let from = load(if (dst | len).is_multiple_of(LINE) { LINES_FROM } else { RAGGED_FROM });
    len >= from && (len < load(STRINGS_ANY_FROM_NOW) || nbytes >= load(STRING_CHUNKS_FROM))
}

/// The length, in bytes, from which a durable copy to one range is stored non-temporally.
#[inline]
pub fn durable_from() -> usize {
    if load(NONTEMPORAL_FROM) == 0 {
        detect();
    }
    load(DURABLE_FROM)
}

#[cfg(test)]
mod tests;
