//! What is done to elements, what is copied, and what the host writes and reads.

use half::bf16;
use loadline_core::DType;
use loadline_cuda::driver::DevicePtr;
use loadline_cuda::kernels::{Element, Stored, Weight, elements, moves};
use loadline_models::ops::{Call, OpError};

use super::backend::{CudaBackend, Done, T, W};
use super::kernels::activation;
use super::tensor::{CudaFailure, CudaTensor, on_host};
use super::weights::CudaWeight;

fn wide(sizes: &[usize]) -> Vec<u64> {
    sizes.iter().map(|size| *size as u64).collect()
}

fn four(x: &T) -> [u64; 4] {
    std::array::from_fn(|axis| x.shape.get(axis).map_or(1, |size| *size as u64))
}

impl CudaBackend {
    /// What is written over its operand; everything else is passed on.
    pub(super) fn assignments(&mut self, call: Call<'_, CudaTensor, CudaWeight>) -> Done {
        match call {
            Call::AddAssign { x, y } => {
                let (at, other) = (self.at(x)?, self.at(y)?);
                self.queue(Ok(elements::add_assign(Self::element(x)?, at, other, x.elements() as u64)))?;
            }
            Call::MulAssign { x, y } => {
                let (at, other) = (self.at(x)?, self.at(y)?);
                self.queue(Ok(elements::mul_assign(Self::element(x)?, at, other, x.elements() as u64)))?;
            }
            Call::GatedAddAssign { x, y, gate } => {
                let (rows, channels) = (x.rows() as u64, x.channels() as u64);
                let gate = self.per_row(gate, x.channels())?;
                let (at, other) = (self.at(x)?, self.at(y)?);
                self.queue(elements::gated_add_assign(Self::element(x)?, at, other, gate, rows, channels))?;
            }
            Call::ActivateAssign { x, act } => {
                let (at, n, act) = (self.at(x)?, x.elements() as u64, activation(act));
                self.queue(Ok(elements::activate_assign(Self::element(x)?, at, n, act)))?;
            }
            Call::ChannelAffineAssign { x, mul, add } => {
                let (at, rows) = (self.at(x)?, x.rows() as u64);
                self.queue(elements::channel_affine_assign(Self::element(x)?, at, rows, mul, add))?;
            }
            Call::ClampAssign { x, low, high } => {
                let (at, n) = (self.at(x)?, x.elements() as u64);
                self.queue(Ok(elements::clamp_assign(Self::element(x)?, at, n, low, high)))?;
            }
            Call::RopeAssign { x, cos, sin, heads } => {
                let (at, cos, sin) = (self.at(x)?, self.at(cos)?, self.at(sin)?);
                let sizes = [x.rows(), heads, x.channels() / heads.max(1)].map(|size| size as u64);
                self.queue(elements::rope_assign(Self::element(x)?, at, cos, sin, sizes))?;
            }
            other => return self.movements(other),
        }
        Ok(None)
    }

