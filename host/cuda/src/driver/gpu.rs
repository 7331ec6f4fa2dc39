//! What GPUs there are.

use core::ffi::{CStr, c_char, c_int};

use super::error::CudaError;
use super::library::Driver;
use super::sys::{self, CUdevice, CUdevice_attribute, CUresult};

/// NVIDIA's number for what a GPU can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capability {
    /// The generation.
    pub major: u32,
    /// The chip within it.
    pub minor: u32,
}

impl std::fmt::Display for Capability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A GPU of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Its index, among those that `CUDA_VISIBLE_DEVICES` leaves.
    pub index: u32,
    /// Its name, such as `NVIDIA GeForce RTX 3060`.
    pub name: String,
    /// Its memory in bytes, used or not.
    pub memory: u64,
    /// Its compute capability.
    pub capability: Capability,
    /// Its multiprocessors.
    pub multiprocessors: u32,
    /// The most shared memory that a block of a kernel may have, in bytes.
    pub shared_per_block: u64,
    /// Its address on the PCI bus, such as `0000:01:00.0`: what tells two GPUs of one name apart, here and in NVML.
    pub pci: String,
    /// Whether it has pools of memory; every GPU that is new enough does.
    pub has_pools: bool,
    /// Whether host memory can be locked for it.
    pub can_pin: bool,
    pub(super) device: CUdevice,
}

impl Gpu {
    /// The oldest generation that is served: Ampere has asynchronous copies to shared memory and bf16.
    pub const OLDEST: Capability = Capability { major: 8, minor: 0 };

    /// Whether the kernels run on it.
    ///
    /// # Errors
    /// [`CudaError::GpuTooOld`].
    pub fn require(&self) -> Result<(), CudaError> {
        if self.capability >= Self::OLDEST && self.has_pools {
            return Ok(());
        }
        let gpu = self.name.clone();
        Err(CudaError::GpuTooOld { gpu, found: self.capability, needed: Self::OLDEST })
    }

    pub(super) fn read(driver: &Driver, index: u32) -> Result<Self, CudaError> {
        let (api, mut device, mut memory) = (driver.api(), 0, 0);
        // SAFETY: pointers to numbers of ours, here and below.
        driver.check("cuDeviceGet", unsafe { (api.cuDeviceGet)(&raw mut device, index as c_int) })?;
        // SAFETY: as above; the device is the driver's.
        driver.check("cuDeviceTotalMem", unsafe { (api.cuDeviceTotalMem_v2)(&raw mut memory, device) })?;
        let number = |attribute| attribute_of(driver, device, attribute);
        Ok(Self {
            index,
            name: text(driver, "cuDeviceGetName", api.cuDeviceGetName, device)?,
            memory: memory as u64,
            capability: Capability {
                major: number(sys::DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                minor: number(sys::DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            },
            multiprocessors: number(sys::DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            shared_per_block: u64::from(number(sys::DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?),
            pci: text(driver, "cuDeviceGetPCIBusId", api.cuDeviceGetPCIBusId, device)?,
            has_pools: number(sys::DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)? != 0,
            can_pin: number(sys::DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED)? != 0,
            device,
        })
    }
}

fn attribute_of(driver: &Driver, device: CUdevice, attribute: CUdevice_attribute) -> Result<u32, CudaError> {
    let mut value = 0;
    // SAFETY: a pointer to a number of ours.
    let code = unsafe { (driver.api().cuDeviceGetAttribute)(&raw mut value, attribute, device) };
    driver.check("cuDeviceGetAttribute", code)?;
    Ok(value.max(0) as u32)
}

type Ask = unsafe extern "C" fn(*mut c_char, c_int, CUdevice) -> CUresult;

fn text(driver: &Driver, call: &'static str, ask: Ask, device: CUdevice) -> Result<String, CudaError> {
    let mut buffer = [0 as c_char; 256];
    // SAFETY: the last byte is left out, so that the text ends in a zero whatever the driver writes.
    driver.check(call, unsafe { ask(buffer.as_mut_ptr(), buffer.len() as c_int - 1, device) })?;
    // SAFETY: see above.
    Ok(unsafe { CStr::from_ptr(buffer.as_ptr()) }.to_string_lossy().into_owned())
}
