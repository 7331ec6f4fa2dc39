//! Which smaller request is the first that fits.

use loadline_core::Request;

use super::{Descent, Refusal, Step, SteppedDown};
use crate::capacity::{Axis, Ladder};
use crate::planning::{Asked, Attempt, Bench, Planned, Planner, Shelf};
use crate::{Error, Model};

/// The first smaller request that fits: each step alone, in their order; then the first two together, the first three,
/// and so on. Of one that shrinks the largest value that fits is taken; where steps act together, the later ones give
/// way first. Nothing if no step helps.
///
/// # Errors
/// If a model cannot be opened, or something other than memory is wrong with what is planned in its place.
pub fn descend(refusal: &Refusal<'_>) -> Result<Option<Descent>, Error> {
    let others = refusal.steps.iter().map(|step| match step {
        Step::Model(name) => Model::open(name).map(|model| Some((name.clone(), model))),
        Step::Shrink(..) => Ok(None),
    });
    let others = others.collect::<Result<Vec<_>, Error>>()?;
    let search = Search { refusal, others: &others };
    let alone = (0..refusal.steps.len()).map(|step| vec![step]);
    let together = (1..refusal.steps.len()).map(|last| (0..=last).collect());
    for steps in alone.chain(together) {
        if let Some(descent) = search.with(&steps)? {
            return Ok(Some(descent));
        }
    }
    Ok(None)
}

struct Search<'a> {
    refusal: &'a Refusal<'a>,
    /// For each step the model that it names.
    others: &'a [Option<(String, Model)>],
}

/// What was found along one axis.
struct Shrunk {
    step: usize,
    axis: Axis,
    from: String,
    to: String,
    /// The next larger value, which does not fit; absent where it was not asked.
    over: Option<String>,
}

impl<'a> Search<'a> {
    /// The largest request with these steps taken.
    fn with(&self, steps: &[usize]) -> Result<Option<Descent>, Error> {
        let other = steps.iter().rev().find_map(|step| self.others[*step].as_ref());
        let model = other.map_or(self.refusal.model, |(_, model)| model);
        let shelf = Shelf::new(model);
        let bench = Bench::new(&shelf, self.refusal.machine);
        let trial = Trial { refusal: self.refusal, model, bench: &bench, asked: self.asked(model)? };
        let mut request = trial.asked.request.clone();
        let axes: Vec<(usize, Axis, Option<u32>)> = steps.iter().filter_map(|step| self.axis(*step)).collect();
        for (_, axis, least) in &axes {
            // A model without that choice, or one whose least is more than what was asked for, cannot shrink.
            let Some(smallest) = trial.ladder(*axis, *least, &request).into_iter().next() else { return Ok(None) };
            request = smallest.1;
        }
        let Some(mut planned) = trial.plan(&request)? else { return Ok(None) };
        let mut shrunk = Vec::new();
        for (step, axis, least) in axes.iter().rev() {
            let grown = trial.grow(*axis, *least, &request, planned)?;
            (request, planned) = (grown.0, grown.1);
            shrunk.extend(grown.2.map(|(from, to, over)| Shrunk { step: *step, axis: *axis, from, to, over }));
        }
        shrunk.sort_by_key(|s| s.step);
        Ok(Some(self.descent(other, &trial, request, planned, &shrunk)))
    }

    /// What was asked for, of another model: what that model takes beside it is usual there.
    fn asked(&self, model: &Model) -> Result<Asked, Error> {
        let asked = self.refusal.asked;
        if std::ptr::eq(model, self.refusal.model) {
            return Ok(asked.clone());
        }
        let name = &model.spec.name;
        let usual = model.default_request().ok_or_else(|| {
            Error::Request(format!("--step-down: '{name}' cannot be planned; see `loadline model list` for what can"))
        })?;
        let Request { size, frames, steps, guidance, .. } = asked.request;
        Ok(Asked { request: Request { size, frames, steps, guidance, ..usual }, ..asked.clone() })
    }

    fn axis(&self, step: usize) -> Option<(usize, Axis, Option<u32>)> {
        match &self.refusal.steps[step] {
            Step::Shrink(axis, least) => Some((step, *axis, *least)),
            Step::Model(_) => None,
        }
    }