    /// Sums and rearrangements; everything else is passed on.
    fn movements(&mut self, call: Call<'_, CudaTensor, CudaWeight>) -> Done {
        match call {
            Call::Combine { terms } => {
                let n = terms[0].1.elements();
                let y = self.fresh(DType::F32, n)?;
                let terms = terms.iter().map(|(factor, t)| Ok((*factor, self.at(t)?)));
                let terms = terms.collect::<Result<Vec<_>, CudaFailure>>()?;
                self.queue(elements::combine(self.memory.at(&y)?, n as u64, &terms))?;
                Ok(Some(y))
            }
            Call::Upsample { x } => {
                self.moved(x, 4 * x.elements(), |e, from, to| moves::upsample(e, from, to, four(x)))
            }
            Call::Permute { x, view, axes } => {
                let view = wide(view);
                self.moved(x, x.elements(), |e, from, to| moves::permute(e, from, to, &view, axes))
            }
            Call::RepeatChannels { x, times } => {
                let (n, repeats) = (x.elements(), times as u64);
                self.moved(x, n * times, |e, from, to| moves::repeat_channels(e, from, to, n as u64, repeats))
            }
            Call::MeanChannels { x, group } => {
                let (n, group) = (x.elements() / group.max(1), group as u64);
                self.moved(x, n, |e, from, to| elements::mean_channels(e, from, to, n as u64, group))
            }
            Call::Crop { x, start, size } => {
                let n = size.iter().product::<usize>() * x.channels();
                let (start, size) = (start.map(|v| v as u64), size.map(|v| v as u64));
                self.moved(x, n, |e, from, to| moves::crop(e, from, to, four(x), start, size))
            }
            Call::ConcatChannels { parts } => {
                let y = self.fresh(parts[0].dtype, parts.iter().map(|p| p.elements()).sum())?;
                let places = parts.iter().map(|p| Ok((self.at(p)?, p.channels() as u64)));
                let places = places.collect::<Result<Vec<_>, CudaFailure>>()?;
                let (e, rows) = (Self::element(parts[0])?, parts[0].rows() as u64);
                self.queue(moves::concat_channels(e, &places, self.memory.at(&y)?, rows))?;
                Ok(Some(y))
            }
            other => self.copies(other),
        }
    }

    /// A new tensor of `n` elements of `x`'s type, made by one kernel.
    fn moved(
        &mut self,
        x: &T,
        n: usize,
        launches: impl FnOnce(
            Element,
            DevicePtr,
            DevicePtr,
        ) -> Result<Vec<loadline_cuda::kernels::Launch>, loadline_cuda::kernels::Misfit>,
    ) -> Done {
        let y = self.fresh(x.dtype, n)?;
        self.queue(launches(Self::element(x)?, self.at(x)?, self.memory.at(&y)?))?;
        Ok(Some(y))
    }

    /// What is made of whole pieces, by copies without a kernel; everything else is passed on.
    fn copies(&mut self, call: Call<'_, CudaTensor, CudaWeight>) -> Done {
        match call {
            Call::Rows { x, start, len } => {
                let row = x.elements() / x.shape[0].max(1);
                let y = self.fresh(x.dtype, len * row)?;
                let (to, bytes) = (self.memory.at(&y)?, y.bytes() as usize);
                let first = x.dtype.bytes((start * row) as u64).0;
                self.memory.stream.copy(to, self.at(x)?.offset(first), bytes)?;
                Ok(Some(y))
            }
            Call::PadRows { x, rows } => {
                let row = x.elements() / x.shape[0].max(1);
                let y = self.fresh(x.dtype, rows * row)?;
                let (to, have) = (self.memory.at(&y)?, x.data.bytes());
                self.memory.stream.copy(to, self.at(x)?, have as usize)?;
                self.memory.stream.fill(to.offset(have), 0, (y.bytes() - have) as usize)?;
                Ok(Some(y))
            }
            Call::Concat { parts } => {
                let y = self.fresh(parts[0].dtype, parts.iter().map(|p| p.elements()).sum())?;
                let mut to = self.memory.at(&y)?;
                for part in parts {
                    self.memory.stream.copy(to, self.at(part)?, part.data.bytes() as usize)?;
                    to = to.offset(part.data.bytes());
                }
                Ok(Some(y))
            }
            Call::Cast { x, dtype } => self.cast(x, dtype),
            Call::WeightPlus { w, add } => self.weight_plus(w, add),
            Call::RelativeBias { w, buckets } => {
                let y = self.fresh(DType::F32, w.shape[1] * buckets.len())?;
                let heads = w.shape[1] as u64;
                self.queue(elements::relative_bias(Self::weight(w)?, heads, buckets, self.memory.at(&y)?))?;
                Ok(Some(y))
            }
            Call::ToHost { x, sink } => self.hand_out(x, sink),
            _ => Err(CudaFailure::NoKernel),
        }
    }

