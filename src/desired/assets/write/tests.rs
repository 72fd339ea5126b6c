use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use tempfile::TempDir;
use time::OffsetDateTime;

use super::*;
use crate::desired::assets::Choices;
use crate::desired::config::{self, Cluster};
use crate::desired::pki;
use crate::desired::render;

const A: &str = "manifests/x/a.yaml";
const B: &str = "manifests/x/b.yaml";
const SECRET: &str = "manifests/x/secret.yaml";
const BRIDGE: &str = "bootstrap-manifests/bridge.yaml";
const KEY: &str = "tls/etcd/c1/server.key";

fn set(files: &[(&str, &str)]) -> AssetSet {
    let file = |path: &str, content: &str| {
        let private = path.ends_with(".key") || path.ends_with("secret.yaml") || path.starts_with("auth/");
        if private { File::private(content) } else { File::public(content) }
    };
    AssetSet {
        files: files.iter().map(|(path, content)| ((*path).to_owned(), file(path, content))).collect(),
        is_part: false,
    }
}

fn replacing(paths: &[&str]) -> Choices {
    Choices { replace: paths.iter().map(|path| (*path).to_owned()).collect(), ..Choices::default() }
}

/// A folder where the files have been rendered.
fn rendered(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    set(files).write(dir.path(), &Choices::default()).unwrap();
    dir
}

fn again(dir: &TempDir, files: &[(&str, &str)]) -> Result<Written> {
    set(files).write(dir.path(), &Choices::default())
}

fn read(dir: &TempDir, path: &str) -> String {
    fs::read_to_string(dir.path().join(path)).unwrap_or_else(|_| "(none)".into())
}

fn put(dir: &TempDir, path: &str, content: &str) {
    let path = dir.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Everything below a folder: path, mode, time of the last change, content.
fn tree(dir: &Path) -> Vec<(String, u32, i64, i64, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        found.push((path.display().to_string(), meta.mode(), meta.mtime(), meta.mtime_nsec(), content));
        if meta.is_dir() {
            found.extend(tree(&path));
        }
    }
    found.sort();
    found
}

/// Nothing is written, and the message names all of `said`.
#[track_caller]
fn refused(dir: &TempDir, files: &[(&str, &str)], said: &[&str]) {
    let before = tree(dir.path());
    let error = again(dir, files).unwrap_err();
    assert_eq!(error.exit_code(), 3, "{error}");
    for text in said {
        assert!(error.to_string().contains(text), "{text}: {error}");
    }
    assert_eq!(tree(dir.path()), before, "nothing was changed");
}

#[test]
fn the_same_input_changes_nothing() {
    let files = [(A, "a"), (SECRET, "s"), (KEY, "k"), ("auth/kubeconfig", "c")];
    let dir = rendered(&files);
    let before = tree(dir.path());
    assert_eq!(again(&dir, &files).unwrap(), Written::default());
    assert_eq!(tree(dir.path()), before);
}

#[test]
fn keys_are_private_from_the_start() {
    let dir = rendered(&[(A, "a"), (SECRET, "s"), (KEY, "k"), ("tls/ca.crt", "c"), ("auth/kubeconfig", "c")]);
    for (path, mode) in [
        ("tls", 0o700),
        ("tls/etcd", 0o700),
        ("tls/etcd/c1", 0o700),
        (KEY, 0o600),
        ("auth", 0o700),
        ("auth/kubeconfig", 0o600),
        ("manifests/x", 0o755),
        (SECRET, 0o600),
        (A, 0o644),
        (RENDERED, 0o644),
    ] {
        let meta = fs::metadata(dir.path().join(path)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, mode, "{path}");
    }
    fs::set_permissions(dir.path().join(KEY), fs::Permissions::from_mode(0o644)).unwrap();
    let files = [(A, "a"), (SECRET, "s"), (KEY, "k"), ("tls/ca.crt", "c"), ("auth/kubeconfig", "c")];
    assert_eq!(again(&dir, &files).unwrap().changed, [KEY], "a mode is mended");
}

#[test]
fn an_edit_is_kept_as_long_as_its_input_stays() {
    let dir = rendered(&[(A, "a"), (B, "b")]);
    put(&dir, A, "mine");
    for _ in 0..2 {
        let written = again(&dir, &[(A, "a"), (B, "b2")]).unwrap();
        assert_eq!(written.kept, [A]);
        assert_eq!((read(&dir, A), read(&dir, B)), ("mine".into(), "b2".into()));
    }
}

