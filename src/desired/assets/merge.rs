//! Merges a user's edit and hoist's change of the same file: three-way, line by line.

use diffy::{ConflictStyle, DiffOptions, IncompleteHunkStyle, MergeOptions};

/// Longer than any line of a manifest: what is in the files is never taken for a marker.
const MARKER: usize = 200;

/// Lines that both changed, each in another way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Clash {
    /// The line in the user's file, from 1.
    pub line: usize,
    /// What the user made of them.
    pub yours: String,
    /// What hoist makes of them now.
    pub new: String,
}

/// `yours` with what has changed from `base` to `new`, or every place where the two meet.
pub(super) fn merge(base: &str, yours: &str, new: &str) -> Result<String, Vec<Clash>> {
    let mut options = MergeOptions::new();
    options
        .set_conflict_marker_length(MARKER)
        .set_conflict_style(ConflictStyle::Merge)
        .set_incomplete_hunk_style(IncompleteHunkStyle::Git);
    options.merge(base, yours, new).map_err(|text| clashes(yours, &text))
}

enum Side {
    Both,
    Yours,
    New,
}

/// The places between the markers of `text`, what a merge came to.
fn clashes(yours: &str, text: &str) -> Vec<Clash> {
    let is = |line: &str, marker: char| line.chars().take_while(|c| *c == marker).count() >= MARKER;
    let mut side = Side::Both;
    let mut clashes: Vec<Clash> = Vec::new();
    // What came of it, with the user's side wherever the two meet.
    let mut result = String::new();
    for line in text.split_inclusive('\n') {
        let last = clashes.last_mut();
        match (&side, last) {
            (Side::Both, _) if is(line, '<') => {
                side = Side::Yours;
                let line = result.lines().count() + 1;
                clashes.push(Clash { line, yours: String::new(), new: String::new() });
            }
            (Side::Yours, _) if is(line, '=') => side = Side::New,
            (Side::New, _) if is(line, '>') => side = Side::Both,
            (Side::Yours, Some(clash)) => {
                clash.yours.push_str(line);
                result.push_str(line);
            }
            (Side::New, Some(clash)) => clash.new.push_str(line),
            _ => result.push_str(line),
        }
    }
    for clash in &mut clashes {
        clash.line = line_before(yours, &result, clash.line);
    }
    clashes
}

/// The line of `before` that is the line `at` of `after`.
fn line_before(before: &str, after: &str, at: usize) -> usize {
    let mut options = DiffOptions::new();
    let patch = options.set_context_len(0);
    let patch = patch.create_patch(before, after);
    let earlier = patch.hunks().iter().filter(|hunk| hunk.new_range().end() <= at && hunk.new_range().start() < at);
    let (removed, added) = earlier
        .fold((0, 0), |(removed, added), hunk| (removed + hunk.old_range().len(), added + hunk.new_range().len()));
    (at + removed).saturating_sub(added).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "a\nb\nc\nd\ne\nf\n";

    #[test]
    fn changes_of_different_lines_are_brought_together() {
        for (yours, new, expected) in [
            (BASE, BASE, BASE),
            ("a\nB\nc\nd\ne\nf\n", BASE, "a\nB\nc\nd\ne\nf\n"),
            (BASE, "a\nB\nc\nd\ne\nf\n", "a\nB\nc\nd\ne\nf\n"),
            ("a\nB\nc\nd\ne\nf\n", "a\nb\nc\nd\nE\nf\n", "a\nB\nc\nd\nE\nf\n"),
            ("x\na\nb\nc\nd\ne\nf\n", "a\nb\nc\nd\ne\nf\ny\n", "x\na\nb\nc\nd\ne\nf\ny\n"),
            ("b\nc\nd\ne\nf\n", "a\nb\nc\nd\ne\n", "b\nc\nd\ne\n"),
            // The same change on both sides is one.
            ("a\nB\nc\nd\ne\nf\n", "a\nB\nc\nd\ne\nF\n", "a\nB\nc\nd\ne\nF\n"),
        ] {
            assert_eq!(merge(BASE, yours, new).unwrap(), expected, "{yours:?} {new:?}");
        }
    }

    #[test]
    fn a_clash_has_its_line_in_the_users_file_and_both_sides() {
        let clash = |line, yours: &str, new: &str| Clash { line, yours: yours.into(), new: new.into() };
        for (yours, new, expected) in [
            ("a\nB\nc\nd\ne\nf\n", "a\n2\nc\nd\ne\nf\n", vec![clash(2, "B\n", "2\n")]),
            // Lines that hoist adds or takes away above it do not count.
            ("a\nb\nc\nd\nE\nf\n", "x\ny\na\nb\nc\nd\n5\nf\n", vec![clash(5, "E\n", "5\n")]),
            ("a\nb\nc\nd\nE\nf\n", "b\nc\nd\n5\nf\n", vec![clash(5, "E\n", "5\n")]),
            ("a\nb\nc\nd\nf\n", "a\nb\nc\nd\n5\nf\n", vec![clash(5, "", "5\n")]),
            ("A\nb\nc\nd\ne\nF", "1\nb\nc\nd\ne\n6\n", vec![clash(1, "A\n", "1\n"), clash(6, "F\n", "6\n")]),
            ("x\ny\na\nB\nc\nd\ne\nf\n", "a\nc\nd\ne\nf\n", vec![clash(4, "B\n", "")]),
        ] {
            assert_eq!(merge(BASE, yours, new).unwrap_err(), expected, "{yours:?} {new:?}");
        }
    }

    /// A sequence that is the same in every run, and looks like chance.
    fn chance(seed: &mut u64) -> u64 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *seed >> 33
    }

    fn edited(text: &[u64], seed: &mut u64) -> Vec<u64> {
        let mut lines = text.to_vec();
        for _ in 0..chance(seed) % 4 {
            let at = chance(seed) as usize % (lines.len() + 1);
            match chance(seed) % 3 {
                0 => lines.insert(at, chance(seed) % 9),
                1 if at < lines.len() => drop(lines.remove(at)),
                _ if at < lines.len() => lines[at] = chance(seed) % 9,
                _ => {}
            }
        }
        lines
    }

    #[test]
    fn no_side_is_lost() {
        let mut seed = 7;
        let mut clean = 0;
        for round in 0..2000 {
            let base: Vec<_> = (0..chance(&mut seed) % 12).map(|_| chance(&mut seed) % 9).collect();
            let text = |lines: &[u64]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
            let (yours, new) = (text(&edited(&base, &mut seed)), text(&edited(&base, &mut seed)));
            let base = text(&base);
            assert_eq!(merge(&base, &yours, &base).unwrap(), yours, "{round}");
            assert_eq!(merge(&base, &base, &new).unwrap(), new, "{round}");
            assert_eq!(merge(&base, &yours, &yours).unwrap(), yours, "{round}");
            match (merge(&base, &yours, &new), merge(&base, &new, &yours)) {
                (Ok(one), Ok(other)) => {
                    clean += 1;
                    assert_eq!(one, other, "{round}: {base:?} {yours:?} {new:?}");
                }
                (Err(clashes), Err(_)) => {
                    for clash in clashes {
                        let from: String = yours.split_inclusive('\n').skip(clash.line - 1).collect();
                        assert!(from.starts_with(&clash.yours), "{round}: {clash:?} {base:?} {yours:?} {new:?}");
                    }
                }
                (one, other) => panic!("{round}: {one:?} {other:?}"),
            }
        }
        assert!(clean > 500, "{clean} merged");
    }
}
