//! The JSON of `ndctl list -N -M`: an object, an array of objects, or several such documents in a row, one for each
//! bus.
//!
//! The blocks of a region count from the region's start, those of a namespace from its own, so the two are never
//! combined. Without a name, a map has the blocks of all namespaces; the blocks of a region are used only if it is
//! named.

mod json;

use crate::error::{Error, Result, try_push};
use crate::fault::map::{Access, FaultMap};
use json::{Document, Extent, List, Object};
use std::fmt;

/// The size, in bytes, of the blocks that ndctl counts in. It does not depend on the sector size of the namespace.
const BLOCK: u128 = 512;

/// Makes a map of the bad blocks of the namespace or region of that name, or of every namespace, with `base` added to
/// their addresses. It is incomplete if the JSON counts more blocks than it lists.
pub fn parse(text: &str, base: usize, name: Option<&str>) -> Result<FaultMap> {
    let mut map = FaultMap::new();
    let documents = json::documents(text)?;
    let mut places = Vec::new();
    for object in documents.iter().flat_map(Document::objects) {
        object.collect(&mut places)?;
    }
    if places.is_empty() && documents.iter().any(|document| document.objects().next().is_some()) {
        return Err(refused("a list without a namespace or a region", "the output of ndctl list -N -M"));
    }
    for place in chosen(&places, name)? {
        place.add_to(&mut map, base)?;
    }
    Ok(map)
}

/// How many places an error names.
const NAMED: usize = 20;

/// Which of the listed namespaces and regions to use.
fn chosen<'p, 't>(places: &[&'p Object<'t>], name: Option<&str>) -> Result<Vec<&'p Object<'t>>> {
    let mut found = Vec::new();
    for place in places {
        if name.map_or(place.is_namespace(), |name| place.dev() == name) {
            try_push(&mut found, *place)?;
        }
    }
    if let Some(name) = name
        && found.is_empty()
    {
        let known: Vec<_> = places.iter().take(NAMED).map(|place| place.dev()).collect();
        let more = if places.len() > NAMED { ", and others" } else { "" };
        let known = if known.is_empty() { "none at all".to_owned() } else { known.join(", ") + more };
        return Err(Error::invalid("namespace", format!("{name:?}"), format!("one of those listed: {known}")));
    }
    let alone = |place: &&&Object<'_>| !place.is_namespace() && place.namespaces.is_none() && place.count() != 0;
    match places.iter().find(alone) {
        Some(region) if name.is_none() => {
            let value = format!("a list of {} without its namespaces", region.dev());
            Err(refused(value, format!("the output of ndctl list -N -M, or namespace={:?}", region.dev())))
        }
        _ => Ok(found),
    }
}

fn refused(value: impl fmt::Display, expected: impl Into<String>) -> Error {
    Error::invalid("source", value, expected)
}

impl<'a> Object<'a> {
    fn dev(&self) -> &str {
        self.dev.as_deref().unwrap_or_default()
    }

    fn is_namespace(&self) -> bool {
        self.dev().starts_with("namespace")
    }

    /// The number of bad blocks: the count that the JSON gives, or the number that it lists, if that is more.
    fn count(&self) -> u128 {
        self.badblock_count.as_ref().map_or(0, |count| u128::from(count.0)).max(self.listed())
    }

    /// The number of blocks in its list.
    fn listed(&self) -> u128 {
        self.badblocks.iter().flat_map(|list| &list.0).map(|extent| u128::from(extent.length.0)).sum()
    }

