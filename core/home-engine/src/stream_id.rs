//! `Mesos-Stream-Id`s: shaped as version 4 UUIDs, with the home's node tag in the low 16 bits of the first group.
//!
//! So a node that gets a call for another home knows from the header where to forward it, without a look-up.

use muster_model::{Rng, Uuid};

/// Makes a new stream id of this node.
pub(crate) fn new_stream_id(node_tag: u16, rng: &mut Rng) -> Uuid {
    let mut id = Uuid::from_random(rng.bytes16());
    let [high, low] = node_tag.to_be_bytes();
    let [_, _, third, fourth, ..] = &mut id.0;
    (*third, *fourth) = (high, low);
    id
}

/// The tag of the node that made a stream id, given as the header's text; `None` for a text that is no UUID.
pub fn node_tag_of(stream_id: &str) -> Option<u16> {
    let Uuid([_, _, high, low, ..]) = Uuid::parse(stream_id)?;
    Some(u16::from_be_bytes([high, low]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_stream_id_names_its_node_and_is_a_version_4_uuid() {
        let mut rng = Rng::new(1);
        let (first, second) = (new_stream_id(0xbeef, &mut rng), new_stream_id(0xbeef, &mut rng));
        assert_ne!(first, second);
        let text = first.to_string();
        assert_eq!((text.len(), text.get(4..8), text.get(14..15)), (36, Some("beef"), Some("4")));
        assert!(matches!(text.get(19..20), Some("8" | "9" | "a" | "b")));
        assert_eq!(node_tag_of(&text), Some(0xbeef));
        assert_eq!(node_tag_of("no uuid"), None);
    }
}
