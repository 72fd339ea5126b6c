use std::path::Path;

use time::OffsetDateTime;

use super::*;

const FOLDER: &str = "/etc/kubernetes/static-pods";

/// The workload of a component as `render` makes it, and all that it refers to.
fn rendered(component: &'static str) -> (Workload, Objects) {
    let cluster =
        crate::desired::config::parse("cluster.yaml", crate::desired::config::DEFAULT, Path::new("/")).unwrap();
    let pki =
        crate::desired::pki::issue(&cluster, &Default::default(), &Default::default(), OffsetDateTime::UNIX_EPOCH)
            .unwrap();
    let assets = crate::desired::render::render(&cluster, &pki.files, "abcdef.0123456789abcdef").unwrap();
    let kind = crate::api::self_hosted::kind_of(component);
    let text = assets.text(&format!("manifests/{component}/{}.yaml", kind.to_lowercase())).unwrap();
    let document = yaml::documents(component, &text).unwrap().remove(0).value;
    let workload = Workload { component, kind, template: document["spec"]["template"].clone() };
    let tls = assets.tls();
    let content =
        crate::desired::secrets::of_component(component, &cluster, &tls, crate::desired::secrets::Server::SelfHosted)
            .unwrap();
    let config =
        BTreeMap::from([("kube-apiserver-config".to_owned(), crate::desired::server_config::files(&assets).unwrap())]);
    let secrets = BTreeMap::from([(component.to_owned(), content)]);
    let objects = Objects { secrets, config_maps: config, ..Objects::default() };
    (workload, objects)
}

/// What is said against a scheduler that was changed.
fn against(change: impl FnOnce(&mut Value, &mut Objects)) -> Vec<String> {
    let (mut workload, mut objects) = rendered("kube-scheduler");
    change(&mut workload.template["spec"], &mut objects);
    match convert(&workload, &objects, FOLDER) {
        Ok(_) => Vec::new(),
        Err(findings) => findings.into_iter().map(|finding| finding.message).collect(),
    }
}

#[test]
fn what_hoist_renders_becomes_static_pods() {
    for component in crate::desired::secrets::COMPONENTS {
        let (workload, objects) = rendered(component);
        assert_eq!(workload.references().secrets, BTreeSet::from([component.to_owned()]));
        assert_eq!(workload.references().account, component);
        let pod = convert(&workload, &objects, FOLDER).unwrap();
        insta::assert_snapshot!(component, format!("{}{:#?}", pod.manifest, pod.folders));
        // It is a Pod to whoever knows what a Pod may have.
        let parsed: k8s_openapi::api::core::v1::Pod =
            serde_json::from_value(yaml::documents("", &pod.manifest).unwrap().remove(0).value).unwrap();
        assert_eq!(parsed.spec.unwrap().service_account_name, None);
    }
}

