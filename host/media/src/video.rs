//! H.264 in MP4 that plays everywhere: Main profile, 4:2:0, tagged colours, index before the data.

use std::path::Path;

use muxide::api::{Muxer, MuxerBuilder, MuxerError, VideoCodec};
use openh264::OpenH264API;
use openh264::encoder::{
    BitRate, Complexity, Encoder, EncoderConfig, FrameType, IntraFramePeriod, Profile, QpRange, RateControlMode,
    UsageType, VuiConfig,
};
use openh264::formats::YUVSlices;

use crate::MediaError;
use crate::error::check_frame;
use crate::partial::PartialFile;
use crate::yuv::{Matrix, Planes};

/// Frames a second as a fraction, `num / den`; 30000/1001 is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRate {
    num: u32,
    den: u32,
}

impl FrameRate {
    /// # Errors
    /// [`MediaError::FrameRate`] unless the rate is above 0 and at most 240.
    pub fn new(num: u32, den: u32) -> Result<Self, MediaError> {
        let fits = num > 0 && den > 0 && u64::from(num) <= 240 * u64::from(den);
        if fits { Ok(Self { num, den }) } else { Err(MediaError::FrameRate { num, den }) }
    }

    /// Frames a second, rounded.
    pub fn hertz(self) -> f64 {
        f64::from(self.num) / f64::from(self.den)
    }

    /// When a frame is shown, in seconds, on the container's grid of 1/90000.
    fn seconds(self, frame: u64) -> f64 {
        const GRID: u128 = 90_000;
        let (num, den) = (u128::from(self.num), u128::from(self.den));
        let ticks = (u128::from(frame) * den * GRID + num / 2) / num;
        ticks as f64 / GRID as f64
    }
}

/// Writes one video, frame by frame.
///
/// Memory: one frame in 4:2:0 (1.5 bytes a pixel), the encoder's reference frames, and the compressed frames so
/// far, which the container needs for the index at its start. The file appears at [`VideoWriter::finish`]; dropping
/// the writer before leaves nothing.
pub struct VideoWriter {
    muxer: Muxer<PartialFile>,
    /// For messages; the muxer owns the file.
    path: std::path::PathBuf,
    encoder: Encoder,
    planes: Planes,
    rate: FrameRate,
    frames: u64,
    /// Reused for each compressed frame.
    packet: Vec<u8>,
}

impl VideoWriter {
    /// Starts a video at `path`, whose folder must exist.
    ///
    /// # Errors
    /// [`MediaError::OddSize`] or [`MediaError::Size`] if H.264 cannot hold the size, [`MediaError::Io`] if the folder
    /// cannot be written.
    pub fn create(path: &Path, width: u32, height: u32, rate: FrameRate) -> Result<Self, MediaError> {
        check_size(width, height)?;
        let (matrix, tags) = colours(width, height);
        let config = encoder_config(width, height, rate, tags);
        let encoder = Encoder::with_api_config(OpenH264API::from_source(), config).map_err(|e| MediaError::Encode {
            path: path.to_owned(),
            frame: 0,
            reason: e.to_string(),
        })?;
        let builder = MuxerBuilder::new(PartialFile::create(path)?);
        let builder = builder.video(VideoCodec::H264, width, height, rate.hertz()).with_fast_start(true);
        Ok(Self {
            muxer: builder.build().map_err(|e| from_muxer(path, e))?,
            path: path.to_owned(),
            encoder,
            planes: Planes::new(width, height, matrix),
            rate,
            frames: 0,
            packet: Vec::new(),
        })
    }

    /// Adds a frame of rows of RGB.
    ///
    /// # Errors
    /// [`MediaError::FrameBytes`] if it has another size than announced; the video goes on as if it had not been given.
    pub fn push_frame(&mut self, rgb: &[u8]) -> Result<(), MediaError> {
        let (width, height) = self.planes.size();
        check_frame(width as u32, height as u32, rgb)?;
        self.planes.fill(rgb);
        let key = self.encode()?;
        let seconds = self.rate.seconds(self.frames);
        self.muxer.write_video(seconds, &self.packet, key).map_err(|e| from_muxer(&self.path, e))?;
        self.frames += 1;
        Ok(())
    }

