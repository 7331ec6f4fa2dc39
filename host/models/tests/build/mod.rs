//! Builders of small weight files, honest or not.

/// A safetensors file from the members of its header, with `data` zero bytes after it.
pub(crate) fn safetensors(members: &[String], data: usize) -> Vec<u8> {
    let header = format!("{{{}}}", members.join(","));
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &vec![0; data]].concat()
}

/// A member of a safetensors header.
pub(crate) fn tensor_json(name: &str, dtype: &str, shape: &str, begin: u64, end: u64) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

/// Encodings of GGUF values.
pub(crate) mod kv {
    /// A text: its length and its bytes.
    pub(crate) fn text_bytes(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    }

    /// A list with a claimed length.
    pub(crate) fn list(kind: u32, count: u64, values: &[u8]) -> Vec<u8> {
        [&kind.to_le_bytes()[..], &count.to_le_bytes(), values].concat()
    }
}

/// A GGUF file under construction.
pub(crate) struct Gguf {
    version: u32,
    pairs: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    claims: Option<(u64, u64)>,
    alignment: usize,
}

impl Gguf {
    pub(crate) fn new(version: u32) -> Self {
        Self { version, pairs: Vec::new(), tensors: Vec::new(), claims: None, alignment: 32 }
    }

    /// Adds a metadata pair with an encoded value.
    pub(crate) fn pair(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        if key == "general.alignment" && value[0].is_power_of_two() {
            self.alignment = value[0].into();
        }
        self.pairs.push([&kv::text_bytes(key)[..], &kind.to_le_bytes(), value].concat());
        self
    }

    /// Adds a tensor; `dimensions` are fastest first, as GGUF has them.
    pub(crate) fn tensor(mut self, name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Self {
        let sizes: Vec<u8> = dimensions.iter().flat_map(|d| d.to_le_bytes()).collect();
        let count = (dimensions.len() as u32).to_le_bytes();
        let parts = [&kv::text_bytes(name)[..], &count, &sizes, &kind.to_le_bytes(), &offset.to_le_bytes()];
        self.tensors.push(parts.concat());
        self
    }

    /// Lies about the number of tensors and pairs.
    pub(crate) fn claim(mut self, tensors: u64, pairs: u64) -> Self {
        self.claims = Some((tensors, pairs));
        self
    }

    /// The file, with `data` bytes in its data section.
    pub(crate) fn bytes(&self, data: usize) -> Vec<u8> {
        let (tensors, pairs) = self.claims.unwrap_or((self.tensors.len() as u64, self.pairs.len() as u64));
        let mut bytes =
            [b"GGUF", &self.version.to_le_bytes()[..], &tensors.to_le_bytes(), &pairs.to_le_bytes()].concat();
        bytes.extend(self.pairs.concat());
        bytes.extend(self.tensors.concat());
        bytes.resize(bytes.len().next_multiple_of(self.alignment) + data, 0);
        bytes
    }
}

/// A small random generator, so that a failing seed can be repeated.
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
