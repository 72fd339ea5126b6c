//! What the files of src/ import of each other, as their syntax says it: `use`, and paths in code, macros included. What only
//! tests take counts for nothing, and neither does what a file only hands on (`pub use`): who asks for that is taken to ask
//! the file that has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Item, UseTree, Visibility};

/// How often a name may be handed on.
const MOST_HANDS: usize = 8;

/// One file. Paths are the crate's, without `crate::`.
#[derive(Debug, Default)]
pub struct File {
    /// What it names that is not its own.
    pub uses: BTreeSet<String>,
    /// What it hands on, by the name that it gives it.
    pub hands_on: BTreeMap<String, String>,
}

impl File {
    /// Reads a file whose module is `module`, such as `node/host`.
    pub fn parse(module: &str, source: &str) -> Self {
        let syntax = syn::parse_file(source).unwrap_or_else(|error| panic!("{module}: {error}"));
        let mut reader = Reader { module: module.split('/').map(str::to_owned).collect(), ..Reader::default() };
        // What is imported first: code names it by its short name.
        let (imports, rest): (Vec<_>, Vec<_>) =
            syntax.items.into_iter().filter(|item| !is_for_tests(item)).partition(|item| matches!(item, Item::Use(_)));
        for import in imports {
            if let Item::Use(import) = import {
                let hands_on = !matches!(import.vis, Visibility::Inherited);
                reader.import(&import.tree, &mut Vec::new(), hands_on);
            }
        }
        for item in rest {
            reader.code(item.into_token_stream());
        }
        reader.file
    }
}

/// The files of src/, by their paths below it.
pub struct House {
    arrows: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

impl House {
    /// Reads all files below a folder but those of tests.
    pub fn read(src: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut modules = BTreeMap::new();
        read_folder(src, src, &mut |path, source| {
            let module = path.trim_end_matches(".rs").trim_end_matches("/mod").to_owned();
            let module = if module == "lib" { String::new() } else { module };
            modules.insert(module.replace('/', "::"), path.to_owned());
            files.insert(path.to_owned(), File::parse(&module, source));
        });
        let mut arrows: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for (path, file) in &files {
            let row = arrows.entry(path.clone()).or_default();
            for used in &file.uses {
                if let Some((to, name)) = owner(used, &modules, &files)
                    && to != *path
                {
                    row.entry(to).or_default().insert(name);
                }
            }
        }
        Self { arrows }
    }

    /// All files.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.arrows.keys().map(String::as_str)
    }

    /// Who imports whom, and which names.
    pub fn arrows(&self) -> impl Iterator<Item = (&str, &str, String)> {
        self.arrows.iter().flat_map(|(from, row)| {
            row.iter().map(|(to, names)| {
                (from.as_str(), to.as_str(), names.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
            })
        })
    }

    /// All files to which the arrows from one lead, itself included.
    pub fn reaches<'a>(&'a self, file: &'a str) -> BTreeSet<&'a str> {
        let mut reached = BTreeSet::from([file]);
        let mut left = vec![file];
        while let Some(from) = left.pop() {
            for to in self.arrows[from].keys() {
                if reached.insert(to) {
                    left.push(to);
                }
            }
        }
        reached
    }
}

/// The file that has what a path names, and what it is called there.
fn owner(path: &str, modules: &BTreeMap<String, String>, files: &BTreeMap<String, File>) -> Option<(String, String)> {
    let mut path = path.to_owned();
    for _ in 0..MOST_HANDS {
        let parts: Vec<&str> = path.split("::").collect();
        let deep = (0..=parts.len()).rev().find(|deep| modules.contains_key(&parts[..*deep].join("::")))?;
        let file = &modules[&parts[..deep].join("::")];
        let rest = &parts[deep..];
        match rest.first().and_then(|name| files[file].hands_on.get(*name)) {
            Some(to) => path = [&[to.as_str()], &rest[1..]].concat().join("::"),
            None => {
                let name = rest.first().map_or("self", |name| name);
                return Some((file.clone(), name.to_owned()));
            }
        }
    }
    panic!("{path} is handed on in a circle")
}

fn read_folder(folder: &Path, src: &Path, take: &mut impl FnMut(&str, &str)) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "tests" {
                read_folder(&path, src, take);
            }
        } else if name.ends_with(".rs") && !matches!(&*name, "tests.rs" | "testing.rs") {
            let below = path.strip_prefix(src).unwrap().to_string_lossy().into_owned();
            take(&below, &fs::read_to_string(&path).unwrap());
        }
    }
}

fn is_for_tests(item: &Item) -> bool {
    let attributes: &[Attribute] = match item {
        Item::Mod(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Const(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        _ => &[],
    };
    attributes.iter().any(|one| one.path().is_ident("cfg") && one.to_token_stream().to_string().contains("test"))
}

#[derive(Default)]
struct Reader {
    module: Vec<String>,
    file: File,
    /// What the file has imported, by its short name.
    short: BTreeMap<String, Vec<String>>,
}

impl Reader {
    fn import(&mut self, tree: &UseTree, before: &mut Vec<String>, hands_on: bool) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.import(&path.tree, before, hands_on);
                before.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, before, hands_on);
                }
            }
            UseTree::Name(name) => self.imported(before, &name.ident.to_string(), None, hands_on),
            UseTree::Rename(name) => {
                self.imported(before, &name.ident.to_string(), Some(name.rename.to_string()), hands_on);
            }
            UseTree::Glob(_) => self.imported(before, "self", None, hands_on),
        }
    }

    fn imported(&mut self, before: &[String], name: &str, renamed: Option<String>, hands_on: bool) {
        let mut path = before.to_vec();
        if name != "self" {
            path.push(name.to_owned());
        }
        let Some(whole) = self.full_path(&path) else { return };
        let short = renamed.or_else(|| whole.last().cloned()).unwrap_or_default();
        if hands_on {
            self.file.hands_on.insert(short.clone(), whole.join("::"));
        } else {
            self.file.uses.insert(whole.join("::"));
        }
        self.short.insert(short, whole);
    }

    /// A path from the crate's root; `None` for one of another crate.
    fn full_path(&self, path: &[String]) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        let mut whole = match first.as_str() {
            "crate" => Vec::new(),
            "self" => self.module.clone(),
            "super" => {
                let mut up = self.module.clone();
                up.pop();
                let more = rest.iter().take_while(|part| *part == "super").count();
                up.truncate(up.len().saturating_sub(more));
                up.extend(rest[more..].iter().cloned());
                return Some(up);
            }
            short => self.short.get(short)?.clone(),
        };
        whole.extend(rest.iter().cloned());
        Some(whole)
    }

    /// Finds paths in code: names with `::` between them.
    fn code(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.code(group.stream()),
                TokenTree::Ident(first) => {
                    let mut path = vec![first.to_string()];
                    while let [TokenTree::Punct(one), TokenTree::Punct(two), TokenTree::Ident(next), ..] =
                        &tokens[at + 1..]
                        && one.as_char() == ':'
                        && two.as_char() == ':'
                    {
                        path.push(next.to_string());
                        at += 3;
                    }
                    if path.len() > 1
                        && let Some(whole) = self.full_path(&path)
                    {
                        self.file.uses.insert(whole.join("::"));
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }
}
