//! From JSON to a [`Profile`], keeping the path of every field, so that an error can name it.
//!
//! Fields that are not known are passed over: a note in a file is no error, and a version that means
//! something new by a field has another number.

mod recorded;

use std::collections::BTreeMap;

use loadline_core::{DType, Provenance, Quantiles};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Finding, ProfileError};
use crate::schema::{
    Basis, DevicePart, DiskPart, Figure, HostPart, Known, LinkPart, OpPart, Pcie, Point, Profile, Rate, SCHEMA,
};

/// Reads a profile without looking at whether its figures can be true.
pub(crate) fn profile(text: &str, origin: &str) -> Result<Profile, ProfileError> {
    let value = json(text, origin)?;
    // The version comes first: what else would be missing in a newer file says nothing about it.
    match value.get("schema") {
        Some(Value::String(schema)) if schema == SCHEMA => {}
        other => return Err(ProfileError::Schema { origin: origin.to_owned(), found: describe(other) }),
    }
    fields(&value, origin)
}

/// Any JSON text.
pub(crate) fn json(text: &str, origin: &str) -> Result<Value, ProfileError> {
    serde_json::from_str(text).map_err(|source| ProfileError::Json {
        origin: origin.to_owned(),
        line: source.line(),
        column: source.column(),
        source,
    })
}

/// Reads a document that has no version of its own.
pub(crate) fn fields<T: FromNode>(value: &Value, origin: &str) -> Result<T, ProfileError> {
    let root = Node { value: Some(value), path: String::new() };
    root.read().map_err(|finding| ProfileError::Field { origin: origin.to_owned(), finding })
}

/// A place in the document, which may be empty.
pub(crate) struct Node<'a> {
    value: Option<&'a Value>,
    path: String,
}

pub(crate) trait FromNode: Sized {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding>;
}

impl<'a> Node<'a> {
    pub(crate) fn read<T: FromNode>(&self) -> Result<T, Finding> {
        T::from_node(self)
    }

    pub(crate) fn at<T: FromNode>(&self, name: &str) -> Result<T, Finding> {
        self.child(name)?.read()
    }

    pub(crate) fn optional<T: FromNode>(&self, name: &str) -> Result<Option<T>, Finding> {
        let child = self.child(name)?;
        if child.value.is_none() { Ok(None) } else { child.read().map(Some) }
    }

    pub(crate) fn child(&self, name: &str) -> Result<Node<'a>, Finding> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Ok(Node { value: self.object()?.get(name), path })
    }

    pub(crate) fn object(&self) -> Result<&'a Map<String, Value>, Finding> {
        self.value.and_then(Value::as_object).ok_or_else(|| self.not("an object"))
    }

    pub(crate) fn not(&self, expected: &str) -> Finding {
        Finding::new(&self.path, describe(self.value), expected)
    }
}

fn describe(value: Option<&Value>) -> String {
    match value {
        None => "missing".to_owned(),
        Some(Value::Array(_)) => "a list".to_owned(),
        Some(Value::Object(_)) => "an object".to_owned(),
        Some(Value::String(text)) => format!("the text '{text}'"),
        Some(other) => other.to_string(),
    }
}

/// A name out of a closed set, as its type spells it.
pub(crate) fn one_of<T: DeserializeOwned>(node: &Node<'_>, expected: &str) -> Result<T, Finding> {
    let value = node.value.ok_or_else(|| node.not(expected))?;
    T::deserialize(value).map_err(|_| node.not(expected))
}

impl FromNode for f64 {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        node.value.and_then(Value::as_f64).ok_or_else(|| node.not("a number"))
    }
}

impl FromNode for u64 {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        node.value.and_then(Value::as_u64).ok_or_else(|| node.not("a whole number from 0"))
    }
}

impl FromNode for bool {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        node.value.and_then(Value::as_bool).ok_or_else(|| node.not("true or false"))
    }
}

impl FromNode for String {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        node.value.and_then(Value::as_str).map(str::to_owned).ok_or_else(|| node.not("a text"))
    }
}

impl<T: FromNode> FromNode for Vec<T> {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        let items = node.value.and_then(Value::as_array).ok_or_else(|| node.not("a list"))?;
        let item = |(i, value)| Node { value: Some(value), path: format!("{}[{i}]", node.path) }.read();
        items.iter().enumerate().map(item).collect()
    }
}

