//! The driver's functions, as programs call them.
#![allow(non_snake_case)]
#![allow(missing_docs)] // The names are NVIDIA's, and so is their documentation.
#![allow(clippy::missing_safety_doc)]

use core::ffi::{CStr, c_char, c_int, c_uint, c_void};

use loadline_cuda::driver::sys::{
    self, Api, CUcontext, CUdevice_attribute, CUevent, CUfunction, CUfunction_attribute, CUhostFn, CUjit_option,
    CUmemPool_attribute, CUmemPoolProps, CUmemoryPool, CUmodule, CUresult, CUstream,
};

use crate::driver;
use crate::kernels::{Launch, entries};
use crate::state::{Event, Pool, State};
use crate::uses::{inside, note_uses, uses};
use crate::words::{words, write_text};
use crate::work::{Queue, Work, eagerly, join, work, work_until};

type Handle = *mut c_void;

/// Of memory that is not locked the driver takes so many bytes when it is called, whatever is queued before.
const AT_ONCE: u64 = 64 << 10;

pub(crate) fn handle<T>(index: usize) -> *mut T {
    std::ptr::without_provenance_mut(index + 1)
}

pub(crate) fn index<T>(handle: *mut T) -> usize {
    (handle as usize).wrapping_sub(1)
}

fn code(result: Result<(), CUresult>) -> CUresult {
    result.err().unwrap_or(sys::SUCCESS)
}

/// A call that may be made to fail.
pub(crate) fn call(name: &str, body: impl FnOnce(&mut State) -> Result<(), CUresult>) -> CUresult {
    code(driver(|state| state.fails(name).and_then(|()| body(state))))
}

/// A call that is remembered.
fn told(name: &str, what: impl FnOnce() -> String, body: impl FnOnce(&mut State) -> Result<(), CUresult>) -> CUresult {
    let result = call(name, |state| {
        state.report.calls.push(format!("{name} {}", what()));
        body(state)
    });
    eagerly();
    result
}

/// # Safety
/// `to` is where the caller of the driver wants the value.
pub(crate) unsafe fn give<T>(to: *mut T, value: T) -> Result<(), CUresult> {
    if to.is_null() {
        return Err(sys::INVALID_VALUE);
    }
    // SAFETY: the caller's word.
    unsafe { to.write(value) };
    Ok(())
}

macro_rules! functions {
    ($(fn $name:ident($($argument:ident: $kind:ty),*) $body:block)*) => {
        $(
            #[unsafe(no_mangle)]
            pub(crate) unsafe extern "C" fn $name($($argument: $kind),*) -> CUresult $body
        )*

        /// The driver as a table, for tests that open it without a file.
        #[must_use]
        pub fn api() -> Api {
            Api { $($name,)* }
        }
    };
}

