//! Instruction sets: the vector operations that the register tile is made of,
//! and the macro that compiles one function body for each set.
//!
//! Only the register tile names vectors. Everything else is a plain loop that
//! the compiler vectorises once it is compiled for a set.

/// Side of the squares that packing transposes.
pub(crate) const CHUNK: usize = 8;

/// A left operand as the register tile reads it: each row is the same runs of
/// words, counted from the row's own start.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a> {
    /// The first word of the first row.
    pub(crate) at: *const f32,
    /// Where each of the tile's rows starts.
    pub(crate) rows: &'a [usize],
    /// Where each run starts.
    pub(crate) runs: &'a [usize],
    /// Words of a run.
    pub(crate) len: usize,
}

/// What the product of two words adds to a sum.
pub(crate) trait Product<S: Simd> {
    /// # Safety
    /// The machine has the instructions of the set and of the product.
    unsafe fn add(left: S::V, right: S::V, sum: S::V) -> S::V;
}

/// A word is one f32.
pub(crate) struct Singles;

impl<S: Simd> Product<S> for Singles {
    #[inline(always)]
    unsafe fn add(left: S::V, right: S::V, sum: S::V) -> S::V {
        // SAFETY: the caller's promise is the same.
        unsafe { S::mul_add(left, right, sum) }
    }
}

/// A word is two bf16, the first in the lower half; their products are added to
/// the sum one after the other, each in f32.
#[cfg(target_arch = "x86_64")]
pub(crate) struct Pairs;

#[cfg(target_arch = "x86_64")]
impl Product<Avx512> for Pairs {
    #[inline(always)]
    unsafe fn add(
        left: <Avx512 as Simd>::V,
        right: <Avx512 as Simd>::V,
        sum: <Avx512 as Simd>::V,
    ) -> <Avx512 as Simd>::V {
        use std::arch::x86_64::*;
        // SAFETY: vectors of the same size, any bits of which are bf16; the caller promises AVX512-BF16.
        unsafe {
            let [left, right] = [left, right].map(|v| std::mem::transmute::<__m512, __m512bh>(v));
            _mm512_dpbf16_ps(sum, left, right)
        }
    }
}

/// One instruction set.
pub(crate) trait Simd: Copy + Sized {
    /// A vector of f32.
    type V: Copy;
    /// Values in a vector.
    const LANES: usize;
    /// Rows of the register tile.
    const ROWS: usize;
    /// Columns of the register tile.
    const COLS: usize;

    /// `a * b + c`, fused where the set has the instruction.
    fn fma(a: f32, b: f32, c: f32) -> f32;

    /// A vector with every lane `x`.
    ///
    /// # Safety
    /// The machine has the set's instructions; so too for the rest of the trait.
    unsafe fn splat(x: f32) -> Self::V;

    /// # Safety
    /// `at` is valid for reading `LANES` values.
    unsafe fn load(at: *const f32) -> Self::V;

    /// # Safety
    /// `at` is valid for writing `LANES` values.
    unsafe fn store(at: *mut f32, value: Self::V);

    /// `a + b` in every lane.
    ///
    /// # Safety
    /// As for [`Self::splat`].
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;

    /// `a * b + c` in every lane, fused where [`Self::fma`] is.
    ///
    /// # Safety
    /// As for [`Self::splat`].
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;

    /// The transpose of a square. Loops over arrays do not become shuffles, and
    /// moving single values is as slow as a tenth of a product.
    ///
    /// # Safety
    /// As for [`Self::splat`].
    unsafe fn transpose(square: [[f32; CHUNK]; CHUNK]) -> [[f32; CHUNK]; CHUNK];

