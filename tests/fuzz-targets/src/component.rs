//! Components: bytes that may be one, and guests that do whatever they like.

use std::sync::OnceLock;

use loadline_policy::Policy;
use loadline_policy::settings::resolve;

use crate::guest::{encode, engine, module};
use crate::parrot::check_asked;
use crate::refused;
use crate::supply::Supply;
use crate::world::World;

/// The first byte of an input says what the others are: 0 a component as it is; 1 bytes to put, insert and remove in a
/// sound one; 2 what a guest does: loads, stores, loops, calls of the host and of itself, in any order and with any
/// numbers, before it answers with what lies in its memory.
///
/// Whatever it is, it is refused with an error that can be shown, or it is a policy: its texts can be shown, its
/// settings have their defaults, and asked twice it gives the same answer for the same fuel. An admitted plan runs as
/// it must (see `plan`).
///
/// # Panics
/// Where one of these does not hold.
pub fn component(data: &[u8]) -> bool {
    let mut supply = Supply::new(data);
    let (sound, bytes) = match supply.byte() % 3 {
        0 => (false, supply.rest().to_vec()),
        1 => (false, patched(&mut supply)),
        _ => (true, encode(&module(&body(&mut supply)))),
    };
    match engine().load(&bytes) {
        Ok(policy) => {
            check_policy(&policy);
            true
        }
        Err(error) => {
            assert!(!sound, "a sound component was refused: {error}");
            refused(&error)
        }
    }
}

fn check_policy(policy: &Policy) {
    let id = policy.id();
    assert!(!id.name.is_empty() && id.name.is_ascii() && id.name.len() <= 64, "{id:?}");
    for text in [&id.name, &id.version, policy.summary()] {
        assert!(!text.contains(char::is_control), "a control character reaches the terminal: {text:?}");
    }
    let settings = resolve(policy.schema(), &[]).unwrap();
    let world = World::new(&mut Supply::new(&[]));
    let _ = check_asked(policy, &world, &[], &settings);
}

fn patched(supply: &mut Supply<'_>) -> Vec<u8> {
    static SOUND: OnceLock<Vec<u8>> = OnceLock::new();
    let mut bytes = SOUND.get_or_init(|| encode(&module("(i32.const 1024)"))).clone();
    for _ in 0..8 {
        if supply.is_empty() {
            break;
        }
        let (at, byte) = (usize::from(supply.short()) % bytes.len(), supply.byte());
        match supply.below(4) {
            0 => bytes.insert(at, byte),
            1 => drop(bytes.drain(at..(at + 1 + usize::from(byte % 16)).min(bytes.len() - 1).max(at))),
            _ => bytes[at] = byte,
        }
    }
    bytes
}

/// What a guest does, as text: some statements, then the address of the answer.
fn body(supply: &mut Supply<'_>) -> String {
    let mut body = String::new();
    for _ in 0..24 {
        if supply.is_empty() {
            break;
        }
        body += &statement(supply, 3);
    }
    let answer = if supply.byte() % 8 == 7 { value(supply, 2) } else { "(i32.const 1024)".to_owned() };
    body + &answer
}

fn statement(supply: &mut Supply<'_>, depth: u32) -> String {
    let kind = supply.below(if depth == 0 { 4 } else { 14 });
    let nested = |supply: &mut Supply<'_>| statement(supply, depth - 1);
    match kind {
        0 => format!("(i32.store (i32.const {}) {})", 1024 + 4 * supply.below(24), value(supply, depth)),
        1 => format!("(i32.store {})", values(supply, depth, 2)),
        2 => format!("(local.set 1 {})", value(supply, depth)),
        3 => format!("(i64.store {} (i64.const {}))", value(supply, depth), supply.long().cast_signed()),
        4 => format!("(call $log {})", values(supply, depth, 3)),
        5 => format!("(call $probe {})", values(supply, depth, 3)),
        6 => format!("(call $forecast {})", values(supply, depth, 17)),
        7 => format!("(memory.fill {})", values(supply, depth, 3)),
        8 => format!("(memory.copy {})", values(supply, depth, 3)),
        9 => format!("(drop (memory.grow {}))", value(supply, depth)),
        10 => format!("(if {} (then {}))", value(supply, depth), nested(supply)),
        11 => format!("(loop {} (br_if 0 {}))", nested(supply), value(supply, depth)),
        12 => format!("(f64.store {0} (f64.div (local.get 3) (f64.load {0})))", value(supply, depth)),
        _ => supply
            .one_of(&["(unreachable)", "(drop (call $decide (local.get 1)))", "(global.set $heap (local.get 1))"])
            .into(),
    }
}

fn values(supply: &mut Supply<'_>, depth: u32, count: usize) -> String {
    (0..count).map(|_| value(supply, depth.min(1))).collect()
}

fn value(supply: &mut Supply<'_>, depth: u32) -> String {
    let deeper = |supply: &mut Supply<'_>| value(supply, depth - 1);
    match if depth == 0 { 4 + supply.below(4) } else { supply.below(8) } {
        0 => format!("(i32.load {})", deeper(supply)),
        1 => format!("(i32.add {} {})", deeper(supply), deeper(supply)),
        2 => format!("(i32.div_s {} {})", deeper(supply), deeper(supply)),
        3 => format!("(i32.trunc_f64_s (f64.load {}))", deeper(supply)),
        4 => supply.one_of(&["(local.get 0)", "(local.get 1)", "(memory.size)", "(global.get $heap)"]).to_owned(),
        5 => format!("(i32.const {})", supply.one_of(&[512, 65536, 1 << 20, -1, i32::MIN, i32::MAX, 3 << 20, 1024])),
        _ => format!("(i32.const {})", supply.below(64)),
    }
}
