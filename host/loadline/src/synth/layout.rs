//! Weight files of a checkpoint: names, headers, shards and their index, as diffusers and transformers save them.
//!
//! Tensors are put into shards in the order of the model, as `split_torch_state_dict_into_shards` of huggingface_hub
//! does; inside a file they lie as the library of safetensors writes them: wide types first, then by name.

use std::path::{Path, PathBuf};

use loadline_core::Bytes;
use serde_json::{Map, Value, json};

use super::blueprint::TextFile;
use super::values::{CHUNK_ELEMENTS, Chunk, Stored, Values, chunk_seed};

/// A safetensors file that is not written yet.
#[derive(Clone, Debug)]
pub struct WeightFile {
    /// Its place in the model folder.
    pub path: PathBuf,
    /// Its first bytes: the length of the header, and the header.
    pub header: Vec<u8>,
    pub(super) tensors: Vec<Tensor>,
}

impl WeightFile {
    /// The size of the whole file.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        Bytes(self.header.len() as u64 + total(&self.tensors))
    }

    /// What follows the header, piece by piece.
    pub(super) fn chunks(&self) -> impl Iterator<Item = Chunk> {
        self.tensors.iter().flat_map(Tensor::chunks)
    }
}

/// A tensor of a file.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub name: String,
    pub shape: Vec<u64>,
    pub elements: u64,
    pub stored: Stored,
    pub values: Values,
    pub seed: u64,
}

impl Tensor {
    fn bytes(&self) -> u64 {
        self.elements * self.stored.bytes()
    }

    fn chunks(&self) -> impl Iterator<Item = Chunk> {
        (0..self.elements.div_ceil(CHUNK_ELEMENTS)).map(|number| Chunk {
            seed: chunk_seed(self.seed, &self.name, number),
            elements: CHUNK_ELEMENTS.min(self.elements - number * CHUNK_ELEMENTS),
            values: self.values,
            stored: self.stored,
        })
    }
}

/// The files of a component: one, or shards of at most `shard` bytes of tensors with an index.
pub(super) fn files(
    folder: &Path,
    stem: &str,
    tensors: Vec<Tensor>,
    shard: Bytes,
) -> (Vec<WeightFile>, Option<TextFile>) {
    let shards = shards(tensors, shard.0);
    if let [_] = shards.as_slice() {
        let file = |tensors| weight_file(folder.join(format!("{stem}.safetensors")), tensors);
        return (shards.into_iter().map(file).collect(), None);
    }
    let count = shards.len();
    let name = |number: usize| format!("{stem}-{:05}-of-{count:05}.safetensors", number + 1);
    let index = index(&shards, &name);
    let path = folder.join(format!("{stem}.safetensors.index.json"));
    let files = shards.into_iter().enumerate().map(|(i, t)| weight_file(folder.join(name(i)), t));
    (files.collect(), Some(TextFile::json(path, &index)))
}

/// A tensor that is larger than a shard may be gets one of its own.
fn shards(tensors: Vec<Tensor>, most: u64) -> Vec<Vec<Tensor>> {
    let mut shards = vec![Vec::new()];
    let mut held = 0;
    for tensor in tensors {
        let bytes = tensor.bytes();
        match shards.last_mut() {
            Some(last) if last.is_empty() || held + bytes <= most => {
                held += bytes;
                last.push(tensor);
            }
            _ => {
                held = bytes;
                shards.push(vec![tensor]);
            }
        }
    }
    shards
}

fn index(shards: &[Vec<Tensor>], name: &dyn Fn(usize) -> String) -> Value {
    let placed = |(i, tensors): (usize, &Vec<Tensor>)| {
        let file = name(i);
        tensors.iter().map(move |t| (t.name.clone(), Value::String(file.clone()))).collect::<Vec<_>>()
    };
    let mut map: Vec<(String, Value)> = shards.iter().enumerate().flat_map(placed).collect();
    map.sort_by(|a, b| a.0.cmp(&b.0));
    let bytes: u64 = shards.iter().map(|tensors| total(tensors)).sum();
    json!({ "metadata": { "total_size": bytes }, "weight_map": map.into_iter().collect::<Map<_, _>>() })
}

fn total(tensors: &[Tensor]) -> u64 {
    tensors.iter().map(Tensor::bytes).sum()
}

fn weight_file(path: PathBuf, mut tensors: Vec<Tensor>) -> WeightFile {
    tensors.sort_by(|a, b| (b.stored.bytes(), &a.name).cmp(&(a.stored.bytes(), &b.name)));
    WeightFile { path, header: header(&tensors), tensors }
}

/// Eight bytes of length and the JSON, which spaces make a multiple of eight long, so that tensors are aligned.
fn header(tensors: &[Tensor]) -> Vec<u8> {
    let mut map = Map::new();
    // Readers of transformers refuse a file that does not say how its tensors were made.
    map.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut offset = 0;
    for tensor in tensors {
        let end = offset + tensor.bytes();
        let entry = json!({ "dtype": tensor.stored.name(), "shape": tensor.shape, "data_offsets": [offset, end] });
        map.insert(tensor.name.clone(), entry);
        offset = end;
    }
    let mut text = Value::Object(map).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes(), text.as_slice()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, elements: u64, stored: Stored) -> Tensor {
        let values = Values { mean: 0.0, deviation: 1.0 };
        Tensor { name: name.into(), shape: vec![elements], elements, stored, values, seed: 0 }
    }

    #[test]
    fn shards_hold_what_fits_and_never_nothing() {
        let check = |sizes: &[u64], most: u64, expected: &[usize]| {
            let tensors = sizes.iter().map(|n| tensor(&format!("t{n}"), n / 4, Stored::F32)).collect();
            let counts: Vec<usize> = shards(tensors, most).iter().map(Vec::len).collect();
            assert_eq!(counts, expected, "{sizes:?} in {most}");
        };
        check(&[8, 8, 8], 24, &[3]);
        check(&[8, 8, 8], 16, &[2, 1]);
        check(&[40, 8, 8], 16, &[1, 2]);
        check(&[8, 40, 8], 16, &[1, 1, 1]);
        check(&[8, 8], 1, &[1, 1]);
    }

    #[test]
    fn names_are_those_of_diffusers() {
        let tensors = || vec![tensor("b", 4, Stored::Bf16), tensor("a", 4, Stored::F32)];
        let names = |shard: u64| {
            let (files, index) = files(Path::new("vae"), "diffusion_pytorch_model", tensors(), Bytes(shard));
            let paths = files.iter().map(|f| f.path.clone()).chain(index.map(|i| i.path));
            paths.map(|p| p.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(100), ["vae/diffusion_pytorch_model.safetensors"]);
        let sharded = [
            "vae/diffusion_pytorch_model-00001-of-00002.safetensors",
            "vae/diffusion_pytorch_model-00002-of-00002.safetensors",
            "vae/diffusion_pytorch_model.safetensors.index.json",
        ];
        assert_eq!(names(8), sharded);
    }

    #[test]
    fn chunks_cover_a_tensor_once() {
        let tensor = tensor("a", 2 * CHUNK_ELEMENTS + 5, Stored::Bf16);
        let sizes: Vec<u64> = tensor.chunks().map(|c| c.elements).collect();
        assert_eq!(sizes, [CHUNK_ELEMENTS, CHUNK_ELEMENTS, 5]);
    }
}
