use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::base::error::testing::same;

fn read(text: &str) -> Value {
    documents("t", text).unwrap().pop().unwrap().value
}

fn wrong(text: &str) -> Vec<String> {
    documents("t", text).unwrap_err().iter().map(|f| f.to_string().replace("\n    ", " | ")).collect()
}

#[test]
fn plain_scalars_are_read_as_kubernetes_reads_them() {
    for (text, value) in [
        ("on", json!(true)),
        ("No", json!(false)),
        ("y", json!(true)),
        ("\"on\"", json!("on")),
        ("'1'", json!("1")),
        ("!!str 5", json!("5")),
        ("0644", json!(420)),
        ("0o644", json!(420)),
        ("0x1F", json!(31)),
        ("-0b11", json!(-3)),
        ("1_000", json!(1000)),
        ("08", json!(8)),
        ("18446744073709551615", json!(u64::MAX)),
        ("1.5", json!(1.5)),
        ("-.5", json!(-0.5)),
        ("5.", json!(5)),
        ("1.2e400", json!("1.2e400")),
        ("1e", json!("1e")),
        ("+-5", json!("+-5")),
        ("0x", json!("0x")),
        (".", json!(".")),
        ("1e3", json!(1000)),
        ("1.36.3", json!("1.36.3")),
        ("2024-01-01", json!("2024-01-01")),
        ("10.96.0.0/12", json!("10.96.0.0/12")),
        ("1:30", json!("1:30")),
        ("0x-5", json!("0x-5")),
        ("_1", json!("_1")),
        ("infinity", json!("infinity")),
        ("|\n    a\n    b\n", json!("a\nb\n")),
    ] {
        assert_eq!(read(&format!("k: {text}\n")), json!({ "k": value }), "{text}");
    }
    for (text, value) in [
        ("k: |\n  a", "a"),
        ("k: >+\n  a", "a"),
        ("k: |\n  a\n", "a\n"),
        ("k: |+\n  a\n\n", "a\n\n"),
        ("k: >+\n ", ""),
        ("k: |+\n  a\n ", "a\n"),
    ] {
        assert_eq!(read(text), json!({ "k": value }), "as Kubernetes reads the file's end: {text:?}");
    }
    assert_eq!(read("k:\nl: ~\n"), json!({"k": null, "l": null}));
    assert_eq!(read("1: a\non: b\n"), json!({"1": "a", "true": "b"}));
}

/// As Kubernetes' reader has it, wherever readers agree.
#[test]
fn merge_keys_bring_fields() {
    let text = "a: &a {x: 1, p: {z: [2]}}\nb: &b {x: 3, w: 4}\nc:\n  <<: *a\n  x: 5\nd:\n  <<: [*a, *b, {v: 6}]\n  '<<': 7\ne: {<<: {}, u: 8}\n";
    let read = documents("t", text).unwrap().pop().unwrap().value;
    assert_eq!(read["c"], json!({"x": 5, "p": {"z": [2]}}));
    assert_eq!(read["d"], json!({"x": 1, "p": {"z": [2]}, "w": 4, "v": 6, "<<": 7}));
    assert_eq!(read["e"], json!({"u": 8}));
    same(&wrong("<<: {a: 1}\na: 2\na: 3\n"), &["t:3:1: duplicate key `a`, first on line 2 | keep one of them"]);
}

