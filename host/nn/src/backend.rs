//! Every call of the op layer, carried out.

use half::bf16;
use loadline_core::DType;
use loadline_device::SlabView;
use loadline_kernels::{
    AttentionOptions, AttentionShape, Element, Exec, Format, GroupNorm, GroupNormShape, LayerNorm, LinearShape, Matrix,
    Packed, PerRow, Weights,
};
use loadline_models::ops::{Activation as Act, Backend, Bias, Call, Modulation, OpError, Tensor, Weight};

use crate::kernels::conv_shape;
use crate::store::{Activation, CandleTensor, failed, produce, read, write};

/// Computes on the CPU. Tensors are flat candle tensors; their shapes are the op layer's.
#[derive(Clone, Copy, Debug)]
pub struct CandleCpu {
    /// The kernels and the threads.
    pub exec: Exec,
}

type T = Tensor<CandleTensor>;
type W = Weight<SlabView>;
type Done = Result<Option<CandleTensor>, OpError>;

/// Runs the same code for the activation type of a tensor.
macro_rules! typed {
    ($dtype:expr, $A:ident => $body:expr) => {
        match $dtype {
            DType::F32 => {
                type $A = f32;
                $body
            }
            DType::Bf16 => {
                type $A = bf16;
                $body
            }
            other => Err(failed(&format!("activations cannot be {other}"))),
        }
    };
}

fn weights(w: &W) -> Result<Weights<'_>, OpError> {
    let view = &w.data;
    let wide = view.f32().map(Weights::F32);
    let half = || view.bf16().map(Weights::Bf16).or_else(|| view.f16().map(Weights::F16));
    wide.or_else(half).ok_or_else(|| failed(&format!("weights stored as {} cannot be computed with", w.dtype)))
}

/// The weights of a linear layer, which may be packed with scales.
fn matrix(w: &W) -> Result<Matrix<'_>, OpError> {
    let Some(format) = format(w.dtype) else { return weights(w).map(Matrix::Plain) };
    let bytes = w.data.bytes();
    let packed = match (format, bytes.split_last_chunk()) {
        (Format::F8E4M3, Some((elements, scale))) => Packed::new(format, elements, f32::from_le_bytes(*scale)),
        _ => Packed::new(format, bytes, 1.0),
    };
    Ok(Matrix::Packed(packed))
}

/// How weights of a type are packed, if they are.
fn format(dtype: DType) -> Option<Format> {
    Some(match dtype {
        DType::F8E4M3 => Format::F8E4M3,
        DType::Q8_0 => Format::Q8_0,
        DType::Q6K => Format::Q6K,
        DType::Q5K => Format::Q5K,
        DType::Q4K => Format::Q4K,
        DType::Q3K => Format::Q3K,
        DType::Q2K => Format::Q2K,
        DType::Q5_1 => Format::Q5_1,
        DType::Q5_0 => Format::Q5_0,
        DType::Q4_1 => Format::Q4_1,
        DType::Q4_0 => Format::Q4_0,
        _ => return None,
    })
}

fn optional(w: Option<&W>) -> Result<Option<Weights<'_>>, OpError> {
    w.map(weights).transpose()
}

fn activation(act: Act) -> Result<loadline_kernels::Activation, OpError> {
    match act {
        Act::None => Ok(loadline_kernels::Activation::None),
        Act::Silu => Ok(loadline_kernels::Activation::Silu),
        Act::GeluTanh => Ok(loadline_kernels::Activation::GeluTanh),
        Act::GeluErf => Ok(loadline_kernels::Activation::GeluErf),
        Act::QuickGelu => Err(failed(&"no kernel computes quick GELU yet")),
    }
}

impl Backend for CandleCpu {
    type Data = CandleTensor;
    type Weight = SlabView;

    fn view(&self, data: &CandleTensor, start: usize, len: usize) -> Result<CandleTensor, OpError> {
        data.narrow(0, start, len).map_err(|e| failed(&e))
    }

    fn execute(&mut self, call: Call<'_, CandleTensor, SlabView>) -> Done {
        products(self.exec, call)
    }
}