    /// Appends the namespaces and regions in it.
    fn collect<'o>(&'o self, places: &mut Vec<&'o Object<'a>>) -> Result<()> {
        if self.dev.is_none() && self.regions.is_none() && self.namespaces.is_none() {
            return Err(refused("an object without a dev", "the output of ndctl list -N -M"));
        }
        if self.is_namespace() || self.dev().starts_with("region") {
            places.try_reserve(1).map_err(|_| Error::NoMemory(size_of::<&Object<'_>>()))?;
            places.push(self);
        }
        let inside = self.regions.iter().chain(&self.namespaces);
        inside.flat_map(|list| &list.0).try_for_each(|object| object.collect(places))
    }

    fn add_to(&self, map: &mut FaultMap, base: usize) -> Result<()> {
        let (dev, count) = (self.dev(), self.count());
        let Some(List(extents)) = &self.badblocks else {
            if count == 0 {
                return Ok(());
            }
            let value = format!("a list of {dev} that has {count} bad blocks, but not which");
            return Err(refused(value, "the output of ndctl list -N -M, of a namespace that is not in sector mode"));
        };
        for Extent { offset, length } in extents {
            let start = u128::from(offset.0) * BLOCK + base as u128;
            let added =
                usize::try_from(start).ok().map(|start| map.add(start, u128::from(length.0) * BLOCK, Access::Read));
            if !matches!(added, Some(Ok(()))) {
                let value = format!("a list of {dev} with {} blocks from {} on", length.0, offset.0);
                return Err(refused(value, "blocks that end before 2**64 bytes"));
            }
        }
        if count > self.listed() {
            map.set_incomplete();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    const NAMESPACE: &str = r#"{"dev": "namespace1.0", "mode": "raw", "badblock_count": 3,
        "badblocks": [{"offset": 8, "length": 2, "dimms": ["nmem0"]}, {"offset": 20, "length": 1}]}"#;

    fn listed(text: &str, name: Option<&str>) -> Vec<(usize, u128)> {
        parse(text, 0, name).unwrap().iter().map(|range| (range.start / 512, range.length() / 512)).collect()
    }

    #[test]
    fn a_region_and_its_namespace_are_two_ways_of_counting() {
        let region = format!(
            r#"[{{"dev": "region1", "badblocks": [{{"offset": 100, "length": 3}}], "namespaces": [{NAMESPACE}]}}]"#
        );
        assert_eq!(listed(&region, None), [(8, 2), (20, 1)]);
        assert_eq!(listed(&region, Some("namespace1.0")), [(8, 2), (20, 1)]);
        assert_eq!(listed(&region, Some("region1")), [(100, 3)]);
        let alone = r#"{"dev": "region1", "badblocks": [{"offset": 100, "length": 3}]}"#;
        assert!(parse(alone, 0, None).is_err());
        assert_eq!(listed(alone, Some("region1")), [(100, 3)]);
        assert_eq!(listed(r#"{"dev": "region1", "size": 5}"#, None), []);
    }

    #[test]
    fn more_counted_than_listed_is_incomplete() {
        assert!(!parse(NAMESPACE, 0, None).unwrap().is_incomplete());
        assert!(parse(&NAMESPACE.replace("\": 3", "\": 4"), 0, None).unwrap().is_incomplete());
    }

    #[test]
    fn a_number_that_is_none_of_blocks_is_told_in_words() {
        for wrong in ["-1", "1.5", "\"2 KiB\"", "[]", "true", "18446744073709551616"] {
            for text in [
                format!(r#"{{"dev": "namespace0.0", "badblock_count": {wrong}}}"#),
                format!(r#"{{"dev": "namespace0.0", "badblocks": [{{"offset": {wrong}, "length": 1}}]}}"#),
                format!(r#"{{"dev": "namespace0.0", "badblocks": [{{"offset": 1, "length": {wrong}}}]}}"#),
            ] {
                let refused = parse(&text, 0, None).unwrap_err().to_string();
                assert!(
                    refused.ends_with("expected a whole number of blocks, 0 or more (list without --human)"),
                    "{refused}"
                );
            }
        }
    }

    #[test]
    fn the_end_of_all_bytes_is_the_limit() {
        let at = |offset: u64, base| {
            let text = format!(r#"{{"dev": "namespace0.0", "badblocks": [{{"offset": {offset}, "length": 1}}]}}"#);
            parse(&text, base, None)
        };
        assert!(at((1 << 55) - 1, 0).is_ok());
        assert!(at((1 << 55) - 1, 1).is_err());
        assert!(at(1 << 55, 0).is_err());
        assert!(at(u64::MAX, usize::MAX).is_err());
    }
}
