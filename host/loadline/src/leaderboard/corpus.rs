//! What policies are measured on.

use loadline_core::Size;

/// A request for a model of the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// The model's name in the catalog.
    pub model: &'static str,
    /// The picture size.
    pub size: Size,
    /// Frames; 1 for a picture.
    pub frames: u32,
    /// Denoise steps.
    pub steps: u32,
}

/// A device budget, by what the request needs on the machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Level {
    /// One granule less than any plan needs, with the smallest tile: refusing is right.
    Below,
    /// What a plan with the smallest tile needs at least.
    Tiled,
    /// A share of the way from what a plan without tiles needs at least (0) to all weights of the largest stage staying
    /// on the device (1), or the whole card where that is less.
    Share(f64),
}

impl Level {
    /// A word for tables.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Below => "too little".to_owned(),
            Self::Tiled => "least, tiled".to_owned(),
            Self::Share(share) if share <= 0.0 => "least".to_owned(),
            Self::Share(share) if share >= 1.0 => "all resident".to_owned(),
            Self::Share(share) => format!("{:.1} %", 100.0 * share),
        }
    }
}

/// Work, machines and budgets, every one of them with every other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Corpus {
    /// Its name.
    pub name: &'static str,
    /// What is asked for.
    pub works: &'static [Work],
    /// Profiles by name.
    pub gpus: &'static [&'static str],
    /// Budgets.
    pub levels: &'static [Level],
}

const fn work(model: &'static str, width: u32, height: u32, frames: u32, steps: u32) -> Work {
    Work { model, size: Size { width, height }, frames, steps }
}

/// Short requests are among them, and many: where computing takes long, every policy hides its copies behind it.
const QUICK: Corpus = Corpus {
    name: "quick",
    works: &[
        work("wan2.1-t2v-1.3b", 832, 480, 81, 30),
        work("wan2.1-t2v-14b", 832, 480, 17, 10),
        work("cogvideox-5b", 720, 480, 9, 20),
        work("flux.1-dev", 1024, 1024, 1, 28),
    ],
    gpus: &["rtx-3060-12gb", "rtx-4090", "h100-80gb"],
    levels: &[Level::Below, Level::Share(0.0), Level::Share(0.125), Level::Share(0.5), Level::Share(1.0)],
};

const FULL: Corpus = Corpus {
    name: "full",
    works: &[
        work("wan2.1-t2v-1.3b", 832, 480, 81, 30),
        work("wan2.1-t2v-1.3b", 832, 480, 17, 4),
        work("wan2.1-t2v-14b", 832, 480, 81, 50),
        work("wan2.1-t2v-14b", 832, 480, 17, 10),
        work("wan2.1-t2v-14b", 1280, 720, 81, 30),
        work("wan2.1-t2v-14b", 512, 512, 1, 8),
        work("wan2.2-t2v-a14b", 832, 480, 33, 20),
        work("cogvideox-2b", 720, 480, 49, 50),
        work("cogvideox-5b", 720, 480, 9, 20),
        work("flux.1-dev", 1024, 1024, 1, 28),
        work("flux.1-dev", 512, 512, 1, 4),
    ],
    gpus: &["rtx-3060-12gb", "rtx-4060-ti-16gb", "rtx-4090", "rtx-5090", "a100-40gb", "h100-80gb"],
    levels: &[
        Level::Below,
        Level::Tiled,
        Level::Share(0.0),
        Level::Share(0.0625),
        Level::Share(0.125),
        Level::Share(0.25),
        Level::Share(0.5),
        Level::Share(0.75),
        Level::Share(1.0),
    ],
};

impl Corpus {
    /// Every corpus.
    pub const ALL: [Self; 2] = [QUICK, FULL];

    /// A few dozen cases: the answer while a policy is being written.
    #[must_use]
    pub const fn quick() -> Self {
        QUICK
    }

    /// Some hundred cases: what is published.
    #[must_use]
    pub const fn full() -> Self {
        FULL
    }
}
