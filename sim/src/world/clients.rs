//! The frameworks' side of the world: streams and calls.

use super::{Coming, World};
use muster_home_engine::io::{self as home, ConnectionId, RequestId};
use muster_model::scheduler::FrameworkCall;
use muster_node_engine::io::Input;
use std::sync::Arc;

impl World {
    pub(super) fn subscribe(&mut self, index: usize) {
        let now = self.now();
        let connection = ConnectionId(self.number());
        if self.frameworks.get(index).is_none_or(|framework| framework.connection.is_some()) {
            return;
        }
        let Some(at) = self.any_node() else {
            self.soon(500, Coming::FrameworkSubscribes { framework: index });
            return;
        };
        let (Some(framework), Some(node)) = (self.frameworks.get_mut(index), self.nodes.get_mut(at)) else { return };
        framework.connection = Some(connection);
        framework.node = at;
        node.connections.insert(connection, index);
        let call = framework.subscribe();
        node.handle(Input::Home(home::Input::Subscribe { connection, call }), now);
    }

    pub(super) fn call(&mut self, index: usize, call: FrameworkCall) {
        let now = self.now();
        let request = RequestId(self.number());
        let Some(framework) = self.frameworks.get_mut(index) else { return };
        let node = self.nodes.get_mut(framework.node).filter(|node| node.engine.is_some());
        let (Some(framework_id), Some(stream_id), Some(node)) = (framework.id.clone(), framework.stream_id, node)
        else {
            // The stream broke under the call: what it would have launched was never asked for.
            framework.forget_unasked(&call);
            return;
        };
        let stream_id = Some(Arc::from(stream_id.to_string()));
        node.handle(Input::Home(home::Input::Call { request, framework_id, stream_id, call }), now);
    }

    pub(super) fn any_node(&mut self) -> Option<usize> {
        let up: Vec<usize> =
            self.nodes.iter().enumerate().filter(|(_, node)| node.engine.is_some()).map(|(index, _)| index).collect();
        let index = usize::try_from(self.rng.below(up.len() as u64)).unwrap_or(0);
        up.get(index).copied()
    }
}
