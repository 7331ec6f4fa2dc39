//! The suite that every device passes, simulated or real. A device's own tests call [`run`].

use loadline_core::{BlockId, Bytes, Tier};

use crate::device::{At, Device, LoadOrder, Span, TaskOrder};

/// What a device is tested with: it must know block 0, and task 0 of pass 0 of stage 0, which needs
/// block 0 in a buffer of `bytes`.
#[derive(Clone, Copy, Debug)]
pub struct Fixture {
    /// Bytes of block 0's slab.
    pub bytes: Bytes,
    /// What stage 0 needs set aside.
    pub activations: Bytes,
}

/// Checks everything that the engine relies on; the message names the first thing that does not hold.
///
/// # Errors
/// The first rule that the device breaks.
pub fn run<D: Device>(device: &mut D, fixture: Fixture) -> Result<(), String> {
    buffers_are_distinct(device, fixture)?;
    loads_and_tasks_keep_their_order(device, fixture)?;
    settling_hands_out_each_load_once(device, fixture)
}

fn buffers_are_distinct<D: Device>(device: &mut D, fixture: Fixture) -> Result<(), String> {
    let text = |e: crate::DeviceError| e.to_string();
    let (a, b) = (device.allocate(fixture.bytes).map_err(text)?, device.allocate(fixture.bytes).map_err(text)?);
    rule(a != b, "two live buffers have the same name")?;
    device.free(a);
    device.free(b);
    Ok(())
}

fn loads_and_tasks_keep_their_order<D: Device>(device: &mut D, fixture: Fixture) -> Result<(), String> {
    let text = |e: crate::DeviceError| e.to_string();
    device.set_aside(fixture.activations).map_err(text)?;
    let buffer = device.allocate(fixture.bytes).map_err(text)?;
    let block = BlockId(0);
    let past = device.past();
    let arrived = device.load(LoadOrder { block, home: Tier::Disk, buffer }, past).map_err(text)?;
    let order = TaskOrder { at: At { stage: 0, pass: 0, task: 0 }, template: 0, weights: Some((block, buffer)) };
    let (_, mut task) = device.run(order, arrived).map_err(text)?;
    let mut measured = Vec::new();
    device.measure(&mut |at, span| measured.push((at, span))).map_err(text)?;
    match (task, measured.as_slice()) {
        (Some(_), []) => {}
        (None, [(at, span)]) if *at == order.at => task = Some(*span),
        _ => return Err("a task's span was lost, or handed out twice".to_owned()),
    }
    device.measure(&mut |_, _| task = None).map_err(text)?;
    let Some(task) = task else { return Err("a task's span was handed out a second time".to_owned()) };
    let mut load = Span::default();
    device.settle(&mut |_, span| load = span).map_err(text)?;
    rule(load.start <= load.end && task.start <= task.end, "a span ends before it starts")?;
    rule(load.end <= task.start, "a task started before its weights had arrived")?;
    rule(task.end <= device.now(), "the clock is behind a task that has ended")?;
    device.free(buffer);
    device.set_aside(Bytes::ZERO).map_err(text)
}

fn settling_hands_out_each_load_once<D: Device>(device: &mut D, fixture: Fixture) -> Result<(), String> {
    let text = |e: crate::DeviceError| e.to_string();
    let buffer = device.allocate(fixture.bytes).map_err(text)?;
    let past = device.past();
    for _ in 0..3 {
        device.load(LoadOrder { block: BlockId(0), home: Tier::Disk, buffer }, past).map_err(text)?;
    }
    let mut ends = Vec::new();
    device.settle(&mut |_, span| ends.push(span)).map_err(text)?;
    rule(ends.len() == 3, "a load was lost or handed out twice")?;
    rule(ends.windows(2).all(|w| w[0].end <= w[1].start), "loads overlap or overtake each other")?;
    device.settle(&mut |_, span| ends.push(span)).map_err(text)?;
    rule(ends.len() == 3, "a load was handed out a second time")?;
    device.free(buffer);
    Ok(())
}

fn rule(holds: bool, message: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message.to_owned()) }
}