functions! {
    fn cuInit(_flags: c_uint) {
        call("cuInit", |state| if state.gpus.is_empty() { Err(sys::NO_DEVICE) } else { Ok(()) })
    }
    fn cuDriverGetVersion(version: *mut c_int) {
        // SAFETY: the caller's pointer, here and below.
        call("cuDriverGetVersion", |state| unsafe { give(version, state.settings.version) })
    }
    fn cuGetErrorName(result: CUresult, text: *mut *const c_char) {
        // SAFETY: see above.
        code(unsafe { give(text, words(result).0.as_ptr()) })
    }
    fn cuGetErrorString(result: CUresult, text: *mut *const c_char) {
        // SAFETY: see above.
        code(unsafe { give(text, words(result).1.as_ptr()) })
    }
    fn cuDeviceGetCount(count: *mut c_int) {
        // SAFETY: see above.
        call("cuDeviceGetCount", |state| unsafe { give(count, state.gpus.len() as c_int) })
    }
    fn cuDeviceGet(device: *mut c_int, ordinal: c_int) {
        // SAFETY: see above.
        call("cuDeviceGet", |_| unsafe { give(device, ordinal) })
    }
    fn cuDeviceGetName(name: *mut c_char, length: c_int, device: c_int) {
        // SAFETY: see above.
        code(unsafe { write_text(name, length, &format!("Mock GPU {device}")) })
    }
    fn cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) {
        // SAFETY: see above.
        call("cuDeviceTotalMem", |state| unsafe { give(bytes, state.settings.memory as usize) })
    }
    fn cuDeviceGetAttribute(value: *mut c_int, attribute: CUdevice_attribute, _device: c_int) {
        call("cuDeviceGetAttribute", |state| {
            let (major, minor) = state.settings.capability;
            let found = match attribute {
                sys::DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR => major,
                sys::DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR => minor,
                sys::DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN => 99 << 10,
                sys::DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT => 28,
                _ => 1,
            };
            // SAFETY: see above.
            unsafe { give(value, found) }
        })
    }
    fn cuDeviceGetPCIBusId(name: *mut c_char, length: c_int, device: c_int) {
        // SAFETY: see above.
        code(unsafe { write_text(name, length, &format!("0000:{:02X}:00.0", device + 1)) })
    }
    fn cuDevicePrimaryCtxRetain(context: *mut CUcontext, device: c_int) {
        call("cuDevicePrimaryCtxRetain", |state| {
            let gpu = &mut state.gpus[device as usize];
            gpu.contexts = gpu.contexts.max(1);
            // SAFETY: see above.
            unsafe { give(context, handle(device as usize)) }
        })
    }
    fn cuDevicePrimaryCtxRelease_v2(_device: c_int) { sys::SUCCESS }
    fn cuCtxCreate_v2(context: *mut CUcontext, _flags: c_uint, device: c_int) {
        call("cuCtxCreate", |state| {
            if state.free(device as usize) < state.settings.context {
                return Err(sys::OUT_OF_MEMORY);
            }
            state.gpus[device as usize].contexts += 1;
            // SAFETY: see above.
            unsafe { give(context, handle(device as usize)) }
        })
    }
    fn cuCtxDestroy_v2(context: CUcontext) {
        call("cuCtxDestroy", |state| {
            state.gpus[index(context)].contexts -= 1;
            Ok(())
        })
    }
    fn cuCtxSetCurrent(context: CUcontext) {
        call("cuCtxSetCurrent", |state| {
            state.current = index(context);
            Ok(())
        })
    }
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        // SAFETY: see above.
        call("cuMemGetInfo", |state| unsafe {
            give(free, state.free(state.current) as usize)?;
            give(total, state.settings.memory as usize)
        })
    }
    fn cuMemAlloc_v2(address: *mut u64, bytes: usize) {
        told("cuMemAlloc", || format!("{bytes}"), |state| {
            let start = state.allocate_apart(bytes as u64)?;
            // SAFETY: see above.
            unsafe { give(address, start) }
        })
    }
    fn cuMemFree_v2(address: u64) {
        // It waits for everything, whoever uses the memory.
        (0..driver(|state| state.queues.len())).for_each(finish);
        told("cuMemFree", String::new, |state| {
            let bytes = state.allocation(address).filter(|(start, _)| *start == address).ok_or(sys::INVALID_VALUE)?.1;
            state.host_access("freeing", address, bytes);
            state.release(address)
        })
    }
    fn cuStreamCreate(stream: *mut CUstream, _flags: c_uint) {
        call("cuStreamCreate", |state| {
            state.queues.push(Queue::default());
            // SAFETY: see above.
            unsafe { give(stream, handle(state.queues.len() - 1)) }
        })
    }
    fn cuStreamDestroy_v2(stream: CUstream) {
        finish(index(stream));
        sys::SUCCESS
    }
    fn cuStreamSynchronize(stream: CUstream) {
        let result = call("cuStreamSynchronize", |_| Ok(()));
        if result == sys::SUCCESS {
            finish(index(stream));
        }
        result
    }
    fn cuStreamWaitEvent(stream: CUstream, event: CUevent, _flags: c_uint) {
        told("cuStreamWaitEvent", || format!("{} {}", index(stream), index(event)), |state| {
            let Event { at, clock, .. } = state.events[index(event)].clone();
            if let Some((queue, number)) = at {
                state.queue(index(stream), Work::Wait(queue, number));
                join(&mut state.queues[index(stream)].clock, &clock);
            }
            Ok(())
        })
    }
    fn cuEventCreate(event: *mut CUevent, flags: c_uint) {
        call("cuEventCreate", |state| {
            let timed = flags & sys::EVENT_DISABLE_TIMING == 0;
            state.events.push(Event { timed, ..Event::default() });
            // SAFETY: see above.
            unsafe { give(event, handle(state.events.len() - 1)) }
        })
    }
    fn cuEventDestroy_v2(_event: CUevent) { sys::SUCCESS }
    fn cuEventRecord(event: CUevent, stream: CUstream) {
        told("cuEventRecord", || format!("{} {}", index(stream), index(event)), |state| {
            let number = state.queue(index(stream), Work::Record(index(event)));
            let clock = state.queues[index(stream)].clock.clone();
            let event = &mut state.events[index(event)];
            (event.at, event.clock, event.time) = (Some((index(stream), number)), clock, None);
            Ok(())
        })
    }
    fn cuEventQuery(event: CUevent) {
        // Whoever asks again and again gets on: each time a piece of work is done.
        let result = call("cuEventQuery", |_| Ok(()));
        if result != sys::SUCCESS || has_happened(event) {
            return result;
        }
        let once = std::cell::Cell::new(false);
        work(|_| once.replace(true));
        if has_happened(event) { sys::SUCCESS } else { sys::NOT_READY }
    }
    fn cuEventSynchronize(event: CUevent) {
        let result = call("cuEventSynchronize", |_| Ok(()));
        let at = driver(|state| state.events[index(event)].at);
        if let Some((queue, number)) = at.filter(|_| result == sys::SUCCESS) {
            work_until(queue, number);
            driver(|state| {
                let clock = state.events[index(event)].clock.clone();
                join(&mut state.host, &clock);
            });
        }
        result
    }
    fn cuEventElapsedTime(milliseconds: *mut f32, start: CUevent, end: CUevent) {
        call("cuEventElapsedTime", |state| {
            let (start, end) = (&state.events[index(start)], &state.events[index(end)]);
            if !start.timed || !end.timed {
                return Err(sys::INVALID_HANDLE);
            }
            let (Some(start), Some(end)) = (start.time, end.time) else { return Err(sys::NOT_READY) };
            let (later, sooner) = (end.saturating_duration_since(start), start.saturating_duration_since(end));
            let elapsed = later.as_secs_f64() - sooner.as_secs_f64();
            // SAFETY: see above.
            unsafe { give(milliseconds, (elapsed * 1e3) as f32) }
        })
    }
    fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: CUstream) {
        let (from, queue, bytes) = (from as u64, index(stream), bytes as u64);
        let mut staged = false;
        let result = call("cuMemcpyHtoDAsync", |state| {
            state.report.calls.push(format!("cuMemcpyHtoDAsync {queue} {bytes}"));
            inside(state, "a copy to the device", to, bytes)?;
            let locked = state.is_locked(from, bytes);
            if !locked && bytes <= AT_ONCE {
                // SAFETY: the caller's memory, which is its own to be read when it calls.
                let taken = unsafe { std::slice::from_raw_parts(from as *const u8, bytes as usize) }.to_vec();
                state.queue(queue, Work::Do(Box::new(move || {
                    // SAFETY: checked above, and freed memory stays mapped.
                    unsafe { std::ptr::copy(taken.as_ptr(), to as *mut u8, taken.len()) }
                })));
            } else {
                state.queue(queue, Work::Copy { to, from, bytes });
                state.access(queue, "a copy from the host", (from, bytes), false, false);
            }
            state.access(queue, "a copy to the device", (to, bytes), true, false);
            staged = !locked && bytes > AT_ONCE;
            Ok(())
        });
        // Memory that is not locked has been read when the call comes back.
        if staged {
            finish(queue);
        }
        eagerly();
        result
    }
    fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: CUstream) {
        let (to, queue, bytes) = (to as u64, index(stream), bytes as u64);
        let mut staged = false;
        let result = call("cuMemcpyDtoHAsync", |state| {
            state.report.calls.push(format!("cuMemcpyDtoHAsync {queue} {bytes}"));
            inside(state, "a copy from the device", from, bytes)?;
            state.queue(queue, Work::Copy { to, from, bytes });
            state.access(queue, "a copy from the device", (from, bytes), false, false);
            state.access(queue, "a copy to the host", (to, bytes), true, false);
            staged = !state.is_locked(to, bytes);
            Ok(())
        });
        if staged {
            finish(queue);
        }
        eagerly();
        result
    }
    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: CUstream) {
        let (queue, bytes) = (index(stream), bytes as u64);
        told("cuMemcpyDtoDAsync", || format!("{queue} {bytes}"), |state| {
            inside(state, "a copy on the device", to, bytes)?;
            inside(state, "a copy on the device", from, bytes)?;
            state.queue(queue, Work::Copy { to, from, bytes });
            state.access(queue, "a copy on the device", (to, bytes), true, false);
            state.access(queue, "a copy on the device", (from, bytes), false, false);
            Ok(())
        })
    }
    fn cuMemsetD8Async(to: u64, value: u8, bytes: usize, stream: CUstream) {
        let (queue, bytes) = (index(stream), bytes as u64);
        told("cuMemsetD8Async", || format!("{queue} {bytes}"), |state| {
            inside(state, "a fill", to, bytes)?;
            state.queue(queue, Work::Fill { to, value, bytes });
            state.access(queue, "a fill", (to, bytes), true, false);
            Ok(())
        })
    }
    fn cuMemHostRegister_v2(start: Handle, bytes: usize, _flags: c_uint) {
        told("cuMemHostRegister", || format!("{bytes}"), |state| {
            let (start, bytes) = (start as u64, bytes as u64);
            if state.report.pinned + bytes > state.settings.pinned {
                return Err(sys::OUT_OF_MEMORY);
            }
            if state.locked.insert(start, bytes).is_some() {
                return Err(sys::HOST_MEMORY_ALREADY_REGISTERED);
            }
            state.report.pinned += bytes;
            state.report.pinned_most = state.report.pinned_most.max(state.report.pinned);
            Ok(())
        })
    }
    fn cuMemHostUnregister(start: Handle) {
        told("cuMemHostUnregister", String::new, |state| {
            let bytes = state.locked.remove(&(start as u64)).ok_or(sys::HOST_MEMORY_NOT_REGISTERED)?;
            state.report.pinned -= bytes;
            state.host_access("giving locked memory back", start as u64, bytes);
            // The system may map something else there.
            let end = start as u64 + bytes;
            state.accesses.retain(|access| access.end <= start as u64 || access.start >= end);
            Ok(())
        })
    }
    fn cuMemPoolCreate(pool: *mut CUmemoryPool, properties: *const CUmemPoolProps) {
        call("cuMemPoolCreate", |state| {
            // SAFETY: the caller's pointer to what it filled in.
            let CUmemPoolProps { location, maxSize: max_size, .. } = unsafe { *properties };
            let limit = if max_size == 0 { u64::MAX } else { max_size as u64 };
            let gpu = location.id as usize;
            state.pools.push(Pool { gpu, limit, used: 0, used_most: 0, reserved: 0, reserved_most: 0 });
            // SAFETY: see above.
            unsafe { give(pool, handle(state.pools.len() - 1)) }
        })
    }
    fn cuMemPoolDestroy(pool: CUmemoryPool) {
        driver(|state| state.trim(index(pool), 0));
        sys::SUCCESS
    }
    fn cuMemPoolSetAttribute(_pool: CUmemoryPool, _attribute: CUmemPool_attribute, _value: Handle) {
        call("cuMemPoolSetAttribute", |_| Ok(()))
    }
    fn cuMemPoolGetAttribute(pool: CUmemoryPool, attribute: CUmemPool_attribute, value: Handle) {
        call("cuMemPoolGetAttribute", |state| {
            let pool = &state.pools[index(pool)];
            let found = match attribute {
                sys::MEMPOOL_ATTR_RESERVED_MEM_CURRENT => pool.reserved,
                sys::MEMPOOL_ATTR_RESERVED_MEM_HIGH => pool.reserved_most,
                sys::MEMPOOL_ATTR_USED_MEM_CURRENT => pool.used,
                sys::MEMPOOL_ATTR_USED_MEM_HIGH => pool.used_most,
                _ => return Err(sys::INVALID_VALUE),
            };
            // SAFETY: see above.
            unsafe { give(value.cast(), found) }
        })
    }
    fn cuMemPoolTrimTo(pool: CUmemoryPool, keep: usize) {
        call("cuMemPoolTrimTo", |state| {
            state.trim(index(pool), keep as u64);
            Ok(())
        })
    }
    fn cuDeviceSetMemPool(_device: c_int, _pool: CUmemoryPool) { call("cuDeviceSetMemPool", |_| Ok(())) }
    fn cuMemAllocFromPoolAsync(address: *mut u64, bytes: usize, pool: CUmemoryPool, stream: CUstream) {
        let (queue, bytes) = (index(stream), bytes as u64);
        told("cuMemAllocFromPoolAsync", || format!("{queue} {bytes}"), |state| {
            let start = state.allocate(index(pool), bytes)?;
            // The memory is there from this place of the queue on.
            state.accesses.retain(|access| access.end <= start || access.start >= start + bytes);
            state.queue(queue, Work::Wait(queue, 0));
            state.access(queue, "allocating", (start, bytes), true, false);
            // SAFETY: see above.
            unsafe { give(address, start) }
        })
    }
    fn cuMemFreeAsync(address: u64, stream: CUstream) {
        let queue = index(stream);
        told("cuMemFreeAsync", || format!("{queue}"), |state| {
            let found = state.allocation(address).filter(|(start, _)| *start == address);
            let (start, bytes) = found.ok_or(sys::INVALID_VALUE)?;
            state.queue(queue, Work::Wait(queue, 0));
            state.access(queue, "freeing", (start, bytes), true, false);
            state.release(address)
        })
    }
    fn cuModuleLoadDataEx(
        module: *mut CUmodule, image: *const c_void, _count: c_uint, _options: *mut CUjit_option, _values: *mut Handle
    ) {
        call("cuModuleLoadDataEx", |state| {
            // SAFETY: PTX is a text that ends in a zero.
            let text = unsafe { CStr::from_ptr(image.cast()) }.to_string_lossy();
            let found = entries(&text);
            if found.is_empty() {
                return Err(sys::INVALID_PTX);
            }
            state.kernels.loaded.extend(found);
            // SAFETY: see above.
            unsafe { give(module, handle(0)) }
        })
    }
    fn cuModuleUnload(_module: CUmodule) { sys::SUCCESS }
    fn cuModuleGetFunction(function: *mut CUfunction, _module: CUmodule, name: *const c_char) {
        call("cuModuleGetFunction", |state| {
            // SAFETY: the caller's text.
            let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
            let found = state.kernels.loaded.iter().rposition(|(loaded, _)| *loaded == name).ok_or(sys::NOT_FOUND)?;
            // SAFETY: see above.
            unsafe { give(function, handle(found)) }
        })
    }
    fn cuFuncSetAttribute(_function: CUfunction, _attribute: CUfunction_attribute, _value: c_int) {
        call("cuFuncSetAttribute", |_| Ok(()))
    }
    fn cuLaunchKernel(
        function: CUfunction,
        gx: c_uint, gy: c_uint, gz: c_uint,
        bx: c_uint, by: c_uint, bz: c_uint,
        shared: c_uint,
        stream: CUstream,
        arguments: *mut Handle,
        _extra: *mut Handle
    ) {
        let queue = index(stream);
        let name = driver(|state| state.kernels.loaded.get(index(function)).map(|(name, _)| name.clone()));
        told("cuLaunchKernel", || format!("{queue} {}", name.clone().unwrap_or_default()), |state| {
            let (name, sizes) = state.kernels.loaded.get(index(function)).cloned().ok_or(sys::INVALID_HANDLE)?;
            let bytes = |(n, size): (usize, &usize)| {
                // SAFETY: one pointer for each argument that the kernel declares, to a value of its size.
                unsafe { std::slice::from_raw_parts((*arguments.add(n)).cast::<u8>(), *size).to_vec() }
            };
            let arguments: Vec<Vec<u8>> = sizes.iter().enumerate().map(bytes).collect();
            uses(state, &name, &arguments);
            let launch = Launch { name, grid: [gx, gy, gz], block: [bx, by, bz], shared, arguments };
            state.queue(queue, Work::Launch(launch.clone()));
            note_uses(state, queue, &launch);
            Ok(())
        })
    }
    fn cuLaunchHostFunc(stream: CUstream, function: CUhostFn, data: Handle) {
        told("cuLaunchHostFunc", || format!("{}", index(stream)), |state| {
            let function = function.ok_or(sys::INVALID_VALUE)?;
            state.queue(index(stream), Work::Call(function, data as u64));
            Ok(())
        })
    }
}

/// Waits for everything that a queue has.
fn finish(queue: usize) {
    let queued = driver(|state| state.queues[queue].queued);
    work_until(queue, queued);
}

fn has_happened(event: CUevent) -> bool {
    driver(|state| {
        let at = state.events[index(event)].at;
        let happened = at.is_none_or(|(queue, number)| state.queues[queue].done >= number);
        if happened {
            let clock = state.events[index(event)].clock.clone();
            join(&mut state.host, &clock);
        }
        happened
    })
}
