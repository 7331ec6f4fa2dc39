//! The part of cuBLASLt's interface that is used, declared as [`driver::sys`](crate::driver::sys) declares the
//! driver's.
#![allow(missing_docs, non_camel_case_types, non_snake_case)] // The names are NVIDIA's, and so is their documentation.

use core::ffi::{c_int, c_void};
use core::mem::{offset_of, size_of};

pub use cudarc::cublaslt::sys::{
    cublasComputeType_t, cublasLtEpilogue_t, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t,
    cublasLtMatmulDescAttributes_t, cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t,
    cublasLtMatrixLayout_t, cudaDataType, cudaDataType_t, cudaStream_t, libraryPropertyType,
};

use crate::table::table;

/// What every function answers.
pub type cublasStatus_t = c_int;

pub const SUCCESS: cublasStatus_t = cudarc::cublaslt::sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS as cublasStatus_t;
pub const NOT_INITIALIZED: cublasStatus_t =
    cudarc::cublaslt::sys::cublasStatus_t::CUBLAS_STATUS_NOT_INITIALIZED as cublasStatus_t;
pub const INVALID_VALUE: cublasStatus_t =
    cudarc::cublaslt::sys::cublasStatus_t::CUBLAS_STATUS_INVALID_VALUE as cublasStatus_t;
pub const NOT_SUPPORTED: cublasStatus_t =
    cudarc::cublaslt::sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED as cublasStatus_t;

/// That the left operand is transposed: `CUBLAS_OP_T` of `cublasOperation_t`, which is declared with cuBLAS.
pub const TRANSPOSED: u32 = 1;

/// A way to compute a product, with its status as a number.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cublasLtMatmulHeuristicResult_t {
    pub algo: cublasLtMatmulAlgo_t,
    pub workspaceSize: usize,
    pub state: cublasStatus_t,
    pub wavesCount: f32,
    pub reserved: [c_int; 4],
}

const _: () = {
    type Theirs = cudarc::cublaslt::sys::cublasLtMatmulHeuristicResult_t;
    assert!(size_of::<cublasLtMatmulHeuristicResult_t>() == size_of::<Theirs>());
    assert!(offset_of!(cublasLtMatmulHeuristicResult_t, workspaceSize) == offset_of!(Theirs, workspaceSize));
    assert!(offset_of!(cublasLtMatmulHeuristicResult_t, state) == offset_of!(Theirs, state));
};

table! {
    /// The library's functions. A value of this type is the library, wherever it comes from.
    Api -> cublasStatus_t, as in cudarc::cublaslt::sys:
    cublasLtCreate(*mut cublasLtHandle_t);
    cublasLtDestroy(cublasLtHandle_t);
    cublasLtGetProperty(libraryPropertyType, *mut c_int);
    cublasLtMatmulDescCreate(*mut cublasLtMatmulDesc_t, cublasComputeType_t, cudaDataType_t);
    cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t);
    cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t, *const c_void, usize);
    cublasLtMatrixLayoutCreate(*mut cublasLtMatrixLayout_t, cudaDataType, u64, u64, i64);
    cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t);
    cublasLtMatmulPreferenceCreate(*mut cublasLtMatmulPreference_t);
    cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t);
    cublasLtMatmulPreferenceSetAttribute(
        cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t, *const c_void, usize
    );
    cublasLtMatmulAlgoGetHeuristic(
        cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
        cublasLtMatrixLayout_t, cublasLtMatmulPreference_t, c_int, *mut cublasLtMatmulHeuristicResult_t, *mut c_int
    );
    cublasLtMatmul(
        cublasLtHandle_t, cublasLtMatmulDesc_t, *const c_void, *const c_void, cublasLtMatrixLayout_t, *const c_void,
        cublasLtMatrixLayout_t, *const c_void, *const c_void, cublasLtMatrixLayout_t, *mut c_void,
        cublasLtMatrixLayout_t, *const cublasLtMatmulAlgo_t, *mut c_void, usize, cudaStream_t
    );
}
