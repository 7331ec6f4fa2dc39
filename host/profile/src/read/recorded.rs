//! The sections that a recording adds.

use std::str::FromStr;

use loadline_core::StageKind;

use super::{FromNode, Node, one_of};
use crate::error::Finding;
use crate::schema::{
    ContentionPart, ConversionPart, LevelPart, Measurement, MeasurementRow, Recorded, SiteRow, SiteRows,
};

impl FromNode for Recorded {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        Ok(Self {
            sites: node.at("sites")?,
            allocation: node.optional("allocation")?,
            contention: node.optional("contention")?,
            calibration: node.optional("calibration")?.unwrap_or_default(),
        })
    }
}

impl FromNode for SiteRows {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        Ok(Self {
            op: one_of(&node.child("op")?, "an operation such as linear or rms-norm")?,
            dtype: node.at("dtype")?,
            weight: node.at("weight")?,
            provenance: node.at("provenance")?,
            source: node.at("source")?,
            rows: node.at("rows")?,
        })
    }
}

impl FromNode for SiteRow {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        line(node, "a line such as '64x1536x1536 91000 93000 99000': dimensions, then nanoseconds at p10, p50, p90")
    }
}

impl FromNode for MeasurementRow {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        line(node, "a line such as '4096 bytes: 1.2e9 1.3e9 1.4e9': a setting, then p10, p50, p90")
    }
}

fn line<T: FromStr>(node: &Node<'_>, expected: &str) -> Result<T, Finding> {
    let text: String = node.read()?;
    text.parse().map_err(|_| node.not(expected))
}

impl FromNode for ContentionPart {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        Ok(Self { compute: node.at("compute")?, load: node.at("load")? })
    }
}

impl FromNode for ConversionPart {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        Ok(Self { from: node.at("from")?, to: node.at("to")?, rate: node.at("rate")? })
    }
}

impl FromNode for StageKind {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        one_of(node, "text_encode, image_encode, vae_encode, denoise or vae_decode")
    }
}

impl FromNode for LevelPart {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        Ok(Self {
            stage: node.at("stage")?,
            dtype: node.at("dtype")?,
            runs: node.at("runs")?,
            start_ns: node.optional("start_ns")?,
            factor: node.at("factor")?,
        })
    }
}

impl FromNode for Measurement {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        Ok(Self {
            name: node.at("name")?,
            unit: node.at("unit")?,
            provenance: node.at("provenance")?,
            source: node.at("source")?,
            rows: node.at("rows")?,
        })
    }
}