/// Products and norms; everything else is passed on.
fn products(exec: Exec, call: Call<'_, CandleTensor, SlabView>) -> Done {
    match call {
        Call::Linear { x, w, b, act } => typed!(x.dtype, A => linear::<A>(exec, x, w, b, act)),
        Call::Conv { x, history, w, b, spec, output } => {
            let shape = conv_call_shape(x, history, w, spec);
            typed!(x.dtype, A => conv::<A>(exec, &shape, x, history, w, b, output))
        }
        Call::Attention { q, k, v, heads, scale, visible, bias } => {
            let shape = AttentionShape { queries: q.rows(), keys: k.rows(), heads, dim: q.channels() / heads };
            typed!(q.dtype, A => attention::<A>(exec, &shape, [q, k, v], scale, visible, bias))
        }
        Call::LayerNorm { x, affine, eps, modulation } => {
            typed!(x.dtype, A => layer_norm::<A>(exec, x, affine, eps, modulation))
        }
        Call::RmsNorm { x, w, eps } => typed!(x.dtype, A => {
            let w = weights(w)?;
            mapped::<A>(x, |x, y, cols| loadline_kernels::rms_norm(exec, cols, x, w, eps, y))
        }),
        Call::RmsNormAssign { x, w, eps } => typed!(x.dtype, A => {
            let w = weights(w)?;
            changed::<A>(x, |x, cols| loadline_kernels::rms_norm_assign(exec, cols, x, w, eps))
        }),
        Call::ChannelNorm { x, gamma, silu } => typed!(x.dtype, A => {
            let gamma = weights(gamma)?;
            mapped::<A>(x, |x, y, cols| loadline_kernels::l2_norm_channels(exec, cols, x, gamma, silu, y))
        }),
        Call::ChannelNormAssign { x, gamma, silu } => typed!(x.dtype, A => {
            let gamma = weights(gamma)?;
            changed::<A>(x, |x, cols| loadline_kernels::l2_norm_channels_assign(exec, cols, x, gamma, silu))
        }),
        Call::GroupNorm { x, w, b, groups, eps, silu } => typed!(x.dtype, A => {
            let norm = GroupNorm { weight: Some(weights(w)?), bias: Some(weights(b)?), eps, silu };
            let shape = GroupNormShape { positions: x.rows(), channels: x.channels(), groups };
            mapped::<A>(x, |x, y, _| loadline_kernels::group_norm(exec, &shape, x, &norm, y))
        }),
        other => assignments(exec, other),
    }
}

/// What is written over its operand; everything else is passed on.
fn assignments(exec: Exec, call: Call<'_, CandleTensor, SlabView>) -> Done {
    match call {
        Call::AddAssign { x, y } => typed!(x.dtype, A => {
            read::<A, _>(&y.data, |y| write::<A>(&x.data, |x| loadline_kernels::add_assign(exec, x, y)))?;
            Ok(None)
        }),
        Call::MulAssign { x, y } => typed!(x.dtype, A => {
            read::<A, _>(&y.data, |y| write::<A>(&x.data, |x| loadline_kernels::mul_assign(exec, x, y)))?;
            Ok(None)
        }),
        Call::GatedAddAssign { x, y, gate } => typed!(x.dtype, A => {
            let cols = x.channels();
            read::<f32, _>(&gate.data, |gate| read::<A, _>(&y.data, |y| {
                let gate = per_row(gate, cols);
                write::<A>(&x.data, |x| loadline_kernels::gated_add_assign(exec, cols, x, y, gate))
            }))?;
            Ok(None)
        }),
        Call::ActivateAssign { x, act } => typed!(x.dtype, A => {
            let act = activation(act)?;
            changed::<A>(x, |x, _| loadline_kernels::activate_assign(exec, x, act))
        }),
        Call::ChannelAffineAssign { x, mul, add } => typed!(x.dtype, A => {
            changed::<A>(x, |x, _| loadline_kernels::scale_shift_channels(exec, x, mul, add))
        }),
        Call::ClampAssign { x, low, high } => typed!(x.dtype, A => {
            changed::<A>(x, |x, _| loadline_kernels::clamp_assign(exec, x, low, high))
        }),
        Call::RopeAssign { x, cos, sin, heads } => typed!(x.dtype, A => {
            let dim = x.channels() / heads;
            read::<f32, _>(&cos.data, |cos| read::<f32, _>(&sin.data, |sin| {
                write::<A>(&x.data, |x| loadline_kernels::rope_interleaved(exec, heads, dim, x, cos, sin))
            }))?;
            Ok(None)
        }),
        other => movements(exec, other),
    }
}

