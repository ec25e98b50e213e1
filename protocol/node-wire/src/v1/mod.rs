//! The shapes of version 1: mirrors of the model's values with nothing but numbers, texts and lists in them.
//!
//! Ids, roles, fences and words that come again and again are meant by their number in the frame's list, see [`name`]; ids of
//! tasks and containers, which hardly come twice in a frame, stand where they are meant. A
//! shape borrows its other texts and blobs from the value that it stands for, for the time of writing; what is read has no
//! use for the lifetime. A shape that was released never changes: what must differ goes to `v2` beside it, and nodes of
//! both versions speak the newest that both know. Variants of an enum may be added at its end only, and none that is
//! larger than those before: the recorded bytes in `tests/fixtures` then still read.

pub(crate) mod batch;
pub(crate) mod name;
pub(crate) mod node_message;
pub(crate) mod noun;
pub(crate) mod request;
pub(crate) mod resource;
pub(crate) mod status;
pub(crate) mod view;

use crate::WireError;
use name::{Reading, Writing};
use rkyv::boxed::{ArchivedBox, BoxResolver};
use rkyv::rancor::{Fallible, Source};
use rkyv::rend::{i64_le, u16_le, u32_le, u64_le};
use rkyv::ser::{Allocator, Writer};
use rkyv::string::{ArchivedString, StringResolver};
use rkyv::tuple::{ArchivedTuple2, ArchivedTuple3};
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::{Archive, Place, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A shape on the wire and the value of the model that it stands for.
pub(crate) trait Mirror<'m>: Archive + Sized {
    /// The value of the model.
    type Model: 'm;

    /// Makes the shape for a value.
    fn to_wire(value: &'m Self::Model, names: &mut Writing<'m>) -> Self;

    /// Makes a value out of checked bytes; ids and amounts are checked by the model's rules.
    fn from_wire(archived: &Self::Archived, names: &Reading<'_>) -> Result<Self::Model, WireError>;
}

/// Mirrors a struct whose fields have the same names in the model.
macro_rules! mirror_struct {
    ($name:ident, $archived:ident = $model:path { $($field:ident : $ty:ty),* $(,)? }) => {
        #[derive(rkyv::Archive, rkyv::Serialize)]
        pub(crate) struct $name { $($field: $ty),* }

        $crate::v1::mirror_struct!(@impl ['m] [$name] $archived = $model { $($field: $ty),* });
    };
    ($name:ident<$m:lifetime>, $archived:ident = $model:path { $($field:ident : $ty:ty),* $(,)? }) => {
        #[derive(rkyv::Archive, rkyv::Serialize)]
        pub(crate) struct $name<$m> { $($field: $ty),* }

        $crate::v1::mirror_struct!(@impl [$m] [$name<$m>] $archived = $model { $($field: $ty),* });
    };
    (@impl [$m:lifetime] [$name:ty] $archived:ident = $model:path { $($field:ident : $ty:ty),* }) => {
        impl<$m> $crate::v1::Mirror<$m> for $name {
            type Model = $model;

            fn to_wire(value: &$m Self::Model, names: &mut $crate::v1::name::Writing<$m>) -> Self {
                Self { $($field: <$ty as $crate::v1::Mirror<$m>>::to_wire(&value.$field, names)),* }
            }

            fn from_wire(
                archived: &Self::Archived,
                names: &$crate::v1::name::Reading<'_>,
            ) -> Result<Self::Model, $crate::WireError> {
                use $model as Model;
                Ok(Model { $($field: <$ty as $crate::v1::Mirror<$m>>::from_wire(&archived.$field, names)?),* })
            }
        }
    };
}

/// Mirrors an enum: `Unit`, `Fields { a: A }` and `One(a: A)`.
macro_rules! mirror_enum {
    ($name:ident, $archived:ident = $model:path { $($body:tt)* }) => {
        $crate::v1::mirror_enum!(@make ['m] [$name] [] $archived = $model { $($body)* });
    };
    ($name:ident<$m:lifetime>, $archived:ident = $model:path { $($body:tt)* }) => {
        $crate::v1::mirror_enum!(@make [$m] [$name] [<$m>] $archived = $model { $($body)* });
    };
    (@make [$m:lifetime] [$name:ident] [$($generics:tt)*] $archived:ident = $model:path {
        $($variant:ident $({ $($field:ident : $ty:ty),* $(,)? })? $(( $one:ident : $one_ty:ty ))?),* $(,)?
    }) => {
        #[derive(rkyv::Archive, rkyv::Serialize)]
        #[allow(clippy::large_enum_variant, reason = "a shape lives for the time of writing; large ones stand apart there")]
        pub(crate) enum $name $($generics)* { $($variant $({ $($field: $ty),* })? $(($one_ty))?),* }

        impl<$m> $crate::v1::Mirror<$m> for $name $($generics)* {
            type Model = $model;

            fn to_wire(value: &$m Self::Model, _names: &mut $crate::v1::name::Writing<$m>) -> Self {
                use $model as Model;
                match value {
                    $(Model::$variant $({ $($field),* })? $(($one))? =>
                        Self::$variant
                            $({ $($field: <$ty as $crate::v1::Mirror<$m>>::to_wire($field, _names)),* })?
                            $((<$one_ty as $crate::v1::Mirror<$m>>::to_wire($one, _names)))?),*
                }
            }

            fn from_wire(
                archived: &Self::Archived,
                _names: &$crate::v1::name::Reading<'_>,
            ) -> Result<Self::Model, $crate::WireError> {
                use $model as Model;
                Ok(match archived {
                    $($archived::$variant $({ $($field),* })? $(($one))? =>
                        Model::$variant
                            $({ $($field: <$ty as $crate::v1::Mirror<$m>>::from_wire($field, _names)?),* })?
                            $((<$one_ty as $crate::v1::Mirror<$m>>::from_wire($one, _names)?))?),*
                })
            }
        }
    };
}

/// Mirrors a newtype around a number.
macro_rules! mirror_number {
    ($($name:ident, $archived:ident = $model:path : $number:ty;)*) => { $(
        #[derive(rkyv::Archive, rkyv::Serialize)]
        pub(crate) struct $name($number);

        impl<'m> $crate::v1::Mirror<'m> for $name {
            type Model = $model;

            fn to_wire(value: &'m Self::Model, _: &mut $crate::v1::name::Writing<'m>) -> Self {
                Self(value.0)
            }

            fn from_wire(
                archived: &$archived,
                names: &$crate::v1::name::Reading<'_>,
            ) -> Result<Self::Model, $crate::WireError> {
                use $model as Model;
                Ok(Model(<$number as $crate::v1::Mirror<'m>>::from_wire(&archived.0, names)?))
            }
        }
    )* };
}

/// Mirrors an id or role, which stands in the frame's list of names; the model checks it.
macro_rules! mirror_name {
    ($($name:ident, $archived:ident = $model:path;)*) => { $(
        #[derive(rkyv::Archive, rkyv::Serialize)]
        pub(crate) struct $name(u32);

        impl<'m> $crate::v1::Mirror<'m> for $name {
            type Model = $model;

            fn to_wire(value: &'m Self::Model, names: &mut $crate::v1::name::Writing<'m>) -> Self {
                Self(names.word(value.as_str()))
            }

            fn from_wire(
                archived: &$archived,
                names: &$crate::v1::name::Reading<'_>,
            ) -> Result<Self::Model, $crate::WireError> {
                names.get(archived.0.to_native())
            }
        }
    )* };
}

/// Mirrors an id that hardly comes twice in a frame: its text stands where it is meant; the model checks it.
macro_rules! mirror_rare_name {
    ($($name:ident, $archived:ident = $model:path;)*) => { $(
        #[derive(rkyv::Archive, rkyv::Serialize)]
        pub(crate) struct $name<'m>($crate::v1::Text<'m>);

        impl<'m> $crate::v1::Mirror<'m> for $name<'m> {
            type Model = $model;

            fn to_wire(value: &'m Self::Model, _: &mut $crate::v1::name::Writing<'m>) -> Self {
                Self($crate::v1::Text(value.as_str()))
            }

            fn from_wire(
                archived: &Self::Archived,
                _: &$crate::v1::name::Reading<'_>,
            ) -> Result<Self::Model, $crate::WireError> {
                use $model as Model;
                Ok(Model::parse(archived.0.as_str())?)
            }
        }
    )* };
}

pub(crate) use {mirror_enum, mirror_name, mirror_number, mirror_rare_name, mirror_struct};

macro_rules! mirror_native {
    ($($ty:ty, $archived:ty;)*) => { $(
        impl<'m> Mirror<'m> for $ty {
            type Model = $ty;

            fn to_wire(value: &'m Self, _: &mut Writing<'m>) -> Self {
                *value
            }

            fn from_wire(archived: &$archived, _: &Reading<'_>) -> Result<Self, WireError> {
                Ok((*archived).into())
            }
        }
    )* };
}

mirror_native! {
    u8, u8;
    bool, bool;
    u16, u16_le;
    u32, u32_le;
    u64, u64_le;
    i64, i64_le;
    [u8; 16], [u8; 16];
}

/// A text of the model.
pub(crate) struct Text<'m>(pub(crate) &'m str);

impl Archive for Text<'_> {
    type Archived = ArchivedString;
    type Resolver = StringResolver;

    fn resolve(&self, resolver: Self::Resolver, out: Place<Self::Archived>) {
        ArchivedString::resolve_from_str(self.0, resolver, out);
    }
}

impl<S> Serialize<S> for Text<'_>
where
    S: Fallible<Error: Source> + Writer + ?Sized,
{
    fn serialize(&self, serializer: &mut S) -> Result<Self::Resolver, S::Error> {
        ArchivedString::serialize_from_str(self.0, serializer)
    }
}

impl<'m> Mirror<'m> for Text<'m> {
    type Model = Arc<str>;

    fn to_wire(value: &'m Arc<str>, _: &mut Writing<'m>) -> Self {
        Self(value)
    }

    fn from_wire(archived: &ArchivedString, _: &Reading<'_>) -> Result<Arc<str>, WireError> {
        Ok(Arc::from(archived.as_str()))
    }
}

/// A text that comes again and again.
#[derive(Archive, Serialize)]
pub(crate) struct Word(u32);

impl<'m> Mirror<'m> for Word {
    type Model = Arc<str>;

    fn to_wire(value: &'m Arc<str>, names: &mut Writing<'m>) -> Self {
        Self(names.word(value))
    }

    fn from_wire(archived: &ArchivedWord, names: &Reading<'_>) -> Result<Arc<str>, WireError> {
        names.get(archived.0.to_native())
    }
}

/// Bytes of the model.
pub(crate) struct Bytes<'m>(&'m [u8]);

impl Archive for Bytes<'_> {
    type Archived = ArchivedVec<u8>;
    type Resolver = VecResolver;

    fn resolve(&self, resolver: Self::Resolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_slice(self.0, resolver, out);
    }
}