#[test]
fn an_edit_whose_input_changed_is_refused() {
    let dir = rendered(&[(A, "a"), (B, "b"), (KEY, "k"), (BRIDGE, "r")]);
    put(&dir, A, "mine");
    put(&dir, BRIDGE, "mine");
    let new = [(A, "a2"), (B, "b2"), (KEY, "k"), ("tls/new.key", "n"), (BRIDGE, "r2")];
    refused(&dir, &new, &[A, BRIDGE, "cluster.yaml", "--replace manifests/x/a.yaml"]);
    // What the message advises.
    let replace = replacing(&[A, BRIDGE]);
    set(&new).write(dir.path(), &replace).unwrap();
    assert_eq!(read(&dir, A), "a2");
    put(&dir, A, "a2 and mine");
    assert_eq!(again(&dir, &new).unwrap().kept, [A]);
}

/// A manifest of three fields, of which the second is far from the third.
fn manifest(first: &str, second: &str, third: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {first}\ndata:\n  second: {second}\n  # Far\n  # apart.\n  third: {third}\n"
    )
}

#[test]
fn an_edit_and_a_change_of_other_lines_are_merged() {
    let dir = rendered(&[(A, &manifest("a", "two", "three")), (B, "b")]);
    put(&dir, A, &manifest("a", "'mine'", "three"));
    let written = again(&dir, &[(A, &manifest("a", "two", "'new'")), (B, "b")]).unwrap();
    assert_eq!((written.changed, written.merged), (vec![A.to_owned()], vec![A.to_owned()]));
    assert_eq!(read(&dir, A), manifest("a", "'mine'", "'new'"));
    // It is the user's edit of the new text from now on.
    let written = again(&dir, &[(A, &manifest("a", "two", "'new'")), (B, "b")]).unwrap();
    assert_eq!(written, Written { kept: vec![A.into()], ..Written::default() });
    again(&dir, &[(A, &manifest("a", "two", "'newer'")), (B, "b")]).unwrap();
    assert_eq!(read(&dir, A), manifest("a", "'mine'", "'newer'"));
    // Undone, it is hoist's again.
    put(&dir, A, &manifest("a", "two", "'newer'"));
    assert_eq!(again(&dir, &[(A, &manifest("b", "two", "three")), (B, "b")]).unwrap().merged, [""; 0]);
}

#[test]
fn an_edit_and_a_change_of_one_line_are_a_conflict_until_the_user_says_which() {
    let new = manifest("a", "'new'", "three");
    let dir = rendered(&[(A, &manifest("a", "two", "three")), (B, "b")]);
    put(&dir, A, &format!("# mine\n{}", manifest("a", "'mine'", "three")));
    let place = format!("{A}:7:1: you edited");
    refused(&dir, &[(A, &new), (B, "b2")], &[&place, "yours: second: 'mine'\n", "hoist's: second: 'new'\n", "--keep"]);
    let keep = Choices { keep: [A.to_owned()].into(), ..Choices::default() };
    let written = set(&[(A, &new), (B, "b2")]).write(dir.path(), &keep).unwrap();
    assert_eq!((written.kept, written.changed), (vec![A.to_owned()], vec![B.to_owned()]));
    assert_eq!(read(&dir, A), format!("# mine\n{}", manifest("a", "'mine'", "three")));
    // It has been decided: what changes elsewhere is merged again.
    again(&dir, &[(A, &manifest("a", "'new'", "'too'")), (B, "b2")]).unwrap();
    assert_eq!(read(&dir, A), format!("# mine\n{}", manifest("a", "'mine'", "'too'")));
}

#[test]
fn what_is_merged_must_be_a_manifest() {
    let base = manifest("a", "two", "three");
    let dir = rendered(&[(A, &base)]);
    put(&dir, A, &base.replace("metadata:\n", "metadata:\n  namespace: mine\n"));
    let new = base.replace("data:\n  second", "  namespace: new\ndata:\n  second");
    refused(&dir, &[(A, &new)], &[A, "it would be wrong", "namespace", "--replace"]);
    // A field that its kind does not have.
    let dir = rendered(&[(A, &base)]);
    put(&dir, A, &base.replace("metadata:\n", "metadatum: x\nmetadata:\n"));
    refused(&dir, &[(A, &manifest("a", "two", "'new'"))], &[A, "it would be wrong", "metadatum"]);
}

