//! NVIDIA's library of products, as far as it is called, on the processor.
#![allow(non_snake_case)]
#![allow(missing_docs)] // The names are NVIDIA's, and so is their documentation.
#![allow(clippy::missing_safety_doc)]

use core::ffi::{c_int, c_void};

use loadline_cuda::blas::sys::{
    self, Api, cublasComputeType_t, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t,
    cublasLtMatmulDescAttributes_t, cublasLtMatmulHeuristicResult_t, cublasLtMatmulPreference_t,
    cublasLtMatmulPreferenceAttributes_t, cublasLtMatrixLayout_t, cublasStatus_t, cudaDataType, cudaDataType_t,
    cudaStream_t, libraryPropertyType,
};

use crate::calls::{call, give, handle, index};
use crate::driver;
use crate::state::State;
use crate::uses::inside;
use crate::work::{Work, eagerly};

/// What a product does to its sums.
#[derive(Clone, Copy, Default)]
struct Desc {
    transposed: bool,
    epilogue: u32,
    bias: u64,
}

#[derive(Clone, Copy)]
struct Layout {
    kind: cudaDataType,
    rows: u64,
    cols: u64,
    apart: u64,
}

impl Layout {
    fn bytes(&self) -> u64 {
        let each = if self.kind == cudaDataType::CUDA_R_16BF { 2 } else { 4 };
        ((self.cols - 1) * self.apart + self.rows) * each
    }
}

/// What the library knows. Handles are numbers, and one that was given back is gone.
#[derive(Default)]
pub(crate) struct Blas {
    descs: Vec<Option<Desc>>,
    layouts: Vec<Option<Layout>>,
    preferences: Vec<Option<u64>>,
}

fn get<T: Copy, H>(list: &[Option<T>], handle: *mut H) -> Result<T, cublasStatus_t> {
    list.get(index(handle)).copied().flatten().ok_or(sys::INVALID_VALUE)
}

fn add<T, H>(list: &mut Vec<Option<T>>, value: T) -> *mut H {
    list.push(Some(value));
    handle(list.len() - 1)
}

fn gone<T, H>(list: &mut [Option<T>], handle: *mut H) -> Result<(), cublasStatus_t> {
    let place = list.get_mut(index(handle)).ok_or(sys::INVALID_VALUE)?;
    place.take().map(drop).ok_or(sys::INVALID_VALUE)
}

/// # Safety
/// `from` is a value of this type.
unsafe fn taken<T: Copy>(from: *const c_void, bytes: usize) -> Result<T, cublasStatus_t> {
    if bytes != size_of::<T>() {
        return Err(sys::INVALID_VALUE);
    }
    // SAFETY: the caller's word.
    Ok(unsafe { from.cast::<T>().read_unaligned() })
}

macro_rules! functions {
    ($(fn $name:ident($($argument:ident: $kind:ty),*) $body:block)*) => {
        $(
            #[unsafe(no_mangle)]
            pub(crate) unsafe extern "C" fn $name($($argument: $kind),*) -> cublasStatus_t $body
        )*

        /// The library as a table, for drivers that are opened without a file.
        #[must_use]
        pub fn blas_api() -> Api {
            Api { $($name,)* }
        }
    };
}