impl<S> Serialize<S> for Bytes<'_>
where
    S: Fallible + Allocator + Writer + ?Sized,
{
    fn serialize(&self, serializer: &mut S) -> Result<Self::Resolver, S::Error> {
        ArchivedVec::serialize_from_slice(self.0, serializer)
    }
}

/// Bytes that the model shares.
#[derive(Archive, Serialize)]
pub(crate) struct Blob<'m>(Bytes<'m>);

impl<'m> Mirror<'m> for Blob<'m> {
    type Model = Arc<[u8]>;

    fn to_wire(value: &'m Self::Model, _: &mut Writing<'m>) -> Self {
        Self(Bytes(value))
    }

    fn from_wire(archived: &Self::Archived, _: &Reading<'_>) -> Result<Self::Model, WireError> {
        Ok(Arc::from(archived.0.as_slice()))
    }
}

/// Bytes that one message owns.
#[derive(Archive, Serialize)]
pub(crate) struct Data<'m>(Bytes<'m>);

impl<'m> Mirror<'m> for Data<'m> {
    type Model = Vec<u8>;

    fn to_wire(value: &'m Self::Model, _: &mut Writing<'m>) -> Self {
        Self(Bytes(value))
    }

    fn from_wire(archived: &Self::Archived, _: &Reading<'_>) -> Result<Self::Model, WireError> {
        Ok(archived.0.as_slice().to_vec())
    }
}