#[test]
fn a_secret_is_never_merged_nor_kept_as_a_text() {
    let dir = rendered(&[(SECRET, "a\nsesame\nc\n"), ("auth/kubeconfig", "sesame"), (KEY, "sesame")]);
    put(&dir, SECRET, "mine\nsesame\nc\n");
    let new = [(SECRET, "a\nsesame\nnew\n"), ("auth/kubeconfig", "sesame"), (KEY, "sesame")];
    refused(&dir, &new, &["secret.yaml: was edited", "--replace"]);
    for (path, _, _, _, content) in tree(dir.path()) {
        assert!(!path.contains(".render") || !String::from_utf8_lossy(&content).contains("sesame"), "{path}");
    }
}

#[test]
fn a_conflict_in_a_file_with_a_secret_of_the_users_does_not_show_it() {
    let secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringData: {password: sesame}\n";
    let dir = rendered(&[(A, &manifest("a", "two", "three"))]);
    put(&dir, A, &(manifest("a", "two", "'mine'") + secret));
    refused(
        &dir,
        &[(A, &manifest("a", "two", "'new'"))],
        &["a.yaml:9:1: you edited", "yours: (not shown: the file holds"],
    );
    let error = again(&dir, &[(A, &manifest("a", "two", "'new'"))]).unwrap_err().to_string();
    assert!(!error.contains("sesame"), "{error}");
}

#[test]
fn a_directory_without_texts_is_rendered_again() {
    let (one, two) = (manifest("a", "two", "three"), manifest("a", "two", "'new'"));
    let dir = rendered(&[(A, &one), (B, "b")]);
    // As hoist wrote it before it kept texts, or with texts that are not those of the checksums.
    for texts in [None, Some("==> 1 manifests/x/a.yaml\nx\n")] {
        match texts {
            None => fs::remove_file(dir.path().join(TEXTS)).unwrap(),
            Some(text) => put(&dir, TEXTS, text),
        }
        put(&dir, A, &manifest("a", "'mine'", "three"));
        refused(&dir, &[(A, &two), (B, "b")], &[A, "was edited, and what hoist makes of it has changed", "--keep"]);
        // As long as nothing meets, nothing is missed; and from then on there are texts.
        assert_eq!(again(&dir, &[(A, &one), (B, "b")]).unwrap().kept, [A]);
    }
    again(&dir, &[(A, &two), (B, "b")]).unwrap();
    assert_eq!(read(&dir, A), manifest("a", "'mine'", "'new'"));
}

#[test]
fn a_merge_that_is_killed_is_run_again() {
    let (one, two) = (manifest("a", "two", "three"), manifest("a", "two", "'new'"));
    for (is_written, last) in [(false, &two), (true, &two), (false, &one), (true, &one)] {
        let dir = rendered(&[(A, &one), (B, "b")]);
        put(&dir, A, &manifest("a", "'mine'", "three"));
        let new = set(&[(A, &two), (B, "b2")]);
        let plan = new.plan(dir.path(), &Choices::default()).unwrap();
        plan.announce(dir.path()).unwrap();
        for put in plan.put.iter().filter(|_| is_written) {
            fs::write(dir.path().join(put.path), &put.file.content).unwrap();
        }
        again(&dir, &[(A, last), (B, "b")]).unwrap();
        let expected = last.replace("second: two", "second: 'mine'");
        assert_eq!(read(&dir, A), expected, "{is_written}");
        assert_eq!(again(&dir, &[(A, last), (B, "b")]).unwrap().kept, [A]);
        assert_eq!(read(&dir, A), expected, "{is_written}");
    }
}

#[test]
fn a_part_leaves_the_rest() {
    let dir = rendered(&[(A, "a"), (KEY, "k"), ("tls/a.csr", "r")]);
    put(&dir, A, "mine");
    let part = AssetSet { is_part: true, ..set(&[("tls/b.csr", "r"), (KEY, "k")]) };
    let written = part.write(dir.path(), &Choices::default()).unwrap();
    assert_eq!((written.changed, written.removed), (vec!["tls/b.csr".to_owned()], vec!["tls/a.csr".to_owned()]));
    assert_eq!(again(&dir, &[(A, "a"), (KEY, "k")]).unwrap().removed, ["tls/b.csr"]);
    assert_eq!(read(&dir, A), "mine");
}

#[test]
fn an_edit_that_is_what_would_be_written_is_no_conflict() {
    let dir = rendered(&[(A, "a")]);
    put(&dir, A, "a2");
    assert_eq!(again(&dir, &[(A, "a2")]).unwrap(), Written::default());
    assert_eq!(again(&dir, &[(A, "a3")]).unwrap().changed, [A], "it counts as rendered now");
}

