//! The shapes of version 1: mirrors of the model's values with nothing but numbers, texts and lists in them.
//!
//! A shape borrows its texts and blobs from the value that it stands for, for the time of writing; what is read has no
//! use for the lifetime. A shape that was released never changes: what must differ goes to `v2` beside it, and nodes of
//! both versions speak the newest that both know. Variants of an enum may be added at its end only, and none that is
//! larger than those before: the recorded bytes in `tests/fixtures` then still read.

pub(crate) mod node_message;
pub(crate) mod noun;
pub(crate) mod request;
pub(crate) mod resource;
pub(crate) mod status;
pub(crate) mod view;

use crate::WireError;
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
    fn to_wire(value: &'m Self::Model) -> Self;

    /// Makes a value out of checked bytes; ids and amounts are checked by the model's rules.
    fn from_wire(archived: &Self::Archived) -> Result<Self::Model, WireError>;
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

            fn to_wire(value: &$m Self::Model) -> Self {
                Self { $($field: <$ty as $crate::v1::Mirror<$m>>::to_wire(&value.$field)),* }
            }

            fn from_wire(archived: &Self::Archived) -> Result<Self::Model, $crate::WireError> {
                use $model as Model;
                Ok(Model { $($field: <$ty as $crate::v1::Mirror<$m>>::from_wire(&archived.$field)?),* })
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
        pub(crate) enum $name $($generics)* { $($variant $({ $($field: $ty),* })? $(($one_ty))?),* }

        impl<$m> $crate::v1::Mirror<$m> for $name $($generics)* {
            type Model = $model;

            fn to_wire(value: &$m Self::Model) -> Self {
                use $model as Model;
                match value {
                    $(Model::$variant $({ $($field),* })? $(($one))? =>
                        Self::$variant
                            $({ $($field: <$ty as $crate::v1::Mirror<$m>>::to_wire($field)),* })?
                            $((<$one_ty as $crate::v1::Mirror<$m>>::to_wire($one)))?),*
                }
            }

            fn from_wire(archived: &Self::Archived) -> Result<Self::Model, $crate::WireError> {
                use $model as Model;
                Ok(match archived {
                    $($archived::$variant $({ $($field),* })? $(($one))? =>
                        Model::$variant
                            $({ $($field: <$ty as $crate::v1::Mirror<$m>>::from_wire($field)?),* })?
                            $((<$one_ty as $crate::v1::Mirror<$m>>::from_wire($one)?))?),*
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

            fn to_wire(value: &'m Self::Model) -> Self {
                Self(value.0)
            }

            fn from_wire(archived: &$archived) -> Result<Self::Model, $crate::WireError> {
                use $model as Model;
                Ok(Model(<$number as $crate::v1::Mirror<'m>>::from_wire(&archived.0)?))
            }
        }
    )* };
}

/// Mirrors an id, which the model checks.
macro_rules! mirror_id {
    ($($name:ident = $model:path;)*) => { $(
        #[derive(rkyv::Archive, rkyv::Serialize)]
        pub(crate) struct $name<'m>($crate::v1::Text<'m>);

        impl<'m> $crate::v1::Mirror<'m> for $name<'m> {
            type Model = $model;

            fn to_wire(value: &'m Self::Model) -> Self {
                Self($crate::v1::Text(value.as_str()))
            }

            fn from_wire(archived: &Self::Archived) -> Result<Self::Model, $crate::WireError> {
                use $model as Model;
                Ok(Model::parse(archived.0.as_str())?)
            }
        }
    )* };
}

pub(crate) use {mirror_enum, mirror_id, mirror_number, mirror_struct};

macro_rules! mirror_native {
    ($($ty:ty, $archived:ty;)*) => { $(
        impl<'m> Mirror<'m> for $ty {
            type Model = $ty;

            fn to_wire(value: &'m Self) -> Self {
                *value
            }

            fn from_wire(archived: &$archived) -> Result<Self, WireError> {
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

    fn to_wire(value: &'m Arc<str>) -> Self {
        Self(value)
    }

    fn from_wire(archived: &ArchivedString) -> Result<Arc<str>, WireError> {
        Ok(Arc::from(archived.as_str()))
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

    fn to_wire(value: &'m Self::Model) -> Self {
        Self(Bytes(value))
    }

    fn from_wire(archived: &Self::Archived) -> Result<Self::Model, WireError> {
        Ok(Arc::from(archived.0.as_slice()))
    }
}

/// Bytes that one message owns.
#[derive(Archive, Serialize)]
pub(crate) struct Data<'m>(Bytes<'m>);

impl<'m> Mirror<'m> for Data<'m> {
    type Model = Vec<u8>;

    fn to_wire(value: &'m Self::Model) -> Self {
        Self(Bytes(value))
    }

    fn from_wire(archived: &Self::Archived) -> Result<Self::Model, WireError> {
        Ok(archived.0.as_slice().to_vec())
    }
}

impl<'m, T: Mirror<'m>> Mirror<'m> for Vec<T> {
    type Model = Vec<T::Model>;

    fn to_wire(value: &'m Self::Model) -> Self {
        value.iter().map(T::to_wire).collect()
    }

    fn from_wire(archived: &ArchivedVec<T::Archived>) -> Result<Self::Model, WireError> {
        archived.iter().map(T::from_wire).collect()
    }
}

impl<'m, T: Mirror<'m>> Mirror<'m> for Option<T> {
    type Model = Option<T::Model>;

    fn to_wire(value: &'m Self::Model) -> Self {
        value.as_ref().map(T::to_wire)
    }

    fn from_wire(archived: &Self::Archived) -> Result<Self::Model, WireError> {
        archived.as_ref().map(T::from_wire).transpose()
    }
}

impl<'m, A: Mirror<'m>, B: Mirror<'m>> Mirror<'m> for (A, B) {
    type Model = (A::Model, B::Model);

    fn to_wire(value: &'m Self::Model) -> Self {
        (A::to_wire(&value.0), B::to_wire(&value.1))
    }

    fn from_wire(archived: &ArchivedTuple2<A::Archived, B::Archived>) -> Result<Self::Model, WireError> {
        Ok((A::from_wire(&archived.0)?, B::from_wire(&archived.1)?))
    }
}

impl<'m, A: Mirror<'m>, B: Mirror<'m>, C: Mirror<'m>> Mirror<'m> for (A, B, C) {
    type Model = (A::Model, B::Model, C::Model);

    fn to_wire(value: &'m Self::Model) -> Self {
        (A::to_wire(&value.0), B::to_wire(&value.1), C::to_wire(&value.2))
    }

    fn from_wire(archived: &ArchivedTuple3<A::Archived, B::Archived, C::Archived>) -> Result<Self::Model, WireError> {
        Ok((A::from_wire(&archived.0)?, B::from_wire(&archived.1)?, C::from_wire(&archived.2)?))
    }
}

/// A value that the model shares.
#[derive(Archive, Serialize)]
pub(crate) struct Shared<T>(T);

impl<'m, T: Mirror<'m>> Mirror<'m> for Shared<T> {
    type Model = Arc<T::Model>;

    fn to_wire(value: &'m Self::Model) -> Self {
        Self(T::to_wire(value))
    }

    fn from_wire(archived: &ArchivedShared<T>) -> Result<Self::Model, WireError> {
        T::from_wire(&archived.0).map(Arc::new)
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

    fn to_wire(value: &'m Self::Model) -> Self {
        Self(value.iter().map(|(key, value)| (K::to_wire(key), V::to_wire(value))).collect())
    }

    fn from_wire(archived: &ArchivedMap<K, V>) -> Result<Self::Model, WireError> {
        let mut map = BTreeMap::new();
        for entry in archived.0.iter() {
            if map.insert(K::from_wire(&entry.0)?, V::from_wire(&entry.1)?).is_some() {
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

    fn to_wire(value: &'m Self::Model) -> Self {
        Self(value.iter().map(T::to_wire).collect())
    }

    fn from_wire(archived: &ArchivedSet<T>) -> Result<Self::Model, WireError> {
        let set: BTreeSet<_> = archived.0.iter().map(T::from_wire).collect::<Result<_, _>>()?;
        if set.len() != archived.0.len() {
            return Err(WireError::BadValue { what: "set", why: "an item stands there twice" });
        }
        Ok(set)
    }
}