impl<'m, T: Mirror<'m>> Mirror<'m> for Vec<T> {
    type Model = Vec<T::Model>;

    fn to_wire(value: &'m Self::Model, names: &mut Writing<'m>) -> Self {
        value.iter().map(|item| T::to_wire(item, names)).collect()
    }

    fn from_wire(archived: &ArchivedVec<T::Archived>, names: &Reading<'_>) -> Result<Self::Model, WireError> {
        // Not collected as results: such an iterator does not tell its length, and the list would grow by copying.
        let mut items = Vec::with_capacity(archived.len());
        for item in archived.iter() {
            items.push(T::from_wire(item, names)?);
        }
        Ok(items)
    }
}

/// A list that the model shares.
#[derive(Archive, Serialize)]
pub(crate) struct Several<T>(Vec<T>);

impl<'m, T: Mirror<'m>> Mirror<'m> for Several<T> {
    type Model = Arc<[T::Model]>;

    fn to_wire(value: &'m Self::Model, names: &mut Writing<'m>) -> Self {
        Self(value.iter().map(|item| T::to_wire(item, names)).collect())
    }

    fn from_wire(archived: &ArchivedSeveral<T>, names: &Reading<'_>) -> Result<Self::Model, WireError> {
        Vec::<T>::from_wire(&archived.0, names).map(Arc::from)
    }
}