/// Sums, copies and what the host writes and reads.
fn movements(exec: Exec, call: Call<'_, CandleTensor, SlabView>) -> Done {
    match call {
        Call::Combine { terms } => combine(exec, terms),
        Call::Upsample { x } => typed!(x.dtype, A => {
            let shape = [x.shape[0], x.shape[1], x.shape[2], x.shape[3]];
            resized::<A>(x, 4 * x.elements(), |x, y| loadline_kernels::upsample_nearest_2x(exec, shape, x, y))
        }),
        Call::Permute { x, view, axes } => typed!(x.dtype, A => {
            resized::<A>(x, x.elements(), |x, y| loadline_kernels::permute(exec, view, axes, x, y))
        }),
        Call::Cast { x, dtype } => cast(exec, x, dtype),
        Call::RepeatChannels { x, times } => typed!(x.dtype, A => {
            resized::<A>(x, x.elements() * times, |x, y| {
                y.chunks_exact_mut(times).zip(x).for_each(|(y, x)| y.fill(*x));
            })
        }),
        Call::MeanChannels { x, group } => typed!(x.dtype, A => {
            resized::<A>(x, x.elements() / group, |x, y| mean_channels(x, y, group))
        }),
        Call::Crop { x, start, size } => typed!(x.dtype, A => {
            let (shape, n) = (x.shape.clone(), size.iter().product::<usize>() * x.channels());
            resized::<A>(x, n, |x, y| crop(x, y, &shape, start, size))
        }),
        Call::Rows { x, start, len } => typed!(x.dtype, A => {
            let row = x.elements() / x.shape[0].max(1);
            resized::<A>(x, len * row, |x, y| y.copy_from_slice(&x[start * row..(start + len) * row]))
        }),
        Call::PadRows { x, rows } => typed!(x.dtype, A => {
            let row = x.elements() / x.shape[0].max(1);
            resized::<A>(x, rows * row, |x, y| y[..x.len()].copy_from_slice(x))
        }),
        Call::Concat { parts } => typed!(parts[0].dtype, A => concat::<A>(parts)),
        Call::WeightPlus { w, add } => weight_plus(exec, w, add),
        Call::RelativeBias { w, buckets } => relative_bias(w, buckets),
        Call::Filled { shape, fill } => {
            produce::<f32>(shape.iter().product(), |out| fill(out).map_err(|e| failed(&e))).map(Some)
        }
        Call::ToHost { x, sink } => to_host(x, sink),
        _ => Err(failed(&"this operation has no kernel yet")),
    }
}

/// A new tensor of `x`'s shape.
fn mapped<A: Activation>(x: &T, body: impl FnOnce(&[A], &mut [A], usize)) -> Done {
    resized::<A>(x, x.elements(), |from, to| body(from, to, x.channels()))
}

/// A new tensor of another size.
fn resized<A: Activation>(x: &T, elements: usize, body: impl FnOnce(&[A], &mut [A])) -> Done {
    read::<A, _>(&x.data, |from| {
        produce::<A>(elements, |to| {
            body(from, to);
            Ok(())
        })
    })
    .map(Some)
}

/// `x` itself, written.
fn changed<A: Activation>(x: &T, body: impl FnOnce(&mut [A], usize)) -> Done {
    let cols = x.channels();
    write::<A>(&x.data, |values| body(values, cols))?;
    Ok(None)
}

fn per_row(values: &[f32], cols: usize) -> PerRow<'_> {
    if values.len() == cols { PerRow::Shared(values) } else { PerRow::Each(values) }
}

fn linear<A: Activation>(exec: Exec, x: &T, w: &W, b: Option<&W>, act: Act) -> Done {
    let (rows, inputs, outputs) = (x.rows(), x.channels(), w.shape[0]);
    let shape = LinearShape { rows, inputs, outputs };
    let (w, b, act) = (matrix(w)?, optional(b)?, activation(act)?);
    resized::<A>(x, rows * outputs, |x, y| loadline_kernels::linear(exec, &shape, x, w, b, act, y))
}

