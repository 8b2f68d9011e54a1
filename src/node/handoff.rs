//! Hinted handoff: what a replica has missed, kept until it is back.

use super::metrics::Metric;
use super::peers::Heard;
use super::route::Router;
use crate::base::member::NodeId;
use crate::base::record::OwnedRow;

impl Router {
    /// A replica has missed these rows, and somebody holds them.
    pub(super) fn owe(&mut self, _node: NodeId, rows: &[OwnedRow]) {
        self.pen
            .counters
            .add(Metric::HintsDropped, rows.len() as u64);
    }

    /// A peer has answered a batch of hints.
    pub(super) fn on_handoff(&mut self, _node: NodeId, _heard: &Heard) {}
}
