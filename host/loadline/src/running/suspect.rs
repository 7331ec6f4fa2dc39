//! Which weight makes the numbers of a run useless.

use loadline_models::spec::Folder;

use super::host::table_segment;
use super::session::element_type;
use crate::Error;

/// Elements that are looked at together; a tensor of any size passes through this much memory.
const CHUNK: usize = 1 << 18;

/// The error of numbers that are not finite: the first weight that is none, or what else to try.
pub(super) fn not_finite(folder: &Folder, what: &str) -> Error {
    let found = folder.components.iter().find_map(|c| first_bad(&c.weights));
    Error::Model(found.unwrap_or_else(|| {
        format!(
            "{what} are not finite numbers, though every weight is: the components do not belong together, or --storage f16 \
             overflows; try --storage f32"
        )
    }))
}

/// The first tensor of a component that holds NaN or infinity, as a message.
fn first_bad(weights: &loadline_models::weights::WeightIndex) -> Option<String> {
    let files = loadline_device::WeightFiles::open(&weights.files).ok()?;
    weights.tensors.iter().find_map(|entry| {
        let segment = table_segment(entry, element_type(entry.dtype)?, entry.file);
        let mut values = vec![0.0; segment.elements.min(CHUNK)];
        (0..segment.elements).step_by(CHUNK).find_map(|first| {
            let part = &mut values[..CHUNK.min(segment.elements - first)];
            files.read_f32(&segment, first, part).ok()?;
            let at = part.iter().position(|v| !v.is_finite())?;
            let file = weights.files.get(entry.file)?.display();
            let (name, value, element) = (&entry.name, part[at], first + at);
            Some(format!(
                "{file}: tensor '{name}' holds {value} at element {element}, so that no result can come of it; download \
                 the file again"
            ))
        })
    })
}
