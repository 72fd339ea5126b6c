//! `-o yaml` says what `-o json` says.

use serde_json::Value;

use crate::support::{CLUSTER, Folder};

#[test]
fn yaml_says_what_json_says() {
    let folder = Folder::rendered(CLUSTER);
    let commands: [(&[&str], i32); 5] = [
        (&["version"], 0),
        (&["images", "list", "--config", "cluster.yaml"], 0),
        (&["preflight", "--list"], 0),
        (&["validate", "--asset-dir", "assets"], 0),
        (&["validate", "--asset-dir", "none"], 3),
    ];
    for (command, code) in commands {
        let said = |format: &str| {
            let ran = folder.run(&[command, &["-o", format]].concat());
            assert_eq!(ran.code, Some(code), "{command:?} -o {format}: {}{}", ran.stdout, ran.stderr);
            ran.stdout
        };
        let json: Value = serde_json::from_str(&said("json")).unwrap();
        let yaml = said("yaml");
        assert_eq!(serde_yaml::from_str::<Value>(&yaml).unwrap(), json, "{command:?}: {yaml}");
        assert!(!yaml.starts_with('{') && yaml.ends_with('\n') && !yaml.ends_with("\n\n"), "{command:?}: {yaml}");
    }
}
