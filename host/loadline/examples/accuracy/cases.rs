//! The corpus.

use std::path::Path;

use loadline::core::{Bytes, Cfg, DType, Request, Size};
use loadline::{Asked, JobSpec, KnobChoice, ResultSink};

use crate::models::{WIDTHS, Width};

/// As long as prompts for video models usually are.
const PROMPT: &str = "Two anthropomorphic cats in comfy boxing gear and bright gloves fight intensely on a spotlighted \
    stage. The camera circles them slowly at the height of their eyes while the crowd behind the ropes stays out of \
    focus. Sweat glints on their fur, the red cat ducks under a wide hook, the grey one steps back against the corner \
    and raises both paws. Warm light from above, deep shadows, fine dust in the air, shallow depth of field, \
    thirty-five millimetre film with visible grain and natural colours.";

/// What Wan's authors tell it to avoid, in English.
const NEGATIVE: &str = "Garish colours, overexposed, static, blurred details, subtitles, style of a painting, \
    picture, still, grey all over, worst quality, low quality, traces of JPEG compression, ugly, incomplete, extra \
    fingers, badly drawn hands, badly drawn faces, deformed, disfigured, misshapen limbs, fingers grown together, a \
    picture that does not move, cluttered background, three legs, many people in the background, walking backwards.";

/// One configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub width: Width,
    pub size: Size,
    pub frames: u32,
    pub steps: u32,
    pub policy: &'static str,
    pub storage: DType,
    pub cfg: Cfg,
    pub tile: Option<u32>,
    /// From 0, the smallest budget that works, to 1, everything resident.
    pub budget: f64,
    /// Its shape takes no part in calibration.
    pub held_out: bool,
}

/// Width, height and frames; every third is held out.
const SHAPES: [(u32, u32, u32); 9] = [
    (128, 96, 5),
    (192, 128, 9),
    (160, 128, 5),
    (256, 192, 5),
    (160, 160, 13),
    (224, 128, 9),
    (320, 192, 5),
    (192, 192, 9),
    (256, 160, 9),
];
const POLICIES: [&str; 4] = ["auto-tune", "threshold", "manual-swap", "lazy-load"];
const BUDGETS: [f64; 5] = [1.0, 0.0, 0.3, 0.6, 0.1];
const GUIDANCE: [Cfg; 3] = [Cfg::Sequential, Cfg::Pair, Cfg::Batched];

/// Every case, in a fixed order. Each shape occurs at every width three times, with everything else varied.
pub(crate) fn all() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for width in WIDTHS {
        for (s, (w, h, frames)) in SHAPES.into_iter().enumerate() {
            for turn in 0..3 {
                let n = cases.len();
                cases.push(Case {
                    width,
                    size: Size { width: w, height: h },
                    frames,
                    steps: 4,
                    policy: POLICIES[(n + n / 12) % 4],
                    storage: if (n + s).is_multiple_of(2) { DType::F32 } else { DType::Bf16 },
                    cfg: GUIDANCE[(turn + s) % 3],
                    tile: (turn == 2 && w >= 192).then_some(96),
                    budget: BUDGETS[n % 5],
                    held_out: s % 3 == 2,
                });
            }
        }
    }
    cases
}

impl Case {
    pub(crate) fn name(&self) -> String {
        let Self { width, size, frames, policy, storage, cfg, tile, budget, .. } = self;
        let tile = tile.map_or_else(String::new, |t| format!(" tile {t}"));
        format!("{} {size}x{frames} {storage} {} {policy} {budget}{tile}", width.name, cfg.name())
    }

    /// The job, without a budget.
    pub(crate) fn job(&self, folder: &Path) -> JobSpec {
        let tile = self.tile.map(|side| Size { width: side, height: side });
        // The session counts the tokens.
        let (prompt_tokens, negative_tokens, guidance) = (0, 0, 5.0);
        let (size, frames, steps) = (self.size, self.frames, self.steps);
        let request = Request { size, frames, steps, guidance, prompt_tokens, negative_tokens };
        let knobs = KnobChoice {
            cfg: Some(self.cfg),
            storage: vec![(String::new(), self.storage)],
            tile,
            tile_overlap: tile.map(|_| 16),
            frame_chunk: None,
        };
        JobSpec {
            prompt: PROMPT.to_owned(),
            negative_prompt: NEGATIVE.to_owned(),
            asked: Asked { knobs, ram: Some(Bytes::gib(8)), ..Asked::new(request) },
            seed: 1,
            latents: None,
            output: ResultSink::Video(folder.join("out.mp4")),
            dump: None,
            resume: false,
            more_to_come: false,
        }
    }
}
