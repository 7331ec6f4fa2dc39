//! Blocks from files into memory, with some reads in flight.

use std::collections::VecDeque;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use loadline_core::Bytes;
use loadline_core::check::DISK_RING;
use loadline_engine::DeviceError;

use super::backend::{Backend, Done, Inline, Request};
use super::buffers::Buffers;
use super::stretch::{Cut, Stretch, cut};
use super::target::Target;
use super::threads::Threads;
use super::uring::Uring;
use super::{BUFFERS, DiskOptions, DiskReads, PAGE, RING_BYTES, Report, Way};
use crate::source::{BlockSource, Look, Sources, WeightFiles};

/// Reads of the threads that are in flight at once: as many as disks of today need, and few stacks.
const THREADS: usize = 4;

/// A block that has come, or why it has not.
#[derive(Debug)]
pub struct Brought {
    /// The number that [`BlockReader::begin`] gave it.
    pub number: u64,
    /// Whether all of it is in its place.
    pub result: Result<(), DeviceError>,
}

/// A block that is under way.
struct Job {
    sources: Arc<Sources>,
    block: usize,
    target: Target,
    look: Look,
    cut: Cut,
    /// The first stretch that was not asked for.
    next: usize,
    flying: usize,
    error: Option<DeviceError>,
}

impl Job {
    fn source(&self) -> &BlockSource {
        &self.sources.blocks[self.block]
    }

    fn wants_more(&self) -> bool {
        self.error.is_none() && self.next < self.cut.stretches.len()
    }

    fn is_over(&self) -> bool {
        self.flying == 0 && !self.wants_more()
    }

    fn fail(&mut self, error: DeviceError) {
        self.error.get_or_insert(error);
    }
}

/// A read in flight.
struct Flight {
    /// The number of its block.
    number: u64,
    stretch: usize,
    buffer: Option<usize>,
    /// Whether it goes by the page cache.
    direct: bool,
}

/// Brings blocks, see [the module](super).
pub struct BlockReader {
    options: DiskOptions,
    report: Arc<Mutex<Report>>,
    /// The next read is to fail as if the disk could not do it.
    failing: Arc<AtomicBool>,
    /// Carries reads out; dropped before the memory that they go to.
    backend: Option<Box<dyn Backend>>,
    way: Way,
    jobs: VecDeque<Job>,
    /// The number of the first of them.
    first: u64,
    flights: [Option<Flight>; BUFFERS],
    buffers: Option<Buffers>,
}

impl BlockReader {
    /// A reader that has asked for nothing yet: what it needs is made with the first block.
    #[must_use]
    pub fn new(options: DiskOptions) -> Self {
        Self {
            options,
            report: Arc::default(),
            failing: Arc::default(),
            backend: None,
            way: Way::Buffered,
            jobs: VecDeque::new(),
            first: 0,
            flights: [const { None }; BUFFERS],
            buffers: None,
        }
    }

    /// Where it tells what becomes of reading.
    #[must_use]
    pub fn report(&self) -> Arc<Mutex<Report>> {
        Arc::clone(&self.report)
    }

    /// A switch that lets the next read fail as if the disk could not do it.
    #[must_use]
    pub fn failing(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.failing)
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Begins to bring a block, and gives it a number; numbers rise by one. With `look` its numbers are looked at: one
    /// that is NaN or infinite is an error, and so is a packed block whose sum is wrong.
    ///
    /// # Safety
    /// Until the block comes out of [`advance`](Self::advance), nobody reads or writes the target.
    pub unsafe fn begin(&mut self, sources: &Arc<Sources>, block: usize, target: Target, look: bool) -> u64 {
        let opened = if self.backend.is_some() { Ok(()) } else { self.open(sources) };
        let look = if look { Look::Close } else { Look::Away };
        let sources = Arc::clone(sources);
        let mut job =
            Job { sources, block, target, look, cut: Cut::default(), next: 0, flying: 0, error: opened.err() };
        let round = (job.target.start.as_ptr() as usize).is_multiple_of(PAGE);
        // Without a ring the block has failed already.
        let most = self.buffers.as_ref().map_or(RING_BYTES, Buffers::bytes);
        job.cut = cut(job.source(), &mut |file| self.reads_directly(&job.sources.files, file), round, most);
        if job.source().length() > job.target.bytes {
            let text = format!("a block of {} bytes does not fit into {}", job.source().length(), job.target.bytes);
            job.fail(DeviceError::Compute(text));
        }
        let number = self.first + self.jobs.len() as u64;
        self.jobs.push_back(job);
        self.fill();
        number
    }

