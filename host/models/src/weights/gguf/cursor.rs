//! Little-endian reads that know how much of the file is left.

use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::super::{HEADER_BYTES_MAX, WeightError};

/// Longest name of a tensor or key, and longest text that is kept.
pub(super) const TEXT_BYTES_MAX: u64 = 1 << 16;

/// A position in a file of known length.
pub(super) struct Cursor<'a, R: Read + Seek> {
    reader: BufReader<&'a mut R>,
    file: &'a Path,
    position: u64,
    len: u64,
}

impl<'a, R: Read + Seek> Cursor<'a, R> {
    pub(super) fn new(reader: &'a mut R, file: &'a Path) -> Result<Self, WeightError> {
        let len = reader.seek(SeekFrom::End(0)).map_err(WeightError::io(file))?;
        reader.seek(SeekFrom::Start(0)).map_err(WeightError::io(file))?;
        Ok(Self { reader: BufReader::new(reader), file, position: 0, len })
    }

    pub(super) fn file(&self) -> &'a Path {
        self.file
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], WeightError> {
        self.claim(N as u64, "the header")?;
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes).map_err(WeightError::io(self.file))?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WeightError> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WeightError> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// A number of things that take at least `bytes_each` of what is left of the file.
    pub(super) fn count(&mut self, what: &str, limit: u64, bytes_each: u64) -> Result<u64, WeightError> {
        let value = self.u64()?;
        let limit = limit.min((self.len - self.position) / bytes_each);
        if value > limit {
            return Err(WeightError::TooLarge { file: self.file.to_owned(), what: what.to_owned(), value, limit });
        }
        Ok(value)
    }

    /// A text of at most [`TEXT_BYTES_MAX`].
    pub(super) fn text(&mut self, what: &str) -> Result<String, WeightError> {
        let length = self.count(&format!("a length of {what}"), TEXT_BYTES_MAX, 1)?;
        self.text_of(length, what)
    }

    /// A text whose length has been read and checked.
    pub(super) fn text_of(&mut self, length: u64, what: &str) -> Result<String, WeightError> {
        self.claim(length, what)?;
        let mut bytes = vec![0; length as usize];
        self.reader.read_exact(&mut bytes).map_err(WeightError::io(self.file))?;
        String::from_utf8(bytes).map_err(|_| WeightError::header(self.file, format!("{what} is not UTF-8")))
    }

    pub(super) fn skip(&mut self, bytes: u64, what: &str) -> Result<(), WeightError> {
        self.claim(bytes, what)?;
        // A file's length fits i64, and no skip goes past its end.
        self.reader.seek_relative(bytes as i64).map_err(WeightError::io(self.file))
    }

    /// Moves the position on, if the file is that long and this can still be its header: without a limit a header that
    /// lies about its lists would have us walk through all of a file's weights.
    fn claim(&mut self, bytes: u64, part: &str) -> Result<(), WeightError> {
        let needs = self.position.saturating_add(bytes);
        if needs > self.len {
            return Err(WeightError::Truncated {
                file: self.file.to_owned(),
                part: part.to_owned(),
                needs,
                has: self.len,
            });
        }
        if needs > HEADER_BYTES_MAX {
            let (file, what) = (self.file.to_owned(), "a header length".to_owned());
            return Err(WeightError::TooLarge { file, what, value: needs, limit: HEADER_BYTES_MAX });
        }
        self.position = needs;
        Ok(())
    }
}