impl<'m, T: Mirror<'m>> Mirror<'m> for Option<T> {
    type Model = Option<T::Model>;

    fn to_wire(value: &'m Self::Model, names: &mut Writing<'m>) -> Self {
        value.as_ref().map(|item| T::to_wire(item, names))
    }

    fn from_wire(archived: &Self::Archived, names: &Reading<'_>) -> Result<Self::Model, WireError> {
        archived.as_ref().map(|item| T::from_wire(item, names)).transpose()
    }
}

impl<'m, A: Mirror<'m>, B: Mirror<'m>> Mirror<'m> for (A, B) {
    type Model = (A::Model, B::Model);

    fn to_wire(value: &'m Self::Model, names: &mut Writing<'m>) -> Self {
        (A::to_wire(&value.0, names), B::to_wire(&value.1, names))
    }

    fn from_wire(
        archived: &ArchivedTuple2<A::Archived, B::Archived>,
        names: &Reading<'_>,
    ) -> Result<Self::Model, WireError> {
        Ok((A::from_wire(&archived.0, names)?, B::from_wire(&archived.1, names)?))
    }
}

impl<'m, A: Mirror<'m>, B: Mirror<'m>, C: Mirror<'m>> Mirror<'m> for (A, B, C) {
    type Model = (A::Model, B::Model, C::Model);

    fn to_wire(value: &'m Self::Model, names: &mut Writing<'m>) -> Self {
        (A::to_wire(&value.0, names), B::to_wire(&value.1, names), C::to_wire(&value.2, names))
    }

    fn from_wire(
        archived: &ArchivedTuple3<A::Archived, B::Archived, C::Archived>,
        names: &Reading<'_>,
    ) -> Result<Self::Model, WireError> {
        Ok((A::from_wire(&archived.0, names)?, B::from_wire(&archived.1, names)?, C::from_wire(&archived.2, names)?))
    }
}

/// A value that the model shares.
#[derive(Archive, Serialize)]
pub(crate) struct Shared<T>(T);

impl<'m, T: Mirror<'m>> Mirror<'m> for Shared<T> {
    type Model = Arc<T::Model>;

    fn to_wire(value: &'m Self::Model, names: &mut Writing<'m>) -> Self {
        Self(T::to_wire(value, names))
    }

    fn from_wire(archived: &ArchivedShared<T>, names: &Reading<'_>) -> Result<Self::Model, WireError> {
        T::from_wire(&archived.0, names).map(Arc::new)
    }
}