#[test]
fn json_is_read_as_kubernetes_reads_it() {
    for (text, value) in [
        (r#"{"k": "\ud83d\ude80 a\/b \u0041"}"#, json!("🚀 a/b A")),
        (r#"{"k":"\uD83D\uDE80"}"#, json!("🚀")),
        (r#"{"k":"\uD83d\ude8A \ud83D"}"#, json!("🚊 \u{fffd}")),
        (r#"{"k": "\ud83d x"}"#, json!("\u{fffd} x")),
        (r#"{"k": "\ude80\ud83d"}"#, json!("\u{fffd}\u{fffd}")),
        (r#"{"k": "\\ud83d\\ude80"}"#, json!(r"\ud83d\ude80")),
        ("{\"k\": \"\\ud83d\\ude80 \u{e03d}\u{f0ff}\"}", json!("🚀 \u{e03d}\u{f0ff}")),
        ("{\n\t\"k\":\t1\n}\n", json!(1)),
        ("{\"k\": \"\u{7f}\u{85}\u{2028}\"}", json!("\u{7f}\u{85}\u{2028}")),
        ("k: \"\\ud83d\\ude80\"\n", json!("🚀")),
        ("k: ['\\ud83d', \\uD83D, \"\\\\ud83d\"]\n", json!([r"\ud83d", r"\uD83D", r"\ud83d"])),
        ("k: |-\n  \"\\ud83d\\ude80\"\n", json!(r#""\ud83d\ude80""#)),
    ] {
        assert_eq!(read(text), json!({ "k": value }), "{text}");
    }
    assert_eq!(read(r#"{"\ud83d\ude80": 1}"#), json!({"🚀": 1}));
    same(&wrong("k: 1\nl: \"\\ud83d\"\n"), &["t:2:4: holds an escape of half a character, without the other half"]);
}

#[test]
fn objects_of_json_may_follow_one_another() {
    let text = "\u{feff}{\"a\": 1}\n{\"b\":\n  {\"c\": 2}} {\"d\": \"\\ud83d\\ude80\", \"e\": [3]}\n";
    let docs = documents("t", text).unwrap();
    let found: Vec<_> = docs.iter().map(|d| (d.line, d.value.clone())).collect();
    assert_eq!(found, [(1, json!({"a": 1})), (2, json!({"b": {"c": 2}})), (3, json!({"d": "🚀", "e": [3]}))]);
    assert_eq!(docs[1].positions.get("b.c"), Some((3, 9)));
    assert_eq!((docs[2].positions.get("d"), docs[2].positions.get("e[0]")), (Some((3, 19)), Some((3, 41))));
    same(
        &wrong("{\"a\": 1}\n {\"b\": 2, \"b\": 3}\n"),
        &["t:2:11: duplicate key `b`, first on line 2 | keep one of them"],
    );
    // Not JSON, all of it.
    assert_eq!(documents("t", "{\"a\": 1}\n---\nb: 2\n").unwrap().len(), 2);
    assert_eq!(read("{a: 1}\n"), json!({"a": 1}));
}

#[test]
fn documents_are_split_and_empty_ones_skipped() {
    let docs = documents("t", "# only a comment\n---\n---\na: 1\n---\n# nothing\n---\n\nb: 2\n...\n").unwrap();
    let found: Vec<_> = docs.iter().map(|d| (d.line, d.value.clone())).collect();
    assert_eq!(found, [(4, json!({"a": 1})), (9, json!({"b": 2}))]);
    assert_eq!(documents("t", "").unwrap(), []);
    assert_eq!(documents("t", "\u{feff}a: 1\r\nb: 2\r\n").unwrap()[0].value, json!({"a": 1, "b": 2}));
}

#[test]
fn values_are_found_by_path() {
    let text =
        "spec:\n  list:\n  - name: a\n  - [x, yy]\n  labels:\n    app.kubernetes.io/name: n\n  empty:\n  last: 1\n";
    let positions = documents("t", text).unwrap().pop().unwrap().positions;
    for (path, position) in [
        ("", (1, 1)),
        ("spec", (2, 3)),
        ("spec.list[0].name", (3, 11)),
        ("spec.list[1][1]", (4, 9)),
        ("spec.labels[\"app.kubernetes.io/name\"]", (6, 29)),
        ("spec.empty", (7, 3)),
        ("spec.last", (8, 9)),
    ] {
        assert_eq!(positions.get(path), Some(position), "{path}");
    }
    assert_eq!(positions.key("spec.list[0].name"), Some((3, 5)));
    assert_eq!(positions.get("spec.none"), None);
    assert_eq!(positions.nearest("spec.labels.none.deeper[1]"), Some((5, 3)));
    assert_eq!(positions.nearest("spec.labels[\"no.ne\"]"), Some((5, 3)));
    assert_eq!(positions.nearest("none"), Some((1, 1)));
}

#[test]
fn aliases_are_followed() {
    assert_eq!(read("a: &x {b: 1}\nc: *x\n"), json!({"a": {"b": 1}, "c": {"b": 1}}));
    same(&wrong("a: &x [*x]\n"), &["t:1:8: this alias refers to a value around itself"]);
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 0..9 {
        let alias = format!("*a{i}, ").repeat(10);
        let _ = writeln!(bomb, "a{}: &a{} [{alias}]", i + 1, i + 1);
    }
    assert!(wrong(&bomb)[0].contains("aliases expand to too many values | "));
}

#[test]
fn everything_wrong_is_reported_with_its_place() {
    for (text, findings) in [
        (
            "a: 1\nb:\n  c: 1\n  c: 2\na: 2\n",
            vec![
                "t:4:3: duplicate key `c`, first on line 3 | keep one of them",
                "t:5:1: duplicate key `a`, first on line 1 | keep one of them",
            ],
        ),
        ("a: 1\n---\nb: 1\nb: 2\n", vec!["t:4:1: duplicate key `b`, first on line 3 | keep one of them"]),
        ("a: .inf\n", vec!["t:1:4: `.inf` is not a number that JSON can hold | for a string write \".inf\""]),
        ("a: !secret x\n", vec!["t:1:4: the tag !secret is not supported here | remove it"]),
        ("a: {<<: 1}\n", vec!["t:1:5: a merge key (`<<`) takes a map, or a list of maps | write the fields out"]),
        (
            "a: {b: 1, <<: {b: 2}}\n",
            vec![
                "t:1:11: this merge key (`<<`) has `b`, which stands in front of it, too | write the merge key first: what follows it counts",
            ],
        ),
        ("? [a]\n: b\n", vec!["t:1:3: a key must be a string"]),
        ("~: b\n", vec!["t:1:1: a key is empty"]),
    ] {
        same(&wrong(text), &findings);
    }
    for (text, place) in [("a: b: c\n", "t:1:5: not valid YAML"), ("a: [1\n", "t:"), ("a:\n\t- b\n", "t:2:2:")] {
        assert!(wrong(text)[0].starts_with(place), "{text}: {:?}", wrong(text));
    }
    assert!(wrong(&"[".repeat(200))[0].contains("nested more than 100 levels deep | "));
    assert!(wrong(&"- ".repeat(200))[0].contains("nested more than 100 levels deep | "));
}

#[test]
fn what_would_fill_the_memory_is_refused() {
    let long_key = format!("? {}\n: [{}]\n", "k".repeat(200_000), "a,".repeat(10_000));
    assert!(wrong(&long_key)[0].contains("too many values, with too long keys around them | split the file"));
    for (text, place) in [("a: \u{1}b\n", "t:1:4"), ("a: ä\n\u{0}\n", "t:2:1"), ("a: b\u{feff}\n", "t:1:5")] {
        assert!(wrong(text)[0].starts_with(&format!("{place}: holds the character U+")), "{text:?}: {:?}", wrong(text));
    }
    for end in ["\u{85}", "\u{2028}", "\u{2029}"] {
        assert!(wrong(&format!("a: b{end}c\n"))[0].starts_with("t:1:5: holds the character U+"));
    }
    assert_eq!(read("a: 😀\u{a0}ä\n"), json!({"a": "😀\u{a0}ä"}));
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[allow(dead_code)]
struct Shape {
    pod_subnet: Option<String>,
    list: Option<Vec<String>>,
    inner: Option<Fields<Inner>>,
    inners: Option<Vec<Fields<Inner>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inner {
    #[allow(dead_code)]
    address: Option<u16>,
}

fn misfits(text: &str) -> Vec<String> {
    parse_one::<Shape>("t", text).unwrap_err().iter().map(|f| f.to_string().replace("\n    ", " | ")).collect()
}

#[test]
fn every_misfit_is_reported_in_one_go() {
    let text = "podSubnet: 5
list: [1, a, true, b, {}]
inner:
  adress: 1
  address: x
inners:
- address: -1
- nonsense: 1
- [1]
- address: [1]
podsubnet: x
";
    same(
        &misfits(text),
        &[
            "t:1:12: podSubnet: expected a string, found 5 | write it in quotes",
            "t:2:8: list[0]: expected a string, found 1 | write it in quotes",
            "t:2:14: list[2]: expected a string, found true | write it in quotes",
            "t:2:23: list[4]: expected a string, found a map",
            "t:4:3: inner.adress: unknown field | did you mean `address`?",
            "t:5:12: inner.address: expected u16, found \"x\"",
            "t:7:12: inners[0].address: expected u16, found -1",
            "t:8:3: inners[1].nonsense: unknown field | known here: address",
            "t:9:3: inners[2]: expected a map, found a list",
            "t:10:12: inners[3].address: expected u16, found a list",
            "t:11:1: podsubnet: unknown field | did you mean `podSubnet`?",
        ],
    );
    same(&misfits("inner: []\n"), &["t:1:8: inner: expected a map, found a list"]);
    same(&misfits("list: x\n"), &["t:1:7: list: expected a list, found \"x\""]);
    same(&misfits("[a]\n"), &["t:1:1: expected a map, found a list"]);
    same(&misfits("# nothing\n"), &["t: it is empty"]);
    same(
        &misfits("list:\n---\nlist:\n"),
        &["t:3:1: a second document begins here | only one is expected: remove the others"],
    );
    assert!(parse_one::<Shape>("t", "inner:\nlist: [a]\n").is_ok());
}

#[test]
fn what_is_written_is_read_back_the_same() {
    let value = json!({
        "plain": "registry.k8s.io/pause:3.10", "path": "/etc/kubernetes", "version": "v1.36.3",
        "strings": ["on", "yes", "No", "n", "null", "1_000", "0x1F", "1e3", ".5", "", " ", "- a", "a: b", "a #b", "a:", "~",
                    "2024-01-01", "12:30:45", "10.0.0.0/8", "*", "&a", "!a", "%", "@", "`", "{", "[]", "'", "\"", "\\",
                    "a\nb\n", "\ttab", "\u{7f}\u{85}\u{a0}\u{2028}\u{feff}", "ü😀", "<<", "="],
        "on": true, "empty": {}, "none": [], "null": null, "n": [[1, [2, -3.5]], {"a": {"b": [{"c": 1, "d": [{}]}]}}],
    });
    let text = to_string(&value);
    assert_eq!(read(&text), value, "{text}");
    insta::assert_snapshot!(
        to_string(&json!({"a": "b", "on": "off", "list": [{"name": "x", "value": "1"}, ["y"]], "map": {"k": {}}})),
        @r#"
    a: b
    "on": "off"
    list:
      - name: x
        value: "1"
      - - "y"
    map:
      k: {}
    "#
    );
}