#[test]
fn a_removed_manifest_stays_removed() {
    let dir = rendered(&[(A, "a"), (B, "b")]);
    fs::remove_file(dir.path().join(A)).unwrap();
    for content in ["a", "a2", "a2"] {
        let written = again(&dir, &[(A, content), (B, "b")]).unwrap();
        assert_eq!((written.left_out, written.changed), (vec![A.to_owned()], vec![]));
        assert!(!dir.path().join(A).exists());
    }
    set(&[(A, "a2"), (B, "b")]).write(dir.path(), &replacing(&[A])).unwrap();
    assert_eq!(read(&dir, A), "a2");
}

#[test]
fn what_start_needs_or_is_secret_is_put_back() {
    let files = [
        (SECRET, "s"),
        (KEY, "k"),
        (BRIDGE, "r"),
        ("auth/kubeconfig", "c"),
        ("kubelet/config.yaml", "c"),
        ("cluster.yaml", "c"),
    ];
    let dir = rendered(&files);
    for (path, content) in files {
        fs::remove_file(dir.path().join(path)).unwrap();
        assert_eq!(again(&dir, &files).unwrap(), Written { changed: vec![path.into()], ..Written::default() });
        assert_eq!(read(&dir, path), content);
    }
}

#[test]
fn a_manifest_of_the_users_is_left() {
    let dir = rendered(&[(A, "a")]);
    put(&dir, "manifests/mine/m.yaml", "m");
    again(&dir, &[(A, "a2")]).unwrap();
    assert_eq!(read(&dir, "manifests/mine/m.yaml"), "m");
    refused(&dir, &[(A, "a2"), ("manifests/mine/m.yaml", "hoist's")], &["manifests/mine/m.yaml"]);
}

#[test]
fn what_this_render_does_not_make_is_removed_unless_it_is_a_key_or_edited() {
    let dir = rendered(&[(A, "a"), (B, "b"), (BRIDGE, "r"), (KEY, "k"), ("manifests/y/c.yaml", "c")]);
    put(&dir, B, "mine");
    let written = again(&dir, &[(A, "a")]).unwrap();
    assert_eq!(written.removed, [BRIDGE, "manifests/y/c.yaml"]);
    assert_eq!(written.unused, [B, KEY]);
    assert_eq!((read(&dir, B), read(&dir, KEY)), ("mine".into(), "k".into()));
    for gone in ["bootstrap-manifests", "manifests/y"] {
        assert!(!dir.path().join(gone).exists(), "{gone} is empty");
    }
    assert_eq!(again(&dir, &[(A, "a")]).unwrap(), Written::default());
}

#[test]
fn the_users_cluster_yaml_is_never_lost() {
    let dir = rendered(&[("cluster.yaml", "resolved"), (A, "a")]);
    put(&dir, "cluster.yaml", "# mine\nresolved");
    refused(&dir, &[("cluster.yaml", "resolved"), (A, "a")], &["cluster.yaml: was edited", "--config"]);
    put(&dir, "cluster.yaml", "resolved anew");
    assert_eq!(again(&dir, &[("cluster.yaml", "resolved anew"), (A, "a2")]).unwrap().changed, [A]);
}

#[test]
fn a_key_is_never_replaced() {
    let dir = rendered(&[(KEY, "k")]);
    let error = again(&dir, &[(KEY, "another")]).unwrap_err();
    assert!(error.to_string().contains("never replaces a key"), "{error}");
    assert_eq!(read(&dir, KEY), "k");
}

#[test]
fn a_link_to_the_right_content_stays() {
    let (dir, vault) = (rendered(&[(KEY, "k")]), tempfile::tempdir().unwrap());
    let (key, real) = (dir.path().join(KEY), vault.path().join("k"));
    fs::rename(&key, &real).unwrap();
    symlink(&real, &key).unwrap();
    assert_eq!(again(&dir, &[(KEY, "k")]).unwrap(), Written::default());
    assert!(key.is_symlink());
}

#[test]
fn a_second_render_at_the_same_time_is_refused() {
    let dir = rendered(&[(A, "a")]);
    let held = locked(dir.path()).unwrap();
    assert_eq!(again(&dir, &[(A, "a2")]).unwrap_err().exit_code(), 5);
    drop(held);
    again(&dir, &[(A, "a2")]).unwrap();
}

