//! Checks that every format shares: no two tensors with one name, none over another, none past the end of the file.

use std::path::Path;

use super::{FileDtype, TensorEntry, TensorProblem, WeightError};

/// Most dimensions of a tensor; video convolutions have five.
pub(super) const DIMENSIONS_MAX: u64 = 8;

/// Number of elements of a shape, or the error that it overflows.
pub(super) fn elements(shape: &[u64]) -> Result<u64, TensorProblem> {
    let product = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
    product.ok_or_else(|| TensorProblem::ShapeOverflow { shape: shape.to_vec() })
}

/// Exact bytes of a tensor whose last dimension is the one that is laid out contiguously.
pub(super) fn bytes(shape: &[u64], dtype: FileDtype) -> Result<u64, TensorProblem> {
    let (row, block) = (shape.last().copied().unwrap_or(1), dtype.block_elements());
    if !row.is_multiple_of(block) {
        return Err(TensorProblem::PartialBlock { row, block });
    }
    let overflow = || TensorProblem::ShapeOverflow { shape: shape.to_vec() };
    dtype.bytes_for(elements(shape)?).ok_or_else(overflow)
}

/// Sorts the tensors of one file by place after checking them against each other and the file's size.
pub(super) fn placed(file: &Path, len: u64, mut tensors: Vec<TensorEntry>) -> Result<Vec<TensorEntry>, WeightError> {
    for tensor in &tensors {
        check_inside(len, tensor).map_err(|problem| WeightError::tensor(file, &tensor.name, problem))?;
    }
    tensors.sort_by_key(|t| (t.offset, t.bytes));
    let overlap = tensors.windows(2).find(|w| w[0].offset + w[0].bytes > w[1].offset && w[1].bytes > 0);
    if let Some([first, second]) = overlap {
        return Err(WeightError::tensor(file, &second.name, TensorProblem::Overlaps { other: first.name.clone() }));
    }
    Ok(tensors)
}

/// Sorts the tensors of one file by name, of which each must be another.
pub(super) fn named(file: &Path, mut tensors: Vec<TensorEntry>) -> Result<Vec<TensorEntry>, WeightError> {
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    match tensors.windows(2).find(|w| w[0].name == w[1].name) {
        Some(pair) => Err(WeightError::tensor(file, &pair[0].name, TensorProblem::Duplicate)),
        None => Ok(tensors),
    }
}

fn check_inside(len: u64, tensor: &TensorEntry) -> Result<(), TensorProblem> {
    let end = tensor.offset.saturating_add(tensor.bytes);
    if end > len { Err(TensorProblem::OutOfFile { end, len }) } else { Ok(()) }
}
