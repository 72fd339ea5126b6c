//! Every relative link and anchor of the pages leads somewhere, and so does every page that a source names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// What is no part of the source: what is built, and what is fetched.
const LEFT_OUT: [&str; 3] = ["target", ".git", ".cache"];

/// A page: where its links lead and which paths of the source it names, with their lines, and the anchors that it has.
#[derive(Debug, Default, PartialEq, Eq)]
struct Page {
    links: Vec<(usize, String)>,
    paths: Vec<(usize, String)>,
    anchors: BTreeSet<String>,
}

impl Page {
    fn read(text: &str) -> Self {
        let mut page = Self::default();
        let mut heading: Option<String> = None;
        for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
            let line = || text[..range.start].matches('\n').count() + 1;
            if let Event::Code(code) = &event {
                let path = code.split([' ', ':']).next().unwrap_or_default();
                let is_path = ["src/", "tests/", "scripts/"].iter().any(|folder| path.starts_with(folder));
                page.paths.extend(is_path.then(|| (line(), path.to_owned())));
            }
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push((line(), dest_url.into_string()));
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::Text(more) | Event::Code(more) => heading.iter_mut().for_each(|text| text.push_str(&more)),
                Event::End(TagEnd::Heading(_)) => page.add(&heading.take().unwrap_or_default()),
                _ => {}
            }
        }
        page
    }

    /// The anchor that GitHub gives a heading: a second one of the same text has a number.
    fn add(&mut self, heading: &str) {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let again = (1..).map(|n| format!("{anchor}-{n}"));
        let free = std::iter::once(anchor.clone()).chain(again).find(|anchor| !self.anchors.contains(anchor));
        self.anchors.extend(free);
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder of the source whose name `is_wanted`.
fn below(dir: &Path, is_wanted: fn(&str) -> bool, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        match entry.file_type().unwrap() {
            kind if kind.is_dir() && !LEFT_OUT.contains(&&*name) => below(&path, is_wanted, found),
            kind if kind.is_file() && is_wanted(&name) => found.push(path),
            _ => {}
        }
    }
}

fn pages() -> BTreeMap<PathBuf, Page> {
    let mut found = Vec::new();
    below(root(), |name| name.ends_with(".md"), &mut found);
    found.into_iter().map(|path| (path.clone(), Page::read(&fs::read_to_string(path).unwrap()))).collect()
}

/// What is wrong with a link from `file`, if anything is.
fn problem(pages: &BTreeMap<PathBuf, Page>, file: &Path, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let mut target = if path.is_empty() { file.to_owned() } else { file.parent()?.to_owned() };
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => target.push(name),
            Component::ParentDir => drop(target.pop()),
            Component::CurDir => {}
            _ => return Some("is no relative path".to_owned()),
        }
    }
    match (target.starts_with(root()) && (pages.contains_key(&target) || target.exists()), anchor) {
        (false, _) => Some("there is no such file".to_owned()),
        (true, Some(anchor)) if pages.get(&target).is_none_or(|page| !page.anchors.contains(anchor)) => {
            Some("there is no such heading".to_owned())
        }
        (true, _) => None,
    }
}

#[test]
fn every_link_and_path_of_a_page_leads_somewhere() {
    let pages = pages();
    for name in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/README.md", "docs/guard.md"] {
        assert!(pages.contains_key(&root().join(name)), "{name} was not read");
    }
    let mut wrong = Vec::new();
    for (file, page) in &pages {
        for (line, link) in &page.links {
            let problem = problem(&pages, file, link);
            wrong.extend(problem.map(|problem| format!("{}:{line}: {link}: {problem}", shown(file))));
        }
        for (line, path) in page.paths.iter().filter(|(_, path)| !root().join(path).exists()) {
            wrong.push(format!("{}:{line}: {path}: there is no such file", shown(file)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_page_has_its_place_in_the_index() {
    let pages = pages();
    let docs = root().join("docs");
    let index = &pages[&docs.join("README.md")];
    let listed: BTreeSet<_> = index.links.iter().map(|(_, link)| docs.join(link)).collect();
    let wanted = pages.keys().filter(|path| path.starts_with(&docs) && !path.ends_with("docs/README.md"));
    let missing: Vec<_> = wanted.filter(|path| !listed.contains(*path)).map(|path| shown(path)).collect();
    assert!(missing.is_empty(), "docs/README.md does not list {missing:?}");
}

#[test]
fn every_page_that_a_source_names_is_there() {
    let pages = pages();
    let mut wrong = Vec::new();
    let mut count = 0;
    for folder in ["src", "assets", "manifests", "bootstrap-manifests", "scripts", "tests", ".ci", "docs", "findings"] {
        let mut found = Vec::new();
        below(&root().join(folder), |name| !name.ends_with(".md"), &mut found);
        for file in found {
            // The rows of this file's own tests lead nowhere.
            let Some(text) = fs::read_to_string(&file).ok().filter(|_| !file.ends_with(file!())) else { continue };
            for (number, line) in text.lines().enumerate() {
                for link in named(line) {
                    count += 1;
                    let problem = problem(&pages, &root().join("any"), &link);
                    wrong.extend(problem.map(|problem| format!("{}:{}: {link}: {problem}", shown(&file), number + 1)));
                }
            }
        }
    }
    assert!(count > 20, "{count}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The pages that a line of a source names by their path from the root: `docs/NAME.md`, `README.md`, with their anchors.
fn named(line: &str) -> Vec<String> {
    let is_path = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let mut links = Vec::new();
    for (start, _) in line.match_indices(".md") {
        let before = &line[..start];
        let path = &line[before
            .rfind(|c| !is_path(c))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8))
            ..start + 3];
        let rest = &line[start + 3..];
        if rest.starts_with(is_path) && !rest.starts_with(['.', '/']) {
            continue;
        }
        let anchor: String = rest.strip_prefix('#').unwrap_or_default().chars().take_while(|c| is_path(*c)).collect();
        let anchor = anchor.trim_end_matches(['.', '/']);
        let link = if anchor.is_empty() { path.to_owned() } else { format!("{path}#{anchor}") };
        if path.starts_with("docs/") || ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].contains(&path) {
            links.push(link);
        }
    }
    links
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

#[test]
fn headings_have_the_anchors_that_github_gives_them() {
    let page =
        Page::read("# etcd's data is *not* there\n## `hoist reset`: a `--flag`\n### Again\n### Again\n\n[a](b.md#c)\n");
    let anchors = ["again", "again-1", "etcds-data-is-not-there", "hoist-reset-a---flag"];
    assert_eq!(page.anchors, anchors.map(str::to_owned).into());
    assert_eq!(page.links, [(6, "b.md#c".to_owned())]);
}

#[test]
fn what_leads_nowhere_is_found() {
    let file = root().join("docs/x.md");
    let pages = BTreeMap::from([(file.clone(), Page::read("# Here\n")), (root().join("README.md"), Page::read(""))]);
    for (link, is_right) in [
        ("https://example.com/#x", true),
        ("#here", true),
        ("x.md#here", true),
        ("#there", false),
        ("../README.md", true),
        ("../README.md#limits", false),
        ("../../README.md", false),
        ("/docs/guard.md", false),
        ("guard.md", true),
        ("examples", true),
        ("no-such-page.md", false),
    ] {
        assert_eq!(problem(&pages, &file, link).is_none(), is_right, "{link}");
    }
    let line = "see docs/a.md#b-c, docs/d.md. https://etcd.io/docs/e.md (README.md#f)";
    assert_eq!(named(line), ["docs/a.md#b-c", "docs/d.md", "README.md#f"]);
}