/// A value that a message owns in a box, so that the enum around it stays small.
#[derive(Archive, Serialize)]
pub(crate) struct Boxed<T>(T);

impl<'m, T: Mirror<'m>> Mirror<'m> for Boxed<T> {
    type Model = Box<T::Model>;

    fn to_wire(value: &'m Self::Model, names: &mut Writing<'m>) -> Self {
        Self(T::to_wire(value, names))
    }

    fn from_wire(archived: &ArchivedBoxed<T>, names: &Reading<'_>) -> Result<Self::Model, WireError> {
        T::from_wire(&archived.0, names).map(Box::new)
    }
}

/// A value whose bytes stand elsewhere in the frame, so that a list of enums does not pay for its largest variant.
pub(crate) struct Apart<T>(T);

impl<T: Archive> Archive for Apart<T> {
    type Archived = ArchivedBox<T::Archived>;
    type Resolver = BoxResolver;

    fn resolve(&self, resolver: Self::Resolver, out: Place<Self::Archived>) {
        ArchivedBox::resolve_from_ref(&self.0, resolver, out);
    }
}

impl<T, S> Serialize<S> for Apart<T>
where
    T: Serialize<S>,
    S: Fallible + Writer + ?Sized,
{
    fn serialize(&self, serializer: &mut S) -> Result<Self::Resolver, S::Error> {
        ArchivedBox::serialize_from_ref(&self.0, serializer)
    }
}

impl<'m, T: Mirror<'m>> Mirror<'m> for Apart<T> {
    type Model = T::Model;

    fn to_wire(value: &'m Self::Model, names: &mut Writing<'m>) -> Self {
        Self(T::to_wire(value, names))
    }

    fn from_wire(archived: &ArchivedBox<T::Archived>, names: &Reading<'_>) -> Result<Self::Model, WireError> {
        T::from_wire(archived.get(), names)
    }
}

/// A map, in order of its keys; a key that comes twice is refused.
#[derive(Archive, Serialize)]
pub(crate) struct Map<K, V>(Vec<(K, V)>);

impl<'m, K: Mirror<'m>, V: Mirror<'m>> Mirror<'m> for Map<K, V>
where
    K::Model: Ord,
{
    type Model = BTreeMap<K::Model, V::Model>;

    fn to_wire(value: &'m Self::Model, names: &mut Writing<'m>) -> Self {
        Self(value.iter().map(|(key, value)| (K::to_wire(key, names), V::to_wire(value, names))).collect())
    }

    fn from_wire(archived: &ArchivedMap<K, V>, names: &Reading<'_>) -> Result<Self::Model, WireError> {
        let mut map = BTreeMap::new();
        for entry in archived.0.iter() {
            if map.insert(K::from_wire(&entry.0, names)?, V::from_wire(&entry.1, names)?).is_some() {
                return Err(WireError::BadValue { what: "map", why: "a key stands there twice" });
            }
        }
        Ok(map)
    }
}

/// A set, in order; an item that comes twice is refused.
#[derive(Archive, Serialize)]
pub(crate) struct Set<T>(Vec<T>);

impl<'m, T: Mirror<'m>> Mirror<'m> for Set<T>
where
    T::Model: Ord,
{
    type Model = BTreeSet<T::Model>;

    fn to_wire(value: &'m Self::Model, names: &mut Writing<'m>) -> Self {
        Self(value.iter().map(|item| T::to_wire(item, names)).collect())
    }

    fn from_wire(archived: &ArchivedSet<T>, names: &Reading<'_>) -> Result<Self::Model, WireError> {
        let set: BTreeSet<_> = archived.0.iter().map(|item| T::from_wire(item, names)).collect::<Result<_, _>>()?;
        if set.len() != archived.0.len() {
            return Err(WireError::BadValue { what: "set", why: "an item stands there twice" });
        }
        Ok(set)
    }
}
