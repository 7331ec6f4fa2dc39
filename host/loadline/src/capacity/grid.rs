//! What is compared.

use loadline_core::{Bytes, Machine};

use super::Contender;
use crate::{Asked, Error, Model};

/// A model with what is asked of it.
pub struct Ask {
    /// The model.
    pub model: Model,
    /// The request. Its budget is not used: the grid has budgets of its own.
    pub asked: Asked,
}

/// Models, machines, policies and budgets, every one of them with every other.
pub struct Grid {
    /// Models with their requests.
    pub asks: Vec<Ask>,
    /// Machines.
    pub machines: Vec<Machine>,
    /// Policies with settings.
    pub contenders: Vec<Contender>,
    /// Device budgets; the whole card of each machine if there is none.
    pub budgets: Vec<Bytes>,
}

/// The most rows of a comparison: about a minute of planning, and more than anybody reads.
pub const ROWS_MOST: usize = 200_000;

impl Grid {
    /// The number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        let lists = [self.asks.len(), self.machines.len(), self.contenders.len(), self.budgets.len().max(1)];
        lists.into_iter().fold(1, usize::saturating_mul)
    }

    /// # Errors
    /// If a list is empty or there are more rows than [`ROWS_MOST`].
    pub fn check(&self) -> Result<(), Error> {
        let lists = [
            ("--model", self.asks.is_empty(), "loadline model list"),
            ("--gpu", self.machines.is_empty(), "loadline profile list"),
            ("--policy", self.contenders.is_empty(), "loadline policy list"),
        ];
        if let Some((flag, _, see)) = lists.into_iter().find(|(_, empty, _)| *empty) {
            return Err(Error::Request(format!("{flag} names nothing: name at least one; see `{see}`")));
        }
        let rows = self.rows();
        if rows > ROWS_MOST {
            return Err(Error::Request(format!(
                "{} models x {} GPUs x {} policies with settings x {} budgets make {rows} rows, at most {ROWS_MOST} \
                 are compared; shorten a list",
                self.asks.len(),
                self.machines.len(),
                self.contenders.len(),
                self.budgets.len().max(1)
            )));
        }
        Ok(())
    }
}