    /// Multiplies `ROWS` rows of a left operand with a packed panel of the right:
    /// `sums[ROWS, COLS] (+)= left . right`.
    ///
    /// # Safety
    /// Every run of every row is valid for reading, `right` for `runs * len *
    /// COLS` words, and `sums` for `ROWS` rows of `COLS` values that are `stride` apart.
    unsafe fn tile<P: Product<Self>>(left: Left<'_>, right: *const f32, sums: *mut f32, stride: usize, add: bool);

    /// As [`Self::tile`], with a panel of `LANES` columns.
    ///
    /// # Safety
    /// As for [`Self::tile`].
    unsafe fn narrow_tile<P: Product<Self>>(
        left: Left<'_>,
        right: *const f32,
        sums: *mut f32,
        stride: usize,
        add: bool,
    );
}

/// The register tile: every accumulator is one chain over the depth, so that a
/// result does not depend on where in the matrix its tile lies.
///
/// # Safety
/// As for [`Simd::tile`], with `ROWS = R` and `COLS = C * LANES`.
#[inline(always)]
unsafe fn tile<S: Simd, P: Product<S>, const R: usize, const C: usize>(
    left: Left<'_>,
    mut right: *const f32,
    sums: *mut f32,
    stride: usize,
    add: bool,
) {
    // SAFETY: the caller promises the lengths that these offsets stay within.
    unsafe {
        let mut acc = [[S::splat(0.0); C]; R];
        for run in left.runs {
            let rows: [*const f32; R] = std::array::from_fn(|r| left.at.add(*left.rows.get_unchecked(r) + run));
            for k in 0..left.len {
                let columns: [S::V; C] = std::array::from_fn(|v| S::load(right.add(v * S::LANES)));
                right = right.add(C * S::LANES);
                for (row, acc) in rows.iter().zip(&mut acc) {
                    let value = S::splat(*row.add(k));
                    for (sum, column) in acc.iter_mut().zip(columns) {
                        *sum = P::add(value, column, *sum);
                    }
                }
            }
        }
        for (r, row) in acc.iter().enumerate() {
            for (v, sum) in row.iter().enumerate() {
                let at = sums.add(r * stride + v * S::LANES);
                S::store(at, if add { S::add(S::load(at), *sum) } else { *sum });
            }
        }
    }
}

/// What every target has.
#[derive(Clone, Copy)]
pub(crate) struct Plain;

impl Simd for Plain {
    type V = [f32; 4];
    const LANES: usize = 4;
    const ROWS: usize = 6;
    const COLS: usize = 8;

    /// Never `f32::mul_add`: without the instruction it is a slow call.
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; 4]
    }

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self::V {
        // SAFETY: the caller promises four values, and the read is unaligned.
        unsafe { at.cast::<[f32; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(at: *mut f32, value: Self::V) {
        // SAFETY: the caller promises room for four values, and the write is unaligned.
        unsafe { at.cast::<[f32; 4]>().write_unaligned(value) }
    }

    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]]
    }

    #[inline(always)]
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        [a[0] * b[0] + c[0], a[1] * b[1] + c[1], a[2] * b[2] + c[2], a[3] * b[3] + c[3]]
    }

    #[inline(always)]
    unsafe fn transpose(square: [[f32; CHUNK]; CHUNK]) -> [[f32; CHUNK]; CHUNK] {
        std::array::from_fn(|i| std::array::from_fn(|c| square[c][i]))
    }

    #[inline(always)]
    unsafe fn tile<P: Product<Self>>(left: Left<'_>, right: *const f32, sums: *mut f32, stride: usize, add: bool) {
        // SAFETY: the caller's promise is the same.
        unsafe { tile::<Self, P, 6, 2>(left, right, sums, stride, add) }
    }

    #[inline(always)]
    unsafe fn narrow_tile<P: Product<Self>>(
        left: Left<'_>,
        right: *const f32,
        sums: *mut f32,
        stride: usize,
        add: bool,
    ) {
        // SAFETY: the caller's promise is the same.
        unsafe { tile::<Self, P, 6, 1>(left, right, sums, stride, add) }
    }
}

/// Transposes pairs of values, then pairs of pairs, then the two halves.
///
/// # Safety
/// The machine has AVX.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn transpose_avx(square: [[f32; CHUNK]; CHUNK]) -> [[f32; CHUNK]; CHUNK] {
    use std::arch::x86_64::*;
    // SAFETY: the caller promises the instructions; a row is one 256-bit vector.
    unsafe {
        let mut rows = [_mm256_setzero_ps(); CHUNK];
        for (row, values) in rows.iter_mut().zip(&square) {
            *row = _mm256_loadu_ps(values.as_ptr());
        }
        let mut pairs = rows;
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
        }
        let mut fours = rows;
        for half in [0, 4] {
            for i in 0..2 {
                let (low, high) = (pairs[half + i], pairs[half + 2 + i]);
                fours[half + 2 * i] = _mm256_shuffle_ps::<0b01_00_01_00>(low, high);
                fours[half + 2 * i + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(low, high);
            }
        }
        let mut out = [[0f32; CHUNK]; CHUNK];
        for i in 0..4 {
            let (low, high) = (fours[i], fours[i + 4]);
            _mm256_storeu_ps(out[i].as_mut_ptr(), _mm256_permute2f128_ps::<0x20>(low, high));
            _mm256_storeu_ps(out[i + 4].as_mut_ptr(), _mm256_permute2f128_ps::<0x31>(low, high));
        }
        out
    }
}

