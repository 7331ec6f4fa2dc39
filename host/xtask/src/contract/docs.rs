//! The page of a version: every type, field and function, with what the WIT says about it.

use std::fmt::Write as _;

use wit_parser::{
    Docs, Function, Interface, InterfaceId, Resolve, Type, TypeDef, TypeDefKind, TypeId, TypeOwner, WorldItem,
};

use super::wit::Version;

/// The page as Markdown.
pub(super) fn page(version: &Version) -> String {
    let (resolve, number) = (&version.resolve, version.number);
    let package = &resolve.packages[version.package];
    let mut page = format!(
        "# The contract, version {number}\n\n\
         <!-- Written by `cargo xtask contract` from wit/policy@{number}. Edit that, and run it again. -->\n\n{}\n\n\
         For those who begin, [the contract in brief](../contract.md) is the page to read first.\n",
        words(&package.docs)
    );
    world(&mut page, version);
    for (name, id) in &package.interfaces {
        interface(&mut page, resolve, name, *id);
    }
    page
}

fn world(page: &mut String, version: &Version) {
    let world = &version.resolve.worlds[version.world];
    let _ = write!(page, "\n## World `{}`\n\n{}\n\n", world.name, words(&world.docs));
    let sides = [("Imports", &world.imports), ("Exports", &world.exports)];
    for (side, items) in sides {
        let interfaces = items.values().filter_map(|item| match item {
            WorldItem::Interface { id, .. } => version.resolve.interfaces[*id].name.as_deref(),
            _ => None,
        });
        let links: Vec<String> = interfaces.map(|name| format!("[`{name}`](#interface-{name})")).collect();
        let links = if links.is_empty() { "nothing".to_owned() } else { links.join(", ") };
        let _ = writeln!(page, "- {side}: {links}");
    }
}

fn interface(page: &mut String, resolve: &Resolve, name: &str, id: InterfaceId) {
    let interface = &resolve.interfaces[id];
    let _ = write!(page, "\n## Interface `{name}`\n\n{}\n", words(&interface.docs));
    for function in interface.functions.values() {
        function_of(page, resolve, function);
    }
    for ty in own_types(resolve, interface, id) {
        type_of(page, resolve, ty);
    }
}

/// The types that the interface defines, in the order in which they are written; what it takes from another is
/// described there.
fn own_types<'a>(resolve: &'a Resolve, interface: &Interface, id: InterfaceId) -> Vec<&'a TypeDef> {
    let types = interface.types.values().map(|ty| &resolve.types[*ty]);
    let mut types: Vec<_> = types.filter(|ty| ty.owner == TypeOwner::Interface(id) && !borrowed(resolve, ty)).collect();
    types.sort_by_key(|ty| if ty.span.is_known() { ty.span.start() } else { u32::MAX });
    types
}

fn borrowed(resolve: &Resolve, ty: &TypeDef) -> bool {
    let TypeDefKind::Type(Type::Id(target)) = ty.kind else { return false };
    resolve.types[target].owner != ty.owner
}

fn function_of(page: &mut String, resolve: &Resolve, function: &Function) {
    let parameters = function.params.iter().map(|p| format!("{}: {}", p.name, written(resolve, &p.ty)));
    let result = function.result.map(|ty| format!(" -> {}", written(resolve, &ty))).unwrap_or_default();
    let signature = format!("{}: func({}){result}", function.name, parameters.collect::<Vec<_>>().join(", "));
    let _ = write!(page, "\n### `{}`\n\n```wit\n{signature}\n```\n\n{}\n", function.name, words(&function.docs));
    let mut named = Vec::new();
    for ty in function.params.iter().map(|p| p.ty).chain(function.result) {
        names(resolve, &ty, &mut named);
    }
    if !named.is_empty() {
        let links: Vec<String> = named.iter().map(|name| format!("[`{name}`](#{name})")).collect();
        let _ = write!(page, "\nTypes: {}.\n", links.join(", "));
    }
}

/// A row of a table: a name, its type where there is one, and the words.
type Row<'a> = (&'a str, Option<Type>, &'a Docs);

fn type_of(page: &mut String, resolve: &Resolve, ty: &TypeDef) {
    let name = ty.name.as_deref().unwrap_or_default();
    let kind = match &ty.kind {
        TypeDefKind::Type(target) => format!("`{}` by another name", written(resolve, target)),
        other => format!("A {}", other.as_str()),
    };
    let _ = write!(page, "\n### `{name}`\n\n{kind}. {}\n", words(&ty.docs));
    let rows: Vec<Row<'_>> = match &ty.kind {
        TypeDefKind::Record(record) => record.fields.iter().map(|f| (f.name.as_str(), Some(f.ty), &f.docs)).collect(),
        TypeDefKind::Variant(variant) => variant.cases.iter().map(|c| (c.name.as_str(), c.ty, &c.docs)).collect(),
        TypeDefKind::Enum(cases) => cases.cases.iter().map(|c| (c.name.as_str(), None, &c.docs)).collect(),
        TypeDefKind::Flags(flags) => flags.flags.iter().map(|f| (f.name.as_str(), None, &f.docs)).collect(),
        _ => Vec::new(),
    };
    if rows.is_empty() {
        return;
    }
    let first = if matches!(ty.kind, TypeDefKind::Record(_)) { "field" } else { "case" };
    let _ = write!(page, "\n| {first} | type | |\n|---|---|---|\n");
    for (name, ty, docs) in rows {
        let _ = writeln!(page, "| `{name}` | {} | {} |", ty.map_or(String::new(), |ty| cell(resolve, &ty)), row(docs));
    }
}

