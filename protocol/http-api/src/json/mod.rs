//! JSON as Mesos speaks it, for the generated messages: one pass in, one pass out, no tree in between.
//!
//! The rules differ from proto3's JSON: 64-bit integers are numbers, names stay in snake case, an unset optional with
//! a default in the `.proto` file is written, unknown enum names are dropped. `xtask gen` prints one [`Json`] and one
//! [`Message`] for each message; everything that does not differ between messages is here.
//! Start reading at [`decode`] and [`encode`].

mod number;
mod read;
mod scalar;
mod shape;
pub mod write;

pub use read::{Object, ReadError, Reader, decode};
pub use shape::{Holds, Label, Message, PbError, Shape, ShapeField, decode_pb};

/// A value with a JSON form by Mesos's rules: a message, or a scalar field of one.
pub trait Json: Default {
    /// Appends the value to `out`.
    fn write(&self, out: &mut Vec<u8>);
    /// Reads one value into `self`, which is a default; the reader stands before the value and it is not `null`.
    /// In place, because messages are large and nest: returning them would copy each once per level.
    ///
    /// Errors: when the text is not JSON, or a value is of a kind the field cannot take.
    fn fill(&mut self, reader: &mut Reader<'_>) -> Result<(), ReadError>;
}

/// The compact JSON text of a message.
pub fn encode<M: Json>(message: &M) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    message.write(&mut out);
    out
}

impl<T: Json> Json for Box<T> {
    fn write(&self, out: &mut Vec<u8>) {
        T::write(self, out);
    }
    fn fill(&mut self, reader: &mut Reader<'_>) -> Result<(), ReadError> {
        T::fill(self, reader)
    }
}

#[cfg(test)]
mod tests;
