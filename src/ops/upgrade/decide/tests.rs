use super::*;

const COMPONENTS: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];

fn pod(node: &str) -> Pod {
    Pod { name: format!("api-{node}"), node: node.into(), ready: true, reason: String::new(), is_current: true }
}

fn part(component: &'static str) -> Part {
    Part { component, form: Form::Old, is_held: false, pods: Vec::new(), waits: None }
}

/// A cluster of three controllers before its upgrade.
fn cluster() -> Observed {
    let pods = ["c1", "c2", "c3"].map(pod).to_vec();
    Observed {
        is_committed: false,
        has_trial: true,
        api_servers: Part { pods, ..part("kube-apiserver") },
        controllers: COMPONENTS.map(part).to_vec(),
        pulled: Pulled::Unasked,
        bridges: Vec::new(),
        amiss: Vec::new(),
        leaderless: None,
        served_for: Duration::ZERO,
        soak: Duration::from_secs(30),
        outdated_guards: Vec::new(),
        etcd: None,
        rest: Some(Rest::Unapplied),
    }
}

/// Does what was decided, as Kubernetes and guards would.
fn act(seen: &mut Observed, act: &Act) {
    match act {
        Act::Pull => seen.pulled = Pulled::Done,
        Act::EndPull => seen.pulled = Pulled::Unasked,
        Act::Apply { component: "kube-apiserver", form, is_held } => {
            let api = &mut seen.api_servers;
            let changes = api.form != *form;
            (api.form, api.is_held) = (*form, *is_held);
            api.pods.iter_mut().for_each(|pod| pod.is_current &= !changes);
        }
        Act::Apply { component, form, .. } => {
            let part = seen.controllers.iter_mut().find(|part| part.component == *component).unwrap();
            part.form = *form;
        }
        Act::Replace { pod, .. } => {
            let pod = seen.api_servers.pods.iter_mut().find(|there| there.name == *pod).unwrap();
            (pod.is_current, pod.ready) = (true, true);
        }
        Act::Commit => {
            seen.is_committed = true;
            seen.outdated_guards = vec!["c2".into()];
        }
        // guard does it, and the kubelet, before anybody looks again.
        Act::OrderEtcd(node) => {
            let etcd = seen.etcd.as_mut().unwrap();
            etcd.ordered = Some(node.clone());
            etcd.members.iter_mut().filter(|member| member.node == *node).for_each(|member| member.is_new = true);
        }
        Act::EndEtcd => seen.etcd.as_mut().unwrap().ordered = None,
        Act::ApplyRest => seen.rest = None,
    }
}

/// All that is done on a way, to its end.
fn all(way: Way, seen: &mut Observed) -> Vec<(Step, String)> {
    let mut done = Vec::new();
    for _ in 0..100 {
        match decide(way, seen) {
            Decision::Done => return done,
            Decision::Do(step, what) => {
                act(seen, &what);
                let said = match what {
                    Act::Apply { component, form, is_held } => format!("{component} {form:?} {is_held}"),
                    Act::Replace { node, .. } => node,
                    other => format!("{other:?}"),
                };
                done.push((step, said));
            }
            Decision::Wait(Step::Soak, _) => seen.served_for += Duration::from_secs(10),
            Decision::Wait(Step::Commit, what) if what.contains("guard on c2") => seen.outdated_guards.clear(),
            Decision::Wait(step, what) => panic!("waits in {step:?} for {what} after {done:?}"),
        }
    }
    panic!("no end: {done:?}");
}

fn said(done: &[(Step, String)]) -> Vec<String> {
    done.iter().map(|(step, what)| format!("{}: {what}", step.name())).collect()
}

#[test]
fn the_order_of_a_minor_upgrade() {
    let mut seen = cluster();
    let done = all(Way::Forth, &mut seen);
    assert_eq!(
        said(&done),
        [
            "images: Pull",
            "api-servers: kube-apiserver Trial true",
            "api-servers: EndPull",
            "api-servers: c1",
            "api-servers: c2",
            "api-servers: c3",
            "controllers: kube-controller-manager Trial false",
            "controllers: kube-scheduler Trial false",
            "commit: Commit",
            "commit: kube-apiserver New true",
            "commit: c1",
            "commit: c2",
            "commit: c3",
            "commit: kube-controller-manager New false",
            "commit: kube-scheduler New false",
            "commit: kube-apiserver New false",
            "rest: ApplyRest",
        ]
    );
    assert!(all(Way::Forth, &mut seen).is_empty(), "done once, it is done");
}

