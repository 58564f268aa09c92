//! From which lengths on a copy goes another way. Each rule is a pure function of what the CPU says; the lengths can be
//! set by name for an experiment, and change no result.

use super::LINE;
use super::facts::{Facts, Vendor};
use std::ffi::OsStr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the last cache holds where the CPU does not tell.
const USUAL_CACHE: usize = 32 << 20;

/// However large the last cache is said to be, a copy of so many bytes is not kept in it.
const MOST_KEPT: usize = 32 << 20;

/// How many second caches' worth of a last cache that many cores share are there for one of them. At so many (Emerald
/// Rapids), and at half the last cache (Zen 5), a copy and whoever reads its destination right behind it together take
/// as long either way.
const SHARE: usize = 8;

/// Of chunks that are whole lines those of so many bytes are stored past the caches (Zen 5: 64 bytes take 1.15 of the
/// time that way, 256 as long, 512 0.75 to 0.85; Intel: any).
const WHOLE_LINES_FROM: usize = 256;

/// Of chunks that are not whole lines those of so many bytes are stored past the caches: below, the partial lines at
/// both ends and the reads that wait for nothing outweigh it.
const USUAL_RAGGED_FROM: usize = 1 << 10;

/// From here `rep movsb` beats any vector loop between addresses that agree modulo a line: L1 is left behind. A loop
/// may also trip over its own stores there, where source and destination are a few lines apart modulo 4 KiB (Zen 4,
/// 16 KiB, 64 bytes: 740 ns against 380).
const STRINGS_FROM: usize = 32 << 10;
/// The same where AMD's L1 has 32 KiB.
const STRINGS_FROM_SMALL_L1: usize = 16 << 10;
/// From here Intel's beats it between any two addresses: source and destination together fill half of L2. AMD's does
/// from `STRINGS_FROM` on where L1 has 48 KiB (Zen 5: 40 KiB to 1 MiB, any distance: 0.75 to 0.9 of the time); before
/// that it is many times slower where the destination lies 1 to 15 bytes behind the source modulo 4 KiB.
const STRINGS_ANY_FROM: usize = 512 << 10;

/// From here Intel's streams ask far ahead (Emerald Rapids, cold, 16 KiB to 1 GiB: 1.1 to 1.2 times the speed. Zen 5:
/// 16 KiB 0.92 times, 64 KiB to 16 MiB 0.98 to 1.02).
const FAR_FROM: usize = 8 << 10;

/// Below, a line that is claimed, stored to and written back takes Intel less time than one that is streamed.
const CLAIMED_UP_TO: usize = 640;

/// The lengths, in bytes; `usize::MAX` is never.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tuning {
    /// Copies of so many bytes and more store their long chunks past the caches.
    pub nontemporal_from: usize,
    /// Of their chunks, those that are whole lines are long from so many bytes on.
    pub lines_from: usize,
    /// The others are from so many on.
    pub ragged_from: usize,
    /// Copies between addresses that agree modulo a line go by `rep movsb` from so many bytes on.
    pub strings_from: usize,
    /// Copies between any addresses do from so many on.
    pub strings_any_from: usize,
    /// Streams of so many bytes and more ask far ahead for their source, into the second cache alone.
    pub far_from: usize,
    /// A durable copy of one range is stored past the caches from so many bytes on; through them below.
    pub durable_from: usize,
}

type Field = fn(&mut Tuning) -> &mut usize;

/// The names by which each is set, and where it is kept; 0 until the CPU was asked.
static SETTINGS: [(&str, Field, AtomicUsize); 7] = [
    ("nontemporal_from", |tuning| &mut tuning.nontemporal_from, AtomicUsize::new(0)),
    ("lines_from", |tuning| &mut tuning.lines_from, AtomicUsize::new(0)),
    ("ragged_from", |tuning| &mut tuning.ragged_from, AtomicUsize::new(0)),
    ("strings_from", |tuning| &mut tuning.strings_from, AtomicUsize::new(0)),
    ("strings_any_from", |tuning| &mut tuning.strings_any_from, AtomicUsize::new(0)),
    ("far_from", |tuning| &mut tuning.far_from, AtomicUsize::new(0)),
    ("durable_from", |tuning| &mut tuning.durable_from, AtomicUsize::new(0)),
];
const NONTEMPORAL_FROM: usize = 0;
const LINES_FROM: usize = 1;
const RAGGED_FROM: usize = 2;
const DURABLE_FROM: usize = 6;

