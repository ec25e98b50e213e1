//! The shapes of version 1: mirrors of the model's values with nothing but numbers, texts and lists in them.
//!
//! A shape that was released never changes: its bytes stand in journals. What must differ goes to `v2` beside it.
//! Variants of an enum may be added at its end only, and none that is larger than those before: the recorded bytes in
//! `tests/fixtures` then still read.

pub(crate) mod journal;
pub(crate) mod message;
pub(crate) mod noun;
pub(crate) mod resource;
pub(crate) mod status;

use crate::WireError;
use rkyv::rend::{i64_le, u16_le, u32_le, u64_le};
use rkyv::string::ArchivedString;
use rkyv::tuple::ArchivedTuple2;
use rkyv::vec::ArchivedVec;
use rkyv::{Archive, Serialize};
use std::sync::Arc;

/// A shape on the wire and the value of the model that it stands for.
pub(crate) trait Mirror: Archive + Sized {
    /// The value of the model.
    type Model;

    /// Makes the shape for a value.
    fn to_wire(value: &Self::Model) -> Self;

    /// Makes a value out of checked bytes; ids and amounts are checked by the model's rules.
    fn from_wire(archived: &Self::Archived) -> Result<Self::Model, WireError>;
}

/// Mirrors a struct whose fields have the same names in the model.
macro_rules! mirror_struct {
    ($name:ident, $archived:ident = $model:path { $($field:ident : $ty:ty),* $(,)? }) => {
        #[derive(rkyv::Archive, rkyv::Serialize)]
        pub(crate) struct $name { $($field: $ty),* }

        impl crate::v1::Mirror for $name {
            type Model = $model;

            fn to_wire(value: &Self::Model) -> Self {
                Self { $($field: <$ty as crate::v1::Mirror>::to_wire(&value.$field)),* }
            }

            fn from_wire(archived: &$archived) -> Result<Self::Model, crate::WireError> {
                use $model as Model;
                Ok(Model { $($field: <$ty as crate::v1::Mirror>::from_wire(&archived.$field)?),* })
            }
        }
    };
}

