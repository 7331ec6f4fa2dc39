//! A look over a component before it is compiled: whether it is made to be dear to compile.
//!
//! Compiling takes longer than in proportion to the size of a function, to the values that it keeps on its stack, to
//! the depth of its blocks and to the number of its loops: a function of 256 KiB can be written that takes two minutes.
//! What a compiler makes of somebody's source is far from that. Nothing stops a compilation that has begun, so such
//! components are refused before. `examples/bombs.rs` measures what is left.

use wasmparser::{BinaryReader, FuncToValidate, FuncValidatorAllocations, FunctionBody, Parser, Payload};
use wasmparser::{ValidPayload, Validator, ValidatorResources};

use crate::text::line;
use crate::{Limits, PolicyError};

/// Bytes of one function. The policies that ship have functions of 8 KiB at most, CPython has one of 417 KiB.
const FUNCTION: u64 = 64 << 10;
const FUNCTION_OF_INTERPRETER: u64 = 512 << 10;
/// Functions of a component: each takes its time however small it is. CPython has 13,500.
const FUNCTIONS: u64 = 8_000;
const FUNCTIONS_OF_INTERPRETER: u64 = 64_000;
/// A smaller function is cheap to compile whatever it holds.
const SMALL: u64 = 8 << 10;
/// Values on the stack of one function.
const VALUES: u64 = 1_000;
/// Blocks inside of one another.
const DEPTH: u64 = 4_000;
/// Loops of one function.
const LOOPS: u64 = 4_000;
/// Locals of one function.
const LOCALS: u64 = 10_000;

/// What a component may have.
struct Bounds {
    function: u64,
    functions: u64,
}

/// # Errors
/// [`Malformed`](PolicyError::Malformed) for bytes that are no component, [`TooComplex`](PolicyError::TooComplex) for
/// one that no honest compiler wrote.
pub(crate) fn scan(bytes: &[u8], limits: &Limits) -> Result<(), PolicyError> {
    let bounds = match bytes.len() > limits.light_bytes {
        true => Bounds { function: FUNCTION_OF_INTERPRETER, functions: FUNCTIONS_OF_INTERPRETER },
        false => Bounds { function: FUNCTION, functions: FUNCTIONS },
    };
    let mut validator = Validator::new();
    let mut allocations = FuncValidatorAllocations::default();
    let mut functions = 0;
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(|e| broken(&e))?;
        if let Payload::CodeSectionStart { count, .. } = payload {
            functions += u64::from(count);
            at_most("functions", functions, bounds.functions)?;
        }
        if let ValidPayload::Func(function, body) = validator.payload(&payload).map_err(|e| broken(&e))? {
            allocations = check_function(function, &body, &bounds, allocations)?;
        }
    }
    Ok(())
}

fn broken(error: &wasmparser::Error) -> PolicyError {
    PolicyError::malformed(line(&error.to_string()))
}

const fn at_most(what: &'static str, got: u64, limit: u64) -> Result<(), PolicyError> {
    if got > limit { Err(PolicyError::TooComplex { what, got, limit }) } else { Ok(()) }
}

fn check_function(
    function: FuncToValidate<ValidatorResources>,
    body: &FunctionBody<'_>,
    bounds: &Bounds,
    allocations: FuncValidatorAllocations,
) -> Result<FuncValidatorAllocations, PolicyError> {
    let range = body.range();
    let bytes = range.end.saturating_sub(range.start);
    at_most("bytes in one function", bytes, bounds.function)?;
    if bytes <= SMALL {
        return Ok(allocations);
    }
    let mut validator = function.into_validator(allocations);
    let mut reader = body.get_binary_reader();
    validator.read_locals(&mut reader).map_err(|e| broken(&e))?;
    at_most("locals in one function", u64::from(validator.len_locals()), LOCALS)?;
    let mut loops = 0;
    while !reader.eof() {
        loops += u64::from(is_loop(&reader));
        let offset = reader.original_position();
        reader.visit_operator(&mut validator.visitor(offset)).map_err(|e| broken(&e))?.map_err(|e| broken(&e))?;
        at_most("values on the stack of one function", u64::from(validator.operand_stack_height()), VALUES)?;
        at_most("blocks inside of one another", u64::from(validator.control_stack_height()), DEPTH)?;
    }
    at_most("loops in one function", loops, LOOPS)?;
    Ok(validator.into_allocations())
}

/// The opcode of `loop` is one byte.
fn is_loop(reader: &BinaryReader<'_>) -> bool {
    const LOOP: u8 = 0x03;
    reader.clone().read_u8().is_ok_and(|opcode| opcode == LOOP)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A component whose one module has the given text.
    fn scanned(module: &str) -> Result<(), PolicyError> {
        scan(&wat::parse_str(format!("(component (core module {module}))")).unwrap(), &Limits::default())
    }

    #[track_caller]
    fn too_complex(module: &str, what: &str) {
        match scanned(module) {
            Err(PolicyError::TooComplex { what: got, .. }) => assert_eq!(got, what),
            other => panic!("{what}: {other:?}"),
        }
    }

    #[test]
    fn what_is_dear_to_compile_is_refused_before() {
        too_complex(&"(func) ".repeat(8_001), "functions");
        too_complex(&format!("(func {})", "(drop (i32.const 8)) ".repeat(30_000)), "bytes in one function");
        let values = format!("(func {} {})", "i32.const 8 ".repeat(5_000), "drop ".repeat(5_000));
        too_complex(&values, "values on the stack of one function");
        let blocks = format!("(func {} {})", "block ".repeat(5_000), "end ".repeat(5_000));
        too_complex(&blocks, "blocks inside of one another");
        too_complex(&format!("(func {})", "(loop) ".repeat(5_000)), "loops in one function");
        let locals = format!("(func (local {}) {})", "i64 ".repeat(10_001), "(drop (i32.const 8)) ".repeat(4_000));
        too_complex(&locals, "locals in one function");
    }

    #[test]
    fn modules_inside_of_components_inside_of_components_are_found() {
        let inner = format!("(component (core module {}))", "(func) ".repeat(8_001));
        let outer = wat::parse_str(format!("(component (component {inner}))")).unwrap();
        assert!(matches!(scan(&outer, &Limits::default()), Err(PolicyError::TooComplex { what: "functions", .. })));
    }

    #[test]
    fn what_compilers_make_passes() {
        for built in crate::builtin() {
            assert_eq!(scan(built.component, &Limits::default()), Ok(()), "{}", built.name);
        }
        assert_eq!(scanned(&format!("(func {})", "(drop (i32.const 8)) ".repeat(10_000))), Ok(()));
    }

    #[test]
    fn bytes_that_are_no_component_are_malformed() {
        for bytes in [&b""[..], b"\0asm", b"\0asm\x0d\0\x01\0\x01", &[0x7f; 100]] {
            assert!(matches!(scan(bytes, &Limits::default()), Err(PolicyError::Malformed { .. })), "{bytes:?}");
        }
    }
}
