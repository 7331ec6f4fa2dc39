//! The pipeline as the device's [`Compute`].

use std::sync::Arc;

use loadline_core::Bytes;
use loadline_device::{Compute, Slab};
use loadline_engine::{DeviceError, TaskOrder};
use loadline_models::ops::{OpError, Ops};
use loadline_models::pipeline::{At, Program, WanProgram};
use loadline_nn::{CandleCpu, CpuKernels, TensorsAt, block_weights};

use super::host::RunHost;

/// Runs tasks of one job at a time.
pub(super) struct Pipeline {
    pub(super) ops: Ops<CandleCpu>,
    pub(super) job: Option<Running>,
}

/// The job that runs.
pub(super) struct Running {
    pub(super) program: WanProgram<CandleCpu>,
    pub(super) layouts: Vec<TensorsAt>,
    pub(super) host: RunHost,
}

impl Pipeline {
    pub(super) fn new(kernels: CpuKernels) -> Self {
        let mut ops = Ops::new(CandleCpu { exec: kernels.exec }, Arc::new(kernels));
        ops.recording.off = true;
        Self { ops, job: None }
    }
}

impl Compute for Pipeline {
    fn run(&mut self, order: &TaskOrder, slab: Option<&Arc<Slab>>) -> Result<(), DeviceError> {
        let Some(job) = &mut self.job else { return Err(DeviceError::Compute("no job is running".into())) };
        let weights =
            order.weights.zip(slab).map(|((block, _), slab)| block_weights(&job.layouts[block.0 as usize], slab));
        let at = At { stage: order.at.stage, pass: order.at.pass, task: order.at.task };
        let result = job.program.run(&mut self.ops, at, weights.as_ref(), &mut job.host);
        result.map_err(|e| job.host.failed.take().unwrap_or_else(|| device_error(e)))
    }

    fn set_aside(&mut self, activations: Bytes) {
        // Between stages nothing computes; what lives on is counted against the next stage's limit.
        self.ops.ledger.limit((activations > Bytes::ZERO).then_some(activations));
    }
}

pub(super) fn device_error(error: OpError) -> DeviceError {
    match error {
        OpError::OverBudget(over) => DeviceError::BudgetExceeded {
            what: over.what,
            requested: over.requested,
            in_use: over.in_use,
            limit: over.limit,
        },
        other => DeviceError::Compute(other.to_string()),
    }
}
