//! Candle storages as slices.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, InplaceOp1, Layout, Shape, Storage};
use half::bf16;
use loadline_models::ops::OpError;

pub(crate) type CandleTensor = candle_core::Tensor;

pub(crate) fn failed(error: &dyn std::fmt::Display) -> OpError {
    OpError::Backend(error.to_string())
}

/// The element types of activations.
pub(crate) trait Activation: loadline_kernels::Element + bytemuck::Zeroable {
    /// The dense slice of a storage.
    fn slice(storage: &CpuStorage) -> Option<&[Self]>;
    /// The dense slice of a storage, to write.
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
    /// A storage of a vector.
    fn storage(values: Vec<Self>) -> CpuStorage;
}

impl Activation for f32 {
    fn slice(storage: &CpuStorage) -> Option<&[Self]> {
        if let CpuStorage::F32(values) = storage { Some(values) } else { None }
    }
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        if let CpuStorage::F32(values) = storage { Some(values) } else { None }
    }
    fn storage(values: Vec<Self>) -> CpuStorage {
        CpuStorage::F32(values)
    }
}

impl Activation for bf16 {
    fn slice(storage: &CpuStorage) -> Option<&[Self]> {
        if let CpuStorage::BF16(values) = storage { Some(values) } else { None }
    }
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        if let CpuStorage::BF16(values) = storage { Some(values) } else { None }
    }
    fn storage(values: Vec<Self>) -> CpuStorage {
        CpuStorage::BF16(values)
    }
}

/// Runs `body` with the tensor's elements.
pub(crate) fn read<A: Activation, R>(
    tensor: &CandleTensor,
    body: impl FnOnce(&[A]) -> Result<R, OpError>,
) -> Result<R, OpError> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { return Err(failed(&"a tensor is not on the CPU")) };
    let wrong = || failed(&format!("a tensor of {:?} where another type was declared", storage.dtype()));
    let values = A::slice(storage).ok_or_else(wrong)?;
    let range = layout.contiguous_offsets().ok_or_else(|| failed(&"a tensor is not dense"))?;
    body(&values[range.0..range.1])
}

/// Runs `body` with the tensor's elements, to write.
pub(crate) fn write<A: Activation>(tensor: &CandleTensor, body: impl FnOnce(&mut [A])) -> Result<(), OpError> {
    let op = Write { body: std::cell::RefCell::new(Some(body)), element: std::marker::PhantomData::<A> };
    tensor.inplace_op1(&op).map_err(|e| failed(&e))
}

struct Write<A, F> {
    body: std::cell::RefCell<Option<F>>,
    element: std::marker::PhantomData<A>,
}

impl<A: Activation, F: FnOnce(&mut [A])> InplaceOp1 for Write<A, F> {
    fn name(&self) -> &'static str {
        "write"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let values = A::slice_mut(storage);
        let (Some(values), Some((start, end)), Some(body)) = (values, layout.contiguous_offsets(), self.body.take())
        else {
            candle_core::bail!("a tensor cannot be written: it has another type or is not dense");
        };
        body(&mut values[start..end]);
        Ok(())
    }
}

/// A new tensor of exactly `elements` elements that `fill` writes. The elements start as zeros.
pub(crate) fn produce<A: Activation>(
    elements: usize,
    fill: impl FnOnce(&mut [A]) -> Result<(), OpError>,
) -> Result<CandleTensor, OpError> {
    // Fresh pages are zeros already, and the kernel's threads touch them first, each its own.
    let refused = || failed(&format!("out of memory for {elements} elements"));
    let mut values = bytemuck::try_zeroed_vec(elements).map_err(|()| refused())?;
    fill(&mut values)?;
    let storage = Storage::Cpu(A::storage(values));
    let shape = Shape::from(elements);
    Ok(CandleTensor::from_storage(storage, shape, candle_core::op::BackpropOp::none(), false))
}
