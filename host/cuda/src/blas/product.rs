//! What a product is to the library, and how it is to be computed.

use core::ffi::c_void;

use super::sys::{
    self, Api, cublasComputeType_t, cublasLtEpilogue_t, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t,
    cublasLtMatmulDescAttributes_t as Attribute, cublasLtMatmulHeuristicResult_t, cublasLtMatmulPreference_t,
    cublasLtMatmulPreferenceAttributes_t as Preference, cublasLtMatrixLayout_t, cublasStatus_t, cudaDataType,
};
use crate::driver::DevicePtr;
use crate::kernels::{Activation, Element};

/// `y[rows, cols] = act(x[rows, depth] w[cols, depth]^T + bias[cols])`, all of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// The type of all operands; sums are f32.
    pub element: Element,
    /// Rows of `x` and `y`.
    pub rows: u64,
    /// Columns of `y`, rows of `w`.
    pub cols: u64,
    /// Values of a row of `x` and `w`.
    pub depth: u64,
    /// Values from one row of `y` to the next.
    pub stride: u64,
    /// `[rows, depth]`.
    pub x: DevicePtr,
    /// `[cols, depth]`.
    pub w: DevicePtr,
    /// `[cols]`.
    pub bias: Option<DevicePtr>,
    /// Applied to the sums.
    pub act: Activation,
    /// `[rows, cols]`.
    pub y: DevicePtr,
}

/// What decides how a product is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    bf16: bool,
    sizes: [u64; 4],
    bias: bool,
    gelu: bool,
    /// Bytes that the addresses of `w`, `x` and `y` are multiples of.
    aligned: [u32; 3],
}

impl Key {
    /// The key of a product that the library has: its epilogues are a bias and GELU in its tanh form.
    pub(super) fn of(product: &Product) -> Option<Self> {
        let gelu = match product.act {
            Activation::None => false,
            Activation::GeluTanh => true,
            _ => return None,
        };
        // More than the widest access makes no difference.
        let aligned = |at: DevicePtr| 1 << at.0.trailing_zeros().min(8);
        Some(Self {
            bf16: product.element == Element::Bf16,
            sizes: [product.rows, product.cols, product.depth, product.stride],
            bias: product.bias.is_some(),
            gelu,
            aligned: [product.w, product.x, product.y].map(aligned),
        })
    }

    fn data(&self) -> cudaDataType {
        if self.bf16 { cudaDataType::CUDA_R_16BF } else { cudaDataType::CUDA_R_32F }
    }

    fn epilogue(&self) -> cublasLtEpilogue_t {
        match (self.bias, self.gelu) {
            (false, false) => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_DEFAULT,
            (true, false) => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
            (false, true) => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU,
            (true, true) => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU_BIAS,
        }
    }
}

/// A handle of the library's, and how it is given back.
struct Owned<T: Copy> {
    raw: T,
    destroy: unsafe extern "C" fn(T) -> cublasStatus_t,
}

impl<T: Copy> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: made by the library, and nobody else gives it back.
        let _ = unsafe { (self.destroy)(self.raw) };
    }
}

/// How products of one key are computed. Matrices are columns to the library, so `y` transposed is what it computes:
/// `w` times `x` transposed, and nothing is moved.
pub(super) struct Plan {
    desc: Owned<cublasLtMatmulDesc_t>,
    w: Owned<cublasLtMatrixLayout_t>,
    x: Owned<cublasLtMatrixLayout_t>,
    y: Owned<cublasLtMatrixLayout_t>,
    algo: cublasLtMatmulAlgo_t,
    workspace: usize,
}

// SAFETY: the handles are memory of the library's, which belongs to no thread.
unsafe impl Send for Plan {}

fn ok(status: cublasStatus_t) -> Option<()> {
    (status == sys::SUCCESS).then_some(())
}

/// Sets an attribute through the function of its kind of handle.
fn set<H, A, V: Copy>(
    function: unsafe extern "C" fn(H, A, *const c_void, usize) -> cublasStatus_t,
    (handle, attribute): (H, A),
    value: V,
) -> Option<()> {
    // SAFETY: the library copies a value of this size; every caller below names the attribute's own type.
    ok(unsafe { function(handle, attribute, (&raw const value).cast(), size_of::<V>()) })
}

