//! Whole runs against an API server in memory, with a clock that runs as fast as the test.

mod server;

use std::time::Duration;

use serde_json::{Value, json};

use super::{AssetDir, Options, Order, Plan, Summary, apply, apply_asset_dir, plan};
use crate::base::error::{Error, Result};
use crate::base::report::{Clock, Reporter};
use crate::desired::assets::Manifest;
use server::Server;

fn manifest(path: &str, object: Value) -> Manifest {
    Manifest { path: format!("addons/{path}"), line: 1, object }
}

fn map(addon: &str, name: &str, value: &str) -> Manifest {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "demo"}, "data": {"key": value}});
    manifest(&format!("{addon}/{name}.yaml"), object)
}

fn deployment(addon: &str, name: &str) -> Manifest {
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "demo"},
        "spec": {"replicas": 1, "template": {"metadata": {"labels": {"app": name}}}}});
    manifest(&format!("{addon}/{name}.yaml"), object)
}

fn widget(addon: &str, name: &str) -> Manifest {
    let object =
        json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name, "namespace": "demo"}});
    manifest(&format!("{addon}/{name}.yaml"), object)
}

fn namespace() -> Manifest {
    manifest("base/ns.yaml", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}}))
}

fn crd() -> Manifest {
    let object = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"kind": "Widget", "plural": "widgets"},
            "versions": [{"name": "v1", "served": true, "storage": true}]}});
    manifest("base/crd.yaml", object)
}

fn options() -> Options {
    Options {
        force_conflicts: false,
        prune: false,
        wait: false,
        tell_each: true,
        progress_timeout: Duration::from_secs(300),
        timeout: Duration::from_secs(1800),
    }
}

fn reporter() -> Reporter {
    let clock = Clock::new(time::OffsetDateTime::UNIX_EPOCH, || Duration::ZERO);
    Reporter::plain(Box::new(std::io::sink()), clock)
}

async fn run(server: &Server, manifests: &[Manifest], options: &Options) -> Result<Summary> {
    apply(&server.client(), &Order::of(manifests)?, &[], options, &reporter()).await
}