    /// Goes on until a read is over. Gives the first block if all of it has come; nothing if it has not, or if nothing
    /// is under way.
    pub fn advance(&mut self) -> Option<Brought> {
        if let Some(brought) = self.first_over() {
            return Some(brought);
        }
        if self.flights.iter().any(Option::is_some)
            && let Some(backend) = &mut self.backend
        {
            let done = backend.wait();
            self.land(done);
        }
        self.fill();
        self.first_over()
    }

    /// Waits for what is in flight and forgets what is under way.
    pub fn cancel(&mut self) {
        while self.flights.iter().any(Option::is_some)
            && let Some(backend) = &mut self.backend
        {
            let (tag, _) = backend.wait();
            if let Some(flight) = self.flights.get_mut(tag).and_then(Option::take) {
                self.give_back(&flight);
            }
        }
        self.first += self.jobs.len() as u64;
        self.jobs.clear();
    }

    fn tell(&self, told: impl FnOnce(&mut Report)) {
        told(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Makes the ring and chooses the way.
    fn open(&mut self, sources: &Sources) -> Result<(), DeviceError> {
        let count = super::buffers(self.options.in_flight);
        let buffers = Buffers::new(count).ok_or(DeviceError::OutOfHostMemory { requested: DISK_RING })?;
        let (way, backend) = self.choose(&buffers, sources);
        let in_flight = self.limit(way);
        self.tell(|report| (report.way, report.in_flight) = (Some(way), in_flight));
        (self.way, self.backend, self.buffers) = (way, Some(backend), Some(buffers));
        Ok(())
    }

    /// Reads in flight at most.
    fn limit(&self, way: Way) -> usize {
        let most = if way == Way::Direct { THREADS } else { BUFFERS };
        self.options.in_flight.clamp(1, most)
    }

    fn choose(&self, buffers: &Buffers, sources: &Sources) -> (Way, Box<dyn Backend>) {
        let DiskOptions { reads, refused, .. } = self.options;
        if reads == DiskReads::Buffered || !self.any_direct(&sources.files) {
            return (Way::Buffered, Box::new(Inline::default()));
        }
        if reads != DiskReads::Direct {
            let forbidden = || io::Error::from(io::ErrorKind::PermissionDenied);
            let ring = if refused.uring { Err(forbidden()) } else { Uring::new(buffers) };
            match ring {
                Ok(ring) => return (Way::Uring, Box::new(ring)),
                Err(e) => self.tell(|r| r.note(format!("io_uring is refused ({e}); {} are used instead", Way::Direct))),
            }
        }
        match Threads::start(self.limit(Way::Direct)) {
            Ok(threads) => (Way::Direct, Box::new(threads)),
            Err(e) => {
                self.tell(|r| r.note(format!("no threads for reads ({e}); {} are used instead", Way::Buffered)));
                (Way::Buffered, Box::new(Inline::default()))
            }
        }
    }

    /// Whether any of the files takes direct reads; a file that does not is told.
    fn any_direct(&self, files: &WeightFiles) -> bool {
        let mut any = false;
        for file in 0..files.len() {
            any |= self.has_direct(files, file);
        }
        any || files.len() == 0
    }

    fn has_direct(&self, files: &WeightFiles, file: usize) -> bool {
        let handle = files.file(file).direct();
        let handle = if self.options.refused.direct { Err("refused on purpose".to_owned()) } else { handle.map(drop) };
        let name = || files.file(file).name();
        if let Err(why) = &handle {
            self.tell(|r| r.note(format!("{}: O_DIRECT is refused ({why}); {} are used", name(), Way::Buffered)));
        }
        handle.is_ok()
    }

    fn reads_directly(&self, files: &WeightFiles, file: usize) -> bool {
        let direct = self.way != Way::Buffered && self.has_direct(files, file);
        if !direct {
            files.file(file).look_at_cache();
        }
        direct
    }

    /// Asks for what comes next, as far as buffers and the limit go.
    fn fill(&mut self) {
        let limit = self.limit(self.way);
        for n in 0..self.jobs.len() {
            while self.jobs[n].wants_more() {
                let Some(tag) = self.flights[..limit].iter().position(Option::is_none) else { return };
                if !self.ask(n, tag) {
                    return;
                }
            }
        }
    }

    /// Asks for the next stretch of a block; false if there is no buffer for it.
    fn ask(&mut self, n: usize, tag: usize) -> bool {
        let (Some(backend), Some(buffers)) = (&mut self.backend, &mut self.buffers) else { return false };
        let job = &mut self.jobs[n];
        let stretch = &job.cut.stretches[job.next];
        let buffer = if stretch.straight.is_some() { None } else { buffers.take() };
        let start = match (stretch.straight, buffer) {
            // SAFETY: nobody uses the target until the block has come, and stretches of a block do not overlap.
            (Some(place), _) => NonNull::from(unsafe { job.target.part(place, stretch.bytes) }).cast(),
            (None, Some(buffer)) => buffers.start(buffer),
            (None, None) => return false,
        };
        let file = job.sources.files.file(stretch.file);
        let handle = if stretch.direct { file.direct().ok() } else { None };
        let request = Request {
            tag,
            fd: handle.unwrap_or_else(|| file.buffered()),
            from: stretch.from,
            start,
            bytes: stretch.bytes,
            buffer,
        };
        let (number, direct) = (self.first + n as u64, handle.is_some());
        self.flights[tag] = Some(Flight { number, stretch: job.next, buffer, direct });
        job.next += 1;
        job.flying += 1;
        // SAFETY: the job keeps files and target, and the reader its buffers, until the read has come back.
        unsafe { backend.submit(request) };
        true
    }

    /// Frees the buffer of a read that is over.
    fn give_back(&mut self, flight: &Flight) {
        if let (Some(buffer), Some(buffers)) = (flight.buffer, &mut self.buffers) {
            buffers.give_back(buffer);
        }
    }

    /// Takes a read that is over to its place. Where there is a buffer for it the next one begins before that, so that
    /// the disk does not wait for the copy.
    fn land(&mut self, (tag, result): Done) {
        let Some(flight) = self.flights.get_mut(tag).and_then(Option::take) else { return };
        self.fill();
        self.take_to_its_place(&flight, result);
        self.give_back(&flight);
    }

    fn take_to_its_place(&mut self, flight: &Flight, result: io::Result<usize>) {
        let result = if self.failing.swap(false, Ordering::Relaxed) { Err(broken_disk()) } else { result };
        let n = (flight.number - self.first) as usize;
        let (Some(job), Some(buffers)) = (self.jobs.get_mut(n), &self.buffers) else { return };
        job.flying -= 1;
        if job.error.is_some() {
            return;
        }
        let stretch = job.cut.stretches[flight.stretch].clone();
        let start = match (stretch.straight, flight.buffer) {
            // SAFETY: as where it was asked for; the read is over.
            (Some(place), _) => NonNull::from(unsafe { job.target.part(place, stretch.bytes) }).cast(),
            (None, Some(buffer)) => buffers.start(buffer),
            (None, None) => return,
        };
        // SAFETY: the read is over, and the buffer is not free yet.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), stretch.bytes) };
        let Mended { landed, cached, refused } = mend(job, &stretch, flight.direct, result, bytes);
        match landed {
            Ok(()) => {
                if let Err(error) = place(job, &stretch, bytes) {
                    job.fail(error);
                }
            }
            Err(error) => job.fail(error),
        }
        let file = job.sources.files.file(stretch.file);
        if !flight.direct || cached {
            file.give_back(stretch.from, stretch.bytes as u64);
        }
        let name = file.name();
        self.tell(|report| {
            report.bytes += Bytes(stretch.needs as u64);
            report.straight += Bytes(if stretch.straight.is_some() { stretch.needs as u64 } else { 0 });
            if refused {
                report.note(format!("{name}: O_DIRECT is refused by its file system; {} are used", Way::Buffered));
            }
        });
    }

    /// The first block, if it is over.
    fn first_over(&mut self) -> Option<Brought> {
        if !self.jobs.front()?.is_over() {
            return None;
        }
        let job = self.jobs.pop_front()?;
        let number = self.first;
        self.first += 1;
        Some(Brought { number, result: finish(job) })
    }
}

impl Drop for BlockReader {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// What a disk answers that cannot read any more.
fn broken_disk() -> io::Error {
    rustix::io::Errno::IO.into()
}

/// How a read ended.
struct Mended {
    landed: Result<(), DeviceError>,
    /// Whether some of it came through the page cache after all.
    cached: bool,
    /// Whether the file system refuses direct reads.
    refused: bool,
}

/// Completes a read that came back short or was refused.
fn mend(job: &Job, stretch: &Stretch, direct: bool, result: io::Result<usize>, bytes: &mut [u8]) -> Mended {
    let file = job.sources.files.file(stretch.file);
    let mut through_cache = |come: usize, refused: bool| Mended {
        landed: file.read(stretch.from + come as u64, &mut bytes[come..stretch.needs]),
        cached: true,
        refused,
    };
    match result {
        Ok(come) if come >= stretch.needs => Mended { landed: Ok(()), cached: false, refused: false },
        // The rest of a read that was cut short may begin anywhere, so it goes through the page cache.
        Ok(come) => through_cache(come, false),
        Err(e) if direct && e.kind() == io::ErrorKind::InvalidInput => {
            file.refuse_direct();
            through_cache(0, true)
        }
        Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => through_cache(0, false),
        Err(e) => {
            let landed = Err(file.unreadable(stretch.from, stretch.bytes, &e));
            Mended { landed, cached: false, refused: false }
        }
    }
}

/// Elements that are looked at and taken to their place at a time: they are in a cache still when they are written.
const PIECE: usize = 16 * 1024;

/// Looks at what a stretch has brought, and takes it to its place.
fn place(job: &Job, stretch: &Stretch, bytes: &[u8]) -> Result<(), DeviceError> {
    let (files, source) = (&job.sources.files, job.source());
    for part in &job.cut.parts[stretch.parts.clone()] {
        let Some(segment) = source.segments.get(part.segment) else { continue };
        let raw = &bytes[part.at..part.at + segment.file_bytes(part.elements)];
        for (first, raw) in (part.first..).step_by(PIECE).zip(raw.chunks(segment.file_bytes(PIECE))) {
            if stretch.straight.is_some() {
                files.look(segment, first, raw, job.look)?;
                continue;
            }
            let elements = PIECE.min(part.first + part.elements - first);
            let place = segment.place + segment.slab_bytes(first);
            // SAFETY: nobody uses the target until the block has come, and no read into this part is in flight.
            let out = unsafe { job.target.part(place, segment.slab_bytes(elements)) };
            if !segment.is_as_stored() {
                files.look(segment, first, raw, job.look)?;
                segment.convert(raw, out);
            } else if job.look == Look::Away {
                crate::stream::copy(raw, out);
            } else if crate::stream::copy_checked(raw, out, segment.file_dtype) != Some(false) {
                files.look(segment, first, raw, job.look)?;
            }
        }
    }
    if let (Some(packed), None) = (&source.packed, stretch.straight) {
        let at = (stretch.from - packed.offset) as usize;
        // SAFETY: as above.
        unsafe { job.target.part(at, stretch.needs) }.copy_from_slice(&bytes[..stretch.needs]);
    }
    Ok(())
}

/// What is left to do when every read of a block has come: tensors that have to be known as a whole before they are
/// converted, and whether the files still are what they were.
fn finish(mut job: Job) -> Result<(), DeviceError> {
    let error = job.error.take();
    let (files, source) = (&job.sources.files, job.source());
    if let Some(error) = error {
        // A file that was cut off or replaced says more than what it did to one read.
        source.files().try_for_each(|file| files.file(file).check())?;
        return Err(error);
    }
    for segment in source.segments.iter().filter(|s| s.is_whole()) {
        // SAFETY: nobody uses the target until the block has come, and nothing is in flight.
        let out = unsafe { job.target.part(segment.place, segment.slab_bytes(segment.elements)) };
        files.read_segment(segment, out, job.look)?;
        files.file(segment.file).give_back(segment.offset, segment.file_bytes(segment.elements) as u64);
    }
    source.files().try_for_each(|file| files.file(file).check())?;
    match (&source.packed, job.look) {
        (Some(packed), Look::Close) => {
            // SAFETY: as above.
            packed.check(unsafe { job.target.part(0, packed.bytes) }, files)
        }
        _ => Ok(()),
    }
}