functions! {
    fn cublasLtCreate(made: *mut cublasLtHandle_t) {
        // SAFETY: the caller's pointer, here and below.
        call("cublasLtCreate", |_| unsafe { give(made, handle(0)) })
    }
    fn cublasLtDestroy(_handle: cublasLtHandle_t) { sys::SUCCESS }
    fn cublasLtGetProperty(property: libraryPropertyType, value: *mut c_int) {
        let found = if property == libraryPropertyType::MAJOR_VERSION { 12 } else { 0 };
        // SAFETY: see above.
        call("cublasLtGetProperty", |_| unsafe { give(value, found) })
    }
    fn cublasLtMatmulDescCreate(made: *mut cublasLtMatmulDesc_t, sums: cublasComputeType_t, scale: cudaDataType_t) {
        call("cublasLtMatmulDescCreate", |state| {
            if sums != cublasComputeType_t::CUBLAS_COMPUTE_32F || scale != cudaDataType::CUDA_R_32F {
                return Err(sys::NOT_SUPPORTED);
            }
            // SAFETY: see above.
            unsafe { give(made, add(&mut state.blas.descs, Desc::default())) }
        })
    }
    fn cublasLtMatmulDescDestroy(desc: cublasLtMatmulDesc_t) {
        call("cublasLtMatmulDescDestroy", |state| gone(&mut state.blas.descs, desc))
    }
    fn cublasLtMatmulDescSetAttribute(
        desc: cublasLtMatmulDesc_t, name: cublasLtMatmulDescAttributes_t, from: *const c_void, bytes: usize
    ) {
        call("cublasLtMatmulDescSetAttribute", |state| {
            let place = state.blas.descs.get_mut(index(desc)).and_then(Option::as_mut).ok_or(sys::INVALID_VALUE)?;
            use cublasLtMatmulDescAttributes_t as name_of;
            // SAFETY: see above; the types are those of NVIDIA's list.
            unsafe {
                match name {
                    name_of::CUBLASLT_MATMUL_DESC_TRANSA => {
                        place.transposed = taken::<u32>(from, bytes)? == sys::TRANSPOSED;
                    }
                    name_of::CUBLASLT_MATMUL_DESC_EPILOGUE => place.epilogue = taken(from, bytes)?,
                    name_of::CUBLASLT_MATMUL_DESC_BIAS_POINTER => place.bias = taken(from, bytes)?,
                    _ => return Err(sys::NOT_SUPPORTED),
                }
            }
            Ok(())
        })
    }
    fn cublasLtMatrixLayoutCreate(
        made: *mut cublasLtMatrixLayout_t, kind: cudaDataType, rows: u64, cols: u64, apart: i64
    ) {
        call("cublasLtMatrixLayoutCreate", |state| {
            if rows == 0 || cols == 0 || (apart as u64) < rows {
                return Err(sys::INVALID_VALUE);
            }
            // SAFETY: see above.
            unsafe { give(made, add(&mut state.blas.layouts, Layout { kind, rows, cols, apart: apart as u64 })) }
        })
    }
    fn cublasLtMatrixLayoutDestroy(layout: cublasLtMatrixLayout_t) {
        call("cublasLtMatrixLayoutDestroy", |state| gone(&mut state.blas.layouts, layout))
    }
    fn cublasLtMatmulPreferenceCreate(made: *mut cublasLtMatmulPreference_t) {
        // SAFETY: see above.
        call("cublasLtMatmulPreferenceCreate", |state| unsafe { give(made, add(&mut state.blas.preferences, 0)) })
    }
    fn cublasLtMatmulPreferenceDestroy(preference: cublasLtMatmulPreference_t) {
        call("cublasLtMatmulPreferenceDestroy", |state| gone(&mut state.blas.preferences, preference))
    }
    fn cublasLtMatmulPreferenceSetAttribute(
        preference: cublasLtMatmulPreference_t, name: cublasLtMatmulPreferenceAttributes_t, from: *const c_void,
        bytes: usize
    ) {
        use cublasLtMatmulPreferenceAttributes_t as name_of;
        call("cublasLtMatmulPreferenceSetAttribute", |state| {
            get(&state.blas.preferences, preference)?;
            if name != name_of::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES {
                // SAFETY: see above; all others that are set are numbers of 32 bits.
                return unsafe { taken::<u32>(from, bytes) }.map(drop);
            }
            // SAFETY: see above.
            state.blas.preferences[index(preference)] = Some(unsafe { taken(from, bytes)? });
            Ok(())
        })
    }
    fn cublasLtMatmulAlgoGetHeuristic(
        _handle: cublasLtHandle_t, desc: cublasLtMatmulDesc_t, a: cublasLtMatrixLayout_t, b: cublasLtMatrixLayout_t,
        c: cublasLtMatrixLayout_t, d: cublasLtMatrixLayout_t, preference: cublasLtMatmulPreference_t, _wanted: c_int,
        found: *mut cublasLtMatmulHeuristicResult_t, count: *mut c_int
    ) {
        call("cublasLtMatmulAlgoGetHeuristic", |state| {
            Operands::of(state, desc, [a, b, c, d])?;
            let workspaceSize = get(&state.blas.preferences, preference)? as usize;
            let algo = cublasLtMatmulAlgo_t { data: [7; 8] };
            let (state, reserved) = (sys::SUCCESS, [0; 4]);
            let way = cublasLtMatmulHeuristicResult_t { algo, workspaceSize, state, wavesCount: 1.0, reserved };
            // SAFETY: see above.
            unsafe {
                give(found, way)?;
                give(count, 1)
            }
        })
    }
    fn cublasLtMatmul(
        _handle: cublasLtHandle_t, desc: cublasLtMatmulDesc_t, alpha: *const c_void, a: *const c_void,
        a_layout: cublasLtMatrixLayout_t, b: *const c_void, b_layout: cublasLtMatrixLayout_t, beta: *const c_void,
        c: *const c_void, c_layout: cublasLtMatrixLayout_t, d: *mut c_void, d_layout: cublasLtMatrixLayout_t,
        algo: *const cublasLtMatmulAlgo_t, workspace: *mut c_void, workspace_bytes: usize, stream: cudaStream_t
    ) {
        let result = call("cublasLtMatmul", |state| {
            let operands = Operands::of(state, desc, [a_layout, b_layout, c_layout, d_layout])?;
            // SAFETY: see above.
            let given = unsafe { (alpha.cast::<f32>().read(), beta.cast::<f32>().read(), (*algo).data[0]) };
            if given != (1.0, 0.0, 7) || c != d.cast_const() {
                return Err(sys::NOT_SUPPORTED);
            }
            let at = [a as u64, b as u64, d as u64];
            operands.queue(state, at, (workspace as u64, workspace_bytes as u64), index(stream))
        });
        eagerly();
        result
    }
}