#[test]
fn a_users_edits_stay() {
    let (mut workload, mut objects) = rendered("kube-scheduler");
    let spec = &mut workload.template["spec"];
    spec["containers"][0]["image"] = "example.com/scheduler:mine".into();
    spec["containers"][0]["command"].as_array_mut().unwrap().push("--v=4".into());
    spec["aFieldOfTomorrow"] = json!({"kept": true});
    let mounts = spec["containers"][0]["volumeMounts"].as_array_mut().unwrap();
    mounts.push(json!({"name": "policy", "mountPath": "/policy"}));
    let sources = json!([
        {"configMap": {"name": "policy", "items": [{"key": "run", "path": "bin/run", "mode": 0o555}]}},
        {"secret": {"name": "absent", "optional": true}},
    ]);
    let volumes = spec["volumes"].as_array_mut().unwrap();
    volumes.push(json!({"name": "policy", "projected": {"sources": sources, "defaultMode": 0o444}}));
    volumes.push(json!({"name": "scratch", "emptyDir": {}}));
    objects.config_maps.insert("policy".into(), [("run".to_owned(), b"#!".to_vec()), ("x".to_owned(), vec![])].into());
    assert_eq!(workload.references().config_maps, BTreeSet::from(["policy".to_owned()]));

    let pod = convert(&workload, &objects, FOLDER).unwrap();
    let value = yaml::documents("", &pod.manifest).unwrap().remove(0).value;
    assert_eq!(value["spec"]["containers"][0]["image"], "example.com/scheduler:mine");
    assert!(value["spec"]["containers"][0]["command"].as_array().unwrap().contains(&"--v=4".into()));
    assert_eq!(value["spec"]["aFieldOfTomorrow"]["kept"], true);
    let scratch = value["spec"]["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "scratch");
    assert_eq!(scratch.unwrap()["emptyDir"], json!({}));
    let policy = pod.folders.iter().find(|folder| folder.volume == "policy").unwrap();
    let files: Vec<_> = policy.files.iter().map(|(path, file)| (path.as_str(), file.mode, &*file.content)).collect();
    assert_eq!((policy.owner, files), (65534, vec![("bin/run", 0o700, &b"#!"[..])]));
}

#[test]
fn what_only_the_api_can_give_is_refused_by_name() {
    type Change = fn(&mut Value, &mut Objects);
    let table: [(Change, &str); 19] = [
        (
            |spec, _| spec["imagePullSecrets"] = json!([{"name": "x"}]),
            "pulls its image with a Secret (imagePullSecrets)",
        ),
        (|spec, _| spec["resourceClaims"] = json!([{"name": "x"}]), "claims resources (resourceClaims)"),
        (|spec, _| spec["runtimeClassName"] = "kata".into(), "is of a RuntimeClass (runtimeClassName)"),
        (
            |spec, objects| {
                drop(spec.as_object_mut().unwrap().remove("automountServiceAccountToken"));
                objects.giving_accounts.insert("kube-scheduler".into());
            },
            "mounts a token of the service account kube-scheduler",
        ),
        (
            |spec, _| env(spec, json!({"secretKeyRef": {"name": "s", "key": "k"}})),
            "the container kube-scheduler takes V from the Secret s",
        ),
        (
            |spec, _| env(spec, json!({"configMapKeyRef": {"name": "c", "key": "k"}})),
            "the container kube-scheduler takes V from the ConfigMap c",
        ),
        (
            |spec, _| spec["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "c"}}]),
            "the container kube-scheduler takes its environment from the ConfigMap c",
        ),
        (
            |spec, _| volume(spec, json!({"persistentVolumeClaim": {"claimName": "c"}})),
            "the volume v is a PersistentVolumeClaim",
        ),
        (|spec, _| volume(spec, json!({"csi": {"driver": "d"}})), "the volume v is of a CSI driver"),
        (|spec, _| volume(spec, json!({"ephemeral": {}})), "the volume v is a claim of its own"),
        (
            |spec, _| volume(spec, json!({"cephfs": {"secretRef": {"name": "s"}}})),
            "the volume v is mounted with a Secret",
        ),
        (
            |spec, _| volume(spec, json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}})),
            "the volume v has files of the API's in it (serviceAccountToken)",
        ),
        (
            |spec, _| volume(spec, json!({"secret": {"secretName": "s"}})),
            "the volume v is of the Secret s, which is not there",
        ),
        (
            |_, objects| objects.secrets.clear(),
            "the volume secrets is of the Secret kube-scheduler, which is not there",
        ),
        (
            |spec, _| spec["volumes"][0]["secret"]["items"] = json!([{"key": "k", "path": "p"}]),
            "the volume secrets needs k of the Secret kube-scheduler, which has none",
        ),
        (
            |spec, _| spec["volumes"][0]["secret"]["items"] = json!([{"key": "ca.crt", "path": "../x"}]),
            "the volume secrets has a file outside of it: ../x",
        ),
        (
            |spec, _| {
                spec["securityContext"]["runAsUser"] = Value::Null;
                spec["containers"][0]["securityContext"] = json!({"runAsNonRoot": true});
            },
            "the container kube-scheduler has no runAsUser that says which user reads the volume secrets",
        ),
        (
            |spec, _| {
                let mut second = spec["containers"][0].clone();
                (second["name"], second["securityContext"]["runAsUser"]) = ("second".into(), 7.into());
                spec["containers"].as_array_mut().unwrap().push(second);
            },
            "containers of several users read the volume secrets",
        ),
        (|_, _| (), ""),
    ];
    for (change, expected) in table {
        let said = against(change);
        let expected: Vec<_> = [expected].into_iter().filter(|text| !text.is_empty()).collect();
        assert_eq!(said, expected);
    }
}

#[test]
fn an_api_server_beside_which_no_bridge_can_serve_is_refused() {
    let against = |from: &str, to: &str| {
        let (mut workload, objects) = rendered("kube-apiserver");
        let command = workload.template["spec"]["containers"][0]["command"].as_array_mut().unwrap();
        let word = command.iter_mut().find(|word| **word == from).unwrap();
        *word = to.into();
        let Err(findings) = convert(&workload, &objects, FOLDER) else { return String::new() };
        assert!(findings[0].remedy.as_ref().unwrap().contains("edit daemonset/kube-apiserver"));
        findings[0].message.clone()
    };
    let sharing = "--permit-port-sharing=true";
    assert_eq!(against(sharing, "--permit-port-sharing"), "");
    assert!(against(sharing, "--permit-port-sharing=false").starts_with("has no --permit-port-sharing=true"));
    assert!(against("--bind-address=0.0.0.0", "--bind-address=10.0.0.1").contains("(--bind-address)"));
    assert!(against("--secure-port=6443", "--secure-port=7443").contains("(--secure-port)"));
}

fn env(spec: &mut Value, from: Value) {
    spec["containers"][0]["env"] = json!([{"name": "V", "valueFrom": from}]);
}

fn volume(spec: &mut Value, mut volume: Value) {
    volume["name"] = "v".into();
    spec["volumes"].as_array_mut().unwrap().push(volume);
}
