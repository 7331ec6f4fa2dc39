//! The data that ships: recordings, data sheets, sets of assumptions and named parts.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use crate::datasheet::Datasheet;
use crate::error::{Finding, ProfileError};
use crate::read::{self, FromNode, Node};
use crate::reference::Reference;
use crate::schema::{DiskPart, LinkPart, Profile, Rate};

/// Recorded machines, sorted by name. A recording of a card takes the place of its data sheet.
const RECORDED: [(&str, &str); 1] = [("cpu", include_str!("../profiles/cpu.json"))];

const CARDS: [(&str, &str); 3] = [
    ("geforce-10-to-30.json", include_str!("../data/cards/geforce-10-to-30.json")),
    ("geforce-40-and-50.json", include_str!("../data/cards/geforce-40-and-50.json")),
    ("professional.json", include_str!("../data/cards/professional.json")),
];

const ASSUMED: [(&str, &str); 6] = [
    ("full-ada.json", include_str!("../data/assumed/full-ada.json")),
    ("half-ada.json", include_str!("../data/assumed/half-ada.json")),
    ("half-ampere.json", include_str!("../data/assumed/half-ampere.json")),
    ("half-blackwell.json", include_str!("../data/assumed/half-blackwell.json")),
    ("half-turing.json", include_str!("../data/assumed/half-turing.json")),
    ("hbm-hopper.json", include_str!("../data/assumed/hbm-hopper.json")),
];

/// A part under the name that command lines use.
pub(crate) struct Named<T> {
    pub(crate) name: String,
    pub(crate) part: T,
}

/// Everything that ships, read and checked for doubled names.
pub(crate) struct Library {
    pub(crate) recorded: Vec<Profile>,
    pub(crate) cards: Vec<Datasheet>,
    pub(crate) assumed: Vec<Reference>,
    pub(crate) links: Vec<Named<LinkPart>>,
    pub(crate) hosts: Vec<Named<HostKind>>,
    pub(crate) disks: Vec<Named<DiskPart>>,
    /// Names of recordings and cards, sorted.
    pub(crate) names: Vec<String>,
}

/// A kind of host, whose amount of RAM its owner gives.
#[derive(Clone, Debug, PartialEq)]
pub struct HostKind {
    /// What it is.
    pub name: String,
    /// As for [`crate::HostPart`].
    pub convert: Rate,
}

static LIBRARY: LazyLock<Result<Library, ProfileError>> = LazyLock::new(load);

/// The data that ships.
///
/// # Errors
/// If it is damaged, which a test rules out.
pub(crate) fn library() -> Result<&'static Library, &'static ProfileError> {
    LIBRARY.as_ref()
}

fn load() -> Result<Library, ProfileError> {
    let recorded: Vec<_> =
        RECORDED.iter().map(|(name, text)| Profile::parse(text, name)).collect::<Result<_, ProfileError>>()?;
    let mut cards: Vec<Datasheet> = Vec::new();
    for (file, text) in CARDS {
        cards.extend(list(file, text)?);
    }
    let assumed = ASSUMED.iter().map(|(file, text)| read::fields(&read::json(text, file)?, file));
    let names: BTreeSet<_> = recorded.iter().map(|p| &p.name).chain(cards.iter().map(|c| &c.name)).cloned().collect();
    Ok(Library {
        assumed: assumed.collect::<Result<_, _>>()?,
        links: list("links.json", include_str!("../data/links.json"))?,
        hosts: list("hosts.json", include_str!("../data/hosts.json"))?,
        disks: list("disks.json", include_str!("../data/disks.json"))?,
        names: names.into_iter().collect(),
        recorded,
        cards,
    })
}

fn list<T: FromNode>(file: &str, text: &str) -> Result<Vec<T>, ProfileError> {
    read::fields(&read::json(text, file)?, file)
}

impl<T: FromNode> FromNode for Named<T> {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        Ok(Self { name: node.at("name")?, part: node.at("part")? })
    }
}

impl FromNode for HostKind {
    fn from_node(node: &Node<'_>) -> Result<Self, Finding> {
        Ok(Self { name: node.at("name")?, convert: node.at("convert")? })
    }
}
