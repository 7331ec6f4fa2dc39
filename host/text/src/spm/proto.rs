//! The few protobuf fields that a unigram tokenizer needs, read without trusting any length.

/// What a piece is for; numbers are those of `SentencePiece.Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Other,
}

/// One entry of the vocabulary; its position is its id.
pub(super) struct Piece {
    pub(super) text: String,
    /// Logarithm of its probability.
    pub(super) score: f32,
    pub(super) kind: Kind,
}

/// The parts of `ModelProto` that are used.
pub(super) struct Model {
    pub(super) pieces: Vec<Piece>,
    pub(super) is_unigram: bool,
    /// Id of the unknown token.
    pub(super) unknown: Option<usize>,
    pub(super) byte_fallback: bool,
    /// The normaliser's table; empty if text is not normalised.
    pub(super) charsmap: Vec<u8>,
}

impl Model {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (mut trained, mut normalised) = (false, false);
        let mut model =
            Self { pieces: Vec::new(), is_unigram: true, unknown: Some(0), byte_fallback: false, charsmap: Vec::new() };
        for field in Fields(bytes) {
            match field? {
                (1, Value::Bytes(piece)) => {
                    let id = model.pieces.len();
                    model.pieces.push(parse_piece(piece).map_err(|e| format!("piece {id}: {e}"))?);
                }
                (2, Value::Bytes(trainer)) => {
                    trained = true;
                    model.parse_trainer(trainer)?;
                }
                (3, Value::Bytes(normaliser)) => {
                    normalised = true;
                    model.parse_normaliser(normaliser)?;
                }
                _ => {}
            }
        }
        // These come last in the file, so a cut between two pieces shows as their absence.
        if trained && normalised { Ok(model) } else { Err("it ends before its settings".into()) }
    }

    fn parse_trainer(&mut self, bytes: &[u8]) -> Result<(), String> {
        for field in Fields(bytes) {
            match field? {
                (3, Value::Number(kind)) => self.is_unigram = kind == 1,
                (35, Value::Number(flag)) => self.byte_fallback = flag != 0,
                // A missing unknown token is written as -1, which as an index is out of range of everything.
                (40, Value::Number(id)) => self.unknown = usize::try_from(id).ok(),
                _ => {}
            }
        }
        Ok(())
    }

    fn parse_normaliser(&mut self, bytes: &[u8]) -> Result<(), String> {
        for field in Fields(bytes) {
            if let (2, Value::Bytes(table)) = field? {
                self.charsmap = table.to_vec();
            }
        }
        Ok(())
    }
}

fn parse_piece(bytes: &[u8]) -> Result<Piece, String> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: Kind::Normal };
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(text)) => piece.text = str::from_utf8(text).map_err(|e| e.to_string())?.to_owned(),
            (2, Value::Fixed32(bits)) => piece.score = f32::from_bits(bits),
            (3, Value::Number(kind)) => piece.kind = kind_of(kind),
            _ => {}
        }
    }
    Ok(piece)
}

fn kind_of(number: u64) -> Kind {
    match number {
        1 => Kind::Normal,
        2 => Kind::Unknown,
        3 => Kind::Control,
        4 => Kind::UserDefined,
        _ => Kind::Other,
    }
}

/// A field's value, by its wire type.
enum Value<'a> {
    Number(u64),
    Fixed32(u32),
    Fixed64,
    Bytes(&'a [u8]),
}

/// Iterates over the fields of a message; ends at its end or after the first error.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(|| "it is cut short or not a SentencePiece model".into()))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed64)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((tag >> 3, value))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}