    /// Frames added so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Writes the file and gives it its name.
    ///
    /// # Errors
    /// [`MediaError::NoFrames`] if there are none, [`MediaError::DiskFull`] or [`MediaError::Io`] if it cannot be
    /// written.
    /// In both cases nothing is left of it.
    pub fn finish(mut self) -> Result<(), MediaError> {
        if self.frames == 0 {
            return Err(MediaError::NoFrames { path: self.path });
        }
        self.muxer.finish_in_place().map_err(|e| from_muxer(&self.path, e))?;
        self.muxer.into_writer().publish()
    }

    /// Encodes the planes into the packet and says whether decoding can start there.
    fn encode(&mut self) -> Result<bool, MediaError> {
        let planes = &self.planes;
        let (width, height) = planes.size();
        let strides = (width, width / 2, width / 2);
        let source = YUVSlices::new((&planes.luma, &planes.cb, &planes.cr), (width, height), strides);
        let failed = |reason: String| MediaError::Encode { path: self.path.clone(), frame: self.frames, reason };
        let stream = self.encoder.encode(&source).map_err(|e| failed(e.to_string()))?;
        self.packet.clear();
        stream.write_vec(&mut self.packet);
        match stream.frame_type() {
            FrameType::IDR => Ok(true),
            FrameType::I | FrameType::P | FrameType::IPMixed => Ok(false),
            FrameType::Skip | FrameType::Invalid => Err(failed("the encoder gave no picture".into())),
        }
    }
}

impl std::fmt::Debug for VideoWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VideoWriter").field("path", &self.path).field("frames", &self.frames).finish_non_exhaustive()
    }
}

/// Whether a video can have this size. The encoder ends at level 5.2 and needs at least one macroblock each way.
///
/// # Errors
/// [`MediaError::OddSize`] or [`MediaError::Size`].
pub fn check_size(width: u32, height: u32) -> Result<(), MediaError> {
    let (long, short) = (width.max(height), width.min(height));
    if short < 16 || long > 3840 || short > 2160 {
        return Err(MediaError::Size { width, height });
    }
    if width % 2 + height % 2 > 0 {
        let nearest = (width.next_multiple_of(2), height.next_multiple_of(2));
        return Err(MediaError::OddSize { width, height, nearest });
    }
    Ok(())
}

/// High definition is BT.709, smaller is BT.601: that is what players assume when they ignore the tags, so both
/// kinds of player show the same colours.
fn colours(width: u32, height: u32) -> (Matrix, VuiConfig) {
    if width >= 1280 || height > 576 {
        (Matrix::BT709, VuiConfig::bt709())
    } else {
        (Matrix::BT601, VuiConfig::bt601())
    }
}

/// Bits a pixel that the level in the file's header is chosen for; quantisers alone decide the actual rate.
const BITS_PER_PIXEL: f64 = 0.4;
const BITRATE_MIN: f64 = 500_000.0;
const BITRATE_MAX: f64 = 100_000_000.0;
/// Quantisers, of 51: nearly constant and fine (about 39 dB), since a generated video is a master that its publisher
/// compresses again.
const QUANTISERS: QpRange = QpRange::new(18, 22);

fn encoder_config(width: u32, height: u32, rate: FrameRate, tags: VuiConfig) -> EncoderConfig {
    let bits = f64::from(width) * f64::from(height) * rate.hertz() * BITS_PER_PIXEL;
    let two_seconds = (rate.hertz() * 2.0).ceil() as u32;
    EncoderConfig::new()
        // Main, not High: High needs fields in the container that the muxer does not write.
        .profile(Profile::Main)
        .usage_type(UsageType::CameraVideoRealTime)
        .complexity(Complexity::High)
        // The only mode that keeps to a range of quantisers without skipping frames, or complaining on standard error.
        .rate_control_mode(RateControlMode::Bufferbased)
        .bitrate(BitRate::from_bps(bits.clamp(BITRATE_MIN, BITRATE_MAX) as u32))
        .max_frame_rate(openh264::encoder::FrameRate::from_hz(rate.hertz() as f32))
        .qp(QUANTISERS)
        // Every frame that was made must be in the file.
        .skip_frames(false)
        .background_detection(false)
        .intra_frame_period(IntraFramePeriod::from_num_frames(two_seconds.max(1)))
        // One thread, so that the same frames give the same file on every machine.
        .num_threads(1)
        .vui(tags)
}

fn from_muxer(path: &Path, error: MuxerError) -> MediaError {
    match error {
        MuxerError::Io(source) => MediaError::io(path, source),
        other => MediaError::Container { path: path.to_owned(), reason: other.to_string() },
    }
}
