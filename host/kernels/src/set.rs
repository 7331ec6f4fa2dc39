//! Which instructions a kernel may use, and on how many threads it runs.

use crate::gemm::{Words, tiles};

/// A family of instructions for which every kernel has a version.
///
/// Two sets may round differently. Within one set a kernel gives the same bits
/// on any number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KernelSet {
    /// As [`Self::Avx512`], with products of bf16 on tile registers (AMX-BF16) where both operands are bf16.
    AmxBf16,
    /// As [`Self::Avx512`], with products of bf16 pairs (AVX512-BF16) where both operands are bf16.
    Avx512Bf16,
    /// 512-bit vectors with fused multiply-add (x86-64 with AVX-512 F, BW, DQ and VL).
    Avx512,
    /// 256-bit vectors with fused multiply-add (x86-64 with AVX2 and FMA).
    Avx2,
    /// What every target has; multiply and add round separately.
    Plain,
}

impl KernelSet {
    /// All sets, the fastest first.
    pub const ALL: [Self; 5] = [Self::AmxBf16, Self::Avx512Bf16, Self::Avx512, Self::Avx2, Self::Plain];

    /// The fastest set that this machine can run.
    #[must_use]
    pub fn detect() -> Self {
        Self::ALL.into_iter().find(|set| set.available()).unwrap_or(Self::Plain)
    }

    /// The name used in plans and profiles: `amx-bf16`, `avx512-bf16`, `avx512`, `avx2` or `plain`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AmxBf16 => "amx-bf16",
            Self::Avx512Bf16 => "avx512-bf16",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Plain => "plain",
        }
    }

    /// The set with this name, `None` for a name that is not one of [`Self::name`]'s.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.name() == name)
    }

    /// Whether this machine has the instructions. Kernels refuse a set it lacks.
    ///
    /// The first question for [`Self::AmxBf16`] asks the operating system for the registers, for the whole process.
    #[cfg(target_arch = "x86_64")]
    #[must_use]
    pub fn available(self) -> bool {
        match self {
            // Tests of this crate run it anywhere, with tiles in memory.
            Self::AmxBf16 => Self::Avx512.available() && (cfg!(test) || crate::gemm::amx::usable()),
            Self::Avx512Bf16 => is_x86_feature_detected!("avx512bf16") && Self::Avx512.available(),
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && Self::Avx2.available()
            }
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Self::Plain => true,
        }
    }

    /// Whether this machine has the instructions. Kernels refuse a set it lacks.
    #[cfg(not(target_arch = "x86_64"))]
    #[must_use]
    pub fn available(self) -> bool {
        self == Self::Plain
    }

    /// Rows that are multiplied together. In vector registers the sums, one vector group of the right
    /// operand and one broadcast value fill them; tile registers hold two tiles of rows.
    pub(crate) const fn tile_rows(self, words: Words) -> usize {
        match (self, words) {
            (Self::AmxBf16, Words::Pairs) => tiles::ROWS,
            (Self::AmxBf16 | Self::Avx512Bf16 | Self::Avx512, _) => 12,
            (Self::Avx2 | Self::Plain, _) => 6,
        }
    }

    /// The rows by which work is cut, when its words are not known yet.
    pub(crate) const fn unit_rows(self) -> usize {
        self.tile_rows(if self.has_pairs() { Words::Pairs } else { Words::Singles })
    }

    /// So many rows and the padding that they take with any words.
    pub(crate) fn padded_rows(self, rows: usize) -> usize {
        let padded = |words| rows.next_multiple_of(self.tile_rows(words));
        padded(Words::Singles).max(padded(Words::Pairs))
    }

    /// Whether what is not a product runs on 512-bit vectors.
    #[cfg(target_arch = "x86_64")]
    pub(crate) const fn has_avx512(self) -> bool {
        matches!(self, Self::AmxBf16 | Self::Avx512Bf16 | Self::Avx512)
    }

    /// Values in a vector. The register tile has two vectors of columns, or one
    /// where no more columns are left.
    pub(crate) const fn lanes(self) -> usize {
        match self {
            Self::AmxBf16 | Self::Avx512Bf16 | Self::Avx512 => 16,
            Self::Avx2 => 8,
            Self::Plain => 4,
        }
    }

    /// Columns of the register tile.
    pub(crate) const fn tile_cols(self) -> usize {
        2 * self.lanes()
    }

    /// Whether bf16 operands are multiplied in pairs.
    pub(crate) const fn has_pairs(self) -> bool {
        matches!(self, Self::AmxBf16 | Self::Avx512Bf16)
    }
}

/// How a kernel runs: its instructions and the most tasks it may split into.
///
/// Tasks run on the rayon pool that is current for the caller; a kernel never
/// starts threads. The number of tasks changes the scratch and never the bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exec {
    /// The instructions to use.
    pub set: KernelSet,
    /// The most tasks to split into, at least 1.
    pub threads: usize,
}

impl Exec {
    /// Runs on `threads` tasks with the instructions of `set`.
    #[must_use]
    pub const fn new(set: KernelSet, threads: usize) -> Self {
        Self { set, threads }
    }

    /// How many tasks work of `size` deserves when a task below `grain` is not
    /// worth its start.
    pub(crate) fn tasks(self, size: usize, grain: usize) -> usize {
        (size / grain).clamp(1, self.threads.max(1))
    }

    /// Every kernel calls this first: running instructions that the machine
    /// lacks would be undefined behaviour.
    pub(crate) fn assert_available(self) {
        assert!(self.set.available(), "kernel set {} is not available on this machine", self.set.name());
        assert!(self.threads > 0, "a kernel needs at least one thread");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_known_by_name_and_the_best_is_detected() {
        for set in KernelSet::ALL {
            assert_eq!(KernelSet::from_name(set.name()), Some(set));
        }
        assert_eq!(KernelSet::from_name("avx512-fp16"), None);
        let better = KernelSet::ALL.into_iter().take_while(|set| *set != KernelSet::detect());
        assert!(better.into_iter().all(|set| !set.available()));
        assert!(KernelSet::detect().available() && KernelSet::Plain.available());
    }
}