/// What a product is of.
#[derive(Clone, Copy)]
struct Operands {
    desc: Desc,
    a: Layout,
    b: Layout,
    d: Layout,
}

const BIAS: u32 = 4;
const GELU: u32 = 32;

impl Operands {
    fn of(
        state: &State,
        desc: cublasLtMatmulDesc_t,
        layouts: [cublasLtMatrixLayout_t; 4],
    ) -> Result<Self, cublasStatus_t> {
        let desc = get(&state.blas.descs, desc)?;
        let [a, b, c, d] = layouts.map(|layout| get(&state.blas.layouts, layout));
        let (a, b, c, d) = (a?, b?, c?, d?);
        let fits = desc.transposed && a.rows == b.rows && a.cols == d.rows && b.cols == d.cols && c.apart == d.apart;
        let known = [1, BIAS, GELU, BIAS | GELU].contains(&desc.epilogue);
        if fits && known { Ok(Self { desc, a, b, d }) } else { Err(sys::NOT_SUPPORTED) }
    }

    fn queue(self, state: &mut State, at: [u64; 3], workspace: (u64, u64), queue: usize) -> Result<(), cublasStatus_t> {
        let ranges = [(at[0], self.a.bytes()), (at[1], self.b.bytes()), (at[2], self.d.bytes()), workspace];
        for (start, bytes) in ranges {
            inside(state, "a product", start, bytes)?;
        }
        state.report.calls.push(format!("cublasLtMatmul {queue} {} x {} x {}", self.b.cols, self.d.rows, self.a.rows));
        state.queue(queue, Work::Do(Box::new(move || self.compute(at))));
        for (n, range) in ranges.into_iter().enumerate() {
            state.access(queue, "a product", range, n > 1, n < 2);
        }
        Ok(())
    }

    /// Every value of the result, in f32.
    fn compute(&self, [a, b, d]: [u64; 3]) {
        for row in 0..self.b.cols {
            for col in 0..self.d.rows {
                let value = |of: &Layout, start, line: u64, k: u64| read(of.kind, start, line * of.apart + k);
                let sum: f32 = (0..self.a.rows).map(|k| value(&self.a, a, col, k) * value(&self.b, b, row, k)).sum();
                let bias = if self.desc.epilogue & BIAS > 0 { read(self.d.kind, self.desc.bias, col) } else { 0.0 };
                let sum = sum + bias;
                let inner = 0.797_884_6 * (sum + 0.044_715 * sum * sum * sum);
                let out = if self.desc.epilogue & GELU > 0 { 0.5 * sum * (1.0 + inner.tanh()) } else { sum };
                write(self.d.kind, d, row * self.d.apart + col, out);
            }
        }
    }
}

fn read(kind: cudaDataType, start: u64, i: u64) -> f32 {
    // SAFETY: inside of memory that was there when the product was queued, and that stays mapped.
    unsafe {
        if kind == cudaDataType::CUDA_R_16BF {
            f32::from_bits(u32::from((start as *const u16).add(i as usize).read()) << 16)
        } else {
            (start as *const f32).add(i as usize).read()
        }
    }
}

fn write(kind: cudaDataType, start: u64, i: u64, value: f32) {
    let bits = value.to_bits();
    // To the nearest, and to even between two; no product of the tests is NaN.
    let rounded = ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16;
    // SAFETY: as above.
    unsafe {
        if kind == cudaDataType::CUDA_R_16BF {
            (start as *mut u16).add(i as usize).write(rounded);
        } else {
            (start as *mut f32).add(i as usize).write(value);
        }
    }
}

/// Handles of the library that were not given back.
pub(crate) fn live() -> usize {
    driver(|state| {
        let Blas { descs, layouts, preferences } = &state.blas;
        descs.iter().flatten().count() + layouts.iter().flatten().count() + preferences.iter().flatten().count()
    })
}