#[test]
fn targets() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let config = at("conf/cluster.yaml");
    let said = |target: &Path, config: &Path| match check_target(target, config) {
        Ok(()) => "fine".to_owned(),
        Err(error) => format!("{} {error}", error.exit_code()),
    };
    put(&dir, "conf/cluster.yaml", "c");
    put(&dir, "foreign/notes.txt", "n");
    put(&dir, "file", "f");
    put(&dir, "killed/.hoist-abc", "half");
    fs::create_dir(at("empty")).unwrap();
    for (target, expected) in [
        ("new", "fine"),
        ("new/deep", "fine"),
        ("empty", "fine"),
        ("killed", "fine"),
        (
            "foreign",
            "3 the input is not valid; nothing was changed\n  DIR/foreign: holds files that `hoist render` did",
        ),
        ("file", "3 the input is not valid; nothing was changed\n  DIR/file: is not a folder"),
        ("conf", "3 the input is not valid; nothing was changed\n  DIR/conf: holds your configuration, where"),
    ] {
        let said = said(&at(target), &config).replace(dir.path().to_str().unwrap(), "DIR");
        assert!(said.starts_with(expected), "{target}: {said}");
    }
    set(&[(A, "a")]).write(&at("empty"), &Choices::default()).unwrap();
    assert_eq!(said(&at("empty"), &config), "fine");
}

const CLUSTER: &str = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n- {name: c1, address: 192.0.2.10}\n";

/// What `hoist render` does.
fn make(cluster: &Cluster, dir: &Path) -> AssetSet {
    let existing = super::super::existing(dir, "tls").unwrap();
    let user = pki::read_user_files(cluster).unwrap();
    let issued = pki::issue(cluster, &existing, &user, OffsetDateTime::now_utc()).unwrap();
    let token = crate::node::kubelet::rendered_token(dir).unwrap();
    let token = pki::bootstrap_token(token.as_deref()).unwrap();
    render::render(cluster, &issued.files, &token).unwrap()
}

/// A render of `old` (if there is one) that is followed by one of `new`, which is killed after `steps` files; then a
/// third of `last`.
fn killed_after(steps: usize, old: Option<&Cluster>, new: &Cluster, last: &Cluster) -> bool {
    let none = Choices::default();
    let dir = tempfile::tempdir().unwrap();
    if let Some(old) = old {
        make(old, dir.path()).write(dir.path(), &none).unwrap();
    }
    let keys: Vec<_> =
        tree(dir.path()).into_iter().filter(|file| file.0.ends_with(".key")).map(|file| (file.0, file.4)).collect();
    let set = make(new, dir.path());
    let plan = set.plan(dir.path(), &none).unwrap();
    plan.announce(dir.path()).unwrap();
    for put in plan.put.iter().take(steps) {
        let path = dir.path().join(put.path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &put.file.content).unwrap();
    }
    fs::create_dir_all(dir.path().join("tls")).unwrap();
    fs::write(dir.path().join("tls/.hoist-abc"), "half a key").unwrap();
    let is_whole = steps >= plan.put.len();
    assert!(AssetSet::load(dir.path()).is_err(), "start does not take half of it");

    check_target(dir.path(), Path::new("/none")).unwrap();
    let set = make(last, dir.path());
    let written = set.write(dir.path(), &none).unwrap();
    assert!(written.kept.is_empty() && written.left_out.is_empty(), "{steps}: {written:?}");
    for (path, file) in &set.files {
        assert!(fs::read(dir.path().join(path)).unwrap() == file.content, "{steps}: {path}");
    }
    for (path, content) in keys {
        assert!(fs::read(&path).unwrap() == content, "{steps}: {path}");
    }
    assert!(!dir.path().join("tls/.hoist-abc").exists());
    let before = tree(dir.path());
    assert_eq!(make(last, dir.path()).write(dir.path(), &none).unwrap(), Written::default(), "{steps}");
    assert_eq!(tree(dir.path()), before);
    let all =
        tree(dir.path()).into_iter().filter(|(path, mode, ..)| mode & 0o170_000 == 0o100_000 && !path.contains("tls/"));
    assert_eq!(all.count(), set.files.keys().filter(|path| !path.starts_with("tls/")).count() + 2, "{steps}");
    is_whole
}

#[test]
fn a_render_that_is_killed_anywhere_is_run_again() {
    let read = |text: &str| config::parse("f", text, Path::new("/")).unwrap();
    let one = read(CLUSTER);
    let two = read(&format!("{CLUSTER}- {{name: c2, address: 192.0.2.11}}\n"));
    for (old, new, last) in [(None, &one, &one), (Some(&one), &two, &two), (Some(&one), &two, &one)] {
        // Every step among the keys, a few among the rest.
        let mut steps = 0;
        while !killed_after(steps, old, new, last) {
            steps += if steps < 16 { 1 } else { 7 };
        }
    }
}