/// Whose rules are used on this CPU, by name.
const VENDORS: [(&str, Vendor); 3] = [("intel", Vendor::Intel), ("amd", Vendor::Amd), ("other", Vendor::Other)];

const NEVER: &str = "never";

/// The environment variable that sets lengths to start with.
pub const VARIABLE: &str = "IOVEC_RS_TUNING";

impl Tuning {
    /// What suits such a CPU.
    pub fn of(facts: &Facts) -> Self {
        let last = facts.last_cache.unwrap_or(USUAL_CACHE);
        // Source and destination share it.
        let kept = (last / 2).min(MOST_KEPT);
        let share = facts.second_cache.map_or(kept, |second| second.saturating_mul(SHARE));
        let has_small_l1 = facts.vendor == Vendor::Amd && facts.first_cache == Some(32 << 10);
        let strings_from = if has_small_l1 { STRINGS_FROM_SMALL_L1 } else { STRINGS_FROM };
        let is_intel = facts.vendor == Vendor::Intel;
        Self {
            nontemporal_from: match facts.vendor {
                Vendor::Amd => kept,
                Vendor::Intel | Vendor::Other => kept.min(share),
            },
            lines_from: if is_intel { LINE } else { WHOLE_LINES_FROM },
            ragged_from: USUAL_RAGGED_FROM,
            strings_from: if facts.fast_strings { strings_from } else { usize::MAX },
            strings_any_from: match facts.vendor {
                Vendor::Intel if facts.fast_strings => STRINGS_ANY_FROM,
                Vendor::Amd if facts.fast_strings && facts.first_cache == Some(48 << 10) => STRINGS_FROM,
                Vendor::Intel | Vendor::Amd | Vendor::Other => usize::MAX,
            },
            far_from: if is_intel { FAR_FROM } else { usize::MAX },
            durable_from: if is_intel { CLAIMED_UP_TO } else { 0 },
        }
    }

    /// What a text sets: `intel`, `amd` or `other` for the rules of that vendor, then `name=bytes` for single lengths,
    /// separated by commas. What is wrong with the text, if anything is.
    pub fn parse(text: &str, facts: &Facts) -> Result<Self, String> {
        let mut tuning = Self::of(facts);
        for (index, part) in text.split(',').enumerate() {
            let Some((name, value)) = part.split_once('=') else {
                match VENDORS.iter().find(|(name, _)| *name == part) {
                    Some((_, vendor)) if index == 0 => tuning = Self::of(&Facts { vendor: *vendor, ..*facts }),
                    Some(_) => return Err(format!("{part:?} comes first or not at all")),
                    None => return Err(format!("{part:?} is none of {} and no name=bytes", vendors())),
                }
                continue;
            };
            let Some((_, field, _)) = SETTINGS.iter().find(|(known, ..)| *known == name) else {
                return Err(format!("{name:?} is none of {}", names().collect::<Vec<_>>().join(", ")));
            };
            *field(&mut tuning) = match value {
                NEVER => usize::MAX,
                digits => digits.parse().map_err(|_| format!("{name} is {value:?}: expected bytes, or {NEVER}"))?,
            };
        }
        Ok(tuning)
    }

    /// The text that sets all of it.
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

/// What is in use.
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
    // The first tells the others that all are there.
    for (_, field, kept) in SETTINGS.iter().rev() {
        kept.store(*field(&mut tuning), Ordering::Release);
    }
}

/// Uses what a text sets from now on, in all threads, or says what is wrong with it.
pub fn choose(text: &str) -> Result<(), String> {
    Tuning::parse(text, &super::native::facts()).map(set)
}

/// What is wrong with the environment's text, if anything is.
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

/// From which length on a chunk of a copy of `nbytes` goes past the caches; `usize::MAX` if none does.
#[inline]
pub fn chunks_from(nbytes: usize) -> usize {
    let mut from = load(NONTEMPORAL_FROM);
    if from == 0 {
        detect();
        from = load(NONTEMPORAL_FROM);
    }
    if nbytes < from { usize::MAX } else { load(LINES_FROM).min(load(RAGGED_FROM)) }
}

/// Whether a chunk that [`chunks_from`] lets through goes past the caches.
#[inline]
pub fn is_streamed(dst: usize, len: usize) -> bool {
    len >= load(if (dst | len).is_multiple_of(LINE) { LINES_FROM } else { RAGGED_FROM })
}

/// From which length on one durable range is streamed.
#[inline]
pub fn durable_from() -> usize {
    if load(NONTEMPORAL_FROM) == 0 {
        detect();
    }
    load(DURABLE_FROM)
}

#[cfg(test)]
mod tests;
