//! Attributes of an agent: facts that frameworks place by, such as a rack's name.

use crate::resource::Ranges;
use alloc::sync::Arc;

/// One attribute. Names may repeat; the first of a name counts in constraints.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Attribute {
    /// Its name.
    pub name: Arc<str>,
    /// Its value.
    pub value: AttributeValue,
}

/// The value of an attribute; sets are not supported, as in Mesos.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AttributeValue {
    /// A number in thousandths; may be negative.
    Scalar(i64),
    /// Integer ranges.
    Ranges(Ranges),
    /// Text.
    Text(Arc<str>),
}