#[test]
fn a_patch_upgrade_tries_nothing_and_replaces_each_api_server_once() {
    let mut seen = Observed { has_trial: false, ..cluster() };
    let done = said(&all(Way::Forth, &mut seen));
    assert_eq!(done.iter().filter(|what| what.ends_with(": c1")).count(), 1, "{done:?}");
    assert!(!done.iter().any(|what| what.contains("Trial")), "{done:?}");
    assert!(!seen.api_servers.is_held);
}

#[test]
fn cut_short_after_any_act_it_goes_on_forth_or_back() {
    let whole = all(Way::Forth, &mut cluster());
    for cut in 0..whole.len() {
        let cut_short = || {
            let mut seen = cluster();
            let mut left = cut;
            while left > 0 {
                match decide(Way::Forth, &seen) {
                    Decision::Do(_, what) => {
                        act(&mut seen, &what);
                        left -= 1;
                    }
                    Decision::Wait(Step::Commit, _) => seen.outdated_guards.clear(),
                    _ => seen.served_for += Duration::from_secs(10),
                }
            }
            // Another process knows nothing of how long all has served.
            seen.served_for = Duration::ZERO;
            seen
        };
        let mut forth = cut_short();
        all(Way::Forth, &mut forth);
        assert!(forth.is_committed && forth.api_servers.form == Form::New && !forth.api_servers.is_held, "{cut}");
        assert!(forth.controllers.iter().all(|part| part.form == Form::New) && forth.rest.is_none(), "{cut}");
        let mut back = cut_short();
        if !back.is_committed {
            all(Way::Back, &mut back);
            assert!(back.api_servers.form == Form::Old && !back.api_servers.is_held, "{cut}");
            assert!(back.api_servers.pods.iter().all(|pod| pod.is_current && pod.ready), "{cut}");
            assert!(back.controllers.iter().all(|part| part.form == Form::Old), "{cut}");
            assert_eq!(back.pulled, Pulled::Unasked, "{cut}");
        }
    }
}

#[test]
fn the_way_back_begins_with_the_api_server_that_does_not_serve() {
    let mut seen = cluster();
    seen.api_servers.form = Form::Trial;
    seen.api_servers.is_held = true;
    seen.api_servers.pods[1].ready = false;
    seen.api_servers.pods[0].is_current = false;
    seen.bridges = vec!["c2".into()];
    let gate_of_c1 = decide(Way::Forth, &seen);
    assert!(matches!(&gate_of_c1, Decision::Wait(Step::ApiServers, what) if what.contains("api-c2")), "{gate_of_c1:?}");
    let Decision::Do(_, what) = decide(Way::Back, &seen) else { panic!() };
    assert_eq!(what, Act::Apply { component: "kube-apiserver", form: Form::Old, is_held: true });
    act(&mut seen, &what);
    // What was old before is current again.
    seen.api_servers.pods[0].is_current = true;
    let Decision::Do(_, what) = decide(Way::Back, &seen) else { panic!() };
    assert_eq!(what, Act::Replace { pod: "api-c2".into(), node: "c2".into() });
    act(&mut seen, &what);
    // Not before the bridge, which served in its place, is lowered.
    assert_eq!(decide(Way::Back, &seen), Decision::Wait(Step::ApiServers, "guard to lower the bridge on c2".into()));
    seen.bridges.clear();
    let Decision::Do(_, what) = decide(Way::Back, &seen) else { panic!() };
    assert_eq!(what, Act::Replace { pod: "api-c3".into(), node: "c3".into() });
}

#[test]
fn nothing_is_replaced_while_anything_is_amiss() {
    let mut rolling = cluster();
    rolling.api_servers.form = Form::Trial;
    rolling.api_servers.is_held = true;
    rolling.api_servers.pods[1].is_current = false;
    rolling.api_servers.pods[2].is_current = false;
    assert!(matches!(decide(Way::Forth, &rolling), Decision::Do(_, Act::Replace { node, .. }) if node == "c2"));
    type Spoil = fn(&mut Observed);
    let amiss: [(&str, Spoil); 5] = [
        ("another is not ready", |seen| seen.api_servers.pods[0].ready = false),
        ("a bridge stands", |seen| seen.bridges.push("c1".into())),
        ("one answers as it should not", |seen| seen.amiss.push(("c3".into(), "is v1.35.4".into()))),
        ("nobody leads", |seen| seen.leaderless = Some("the scheduler to lead".into())),
        ("none is there", |seen| seen.api_servers.pods.clear()),
    ];
    for (what, spoil) in amiss {
        for way in [Way::Forth, Way::Back] {
            let mut seen = rolling.clone();
            if way == Way::Back {
                seen.api_servers.form = Form::Old;
            }
            spoil(&mut seen);
            assert!(matches!(decide(way, &seen), Decision::Wait(Step::ApiServers, _)), "{what} {way:?}");
        }
    }
}