#[tokio::test(start_paused = true)]
async fn each_comes_after_what_it_builds_on_and_the_second_run_changes_nothing() {
    let server = Server::default();
    let all = [widget("a", "first"), deployment("a", "operator"), crd(), map("a", "settings", "1"), namespace()];
    let summary = run(&server, &all, &options()).await.unwrap();
    assert_eq!((summary.created, summary.unchanged), (5, 0));
    assert_eq!(
        server.writes(),
        [
            "apply Namespace demo",
            "apply CustomResourceDefinition widgets.example.com",
            "apply ConfigMap settings",
            "apply Deployment operator",
            "apply Widget first"
        ]
    );
    let again = run(&server, &all, &options()).await.unwrap();
    assert_eq!(again, Summary { unchanged: 5, ..Summary::default() });
    assert_eq!(again.to_string(), "5 unchanged");
    assert_eq!(server.writes(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_holds_back_its_own_add_on_alone() {
    let server = Server::default();
    server.state(|state| state.refused.insert("bad".into()));
    let all =
        [namespace(), crd(), map("a", "bad", "1"), map("a", "good", "1"), widget("a", "held"), widget("b", "free")];
    let Err(Error::Refused(findings)) = run(&server, &all, &options()).await else { panic!() };
    assert_eq!(findings.len(), 1);
    let text = findings[0].to_string();
    assert!(text.starts_with("addons/a/bad.yaml:1:1: admission webhook \"w\" denied the request: not bad"), "{text}");
    let writes = server.writes();
    assert!(
        writes.contains(&"apply ConfigMap good".into()) && writes.contains(&"apply Widget free".into()),
        "{writes:?}"
    );
    assert!(!server.has("widgets", "demo", "held"));
    server.state(|state| state.refused.clear());
    let summary = run(&server, &all, &options()).await.unwrap();
    assert_eq!((summary.created, summary.unchanged), (2, 4), "it goes on where it stopped");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_get_ready_is_named_with_its_pod_and_its_reason() {
    let server = Server::default();
    let all = [namespace(), crd(), deployment("a", "stuck"), widget("a", "held"), widget("b", "free")];
    let begun = tokio::time::Instant::now();
    let Err(error) = run(&server, &all, &options()).await else { panic!() };
    let took = begun.elapsed().as_secs();
    assert!((300..320).contains(&took), "{took}");
    assert_eq!(error.exit_code(), 6);
    let text = error.to_string();
    for said in [
        "Deployment demo/stuck of addons/a/stuck.yaml",
        "pod stuck-5-x: app: ImagePullBackOff: no such image",
        "-n demo deployment/stuck",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(server.has("widgets", "demo", "free") && !server.has("widgets", "demo", "held"));
    // Where nothing comes after it, it is nobody's condition, unless somebody asks.
    let alone = [namespace(), deployment("a", "stuck")];
    assert_eq!(run(&server, &alone, &options()).await.unwrap().unchanged, 2);
    assert!(run(&server, &alone, &Options { wait: true, ..options() }).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_does_not_answer_yet_is_waited_for() {
    let server = Server::default();
    server.state(|state| state.unanswered.extend([("first".to_owned(), 3), ("never".to_owned(), 10_000)]));
    let all = [namespace(), crd(), widget("a", "first")];
    assert_eq!(run(&server, &all, &options()).await.unwrap().created, 3);
    let begun = tokio::time::Instant::now();
    let Err(Error::Refused(findings)) = run(&server, &[widget("a", "never")], &options()).await else { panic!() };
    assert!(findings[0].message.contains("no endpoints available"), "{findings:?}");
    assert!((300..310).contains(&begun.elapsed().as_secs()));
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_for_a_while_is_waited_for() {
    let server = Server::default();
    let all = [namespace(), crd(), map("a", "settings", "1"), deployment("a", "operator"), widget("a", "first")];
    // As while guard raises the bridge: from the first request on, and then in the middle.
    server.state(|state| state.away = vec![(5, None), (3, Some(503))]);
    let begun = tokio::time::Instant::now();
    assert_eq!(run(&server, &all, &options()).await.unwrap().created, 5);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn whether_the_api_is_served_is_what_is_seen_at_the_end() {
    let all = [namespace(), crd(), deployment("a", "stuck"), widget("a", "held")];
    let ended = |away: Option<(u64, Option<u16>)>| {
        let all = &all;
        async move {
            let (server, chosen) = (Server::default(), options());
            let later = async {
                if let Some((seconds, what)) = away {
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    server.state(|state| state.away = vec![(usize::MAX, what)]);
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                ended = run(&server, all, &chosen) => ended.unwrap_err(),
                () = later => unreachable!(),
            }
        }
    };
    assert_eq!(ended(None).await.exit_code(), 6);
    for away in [(20, None), (20, Some(500))] {
        let error = ended(Some(away)).await;
        assert_eq!(error.exit_code(), 7, "{error}");
        assert!(error.to_string().contains("the API is NOT served"), "{error}");
    }
    // Before anything was applied, too; and it has refused nothing.
    let error = ended(Some((0, None))).await;
    assert_eq!(error.exit_code(), 7, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_manifest_of_another_clusters_object_is_refused_at_once() {
    let server = Server::default();
    let mut exported = map("a", "exported", "1");
    exported.object["metadata"]["uid"] = "0e5c1d36-0000-4000-8000-000000000000".into();
    let begun = tokio::time::Instant::now();
    let Err(Error::Refused(findings)) = run(&server, &[namespace(), exported.clone()], &options()).await else {
        panic!()
    };
    assert!(begun.elapsed() < Duration::from_secs(5));
    let text = findings[0].to_string();
    assert!(text.contains("uid mismatch") && text.contains("leave metadata.uid out of the file"), "{text}");
    // In manifests/ it stops nothing else.
    let manifests = [Manifest { path: "manifests/exported.yaml".into(), ..exported }];
    let asset_dir = AssetDir { manifests: &manifests, addons: &[map("a", "good", "1")], addons_only: false };
    let Err(Error::Refused(findings)) = apply_asset_dir(&server.client(), &asset_dir, &options(), &reporter()).await
    else {
        panic!()
    };
    assert_eq!(findings.len(), 1);
    assert!(server.has("configmaps", "demo", "good"));
}

#[tokio::test(start_paused = true)]
async fn a_webhook_is_ready_when_its_service_has_an_endpoint() {
    let server = Server::default();
    let clients = json!({"service": {"namespace": "demo", "name": "hook"}});
    let hook = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "hook"}, "webhooks": [{"clientConfig": clients}]});
    let all = [namespace(), crd(), manifest("a/hook.yaml", hook), widget("a", "first")];
    let Err(error) = run(&server, &all, &options()).await else { panic!() };
    assert!(error.to_string().contains("the Service demo/hook has no ready endpoint"), "{error}");
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "hook-1", "namespace": "demo", "labels": {"kubernetes.io/service-name": "hook"}},
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}]});
    server.state(|state| state.objects.insert(("endpointslices".into(), "demo".into(), "hook-1".into()), slice));
    assert_eq!(run(&server, &all, &options()).await.unwrap().created, 1);
}

#[tokio::test(start_paused = true)]
async fn others_fields_are_taken_over_only_when_asked() {
    let server = Server::default();
    let all = [namespace(), map("a", "settings", "1")];
    run(&server, &all, &options()).await.unwrap();
    let key = ("configmaps".to_owned(), "demo".to_owned(), "settings".to_owned());
    server.state(|state| {
        let object = state.objects.get_mut(&key).unwrap();
        object["data"]["key"] = "edited".into();
        object["metadata"]["managedFields"] = json!([{"manager": "kubectl-edit", "operation": "Update"}, {"manager": "hoist-addons", "operation": "Apply"}]);
    });
    let edited = [namespace(), map("a", "settings", "2")];
    let Err(Error::Refused(findings)) = run(&server, &edited, &options()).await else { panic!() };
    let text = findings[0].to_string();
    assert!(text.contains("conflict with \"kubectl-edit\"") && text.contains("--force-conflicts"), "{text}");
    let forced = Options { force_conflicts: true, ..options() };
    assert_eq!(run(&server, &edited, &forced).await.unwrap().configured, 1);
    assert_eq!(server.state(|state| state.objects[&key]["data"]["key"].clone()), "2");
    assert_eq!(run(&server, &edited, &forced).await.unwrap().unchanged, 2, "by force, and no change");
}

#[tokio::test(start_paused = true)]
async fn pruning_takes_what_hoist_applied_and_nothing_else_the_last_first() {
    let server = Server::default();
    let all = [
        namespace(),
        crd(),
        map("a", "kept", "1"),
        map("a", "gone", "1"),
        map("b", "taken", "1"),
        deployment("b", "web"),
        widget("b", "one"),
    ];
    run(&server, &all, &options()).await.unwrap();
    let of_user = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine", "namespace": "demo"}});
    server.state(|state| {
        state.objects.insert(("configmaps".into(), "demo".into(), "mine".into()), of_user);
        let key = ("configmaps".to_owned(), "demo".to_owned(), "taken".to_owned());
        state.objects.get_mut(&key).unwrap()["metadata"]["managedFields"] =
            json!([{"manager": "helm", "operation": "Apply"}]);
    });
    server.writes();

    let kept = [namespace(), map("a", "kept", "1")];
    let asset_dir = AssetDir { manifests: &[], addons: &kept, addons_only: false };
    let pruning = Options { prune: true, ..options() };
    let Plan { lines, summary, .. } = plan(&server.client(), &asset_dir, &pruning, false).await.unwrap();
    assert_eq!((summary.pruned, summary.unchanged, lines.len()), (4, 2, 5), "{lines:?}");
    assert_eq!(lines[0], "would prune Widget demo/one");
    assert!(
        lines[3].starts_with("would prune CustomResourceDefinition widgets.example.com, with all")
            || lines[4].starts_with("would prune CustomResourceDefinition widgets.example.com, with all"),
        "{lines:?}"
    );
    assert_eq!(server.writes(), [""; 0]);

    assert_eq!(run(&server, &kept, &options()).await.unwrap().pruned, 0, "only when asked");
    assert_eq!(server.writes(), [""; 0]);
    assert_eq!(run(&server, &kept, &pruning).await.unwrap(), Summary { unchanged: 2, pruned: 4, ..Summary::default() });
    assert_eq!(
        server.writes(),
        [
            "delete Widget one",
            "delete Deployment web",
            "delete ConfigMap gone",
            "delete CustomResourceDefinition widgets.example.com"
        ]
    );
    assert!(server.has("configmaps", "demo", "mine") && server.has("configmaps", "demo", "taken"));
    assert_eq!(run(&server, &kept, &pruning).await.unwrap().pruned, 0);
    // With the last add-on, all of it; what manifests/ makes now is no add-on's any more.
    let client = server.client();
    let others = [namespace()];
    apply(&client, &Order::default(), &others, &pruning, &reporter()).await.unwrap();
    assert!(server.has("namespaces", "", "demo") && !server.has("configmaps", "demo", "kept"));
}

/// As while guard raises the bridge, from whichever request on.
#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_while_things_are_pruned_is_waited_for() {
    for (spared, answer) in (0..16).flat_map(|spared| [(spared, None), (spared, Some(503))]) {
        let server = Server::default();
        run(&server, &[namespace(), map("a", "one", "1"), map("a", "two", "1")], &options()).await.unwrap();
        server.state(|state| (state.spared, state.away) = (spared, vec![(4, answer)]));
        let pruning = Options { prune: true, ..options() };
        assert_eq!(run(&server, &[namespace()], &pruning).await.unwrap().pruned, 2, "{spared} {answer:?}");
        assert!(!server.has("configmaps", "demo", "one") && !server.has("configmaps", "demo", "two"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_says_that_it_stays_is_not_pruned_nor_what_holds_it() {
    let server = Server::default();
    let mut data = map("a", "data", "1");
    data.object["metadata"]["annotations"] = json!({"helm.sh/resource-policy": "keep"});
    let all = [namespace(), crd(), data, map("a", "gone", "1"), widget("a", "one")];
    run(&server, &all, &options()).await.unwrap();
    let asset_dir = AssetDir { manifests: &[], addons: &[], addons_only: false };
    let pruning = Options { prune: true, ..options() };
    let Plan { lines, summary, .. } = plan(&server.client(), &asset_dir, &pruning, false).await.unwrap();
    assert_eq!(summary.pruned, 3, "{lines:?}");
    for left in [
        "would leave ConfigMap demo/data: it says helm.sh/resource-policy: keep",
        "would leave Namespace demo, with all that is in it: something in it says helm.sh/resource-policy: keep",
    ] {
        assert!(lines.iter().any(|line| line == left), "{lines:?}");
    }
    assert_eq!(run(&server, &[], &pruning).await.unwrap().pruned, 3);
    assert!(server.has("configmaps", "demo", "data") && server.has("namespaces", "", "demo"));
    assert!(!server.has("configmaps", "demo", "gone"));
    assert_eq!(run(&server, &[], &pruning).await.unwrap().pruned, 0, "it is nobody's any more");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_pruned_while_what_is_wanted_does_not_stand() {
    let server = Server::default();
    run(&server, &[namespace(), map("a", "gone", "1")], &options()).await.unwrap();
    server.state(|state| state.refused.insert("bad".into()));
    let pruning = Options { prune: true, ..options() };
    assert!(run(&server, &[namespace(), map("a", "bad", "1")], &pruning).await.is_err());
    assert!(server.has("configmaps", "demo", "gone"));
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_asks_the_server_and_changes_nothing() {
    let server = Server::default();
    let before = [namespace(), map("a", "settings", "1")];
    run(&server, &before, &options()).await.unwrap();
    server.writes();
    server.state(|state| state.refused.insert("bad".into()));
    let after = [namespace(), crd(), map("a", "settings", "2"), map("a", "bad", "1"), widget("a", "new")];
    let asset_dir = AssetDir { manifests: &[], addons: &after, addons_only: false };
    let Plan { lines, diff, summary, refused } = plan(&server.client(), &asset_dir, &options(), false).await.unwrap();
    assert_eq!((summary.created, summary.configured, summary.unchanged, refused.len()), (2, 1, 1, 1), "{lines:?}");
    assert!(
        diff.contains("--- live/ConfigMap/demo/settings\n") && diff.contains("-  key: \"1\"\n+  key: \"2\"\n"),
        "{diff}"
    );
    assert!(diff.contains("# Widget demo/new: new, in a namespace or of a kind that is new, too\n"), "{diff}");
    assert_eq!(server.writes(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn manifests_come_first_and_their_refusals_are_told_with_those_of_add_ons() {
    let server = Server::default();
    server.state(|state| state.refused.extend(["bad".to_owned(), "worse".to_owned()]));
    let of = |manifest: Manifest| Manifest { path: manifest.path.replace("addons/", "manifests/"), ..manifest };
    let manifests = [of(namespace()), of(map("x", "bad", "1")), of(map("x", "fine", "1"))];
    let addons = [map("a", "worse", "1"), map("a", "good", "1")];
    let asset_dir = AssetDir { manifests: &manifests, addons: &addons, addons_only: false };
    let Err(Error::Refused(findings)) = apply_asset_dir(&server.client(), &asset_dir, &options(), &reporter()).await
    else {
        panic!()
    };
    let places: Vec<_> = findings.iter().map(|finding| finding.place.as_str()).collect();
    assert_eq!(places, ["manifests/x/bad.yaml", "addons/a/worse.yaml"]);
    assert_eq!(server.writes(), ["apply Namespace demo", "apply ConfigMap fine", "apply ConfigMap good"]);
}

fn job(name: &str, ttl: Option<u32>, image: &str) -> Manifest {
    let mut spec = json!({"template": {"spec": {"containers": [{"name": "a", "image": image}]}}});
    if let Some(ttl) = ttl {
        spec["ttlSecondsAfterFinished"] = ttl.into();
    }
    let object =
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "demo"}, "spec": spec});
    manifest(&format!("a/{name}.yaml"), object)
}

/// Deletes a Job, as the controller of times to live does.
fn expire(server: &Server, name: &str) {
    let gone = server.state(|state| state.objects.remove(&("jobs".into(), "demo".into(), name.into())));
    assert!(gone.is_some(), "{name}");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_has_run_and_gone_is_not_run_again() {
    let server = Server::default();
    let all = [namespace(), job("once", Some(0), "i:1"), job("kept", None, "i:1")];
    assert_eq!(run(&server, &all, &options()).await.unwrap().created, 3);
    server.writes();
    expire(&server, "once");
    assert_eq!(run(&server, &all, &options()).await.unwrap(), Summary { unchanged: 3, ..Summary::default() });
    let asset_dir = AssetDir { manifests: &[], addons: &all, addons_only: false };
    let Plan { summary, .. } = plan(&server.client(), &asset_dir, &options(), false).await.unwrap();
    assert_eq!(summary, Summary { unchanged: 3, ..Summary::default() });
    assert_eq!(server.writes(), [""; 0]);

    // One without a time to live was deleted by somebody, and one whose manifest has changed is another one.
    expire(&server, "kept");
    let changed = [namespace(), job("once", Some(0), "i:2"), job("kept", None, "i:1")];
    assert_eq!(run(&server, &changed, &options()).await.unwrap().created, 2);
    expire(&server, "once");
    assert_eq!(run(&server, &changed, &options()).await.unwrap().unchanged, 3);
    let forced = Options { force_conflicts: true, ..options() };
    assert_eq!(run(&server, &changed, &forced).await.unwrap().created, 1, "as it stands in the files");

    // In manifests/ as in addons/.
    let of = |manifest: Manifest| Manifest { path: manifest.path.replace("addons/", "manifests/"), ..manifest };
    let manifests = [of(job("other", Some(5), "i:1"))];
    let asset_dir = AssetDir { manifests: &manifests, addons: &changed, addons_only: false };
    assert_eq!(apply_asset_dir(&server.client(), &asset_dir, &options(), &reporter()).await.unwrap().created, 1);
    expire(&server, "other");
    expire(&server, "once");
    assert_eq!(apply_asset_dir(&server.client(), &asset_dir, &options(), &reporter()).await.unwrap().unchanged, 4);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_goes_while_it_is_waited_for_is_done() {
    let server = Server::default();
    let gone = server.clone();
    let expiring = async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        expire(&gone, "once");
    };
    let all = [namespace(), crd(), job("once", Some(0), "i:1"), widget("a", "after")];
    let begun = tokio::time::Instant::now();
    let opts = options();
    let (summary, ()) = tokio::join!(run(&server, &all, &opts), expiring);
    assert_eq!(summary.unwrap().created, 4);
    assert!((5..8).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}