/// Mirrors an enum: `Unit`, `Fields { a: A }` and `One(a: A)`.
macro_rules! mirror_enum {
    ($name:ident, $archived:ident = $model:path {
        $($variant:ident $({ $($field:ident : $ty:ty),* $(,)? })? $(( $one:ident : $one_ty:ty ))?),* $(,)?
    }) => {
        #[derive(rkyv::Archive, rkyv::Serialize)]
        pub(crate) enum $name { $($variant $({ $($field: $ty),* })? $(($one_ty))?),* }

        impl crate::v1::Mirror for $name {
            type Model = $model;

            fn to_wire(value: &Self::Model) -> Self {
                use $model as Model;
                match value {
                    $(Model::$variant $({ $($field),* })? $(($one))? =>
                        Self::$variant
                            $({ $($field: <$ty as crate::v1::Mirror>::to_wire($field)),* })?
                            $((<$one_ty as crate::v1::Mirror>::to_wire($one)))?),*
                }
            }

            fn from_wire(archived: &$archived) -> Result<Self::Model, crate::WireError> {
                use $model as Model;
                Ok(match archived {
                    $($archived::$variant $({ $($field),* })? $(($one))? =>
                        Model::$variant
                            $({ $($field: <$ty as crate::v1::Mirror>::from_wire($field)?),* })?
                            $((<$one_ty as crate::v1::Mirror>::from_wire($one)?))?),*
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

        impl crate::v1::Mirror for $name {
            type Model = $model;

            fn to_wire(value: &Self::Model) -> Self {
                Self(value.0)
            }

            fn from_wire(archived: &$archived) -> Result<Self::Model, crate::WireError> {
                use $model as Model;
                Ok(Model(<$number as crate::v1::Mirror>::from_wire(&archived.0)?))
            }
        }
    )* };
}

/// Mirrors an id, which the model checks.
macro_rules! mirror_id {
    ($($name:ident, $archived:ident = $model:path;)*) => { $(
        #[derive(rkyv::Archive, rkyv::Serialize)]
        pub(crate) struct $name(String);

        impl crate::v1::Mirror for $name {
            type Model = $model;

            fn to_wire(value: &Self::Model) -> Self {
                Self(value.as_str().to_owned())
            }

            fn from_wire(archived: &$archived) -> Result<Self::Model, crate::WireError> {
                use $model as Model;
                Ok(Model::parse(archived.0.as_str())?)
            }
        }
    )* };
}

pub(crate) use {mirror_enum, mirror_id, mirror_number, mirror_struct};

macro_rules! mirror_native {
    ($($ty:ty, $archived:ty;)*) => { $(
        impl Mirror for $ty {
            type Model = $ty;

            fn to_wire(value: &Self) -> Self {
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

impl Mirror for String {
    type Model = Arc<str>;

    fn to_wire(value: &Arc<str>) -> Self {
        value.as_ref().to_owned()
    }

    fn from_wire(archived: &ArchivedString) -> Result<Arc<str>, WireError> {
        Ok(Arc::from(archived.as_str()))
    }
}

impl<T: Mirror> Mirror for Vec<T> {
    type Model = Vec<T::Model>;

    fn to_wire(value: &Self::Model) -> Self {
        value.iter().map(T::to_wire).collect()
    }

    fn from_wire(archived: &ArchivedVec<T::Archived>) -> Result<Self::Model, WireError> {
        archived.iter().map(T::from_wire).collect()
    }
}

/// A list that the model shares.
#[derive(Archive, Serialize)]
pub(crate) struct Several<T>(Vec<T>);

impl<T: Mirror> Mirror for Several<T> {
    type Model = Arc<[T::Model]>;

    fn to_wire(value: &Self::Model) -> Self {
        Self(value.iter().map(T::to_wire).collect())
    }

    fn from_wire(archived: &ArchivedSeveral<T>) -> Result<Self::Model, WireError> {
        archived.0.iter().map(T::from_wire).collect()
    }
}

impl<T: Mirror> Mirror for Option<T> {
    type Model = Option<T::Model>;

    fn to_wire(value: &Self::Model) -> Self {
        value.as_ref().map(T::to_wire)
    }

    fn from_wire(archived: &Self::Archived) -> Result<Self::Model, WireError> {
        archived.as_ref().map(T::from_wire).transpose()
    }
}

impl<A: Mirror, B: Mirror> Mirror for (A, B) {
    type Model = (A::Model, B::Model);

    fn to_wire(value: &Self::Model) -> Self {
        (A::to_wire(&value.0), B::to_wire(&value.1))
    }

    fn from_wire(archived: &ArchivedTuple2<A::Archived, B::Archived>) -> Result<Self::Model, WireError> {
        Ok((A::from_wire(&archived.0)?, B::from_wire(&archived.1)?))
    }
}

/// A value that the model shares.
#[derive(Archive, Serialize)]
pub(crate) struct Shared<T>(T);

impl<T: Mirror> Mirror for Shared<T> {
    type Model = Arc<T::Model>;

    fn to_wire(value: &Self::Model) -> Self {
        Self(T::to_wire(value))
    }

    fn from_wire(archived: &ArchivedShared<T>) -> Result<Self::Model, WireError> {
        T::from_wire(&archived.0).map(Arc::new)
    }
}

/// Bytes that the model shares.
#[derive(Archive, Serialize)]
pub(crate) struct Blob(Vec<u8>);

impl Mirror for Blob {
    type Model = Arc<[u8]>;

    fn to_wire(value: &Self::Model) -> Self {
        Self(value.to_vec())
    }

    fn from_wire(archived: &ArchivedBlob) -> Result<Self::Model, WireError> {
        Ok(Arc::from(archived.0.as_slice()))
    }
}

/// Bytes that one message owns.
#[derive(Archive, Serialize)]
pub(crate) struct Data(Vec<u8>);

impl Mirror for Data {
    type Model = Vec<u8>;

    fn to_wire(value: &Self::Model) -> Self {
        Self(value.clone())
    }

    fn from_wire(archived: &ArchivedData) -> Result<Self::Model, WireError> {
        Ok(archived.0.as_slice().to_vec())
    }
}