fn conv_call_shape(
    x: &T,
    history: Option<&T>,
    w: &W,
    spec: loadline_models::ops::ConvSpec,
) -> loadline_kernels::ConvShape {
    let kernel = match w.shape.as_slice() {
        [_, _, kt, kh, kw] => [*kt, *kh, *kw],
        _ => [1, w.shape[2], w.shape[3]],
    };
    let input = [x.shape[0], x.shape[1], x.shape[2]];
    conv_shape(input, history.map_or(0, |h| h.shape[0]), spec, kernel, x.channels(), w.shape[0])
}

fn conv<A: Activation>(
    exec: Exec,
    shape: &loadline_kernels::ConvShape,
    x: &T,
    history: Option<&T>,
    w: &W,
    b: Option<&W>,
    output: [usize; 4],
) -> Done {
    let (w, b, n) = (weights(w)?, optional(b)?, output.iter().product());
    let run = |past: &[A]| resized::<A>(x, n, |x, y| loadline_kernels::conv3d(exec, shape, x, past, w, b, y));
    match history {
        Some(history) => read::<A, _>(&history.data, run),
        None => run(&[]),
    }
}

fn attention<A: Activation>(
    exec: Exec,
    shape: &AttentionShape,
    [q, k, v]: [&T; 3],
    scale: f32,
    visible: usize,
    bias: Bias<'_, CandleTensor>,
) -> Done {
    let run = |table: Option<&[f32]>| {
        let causal = matches!(bias, Bias::Causal);
        let options = AttentionOptions { scale, causal, key_len: Some(visible), bias_table: table };
        read::<A, _>(&k.data, |k| {
            read::<A, _>(&v.data, |v| {
                resized::<A>(q, q.elements(), |q, o| {
                    loadline_kernels::attention(exec, shape, &options, q, k, v, o);
                })
            })
        })
    };
    match bias {
        Bias::Relative(table) => read::<f32, _>(&table.data, |values| run(Some(values))),
        _ => run(None),
    }
}

fn layer_norm<A: Activation>(
    exec: Exec,
    x: &T,
    affine: Option<(&W, &W)>,
    eps: f32,
    modulation: Option<Modulation<'_, CandleTensor>>,
) -> Done {
    let (weight, bias) = match affine {
        Some((w, b)) => (Some(weights(w)?), Some(weights(b)?)),
        None => (None, None),
    };
    let run = |scale: Option<PerRow<'_>>, shift: Option<PerRow<'_>>| {
        let norm = LayerNorm { weight, bias, eps, scale, shift };
        mapped::<A>(x, |x, y, cols| loadline_kernels::layer_norm(exec, cols, x, &norm, y))
    };
    let Some(Modulation { shift, scale }) = modulation else { return run(None, None) };
    let cols = x.channels();
    read::<f32, _>(&scale.data, |scale| {
        read::<f32, _>(&shift.data, |shift| run(Some(per_row(scale, cols)), Some(per_row(shift, cols))))
    })
}

fn combine(exec: Exec, terms: &[(f32, &T)]) -> Done {
    // Read guards must outlive the call, one inside the other.
    fn open(exec: Exec, rest: &[(f32, &T)], open_terms: &mut Vec<(f32, &[f32])>, n: usize) -> Done {
        match rest {
            [] => produce::<f32>(n, |out| {
                loadline_kernels::combine(exec, out, open_terms);
                Ok(())
            })
            .map(Some),
            [(factor, tensor), rest @ ..] => read::<f32, _>(&tensor.data, |values| {
                let mut more: Vec<(f32, &[f32])> = open_terms.clone();
                more.push((*factor, values));
                open(exec, rest, &mut more, n)
            }),
        }
    }
    open(exec, terms, &mut Vec::new(), terms[0].1.elements())
}

