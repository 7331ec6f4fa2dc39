//! The tile registers of AMX (Intel's Advanced Matrix Extensions, on Xeons since Sapphire Rapids).
//!
//! Stable Rust has no intrinsics for them, so each instruction is a line of assembly. No type of Rust lives in a tile
//! register, so the compiler never uses one, and what a line leaves there is there for the next.

use std::arch::asm;
use std::sync::OnceLock;

use crate::gemm::tiles::{SIDE, Software, TileUnit, multiply};
use crate::gemm::{Panels, Rows, Words};
use crate::set::KernelSet;

/// Whether this process may use the tile registers, and they multiply as they should.
///
/// The kernel keeps their state only for processes that ask, so the first call asks. What they compute is looked at
/// once, so that a machine whose tiles differ from what is known of them falls back to another set.
pub(crate) fn usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| has_instructions() && is_permitted() && multiplies())
}

/// Whether processor and operating system know tiles and products of bf16 (CPUID leaf 7: AMX-TILE and AMX-BF16; XCR0:
/// the configuration and the data of tiles).
fn has_instructions() -> bool {
    use std::arch::x86_64::{__cpuid_count, _xgetbv};
    #[target_feature(enable = "xsave")]
    fn states() -> u64 {
        // SAFETY: the first register exists wherever the instruction does.
        unsafe { _xgetbv(0) }
    }
    const INSTRUCTIONS: u32 = 1 << 24 | 1 << 22;
    const STATES: u64 = 1 << 17 | 1 << 18;
    if !KernelSet::Avx512.available() || !is_x86_feature_detected!("xsave") {
        return false;
    }
    let found = __cpuid_count(7, 0).edx & INSTRUCTIONS;
    // SAFETY: the instruction was detected, and the system uses it, or AVX-512 would not be available.
    found == INSTRUCTIONS && unsafe { states() } & STATES == STATES
}

/// Asks the kernel for tile data (`arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`, Linux 5.16).
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let result: i64;
    // SAFETY: this system call reads and writes no memory of the process; the two registers are those it destroys.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// How other systems are asked is not known here.
#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// Compares a product with that of [`Software`]: small whole numbers, whose sums are exact in any order.
fn multiplies() -> bool {
    let panels = Panels { set: KernelSet::AmxBf16, words: Words::Pairs, rows: 40, cols: 80, depth: 40 };
    let pair = |i: usize| {
        let [low, high] = [i % 13, i % 7].map(|v| (v as f32 - 5.0).to_bits());
        f32::from_bits(low >> 16 | high & 0xffff_0000)
    };
    let words: Vec<f32> = (0..panels.rows * panels.depth).map(pair).collect();
    let right: Vec<f32> = (0..panels.right_len()).map(|i| pair(i / 3)).collect();
    let product = |unit: &mut dyn FnMut(&Rows<'_>, &mut [f32], bool)| {
        let mut sums = vec![0f32; panels.sums_len()];
        [false, true].into_iter().for_each(|add| unit(&Rows::dense(&words, panels.depth), &mut sums, add));
        sums
    };
    let here = product(&mut |left, sums, add| multiply(&mut Amx, &panels, left, &right, sums, add));
    let there = product(&mut |left, sums, add| multiply(&mut Software::new(), &panels, left, &right, sums, add));
    here == there
}

/// The processor's tile registers, of the thread that uses them.
pub(crate) struct Amx;

/// What `ldtilecfg` reads: palette 1 and, for each of eight tiles, the bytes of a row and the number of rows.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static WHOLE_TILES: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

const _: () = assert!(size_of::<Configuration>() == 64 && SIDE * size_of::<f32>() == 64);

impl TileUnit for Amx {
    #[inline(always)]
    unsafe fn begin(&mut self) {
        // SAFETY: the caller promises the instructions; 64 bytes are read.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE_TILES, options(nostack, readonly, preserves_flags)) };
    }

    #[inline(always)]
    unsafe fn end(&mut self) {
        // SAFETY: the caller promises the instructions.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }

    #[inline(always)]
    unsafe fn zero<const T: usize>(&mut self) {
        // SAFETY: the caller promises that tiles have begun.
        unsafe { asm!("tilezero tmm{t}", t = const T, options(nostack, nomem, preserves_flags)) };
    }

    #[inline(always)]
    unsafe fn load<const T: usize>(&mut self, at: *const f32, stride: usize) {
        // SAFETY: the caller promises that tiles have begun, and sixteen words at each row's place.
        unsafe {
            asm!(
                "tileloadd tmm{t}, [{at} + {stride}*1]",
                t = const T,
                at = in(reg) at,
                stride = in(reg) stride * size_of::<f32>(),
                options(nostack, readonly, preserves_flags),
            );
        }
    }

    #[inline(always)]
    unsafe fn store<const T: usize>(&mut self, at: *mut f32, stride: usize) {
        // SAFETY: the caller promises that tiles have begun, and room for sixteen words at each row's place.
        unsafe {
            asm!(
                "tilestored [{at} + {stride}*1], tmm{t}",
                t = const T,
                at = in(reg) at,
                stride = in(reg) stride * size_of::<f32>(),
                options(nostack, preserves_flags),
            );
        }
    }

    #[inline(always)]
    unsafe fn multiply<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&mut self) {
        // SAFETY: the caller promises that tiles have begun.
        unsafe {
            asm!(
                "tdpbf16ps tmm{sum}, tmm{left}, tmm{right}",
                sum = const SUM,
                left = const LEFT,
                right = const RIGHT,
                options(nostack, nomem, preserves_flags),
            );
        }
    }
}