#[test]
fn a_commit_waits_for_the_whole_soak_and_for_each_guard() {
    let mut seen = cluster();
    seen.api_servers.form = Form::Trial;
    seen.api_servers.is_held = true;
    seen.controllers.iter_mut().for_each(|part| part.form = Form::Trial);
    seen.served_for = Duration::from_secs(29);
    assert_eq!(decide(Way::Forth, &seen), Decision::Wait(Step::Soak, "it to serve for 30 s".into()));
    seen.leaderless = Some("the scheduler to lead".into());
    seen.served_for = Duration::from_secs(31);
    assert!(matches!(decide(Way::Forth, &seen), Decision::Wait(Step::Controllers, what) if what.contains("scheduler")));
    seen.leaderless = None;
    assert_eq!(decide(Way::Forth, &seen), Decision::Do(Step::Commit, Act::Commit));
    seen.is_committed = true;
    seen.outdated_guards = vec!["c1".into(), "c3".into()];
    assert!(matches!(decide(Way::Forth, &seen), Decision::Wait(Step::Commit, what) if what.contains("c1, c3")));
}

/// The etcd of three controllers, of which so many are new.
fn members(new: usize) -> Members {
    let member = |(number, node): (usize, &str)| Member { node: node.into(), is_new: number < new, waits: None };
    Members { members: ["c1", "c2", "c3"].into_iter().enumerate().map(member).collect(), ..Members::default() }
}

#[test]
fn etcd_comes_after_the_commit_and_before_the_rest_one_after_the_other() {
    let mut seen = Observed { etcd: Some(members(0)), ..cluster() };
    let done = said(&all(Way::Forth, &mut seen));
    let orders = ["etcd: OrderEtcd(\"c1\")", "etcd: OrderEtcd(\"c2\")", "etcd: OrderEtcd(\"c3\")", "etcd: EndEtcd"];
    let (at, end) = (done.len() - orders.len() - 1, done.len() - 1);
    assert_eq!(done[at..end], orders, "{done:?}");
    assert_eq!(done[at - 1], "commit: kube-apiserver New false");
    assert_eq!(done[end], "rest: ApplyRest");
    // An order that a run has left behind is taken back by the next.
    seen.etcd = Some(Members { ordered: Some("c1".into()), ..members(3) });
    assert_eq!(said(&all(Way::Forth, &mut seen)), ["etcd: EndEtcd"]);
}

#[test]
fn no_etcd_is_exchanged_while_another_or_an_api_server_does_not_serve() {
    let mut seen = Observed { etcd: Some(members(1)), is_committed: true, ..cluster() };
    seen.api_servers.form = Form::New;
    seen.controllers.iter_mut().for_each(|part| part.form = Form::New);
    assert_eq!(decide(Way::Forth, &seen), Decision::Do(Step::Etcd, Act::OrderEtcd("c2".into())));
    type Spoil = fn(&mut Observed);
    let amiss: [(&str, Spoil); 4] = [
        ("the one before is not ready", |seen| seen.etcd.as_mut().unwrap().members[0].waits = Some("starts".into())),
        ("one that is to come is not ready", |seen| seen.etcd.as_mut().unwrap().members[2].waits = Some("ends".into())),
        ("a bridge stands", |seen| seen.bridges.push("c3".into())),
        ("it was told already", |seen| seen.etcd.as_mut().unwrap().ordered = Some("c2".into())),
    ];
    for (what, spoil) in amiss {
        let mut seen = seen.clone();
        spoil(&mut seen);
        assert!(matches!(decide(Way::Forth, &seen), Decision::Wait(..)), "{what}");
    }
    // A run that was killed has told another one; that has done so.
    seen.etcd.as_mut().unwrap().ordered = Some("c1".into());
    assert_eq!(decide(Way::Forth, &seen), Decision::Do(Step::Etcd, Act::OrderEtcd("c2".into())));
    // Nothing is left, and the last one is not ready yet.
    seen.etcd = Some(members(3));
    seen.etcd.as_mut().unwrap().members[2].waits = Some("starts".into());
    assert!(
        matches!(decide(Way::Forth, &seen), Decision::Wait(Step::Etcd, what) if what.contains("etcd on c3: starts"))
    );
}
