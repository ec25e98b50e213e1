//! What a frame holds many times: ids, roles and other words stand in one list, fences in another, and are meant by number.
//!
//! A launch between two nodes takes eight messages which name the same framework and agent. So each is written, checked and
//! copied once a frame.

use super::Text;
use crate::WireError;
use hashbrown::HashMap;
use muster_model::fence::Fence;
use muster_model::{AgentId, FrameworkId, IdText, NodeId, Role};
use rkyv::rend::u64_le;
use rkyv::string::ArchivedString;
use rkyv::tuple::ArchivedTuple3;
use rkyv::{Archive, Serialize};
use std::cell::OnceCell;
use std::sync::Arc;

/// The lists of a frame.
#[derive(Archive, Serialize)]
pub(crate) struct Names<'m> {
    words: Vec<Text<'m>>,
    fences: Vec<(u64, u64, u64)>,
}

/// A value, and what it means by number.
#[derive(Archive, Serialize)]
pub(crate) struct Framed<'m, W> {
    pub(crate) names: Names<'m>,
    pub(crate) value: W,
}

/// Words that are found by their last letters, without a hash of the whole: few frameworks and agents fill a frame. A power
/// of two.
const NEAR_WORDS: usize = 128;

/// The lists of a frame that is being written.
pub(crate) struct Writing<'m> {
    names: Names<'m>,
    words: HashMap<&'m str, u32>,
    near: [(&'m str, u32); NEAR_WORDS],
    fences: HashMap<Fence, u32>,
    last_fence: Option<(Fence, u32)>,
}

impl<'m> Writing<'m> {
    /// Empty lists, with room for so many words.
    pub(crate) fn with_room(words: usize) -> Self {
        Self {
            names: Names { words: Vec::with_capacity(words), fences: Vec::new() },
            words: HashMap::with_capacity(words),
            near: [("", 0); NEAR_WORDS],
            fences: HashMap::new(),
            last_fence: None,
        }
    }

    /// The number of a word, which is listed when it is new.
    pub(crate) fn word(&mut self, word: &'m str) -> u32 {
        // Ids of one kind differ at their ends.
        let place = match word.as_bytes() {
            [.., a, b, c] => (usize::from(*a) << 4) ^ (usize::from(*b) << 2) ^ usize::from(*c) ^ word.len(),
            short => short.len(),
        } % NEAR_WORDS;
        if let Some((near, number)) = self.near.get(place)
            && *near == word
            && !word.is_empty()
        {
            return *number;
        }
        let number = *self.words.entry(word).or_insert_with(|| add(&mut self.names.words, Text(word)));
        if let Some(near) = self.near.get_mut(place) {
            *near = (word, number);
        }
        number
    }

    /// The same for a fence.
    pub(crate) fn fence(&mut self, fence: Fence) -> u32 {
        if let Some((last, number)) = self.last_fence
            && last == fence
        {
            return number;
        }
        let Fence { generation, epoch, incarnation } = fence;
        let row = (generation, epoch, incarnation);
        let number = *self.fences.entry(fence).or_insert_with(|| add(&mut self.names.fences, row));
        self.last_fence = Some((fence, number));
        number
    }

    /// The lists, for the frame.
    pub(crate) fn into_names(self) -> Names<'m> {
        self.names
    }
}

/// Lists an item. Returns its number, which a frame's bound keeps far below 2^32.
pub(crate) fn add<T>(list: &mut Vec<T>, item: T) -> u32 {
    list.push(item);
    u32::try_from(list.len() - 1).unwrap_or(u32::MAX)
}

/// The lists of a frame that is being read.
pub(crate) struct Reading<'a> {
    words: Vec<Row<'a>>,
    fences: &'a [ArchivedTuple3<u64_le, u64_le, u64_le>],
}

/// A word, and what it was found to be.
pub(crate) struct Row<'a> {
    text: &'a str,
    word: OnceCell<Arc<str>>,
    id: OnceCell<IdText>,
    role: OnceCell<Role>,
    list: OnceCell<Arc<[Arc<str>]>>,
}

impl<'a> Reading<'a> {
    /// Takes the lists of a frame. A word is not checked before it is meant.
    pub(crate) fn new(names: &'a ArchivedNames<'_>) -> Self {
        let row = |text: &'a ArchivedString| Row {
            text: text.as_str(),
            word: OnceCell::new(),
            id: OnceCell::new(),
            role: OnceCell::new(),
            list: OnceCell::new(),
        };
        Self { words: names.words.iter().map(row).collect(), fences: &names.fences }
    }

    /// What a word's number means. Errors: no word has it, or it breaks the rules of what it is meant as.
    pub(crate) fn get<N: Name>(&self, number: u32) -> Result<N, WireError> {
        let row = usize::try_from(number).ok().and_then(|number| self.words.get(number));
        N::of(row.ok_or(WireError::BadValue { what: "word", why: "its number is not in the frame's list" })?)
    }

    /// The fence of a number. Errors: no fence has it.
    pub(crate) fn fence(&self, number: u32) -> Result<Fence, WireError> {
        let row = usize::try_from(number).ok().and_then(|number| self.fences.get(number));
        let row = row.ok_or(WireError::BadValue { what: "fence", why: "its number is not in the frame's list" })?;
        let (generation, epoch, incarnation) = (row.0.to_native(), row.1.to_native(), row.2.to_native());
        Ok(Fence { generation, epoch, incarnation })
    }
}

/// What is meant by a word's number.
pub(crate) trait Name: Sized {
    /// Makes it of the word, once a frame.
    fn of(row: &Row<'_>) -> Result<Self, WireError>;
}

/// What the cell holds, made and put there the first time.
fn once<T: Clone>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T, WireError>) -> Result<T, WireError> {
    match cell.get() {
        Some(value) => Ok(value.clone()),
        None => {
            let value = make()?;
            Ok(cell.get_or_init(|| value).clone())
        }
    }
}

impl Name for Arc<str> {
    fn of(row: &Row<'_>) -> Result<Self, WireError> {
        once(&row.word, || Ok(Self::from(row.text)))
    }
}

/// A list of this one word.
impl Name for Arc<[Arc<str>]> {
    fn of(row: &Row<'_>) -> Result<Self, WireError> {
        once(&row.list, || Ok(Self::from([<Arc<str>>::of(row)?])))
    }
}

impl Name for Role {
    fn of(row: &Row<'_>) -> Result<Self, WireError> {
        once(&row.role, || Ok(Self::parse(row.text)?))
    }
}

macro_rules! id_names {
    ($($name:ident),*) => { $(
        impl Name for $name {
            fn of(row: &Row<'_>) -> Result<Self, WireError> {
                once(&row.id, || Ok(IdText::parse(row.text)?)).map(Self::from)
            }
        }
    )* };
}

id_names!(AgentId, FrameworkId, NodeId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_is_listed_once_and_numbers_are_dense() {
        let mut names = Writing::with_room(1);
        let numbers = ["a-S0", "a-S1", "a-S0", "b", "a-S1"].map(|id| names.word(id));
        assert_eq!(numbers, [0, 1, 0, 2, 1]);
        let fences = [7, 8, 7].map(|epoch| names.fence(Fence { generation: 1, epoch, incarnation: 1 }));
        assert_eq!(fences, [0, 1, 0]);
        let Names { words, fences } = names.into_names();
        assert_eq!((words.len(), fences.len()), (3, 2));
    }
}