fn cast(exec: Exec, x: &T, dtype: DType) -> Done {
    match (x.dtype, dtype) {
        (DType::F32, DType::Bf16) => read::<f32, _>(&x.data, |from| {
            produce::<bf16>(from.len(), |to| {
                loadline_kernels::cast(exec, Weights::F32(from), to);
                Ok(())
            })
        })
        .map(Some),
        (DType::Bf16, DType::F32) => read::<bf16, _>(&x.data, |from| {
            produce::<f32>(from.len(), |to| {
                loadline_kernels::cast(exec, Weights::Bf16(from), to);
                Ok(())
            })
        })
        .map(Some),
        (from, to) => Err(failed(&format!("no kernel casts {from} to {to}"))),
    }
}

fn mean_channels<A: Activation>(x: &[A], y: &mut [A], group: usize) {
    for (out, members) in y.iter_mut().zip(x.chunks_exact(group)) {
        let mut one = [0f32];
        let mut sum = 0.0;
        for member in members {
            // Widening goes through the kernels' own cast, one value at a time.
            one[0] = f32_of(*member);
            sum += one[0];
        }
        *out = A::narrow(sum / group as f32);
    }
}

fn f32_of<A: Element>(value: A) -> f32 {
    // `Element` is sealed to f32 and bf16, both of which are exact in f32.
    let any: &dyn std::any::Any = &value;
    match (any.downcast_ref::<f32>(), any.downcast_ref::<bf16>()) {
        (Some(v), _) => *v,
        (_, Some(v)) => v.to_f32(),
        _ => f32::NAN,
    }
}

fn crop<A: Copy>(x: &[A], y: &mut [A], shape: &[usize], start: [usize; 3], size: [usize; 3]) {
    let (height, width, channels) = (shape[1], shape[2], shape[3]);
    let line = size[2] * channels;
    for (i, out) in y.chunks_exact_mut(line.max(1)).enumerate() {
        let (frame, row) = (start[0] + i / size[1], start[1] + i % size[1]);
        let from = ((frame * height + row) * width + start[2]) * channels;
        out.copy_from_slice(&x[from..from + line]);
    }
}

fn concat<A: Activation>(parts: &[&T]) -> Done {
    produce::<A>(parts.iter().map(|p| p.elements()).sum(), |out| {
        let mut rest = out;
        for part in parts {
            let (head, tail) = rest.split_at_mut(part.elements());
            rest = tail;
            read::<A, _>(&part.data, |values| {
                head.copy_from_slice(values);
                Ok(())
            })?;
        }
        Ok(())
    })
    .map(Some)
}

fn weight_plus(exec: Exec, w: &W, add: Option<&T>) -> Done {
    let values = weights(w)?;
    produce::<f32>(w.shape.iter().product(), |out| {
        loadline_kernels::cast(exec, values, out);
        match add {
            Some(add) => read::<f32, _>(&add.data, |add| {
                loadline_kernels::add_assign(exec, out, add);
                Ok(())
            }),
            None => Ok(()),
        }
    })
    .map(Some)
}

fn relative_bias(w: &W, buckets: &[u32]) -> Done {
    let heads = w.shape[1];
    let value = |index: usize| match weights(w) {
        Ok(Weights::F32(v)) => v[index],
        Ok(Weights::Bf16(v)) => v[index].to_f32(),
        Ok(Weights::F16(v)) => v[index].to_f32(),
        Err(_) => f32::NAN,
    };
    weights(w)?;
    produce::<f32>(heads * buckets.len(), |out| {
        for (head, row) in out.chunks_exact_mut(buckets.len()).enumerate() {
            row.iter_mut().zip(buckets).for_each(|(out, b)| *out = value(*b as usize * heads + head));
        }
        Ok(())
    })
    .map(Some)
}

fn to_host(x: &T, sink: &mut dyn FnMut(&[f32])) -> Done {
    match x.dtype {
        DType::F32 => read::<f32, _>(&x.data, |values| {
            sink(values);
            Ok(())
        })?,
        DType::Bf16 => read::<bf16, _>(&x.data, |values| {
            // The copy belongs to the host, which asked for f32.
            let wide = loadline_device::memory::within(loadline_device::memory::Domain::Host, || {
                values.iter().map(|v| v.to_f32()).collect::<Vec<_>>()
            });
            sink(&wide);
            Ok(())
        })?,
        other => return Err(failed(&format!("{other} cannot be sent to the host"))),
    }
    Ok(None)
}
