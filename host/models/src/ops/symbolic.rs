//! The backend that computes nothing, and the record of what it was asked for.

use loadline_core::{Bytes, Op, OpCost, OpKind};

use super::{Backend, Call, OpError, OpShape};

/// Computes nothing: with it, the op layer is a forecast.
#[derive(Clone, Copy, Debug, Default)]
pub struct Symbolic;

impl Backend for Symbolic {
    type Data = ();
    type Weight = ();

    fn execute(&mut self, _: Call<'_, (), ()>) -> Result<Option<()>, OpError> {
        Ok(Some(()))
    }

    fn view(&self, (): &(), _: usize, _: usize) -> Result<(), OpError> {
        Ok(())
    }
}

/// What was called since a task began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// Costs, one entry for each shape.
    pub ops: Vec<OpCost>,
    /// Bytes handed to the host.
    pub to_host: u64,
    /// Bytes gathered from weight files.
    pub gathered: u64,
    /// Whether costs are left out: who computes has no use for them, and the list of a long task would take memory
    /// that no plan declares.
    pub off: bool,
}

impl Recording {
    /// Adds one operation.
    pub fn add(&mut self, op: Op, shape: &OpShape) {
        if self.off {
            return;
        }
        let cost = shape.cost(op);
        if cost.kind == OpKind::Elementwise && cost.bytes == 0 {
            return;
        }
        match self.ops.iter_mut().find(|o| o.site == cost.site && o.dtype == cost.dtype) {
            Some(sum) => {
                sum.count += 1;
                sum.flops = sum.flops.saturating_add(cost.flops);
                sum.bytes = sum.bytes.saturating_add(cost.bytes);
            }
            None => self.ops.push(cost),
        }
    }

    /// Everything recorded, in a fixed order; the recording is empty afterwards.
    pub fn take(&mut self) -> (Vec<OpCost>, Bytes, Bytes) {
        let Self { mut ops, to_host, gathered, .. } = std::mem::take(self);
        ops.sort_by_key(|o| (o.kind, o.dtype, o.site));
        (ops, Bytes(to_host), Bytes(gathered))
    }
}
