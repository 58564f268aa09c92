//! The JSON as it is read: documents, their objects, and of those the fields that matter.

use crate::error::{Error, Result};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Unexpected, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// Reads all documents of a text.
pub(super) fn documents(text: &str) -> Result<Vec<Document<'_>>> {
    let read = serde_json::Deserializer::from_str(text).into_iter().collect::<std::result::Result<_, _>>();
    read.map_err(|error: serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        let message = error.to_string();
        let message = message.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&message);
        Error::Text { format: "ndctl", line, column, message: message.to_owned() }
    })
}

/// A bus, a region, a namespace, or an object with lists of these. Other fields are ignored.
#[derive(serde::Deserialize)]
pub(super) struct Object<'a> {
    #[serde(borrow)]
    pub(super) dev: Option<Cow<'a, str>>,
    pub(super) badblock_count: Option<Blocks>,
    pub(super) badblocks: Option<List<Extent>>,
    #[serde(borrow)]
    pub(super) regions: Option<List<Object<'a>>>,
    #[serde(borrow)]
    pub(super) namespaces: Option<List<Object<'a>>>,
}

/// Consecutive bad blocks.
#[derive(serde::Deserialize)]
pub(super) struct Extent {
    pub(super) offset: Blocks,
    pub(super) length: Blocks,
}

/// A number of blocks. With `--human`, ndctl prints a text instead, which is refused.
pub(super) struct Blocks(pub(super) u64);

impl<'de> Deserialize<'de> for Blocks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Blocks;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of blocks, 0 or more (list without --human)")
            }

            fn visit_u64<E>(self, value: u64) -> std::result::Result<Blocks, E> {
                Ok(Blocks(value))
            }
        }
        deserializer.deserialize_u64(Number)
    }
}

/// An array. The text decides its length, so lack of memory is an error here; with a plain `Vec`, serde would abort.
pub(super) struct List<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

struct Items<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
    type Value = List<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<List<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.try_reserve(1).map_err(|_| A::Error::custom("the list is too long for the memory there is"))?;
            list.push(item);
        }
        Ok(List(list))
    }
}

/// A whole document: one object, or a list of objects.
pub(super) enum Document<'a> {
    One(Object<'a>),
    Many(List<Object<'a>>),
}

impl<'a> Document<'a> {
    /// Its objects.
    pub(super) fn objects(&self) -> impl Iterator<Item = &Object<'a>> {
        match self {
            Self::One(object) => std::slice::from_ref(object).iter(),
            Self::Many(list) => list.0.iter(),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Document<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Top<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Top<'a> {
            type Value = Document<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or a list")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Document<'a>, A::Error> {
                Object::deserialize(MapAccessDeserializer::new(map)).map(Document::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> std::result::Result<Document<'a>, A::Error> {
                Items(PhantomData).visit_seq(items).map(Document::Many)
            }

            fn visit_unit<E: serde::de::Error>(self) -> std::result::Result<Document<'a>, E> {
                Err(E::invalid_type(Unexpected::Unit, &self))
            }
        }
        deserializer.deserialize_any(Top(PhantomData))
    }
}
