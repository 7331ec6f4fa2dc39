//! Writing down a tensor list the way a network is built: layer by layer, under nested names.
//!
//! Shapes are those of PyTorch: a linear layer's weight is `[output, input]`, a convolution's
//! `[output, input, kernel…]`.

use std::fmt::Display;

use super::{ConfigError, Param};

/// Most values that a model may have, 2^50. The largest known models have 2^35; a config above this has a digit
/// too many, and byte counts of what is below it cannot overflow.
pub(crate) const MAX_ELEMENTS: u64 = 1 << 50;

/// A tensor list under construction. After the first error nothing more is added, so that an absurd config
/// costs neither time nor memory.
pub(crate) struct Tensors {
    class: &'static str,
    keep_f32: &'static [&'static str],
    list: Vec<Param>,
    path: String,
    elements: u64,
    error: Option<ConfigError>,
}

impl Tensors {
    pub(crate) fn new(class: &'static str) -> Self {
        Self::keeping(class, &[])
    }

    /// A list in which tensors with one of `keep_f32` as a part of their dotted name stay in f32.
    pub(crate) fn keeping(class: &'static str, keep_f32: &'static [&'static str]) -> Self {
        Self { class, keep_f32, list: Vec::new(), path: String::new(), elements: 0, error: None }
    }

    /// Runs `fill` with `part.` in front of the names it adds.
    pub(crate) fn at(&mut self, part: impl Display, fill: impl FnOnce(&mut Self)) {
        if self.error.is_some() {
            return;
        }
        let outer = self.path.len();
        self.path.push_str(&format!("{part}."));
        fill(self);
        self.path.truncate(outer);
    }

    /// Runs `fill` once for each of the blocks `list.0`, `list.1`, ….
    pub(crate) fn each(&mut self, list: &str, count: usize, mut fill: impl FnMut(&mut Self, usize)) {
        for i in 0..count {
            self.at(format_args!("{list}.{i}"), |t| fill(t, i));
        }
    }

    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize]) {
        self.add(name, shape, false);
    }

    /// A tensor that checkpoints carry although it is computed, not trained.
    pub(crate) fn buffer(&mut self, name: &str, shape: &[usize]) {
        self.add(name, shape, true);
    }

    pub(crate) fn linear(&mut self, name: &str, input: usize, output: usize) {
        self.linear_with(name, input, output, true);
    }

    pub(crate) fn linear_with(&mut self, name: &str, input: usize, output: usize, bias: bool) {
        self.weight(name, &[output, input]);
        if bias {
            self.tensor(&format!("{name}.bias"), &[output]);
        }
    }

    /// Two linear layers `linear_1` and `linear_2`: how diffusers embeds a timestep, a text or a guidance scale.
    pub(crate) fn embedder(&mut self, name: &str, input: usize, output: usize) {
        self.at(name, |t| {
            t.linear("linear_1", input, output);
            t.linear("linear_2", output, output);
        });
    }

    /// The feed-forward network of diffusers: `net.0.proj`, an activation, `net.2`.
    pub(crate) fn feed_forward(&mut self, name: &str, input: usize, inner: usize, output: usize) {
        self.at(name, |t| {
            t.linear("net.0.proj", input, inner);
            t.linear("net.2", inner, output);
        });
    }

    /// A layer or group norm: weight and bias.
    pub(crate) fn norm(&mut self, name: &str, width: usize) {
        self.weight(name, &[width]);
        self.tensor(&format!("{name}.bias"), &[width]);
    }

    /// Just `name.weight`: an RMS norm, an embedding table, a convolution without bias.
    pub(crate) fn weight(&mut self, name: &str, shape: &[usize]) {
        self.tensor(&format!("{name}.weight"), shape);
    }

    pub(crate) fn conv(&mut self, name: &str, input: usize, output: usize, kernel: &[usize]) {
        self.weight(name, &[&[output, input], kernel].concat());
        self.tensor(&format!("{name}.bias"), &[output]);
    }

    pub(crate) fn finish(self) -> Result<Vec<Param>, ConfigError> {
        self.error.map_or(Ok(self.list), Err)
    }

    fn add(&mut self, name: &str, shape: &[usize], buffer: bool) {
        if self.error.is_some() {
            return;
        }
        let name = format!("{}{name}", self.path);
        let elements = shape.iter().try_fold(1u64, |n, &side| n.checked_mul(side as u64));
        match elements.and_then(|n| n.checked_add(self.elements)).filter(|&n| n <= MAX_ELEMENTS) {
            Some(sum) => self.elements = sum,
            None => {
                self.error =
                    Some(ConfigError::TooLarge { class: self.class.into(), tensor: name, shape: shape.to_vec() });
                return;
            }
        }
        let keep_f32 = name.split('.').any(|part| self.keep_f32.contains(&part));
        self.list.push(Param { name, shape: shape.to_vec(), keep_f32, buffer });
    }
}