impl FromNode for DType {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        one_of(node, "an element type: f32, f16 or bf16")
    }
}

impl FromNode for loadline_core::OpKind {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        one_of(node, "linear, attention, conv or elementwise")
    }
}

impl FromNode for Provenance {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        one_of(node, "measured, derived or datasheet")
    }
}

impl FromNode for Quantiles {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        Ok(Self { p10: node.at("p10")?, p50: node.at("p50")?, p90: node.at("p90")? })
    }
}

impl<T: FromNode> FromNode for Known<T> {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        Ok(Self { value: node.at("value")?, provenance: node.at("provenance")?, source: node.at("source")? })
    }
}

impl FromNode for Figure {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        Ok(Self { spread: node.read()?, provenance: node.at("provenance")?, source: node.at("source")? })
    }
}

impl FromNode for Point {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        Ok(Self { amount: node.at("amount")?, rate: node.read()? })
    }
}

impl FromNode for Rate {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        Ok(Self { basis: node.read()?, provenance: node.at("provenance")?, source: node.at("source")? })
    }
}

impl FromNode for Basis {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        match (node.optional("utilisation")?, node.optional("points")?) {
            (Some(share), None) => Ok(Self::Utilisation(share)),
            (None, Some(points)) => Ok(Self::Points(points)),
            (both, _) => {
                let found = if both.is_some() { "an object with both" } else { "an object with neither" };
                Err(Finding::new(&node.path, found, "a rate with either 'utilisation' or 'points'"))
            }
        }
    }
}

impl FromNode for Pcie {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        Ok(Self { generation: node.at("generation")?, width: node.at("width")? })
    }
}

impl<T: FromNode> FromNode for BTreeMap<DType, T> {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        let entry = |key: &String| {
            let child = node.child(key)?;
            let dtype = key.parse().map_err(|_| Finding::new(&child.path, "there", "named after an element type"))?;
            Ok((dtype, child.read()?))
        };
        node.object()?.keys().map(entry).collect()
    }
}

impl FromNode for OpPart {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        Ok(Self {
            kind: node.at("kind")?,
            dtypes: node.at("dtypes")?,
            flops: node.at("flops")?,
            bytes: node.at("bytes")?,
        })
    }
}

impl FromNode for DevicePart {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        Ok(Self {
            name: node.at("name")?,
            kernel_set: node.at("kernel_set")?,
            unified: node.at("unified")?,
            memory_bytes: node.at("memory_bytes")?,
            granularity_bytes: node.at("granularity_bytes")?,
            fixed_overhead_bytes: node.at("fixed_overhead_bytes")?,
            launch_ns: node.at("launch_ns")?,
            peak_bytes_per_s: node.optional("peak_bytes_per_s")?,
            peak_flops_per_s: node.optional("peak_flops_per_s")?.unwrap_or_default(),
            ops: node.at("ops")?,
            recorded: node.optional("recorded")?,
            measurements: node.optional("measurements")?.unwrap_or_default(),
        })
    }
}

impl FromNode for LinkPart {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        Ok(Self {
            name: node.at("name")?,
            pcie: node.optional("pcie")?,
            latency_ns: node.at("latency_ns")?,
            h2d_pinned: node.at("h2d_pinned")?,
            h2d_pageable: node.at("h2d_pageable")?,
            d2h: node.at("d2h")?,
            measurements: node.optional("measurements")?.unwrap_or_default(),
        })
    }
}

impl FromNode for HostPart {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        Ok(Self {
            name: node.at("name")?,
            memory_bytes: node.at("memory_bytes")?,
            convert: node.at("convert")?,
            conversions: node.optional("conversions")?.unwrap_or_default(),
            measurements: node.optional("measurements")?.unwrap_or_default(),
        })
    }
}

impl FromNode for DiskPart {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        Ok(Self {
            name: node.at("name")?,
            latency_ns: node.at("latency_ns")?,
            read: node.at("read")?,
            cached: node.optional("cached")?,
            measurements: node.optional("measurements")?.unwrap_or_default(),
        })
    }
}

impl FromNode for Profile {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        Ok(Self {
            schema: node.at("schema")?,
            name: node.at("name")?,
            title: node.at("title")?,
            device: node.at("device")?,
            link: node.at("link")?,
            host: node.at("host")?,
            disk: node.at("disk")?,
        })
    }
}
