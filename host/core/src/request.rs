//! What a person asks for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A width and a height in pixels, written `832x480`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// The size of a VAE tile in pixels, written like a [`Size`] or as one number for a square.
pub type TileSize = Size;

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}x{}", self.width, self.height))
    }
}

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |part: &str| part.trim().parse::<u32>().ok().filter(|n| *n > 0);
        let (w, h) = text.split_once(['x', 'X']).unwrap_or((text, text));
        match (parse(w), parse(h)) {
            (Some(width), Some(height)) => Ok(Self { width, height }),
            _ => Err(format!("'{text}' is not a size: write WIDTHxHEIGHT in pixels, such as 832x480")),
        }
    }
}

/// How the guided and the unguided branch of classifier-free guidance are run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cfg {
    /// One whole pass after the other; weights travel twice a step.
    #[default]
    Sequential,
    /// Both branches while a block is loaded: half the traffic for the same bits.
    Pair,
    /// Both branches in one batch.
    Batched,
}

impl Cfg {
    /// The name used on the command line and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Pair => "pair",
            Self::Batched => "batched",
        }
    }
}

impl FromStr for Cfg {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Sequential, Self::Pair, Self::Batched]
            .into_iter()
            .find(|c| c.name() == text)
            .ok_or_else(|| format!("'{text}' is not a way to run guidance: use sequential, pair or batched"))
    }
}

/// What a person asks for, before any decision about memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The picture size in pixels.
    pub size: Size,
    /// The number of frames; 1 for a picture.
    pub frames: u32,
    /// The number of denoise steps.
    pub steps: u32,
    /// The guidance scale; at most 1 means that no unguided branch runs.
    pub guidance: f64,
    /// Tokens of the prompt as the tokenizer counted them, or the most that the model takes.
    pub prompt_tokens: u32,
    /// Tokens of the negative prompt, likewise.
    pub negative_tokens: u32,
}

impl Request {
    /// Whether an unguided branch runs beside the guided one.
    #[must_use]
    pub fn guided(&self) -> bool {
        self.guidance > 1.0
    }
}
