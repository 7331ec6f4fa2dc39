//! Kernels: their names and arguments from PTX, what they do from a test or from an emulation.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::work::Task;

/// A launch: how many threads, and the bytes of each argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The kernel's name.
    pub name: String,
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y and z.
    pub block: [u32; 3],
    /// Bytes of shared memory that were given at the launch.
    pub shared: u32,
    /// The arguments, as their bytes.
    pub arguments: Vec<Vec<u8>>,
}

impl Launch {
    /// An argument as a number of 64 bits.
    #[must_use]
    pub fn word(&self, n: usize) -> u64 {
        let mut bytes = [0; 8];
        let given = &self.arguments[n];
        let length = given.len().min(8);
        bytes[..length].copy_from_slice(&given[..length]);
        u64::from_le_bytes(bytes)
    }
}

/// What a kernel does.
pub type MockKernel = Arc<dyn Fn(&Launch) + Send + Sync>;

/// The form of `emu_<name>`: grid, block, shared bytes and pointers to the arguments.
type Emulated = unsafe extern "C" fn(u32, u32, u32, u32, u32, u32, u32, *mut *mut core::ffi::c_void);

#[derive(Default)]
pub(crate) struct Kernels {
    bodies: BTreeMap<String, MockKernel>,
    emulation: Option<&'static libloading::Library>,
    /// Kernels of loaded modules: a name, and the bytes of its arguments.
    pub(crate) loaded: Vec<(String, Vec<usize>)>,
}

impl Kernels {
    pub(crate) fn new(emulation: Option<&str>) -> Self {
        // SAFETY: a library of kernels that a test has built. It is never unloaded.
        let library = emulation.and_then(|path| unsafe { libloading::Library::new(path) }.ok());
        let emulation = library.map(|library| &*Box::leak(Box::new(library)));
        Self { bodies: BTreeMap::new(), emulation, loaded: Vec::new() }
    }

    pub(crate) fn add(&mut self, name: &str, body: MockKernel) {
        self.bodies.insert(name.to_owned(), body);
    }

    pub(crate) fn task(&self, mut launch: Launch) -> Task {
        if let Some(body) = self.bodies.get(&launch.name) {
            let body = Arc::clone(body);
            return Box::new(move || body(&launch));
        }
        let symbol = format!("emu_{}", launch.name);
        // SAFETY: the library's functions of this name have this form.
        let found = self.emulation.and_then(|library| unsafe { library.get::<Emulated>(symbol.as_bytes()) }.ok());
        let Some(function) = found.map(|function| *function) else { return Box::new(|| ()) };
        Box::new(move || {
            let ([gx, gy, gz], [bx, by, bz]) = (launch.grid, launch.block);
            let mut pointers: Vec<_> = launch.arguments.iter_mut().map(|a| a.as_mut_ptr().cast()).collect();
            // SAFETY: arguments of the sizes that the kernel's PTX declares.
            unsafe { function(gx, gy, gz, bx, by, bz, launch.shared, pointers.as_mut_ptr()) };
        })
    }
}

/// The kernels that PTX declares, with the bytes of each argument.
pub(crate) fn entries(ptx: &str) -> Vec<(String, Vec<usize>)> {
    let parts = ptx.split(".entry").skip(1);
    parts
        .filter_map(|part| {
            let (name, rest) = part.split_once('(')?;
            let (arguments, _) = rest.split_once(')')?;
            let sizes = arguments.split(',').filter(|a| a.contains(".param")).map(size).collect();
            Some((name.trim().to_owned(), sizes))
        })
        .collect()
}

/// The bytes of an argument such as `.param .u64 x` or `.param .align 8 .b8 x[24]`.
fn size(argument: &str) -> usize {
    let width = argument.split_whitespace().skip(1).filter(|word| *word != ".align").find_map(|word| {
        let bits = word.trim_start_matches(['.', 'u', 's', 'b', 'f']);
        if word.starts_with('.') { bits.parse::<usize>().ok() } else { None }
    });
    let count = argument.split_once('[').and_then(|(_, rest)| rest.trim_end().trim_end_matches(']').parse().ok());
    width.unwrap_or(64) / 8 * count.unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_from_ptx() {
        let ptx = ".visible .entry add(\n.param .u64 add_0,\n.param .f32 add_1\n)\n{ ret; }\n\
                   .visible .entry none()\n{}\n.entry wide(.param .align 8 .b8 wide_0[24])\n{}";
        let found = entries(ptx);
        assert_eq!(found, [("add".into(), vec![8, 4]), ("none".into(), vec![]), ("wide".into(), vec![24])]);
    }
}
