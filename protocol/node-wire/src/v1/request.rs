//! Greetings, requests and heads of passed-on answers, version 1. The greeting stays as it is in every version.

use super::name::{Reading, Writing};
use super::noun::{NodeId, Uuid};
use super::{Data, Mirror, Text, mirror_enum, mirror_struct};
use crate::WireError;
use crate::limits::HTTP_HEADERS_MAX;
use rkyv::{Archive, Serialize};
use std::sync::Arc;

mirror_struct!(VersionRange, ArchivedVersionRange = crate::message::VersionRange { oldest: u8, newest: u8 });

mirror_struct!(NodeHello<'m>, ArchivedNodeHello = crate::message::NodeHello {
    versions: VersionRange,
    cluster_id: Uuid,
    node: NodeId,
    incarnation: u64,
    http: Text<'m>,
    quic: Text<'m>,
});

mirror_enum!(Greeting<'m>, ArchivedGreeting = crate::message::Greeting {
    Hello(hello: NodeHello<'m>),
    Refused { why: Text<'m> },
});

/// Headers in order, not too many.
#[derive(Archive, Serialize)]
pub(crate) struct Headers<'m>(Vec<(Text<'m>, Data<'m>)>);

impl<'m> Mirror<'m> for Headers<'m> {
    type Model = Vec<(Arc<str>, Vec<u8>)>;

    fn to_wire(value: &'m Self::Model, names: &mut Writing<'m>) -> Self {
        Self(Mirror::to_wire(value, names))
    }

    fn from_wire(archived: &Self::Archived, names: &Reading<'_>) -> Result<Self::Model, WireError> {
        if archived.0.len() > HTTP_HEADERS_MAX {
            return Err(WireError::BadValue { what: "headers", why: "more than are allowed" });
        }
        archived
            .0
            .iter()
            .map(|header| Ok((Text::from_wire(&header.0, names)?, Data::from_wire(&header.1, names)?)))
            .collect()
    }
}

mirror_struct!(HttpRequest<'m>, ArchivedHttpRequest = crate::message::HttpRequest {
    method: Text<'m>,
    target: Text<'m>,
    headers: Headers<'m>,
    body: Data<'m>,
});

mirror_enum!(Request<'m>, ArchivedRequest = crate::message::Request {
    View,
    Http(request: HttpRequest<'m>),
});

mirror_struct!(HttpHead<'m>, ArchivedHttpHead = crate::message::HttpHead {
    status: u16,
    headers: Headers<'m>,
    length: Option<u64>,
});
