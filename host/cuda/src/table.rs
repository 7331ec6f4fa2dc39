//! Tables of a library's functions.

/// Declares a table. Types are named as in the module of `cudarc` that is given; what it is given for results is the
/// caller's type of that name, so that signatures are compared but for results.
macro_rules! table {
    ($(#[$about:meta])* $table:ident -> $result:ident, as in $theirs:path: $($name:ident($($argument:ty),*);)*) => {
        $(#[$about])*
        #[derive(Clone, Copy)]
        #[allow(non_snake_case)]
        pub struct $table { $(pub $name: unsafe extern "C" fn($($argument),*) -> $result,)* }

        impl $table {
            /// Fills the table with what `symbol` finds.
            ///
            /// # Errors
            /// The name of the first function that is missing.
            ///
            /// # Safety
            /// `symbol` must give the address of the library's function of that name, or null.
            pub unsafe fn bind(symbol: &mut dyn FnMut(&str) -> *const c_void) -> Result<Self, &'static str> {
                Ok(Self { $($name: {
                    let address = symbol(stringify!($name));
                    if address.is_null() {
                        return Err(stringify!($name));
                    }
                    // SAFETY: not null, and by the caller's word the function of this name, whose type is NVIDIA's.
                    unsafe {
                        core::mem::transmute::<*const c_void, unsafe extern "C" fn($($argument),*) -> $result>(address)
                    }
                },)* })
            }
        }

        /// The same signatures with `cudarc`'s results.
        #[allow(unused_imports)]
        mod signatures {
            use core::ffi::{c_char, c_int, c_uint, c_void};
            use $theirs::*;

            $(const _: unsafe fn($($argument),*) -> $result = $name;)*
        }
    };
}

pub(crate) use table;
