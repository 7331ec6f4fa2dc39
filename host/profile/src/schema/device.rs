//! The device and how fast it computes.

use std::collections::BTreeMap;

use loadline_core::{DType, OpKind};
use serde::Serialize;

use super::{Figure, Known, Measurement, Rate, Recorded};

/// A device: a GPU, or the CPU's own accounting domain of RAM.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DevicePart {
    /// The product.
    pub name: String,
    /// Whose scratch declarations hold: `cuda`, or one of the CPU's sets such as `avx512`.
    pub kernel_set: String,
    /// True where device memory is host memory.
    pub unified: bool,
    /// Memory of the whole device.
    pub memory_bytes: Known<u64>,
    /// Allocations are rounded up to a multiple of this power of two.
    pub granularity_bytes: Known<u64>,
    /// What is taken before the first tensor, whoever takes it: the driver's own share, context,
    /// modules, libraries.
    pub fixed_overhead_bytes: Figure,
    /// The cost of starting one operation.
    pub launch_ns: Known<f64>,
    /// The memory's peak bandwidth; needed where a rate is a utilisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_bytes_per_s: Option<Known<f64>>,
    /// Dense peaks of floating-point operations per second, by type of the arithmetic, with the
    /// accumulation that the kernels use; needed where a rate is a utilisation.
    pub peak_flops_per_s: BTreeMap<DType, Known<f64>>,
    /// How fast operations run. A kind or type that is absent is an error where it is needed, never
    /// a guess.
    pub ops: Vec<OpPart>,
    /// What was measured on the device itself; it goes before the rates of [`Self::ops`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Recorded>,
    /// Further figures, see [`Measurement`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub measurements: Vec<Measurement>,
}

impl DevicePart {
    /// The type whose peak bounds this arithmetic: elementwise work never reaches the tensor units,
    /// it is done in f32 whatever the tensors' type.
    pub(crate) const fn peak_dtype(kind: OpKind, dtype: DType) -> DType {
        match kind {
            OpKind::Elementwise => DType::F32,
            OpKind::Linear | OpKind::Attention | OpKind::Conv => dtype,
        }
    }
}

/// How fast one kind of operation runs in some types.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OpPart {
    /// What is done.
    pub kind: OpKind,
    /// The types of the arithmetic that the rates hold for.
    pub dtypes: Vec<DType>,
    /// Floating-point operations per second against those of one call.
    pub flops: Rate,
    /// Bytes of device memory per second against those of one call.
    pub bytes: Rate,
}