    fn descent(
        &self,
        other: Option<&(String, Model)>,
        trial: &Trial<'_>,
        request: Request,
        planned: Planned,
        shrunk: &[Shrunk],
    ) -> Descent {
        let why = &self.refusal.certificate.reason;
        let model = other.map(|(name, _)| SteppedDown {
            what: "model",
            from: self.refusal.model.spec.name.clone(),
            to: name.clone(),
            reason: why.clone(),
        });
        let shrunk = shrunk.iter().map(|s| SteppedDown {
            what: s.axis.name(),
            from: s.from.clone(),
            to: s.to.clone(),
            reason: match &s.over {
                Some(over) => format!("{why}; {over} does not fit either"),
                None => why.clone(),
            },
        });
        Descent {
            model: other.cloned(),
            asked: Asked { request, ..trial.asked.clone() },
            planned,
            steps: model.into_iter().chain(shrunk).collect(),
        }
    }
}

/// One model, with what was asked for as it applies to it.
struct Trial<'a> {
    refusal: &'a Refusal<'a>,
    model: &'a Model,
    bench: &'a Bench<'a>,
    asked: Asked,
}

/// From, to and the next larger value that does not fit.
type Change = (String, String, Option<String>);

impl Trial<'_> {
    /// The plan of a request, if it fits and the model allows it.
    fn plan(&self, request: &Request) -> Result<Option<Planned>, Error> {
        let Refusal { machine, policy, settings, .. } = *self.refusal;
        let asked = Asked { request: request.clone(), ..self.asked.clone() };
        match Planner::new(self.model, machine, policy, settings).attempt_on(self.bench, &asked) {
            Ok(Attempt::Fits(planned)) => Ok(Some(*planned)),
            Ok(Attempt::Refused(_)) | Err(Error::NeverFits(_) | Error::Request(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// What is smaller than what was asked for in one respect, smallest first, as values and requests.
    fn ladder(&self, axis: Axis, least: Option<u32>, request: &Request) -> Vec<(String, Request)> {
        // Sizes keep the shape that was asked for. A model without that choice has nothing smaller.
        let (_, like) = full(axis, &self.asked.request, request);
        let Ok(ladder) = Ladder::new(self.model, axis, &like) else { return Vec::new() };
        let rungs = (0..ladder.len()).filter_map(|i| Some((ladder.value(i), ladder.get(i)?.clone())));
        let full = measure(axis, &self.asked.request);
        let within = |(_, request): &(String, Request)| {
            let value = measure(axis, request);
            value < full && value >= u64::from(least.unwrap_or(0))
        };
        rungs.filter(within).collect()
    }

    /// The largest value along an axis that fits, up to what was asked for; the smallest is known to.
    fn grow(
        &self,
        axis: Axis,
        least: Option<u32>,
        smallest: &Request,
        planned: Planned,
    ) -> Result<(Request, Planned, Option<Change>), Error> {
        let mut rungs = self.ladder(axis, least, smallest);
        rungs.push(full(axis, &self.asked.request, smallest));
        let mut best = (0, planned);
        let mut over = rungs.len();
        while over - best.0 > 1 {
            let middle = usize::midpoint(best.0, over);
            match self.plan(&rungs[middle].1)? {
                Some(planned) => best = (middle, planned),
                None => over = middle,
            }
        }
        let last = rungs.len() - 1;
        let (to, request) = rungs[best.0].clone();
        let over = (over < last).then(|| rungs[over].0.clone());
        let change = (best.0 < last).then(|| (rungs[last].0.clone(), to, over));
        Ok((request, best.1, change))
    }
}

/// Frames, or pixels of the shorter side.
fn measure(axis: Axis, request: &Request) -> u64 {
    u64::from(match axis {
        Axis::Frames => request.frames,
        Axis::Size => request.size.width.min(request.size.height),
        Axis::Steps => request.steps,
    })
}

/// A request with one value as it was asked for.
fn full(axis: Axis, asked: &Request, request: &Request) -> (String, Request) {
    let request = request.clone();
    match axis {
        Axis::Frames => (asked.frames.to_string(), Request { frames: asked.frames, ..request }),
        Axis::Size => (asked.size.to_string(), Request { size: asked.size, ..request }),
        Axis::Steps => (asked.steps.to_string(), Request { steps: asked.steps, ..request }),
    }
}