/// Implements [`Simd`] for a set of x86-64 vector intrinsics.
#[cfg(target_arch = "x86_64")]
macro_rules! x86_set {
    ($name:ident, $doc:literal, $vector:ident, $lanes:literal, $rows:literal,
     $splat:ident, $load:ident, $store:ident, $add:ident, $mul_add:ident) => {
        #[doc = $doc]
        #[derive(Clone, Copy)]
        pub(crate) struct $name;

        impl Simd for $name {
            type V = std::arch::x86_64::$vector;
            const LANES: usize = $lanes;
            const ROWS: usize = $rows;
            const COLS: usize = 2 * $lanes;

            #[inline(always)]
            fn fma(a: f32, b: f32, c: f32) -> f32 {
                a.mul_add(b, c)
            }

            #[inline(always)]
            unsafe fn splat(x: f32) -> Self::V {
                // SAFETY: the caller promises the instructions.
                unsafe { std::arch::x86_64::$splat(x) }
            }

            #[inline(always)]
            unsafe fn load(at: *const f32) -> Self::V {
                // SAFETY: the caller promises the instructions and the values.
                unsafe { std::arch::x86_64::$load(at) }
            }

            #[inline(always)]
            unsafe fn store(at: *mut f32, value: Self::V) {
                // SAFETY: the caller promises the instructions and the room.
                unsafe { std::arch::x86_64::$store(at, value) }
            }

            #[inline(always)]
            unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
                // SAFETY: the caller promises the instructions.
                unsafe { std::arch::x86_64::$add(a, b) }
            }

            #[inline(always)]
            unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                // SAFETY: the caller promises the instructions.
                unsafe { std::arch::x86_64::$mul_add(a, b, c) }
            }

            #[inline(always)]
            unsafe fn transpose(square: [[f32; CHUNK]; CHUNK]) -> [[f32; CHUNK]; CHUNK] {
                // SAFETY: both sets have AVX2, and the caller promises the set.
                unsafe { transpose_avx(square) }
            }

            #[inline(always)]
            unsafe fn tile<P: Product<Self>>(
                left: Left<'_>,
                right: *const f32,
                sums: *mut f32,
                stride: usize,
                add: bool,
            ) {
                // SAFETY: the caller's promise is the same.
                unsafe { tile::<Self, P, $rows, 2>(left, right, sums, stride, add) }
            }

            #[inline(always)]
            unsafe fn narrow_tile<P: Product<Self>>(
                left: Left<'_>,
                right: *const f32,
                sums: *mut f32,
                stride: usize,
                add: bool,
            ) {
                // SAFETY: the caller's promise is the same.
                unsafe { tile::<Self, P, $rows, 1>(left, right, sums, stride, add) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
x86_set!(
    Avx512,
    "512-bit vectors: 24 of 32 registers accumulate.",
    __m512,
    16,
    12,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_add_ps,
    _mm512_fmadd_ps
);
#[cfg(target_arch = "x86_64")]
x86_set!(
    Avx2,
    "256-bit vectors: 12 of 16 registers accumulate.",
    __m256,
    8,
    6,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_add_ps,
    _mm256_fmadd_ps
);

/// Defines `name(set, arguments..)`, which runs `body::<Set, ..>(arguments..)`
/// compiled for the instructions of `set`. The body must be `#[inline(always)]`
/// all the way down, or its inner loops are compiled for no set at all.
macro_rules! per_set {
    ($(#[$meta:meta])*
     $vis:vis fn $name:ident $(<$($param:ident : $bound:path),+>)? ($($arg:ident : $ty:ty),+ $(,)?)
        $(-> $out:ty)? = $body:ident) => {
        $(#[$meta])*
        $vis fn $name $(<$($param: $bound),+>)? (set: $crate::set::KernelSet, $($arg: $ty),+) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512 $(<$($param: $bound),+>)? ($($arg: $ty),+) $(-> $out)? {
                $body::<$crate::simd::Avx512, $($($param),+)?>($($arg),+)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2 $(<$($param: $bound),+>)? ($($arg: $ty),+) $(-> $out)? {
                $body::<$crate::simd::Avx2, $($($param),+)?>($($arg),+)
            }
            match set {
                // SAFETY: every kernel asserts at its entry that the set is available.
                #[cfg(target_arch = "x86_64")]
                set if set.has_avx512() => unsafe { avx512 $(::<$($param),+>)? ($($arg),+) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::set::KernelSet::Avx2 => unsafe { avx2 $(::<$($param),+>)? ($($arg),+) },
                _ => $body::<$crate::simd::Plain, $($($param),+)?>($($arg),+),
            }
        }
    };
}
pub(crate) use per_set;