    fn weight_plus(&mut self, w: &W, add: Option<&T>) -> Done {
        let n = w.shape.iter().product::<usize>();
        let y = self.fresh(DType::F32, n)?;
        let to = self.memory.at(&y)?;
        self.queue(elements::unpack(Element::F32, Self::weight(w)?, 0, n as u64, to))?;
        if let Some(add) = add {
            self.queue(Ok(elements::add_assign(Element::F32, to, self.at(add)?, n as u64)))?;
        }
        Ok(Some(y))
    }

    fn cast(&mut self, x: &T, dtype: DType) -> Done {
        let y = self.fresh(dtype, x.elements())?;
        let parked = y.parked(|to| x.data.parked(|from| cast_on_host(from, x.dtype, to, dtype)));
        if parked.is_none() {
            let stored = match x.dtype {
                DType::F32 => Stored::F32,
                DType::Bf16 => Stored::Bf16,
                _ => return Err(CudaFailure::NoKernel),
            };
            let to = super::kernels::element(dtype).ok_or(CudaFailure::NoKernel)?;
            let n = x.elements() as u64;
            let from = Weight { at: self.at(x)?, elements: n, stored };
            self.queue(elements::unpack(to, from, 0, n, self.memory.at(&y)?))?;
        }
        Ok(Some(y))
    }

    /// Values that the host writes. The outer error is the host's.
    pub(super) fn filled(
        &mut self,
        shape: &[usize],
        fill: &mut dyn FnMut(&mut [f32]) -> Result<(), String>,
    ) -> Result<Done, OpError> {
        let mut values = on_host(|| vec![0f32; shape.iter().product()]);
        fill(&mut values).map_err(OpError::Backend)?;
        Ok(self.written(&values).map(Some))
    }

    fn written(&mut self, values: &[f32]) -> Result<CudaTensor, CudaFailure> {
        let y = self.fresh(DType::F32, values.len())?;
        let bytes: &[u8] = bytemuck::cast_slice(values);
        if y.parked(|to| to.copy_from_slice(bytes)).is_some() {
            return Ok(y);
        }
        let to = self.memory.at(&y)?;
        // Empty caches are zeros, and need not cross the bus.
        if bytes.iter().all(|byte| *byte == 0) {
            self.memory.stream.fill(to, 0, bytes.len())?;
        } else {
            self.memory.upload(to, bytes)?;
        }
        Ok(y)
    }

    fn hand_out(&mut self, x: &T, sink: &mut dyn FnMut(&[f32])) -> Done {
        let mut values = on_host(|| vec![0f32; (x.data.bytes() as usize).div_ceil(4)]);
        let raw = &mut bytemuck::cast_slice_mut::<f32, u8>(&mut values)[..x.data.bytes() as usize];
        if x.data.parked(|from| raw.copy_from_slice(from)).is_none() {
            let from = self.memory.at(&x.data)?;
            self.memory.download(from, raw)?;
        }
        if x.dtype == DType::F32 {
            sink(&values);
        } else {
            let half: &[bf16] = bytemuck::cast_slice(raw);
            sink(&on_host(|| half.iter().map(|v| v.to_f32()).collect::<Vec<_>>()));
        }
        Ok(None)
    }
}

/// What is restored between stages is cast there, with the same rounding as on the GPU: to nearest, ties to even.
fn cast_on_host(from: &[u8], from_dtype: DType, to: &mut [u8], to_dtype: DType) {
    match (from_dtype, to_dtype) {
        (DType::F32, DType::Bf16) => {
            let values = from.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            to.chunks_exact_mut(2).zip(values).for_each(|(to, v)| to.copy_from_slice(&bf16::from_f32(v).to_le_bytes()));
        }
        (DType::Bf16, DType::F32) => {
            let values = from.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32());
            to.chunks_exact_mut(4).zip(values).for_each(|(to, v)| to.copy_from_slice(&v.to_le_bytes()));
        }
        _ => to.copy_from_slice(from),
    }
}
