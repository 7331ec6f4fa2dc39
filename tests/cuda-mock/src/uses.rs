//! What work uses of the device's memory.

use loadline_cuda::driver::sys::{self, CUresult};

use crate::kernels::Launch;
use crate::state::State;

/// Whether a range is memory of the device; what was freed is told.
pub(crate) fn inside(state: &mut State, what: &str, start: u64, bytes: u64) -> Result<(), CUresult> {
    match state.allocation(start) {
        Some((from, length)) if start + bytes <= from + length => Ok(()),
        _ => {
            state.report.hazards.push(format!("{what} of {bytes} bytes uses memory that is not there"));
            Err(sys::INVALID_VALUE)
        }
    }
}

/// Words of arguments that are addresses of the device.
fn addresses(arguments: &[Vec<u8>]) -> impl Iterator<Item = u64> {
    arguments.iter().flat_map(|a| a.chunks_exact(8)).map(|word| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        u64::from_le_bytes(bytes)
    })
}

/// Kernels that get an address which was freed.
pub(crate) fn uses(state: &mut State, name: &str, arguments: &[Vec<u8>]) {
    for address in addresses(arguments) {
        let before = state.freed.range(..=address).next_back();
        let gone = before.is_some_and(|(start, memory)| address < start + memory.bytes);
        if gone && state.allocation(address).is_none() {
            state.report.hazards.push(format!("kernel {name} uses memory that was freed"));
        }
    }
}

pub(crate) fn note_uses(state: &mut State, queue: usize, launch: &Launch) {
    let what = format!("kernel {}", launch.name);
    for address in addresses(&launch.arguments) {
        if let Some(range) = state.allocation(address) {
            state.access(queue, &what, range, true, true);
        }
    }
}