/// A type in a table, as a link to the type that it names.
fn cell(resolve: &Resolve, ty: &Type) -> String {
    let mut named = Vec::new();
    names(resolve, ty, &mut named);
    let text = written(resolve, ty);
    named.first().map_or_else(|| format!("`{text}`"), |name| format!("[`{text}`](#{name})"))
}

/// A type as it is written in WIT.
fn written(resolve: &Resolve, ty: &Type) -> String {
    let Type::Id(id) = ty else { return primitive(ty).to_owned() };
    let ty = &resolve.types[*id];
    if let Some(name) = &ty.name {
        return name.clone();
    }
    let inside = |types: &[Option<Type>]| {
        let written = |ty: &Option<Type>| ty.map_or_else(|| "_".to_owned(), |ty| written(resolve, &ty));
        types.iter().map(written).collect::<Vec<_>>().join(", ")
    };
    match &ty.kind {
        TypeDefKind::Result(result) => format!("result<{}>", inside(&[result.ok, result.err])),
        TypeDefKind::Tuple(tuple) => {
            format!("tuple<{}>", inside(&tuple.types.iter().copied().map(Some).collect::<Vec<_>>()))
        }
        TypeDefKind::List(element) | TypeDefKind::Option(element) => {
            format!("{}<{}>", ty.kind.as_str(), inside(&[Some(*element)]))
        }
        other => other.as_str().to_owned(),
    }
}

const fn primitive(ty: &Type) -> &'static str {
    match ty {
        Type::Bool => "bool",
        Type::U8 => "u8",
        Type::U16 => "u16",
        Type::U32 => "u32",
        Type::U64 => "u64",
        Type::S8 => "s8",
        Type::S16 => "s16",
        Type::S32 => "s32",
        Type::S64 => "s64",
        Type::F32 => "f32",
        Type::F64 => "f64",
        Type::Char => "char",
        Type::String => "string",
        Type::ErrorContext => "error-context",
        Type::Id(_) => "",
    }
}

/// Adds the names of the types that a type is made of, each once.
fn names(resolve: &Resolve, ty: &Type, found: &mut Vec<String>) {
    let Type::Id(id) = ty else { return };
    if let Some(name) = &resolve.types[*id].name {
        if !found.contains(name) {
            found.push(name.clone());
        }
        return;
    }
    for part in parts(resolve, *id) {
        names(resolve, &part, found);
    }
}

fn parts(resolve: &Resolve, id: TypeId) -> Vec<Type> {
    match &resolve.types[id].kind {
        TypeDefKind::Result(result) => result.ok.into_iter().chain(result.err).collect(),
        TypeDefKind::Tuple(tuple) => tuple.types.clone(),
        TypeDefKind::List(element) | TypeDefKind::Option(element) => vec![*element],
        _ => Vec::new(),
    }
}

/// The words about a thing: a paragraph a line.
fn words(docs: &Docs) -> String {
    let text = docs.contents.as_deref().unwrap_or_default();
    let paragraphs = text.split("\n\n").map(|p| p.split_whitespace().collect::<Vec<_>>().join(" "));
    paragraphs.filter(|p| !p.is_empty()).collect::<Vec<_>>().join("\n\n")
}

/// The words about a row of a table, which is one line.
fn row(docs: &Docs) -> String {
    words(docs).replace("\n\n", " ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::super::wit::{Number, version};
    use super::*;

    const TEXT: &str = "\
/// What both say.
interface types {
  /// How much
  /// there is.
  record amount {
    /// Bytes | exact.
    bytes: u64,
    /// Each.
    parts: list<option<bytes>>,
  }
  /// A number of bytes.
  type bytes = u64;
  /// An answer.
  variant answer { /// Go on.
    keep, /// This much.
    take(amount) }
}
/// What may be called.
interface host {
  use types.{amount, answer};
  /// Says what it would be.
  ///
  /// Costs fuel.
  ask: func(of: list<amount>, level: u8) -> result<answer, string>;
}
/// A policy.
world memory-policy { import host; }
";

    const PAGE: &str = "\
# The contract, version 0.1.0

<!-- Written by `cargo xtask contract` from wit/policy@0.1.0. Edit that, and run it again. -->

Words.

For those who begin, [the contract in brief](../contract.md) is the page to read first.

## World `memory-policy`

A policy.

- Imports: [`types`](#interface-types), [`host`](#interface-host)
- Exports: nothing

## Interface `types`

What both say.

### `amount`

A record. How much there is.

| field | type | |
|---|---|---|
| `bytes` | `u64` | Bytes \\| exact. |
| `parts` | [`list<option<bytes>>`](#bytes) | Each. |

### `bytes`

`u64` by another name. A number of bytes.

### `answer`

A variant. An answer.

| case | type | |
|---|---|---|
| `keep` |  | Go on. |
| `take` | [`amount`](#amount) | This much. |

## Interface `host`

What may be called.

### `ask`

```wit
ask: func(of: list<amount>, level: u8) -> result<answer, string>
```

Says what it would be.

Costs fuel.

Types: [`amount`](#amount), [`answer`](#answer).
";

    #[test]
    fn every_word_is_on_the_page() {
        assert_eq!(page(&version(Number(0, 1, 0), TEXT)), PAGE);
    }
}