impl Plan {
    /// The way that the library thinks best, if it has one within so many bytes of workspace.
    pub(super) fn new(api: &Api, handle: cublasLtHandle_t, key: &Key, workspace: usize) -> Option<Self> {
        let [rows, cols, depth, stride] = key.sizes;
        let desc = descriptor(api, key)?;
        let w = layout(api, key, [depth, cols, depth])?;
        let x = layout(api, key, [depth, rows, depth])?;
        let y = layout(api, key, [cols, rows, stride])?;
        let preference = preference(api, key, workspace)?;
        let mut found = cublasLtMatmulHeuristicResult_t {
            algo: cublasLtMatmulAlgo_t { data: [0; 8] },
            workspaceSize: 0,
            state: sys::NOT_SUPPORTED,
            wavesCount: 0.0,
            reserved: [0; 4],
        };
        let mut count = 0;
        let ask = api.cublasLtMatmulAlgoGetHeuristic;
        let (a, b, c, pref) = (w.raw, x.raw, y.raw, preference.raw);
        // SAFETY: handles that live, one result, and room for it.
        ok(unsafe { ask(handle, desc.raw, a, b, c, c, pref, 1, &raw mut found, &raw mut count) })?;
        let usable = count == 1 && found.state == sys::SUCCESS && found.workspaceSize <= workspace;
        usable.then_some(Self { desc, w, x, y, algo: found.algo, workspace: found.workspaceSize })
    }

    /// Queues a product of this plan's key; nothing if the library refuses.
    ///
    /// # Safety
    /// The operands are there when the stream gets to it, and so is the workspace.
    pub(super) unsafe fn run(
        &self,
        api: &Api,
        handle: cublasLtHandle_t,
        product: &Product,
        workspace: DevicePtr,
        stream: sys::cudaStream_t,
    ) -> Option<()> {
        if let Some(bias) = product.bias {
            let attribute = Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
            set(api.cublasLtMatmulDescSetAttribute, (self.desc.raw, attribute), bias.0)?;
        }
        let (one, zero) = (1f32, 0f32);
        let at = |place: DevicePtr| place.0 as *mut c_void;
        let (alpha, beta) = ((&raw const one).cast(), (&raw const zero).cast());
        let (w, x, y) = (at(product.w).cast_const(), at(product.x).cast_const(), at(product.y));
        // SAFETY: handles that live; the rest is the caller's word.
        ok(unsafe {
            (api.cublasLtMatmul)(
                handle,
                self.desc.raw,
                alpha,
                w,
                self.w.raw,
                x,
                self.x.raw,
                beta,
                y.cast_const(),
                self.y.raw,
                y,
                self.y.raw,
                &raw const self.algo,
                at(workspace),
                self.workspace,
                stream,
            )
        })
    }
}

fn descriptor(api: &Api, key: &Key) -> Option<Owned<cublasLtMatmulDesc_t>> {
    let mut raw = std::ptr::null_mut();
    // Not TF32, which is a compute type of its own.
    let (sums, scale) = (cublasComputeType_t::CUBLAS_COMPUTE_32F, cudaDataType::CUDA_R_32F);
    // SAFETY: a pointer to a handle of ours.
    ok(unsafe { (api.cublasLtMatmulDescCreate)(&raw mut raw, sums, scale) })?;
    let desc = Owned { raw, destroy: api.cublasLtMatmulDescDestroy };
    let attribute = api.cublasLtMatmulDescSetAttribute;
    set(attribute, (raw, Attribute::CUBLASLT_MATMUL_DESC_TRANSA), sys::TRANSPOSED)?;
    set(attribute, (raw, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE), key.epilogue() as u32)?;
    Some(desc)
}

fn layout(api: &Api, key: &Key, [high, wide, apart]: [u64; 3]) -> Option<Owned<cublasLtMatrixLayout_t>> {
    let mut raw = std::ptr::null_mut();
    // SAFETY: a pointer to a handle of ours.
    ok(unsafe { (api.cublasLtMatrixLayoutCreate)(&raw mut raw, key.data(), high, wide, apart as i64) })?;
    Some(Owned { raw, destroy: api.cublasLtMatrixLayoutDestroy })
}

fn preference(api: &Api, key: &Key, workspace: usize) -> Option<Owned<cublasLtMatmulPreference_t>> {
    let mut raw = std::ptr::null_mut();
    // SAFETY: a pointer to a handle of ours.
    ok(unsafe { (api.cublasLtMatmulPreferenceCreate)(&raw mut raw) })?;
    let made = Owned { raw, destroy: api.cublasLtMatmulPreferenceDestroy };
    let attribute = api.cublasLtMatmulPreferenceSetAttribute;
    set(attribute, (raw, Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES), workspace as u64)?;
    let [w, x, y] = key.aligned;
    let aligned = [
        (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, w),
        (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, x),
        (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, y),
        (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, y),
    ];
    aligned.into_iter().try_for_each(|(name, bytes)| set(attribute, (raw, name), bytes))?;
    Some(made)
}
