//! Packet filters on this machine other than the cluster's: whether they forward packets between pods, and accept
//! connections of other machines.
//!
//! For nftables, the kernel lists the chains that drop unmatched packets, whichever program made them; programs show
//! the rules. The older tables of iptables are read from its program alone.

use std::time::Duration;

use tokio::process::Command;

use super::Facts;
use crate::base::error::Finding;
use crate::desired::config::{FlannelBackend, Plugin, ProxyMode};
use crate::node::kubelet;
use crate::node::packet_filter::{self, BaseChain, Family, Hook};

/// How long a program may take to show rules: less than a check may.
const LIMIT: Duration = Duration::from_millis(600);
/// Where the API server and a kubelet listen, and flannel's vxlan.
const TCP: [u16; 2] = [6443, 10250];
const VXLAN: u16 = 8472;

/// firewalld, which lets nothing in, and no pod's packets through, unless it is told to.
pub(super) async fn firewalld(facts: &Facts) -> Vec<Finding> {
    if !kubelet::is_systemd(&facts.host) {
        return Vec::new();
    }
    let run = Command::new("systemctl").args(["is-active", "--quiet", "firewalld"]).kill_on_drop(true).status();
    if !run.await.is_ok_and(|status| status.success()) {
        return Vec::new();
    }
    let ports: Vec<_> =
        ports(facts).into_iter().map(|(port, protocol)| format!(" --add-port={port}/{protocol}")).collect();
    let networking = &facts.cluster.networking;
    let sources = networking.pod_subnets.iter().map(|subnet| format!(" --add-source={subnet}")).collect::<String>();
    let pods = match facts.cluster.network.plugin {
        Plugin::None => "and what your network plugin needs".to_owned(),
        Plugin::Flannel(_) => format!("`firewall-cmd --permanent --zone=trusted{sources}` for pods"),
    };
    let remedy = format!("`firewall-cmd --permanent{}`, {pods}; then `firewall-cmd --reload`", ports.concat());
    let message =
        "firewalld runs: it must let in 6443 for clients and 10250 for the API server, and let pods' packets through";
    vec![Finding::new("", message).remedy(remedy)]
}

/// Chains that drop what pods send to pods of other nodes. Where the user brings a network plugin, it is that one's matter.
pub(super) async fn forward(facts: &Facts) -> Vec<Finding> {
    if facts.cluster.network.plugin == Plugin::None {
        return Vec::new();
    }
    let subnets: Vec<_> = facts.cluster.networking.pod_subnets.iter().map(ToString::to_string).collect();
    // Where flannel filters by iptables, it adds rules to that chain itself.
    let adds_rules = match facts.cluster.kube_proxy.mode {
        ProxyMode::Iptables => true,
        ProxyMode::Nftables => false,
        ProxyMode::Auto | ProxyMode::None => facts.host.world().nftables().is_err(),
    };
    let chains = closed(facts, Hook::Forward).await;
    chains.iter().filter_map(|chain| judge_forward(chain, &subnets, adds_rules)).collect()
}

/// Chains that keep other machines from what listens here.
pub(super) async fn input(facts: &Facts) -> Vec<Finding> {
    let ports = ports(facts);
    closed(facts, Hook::Input).await.iter().filter_map(|chain| judge_input(chain, &ports)).collect()
}

/// What other machines ask of a controller.
fn ports(facts: &Facts) -> Vec<(u16, &'static str)> {
    let vxlan = facts.cluster.network.plugin == Plugin::Flannel(FlannelBackend::Vxlan);
    TCP.map(|port| (port, "tcp")).into_iter().chain(vxlan.then_some((VXLAN, "udp"))).collect()
}

/// A chain that drops what none of its rules lets pass.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Closed {
    /// As it is named to people.
    what: String,
    /// Its program, and the words by which that adds a rule before the others: of nftables there is none.
    insert: Option<String>,
    /// The rule that does it, where it is not the chain's policy.
    by: Option<String>,
    /// The rules as they are shown, of all chains of the table; none where they are not known.
    rules: String,
}

/// The chains of a hook that are closed.
async fn closed(facts: &Facts, hook: Hook) -> Vec<Closed> {
    let chain = match hook {
        Hook::Forward => "FORWARD",
        Hook::Input => "INPUT",
    };
    // A kernel without nftables has no chains.
    let known = packet_filter::base_chains().unwrap_or_default();
    let meets = |family| is_used(facts, family) && (hook, family) != (Hook::Input, Family::Bridge);
    let known = known.iter().filter(|known| known.hook == hook && meets(known.family));
    let mut found = Vec::new();
    for base in known {
        let program = match base.family {
            Family::Ip => "iptables",
            Family::Ip6 => "ip6tables",
            Family::Inet | Family::Bridge => "",
        };
        let is_iptables = !program.is_empty() && base.table == "filter" && base.name == chain;
        let rules = match is_iptables {
            true => run(facts, &[&format!("{program}-nft"), program], &["-S"]).await,
            false => None,
        };
        match rules {
            Some(rules) => found.extend(of_iptables(program, "", chain, rules)),
            None if base.drops => {
                let family = base.family.to_string();
                let shown = run(facts, &["nft"], &["list", "table", &family, &base.table]).await;
                found.push(of_nftables(base, shown.unwrap_or_default()));
            }
            None => {}
        }
    }
    for (program, names) in [("iptables", "/proc/net/ip_tables_names"), ("ip6tables", "/proc/net/ip6_tables_names")] {
        let family = if program == "iptables" { Family::Ip } else { Family::Ip6 };
        // To ask for a table that is not there would make it.
        if !is_used(facts, family) || !facts.read(names).lines().any(|table| table == "filter") {
            continue;
        }
        if let Some(rules) = run(facts, &[&format!("{program}-legacy"), program], &["-S"]).await {
            found.extend(of_iptables(program, "-legacy", chain, rules));
        }
    }
    found
}

/// Whether pods have addresses of a family.
fn is_used(facts: &Facts, family: Family) -> bool {
    let mut subnets = facts.cluster.networking.pod_subnets.iter();
    match family {
        Family::Inet | Family::Bridge => true,
        Family::Ip => subnets.any(|subnet| subnet.network().is_ipv4()),
        Family::Ip6 => subnets.any(|subnet| subnet.network().is_ipv6()),
    }
}

/// What the first of these programs says that is there and succeeds.
async fn run(facts: &Facts, programs: &[&str], args: &[&str]) -> Option<String> {
    for program in programs {
        if let Ok(ran) = facts.host.world().run(program, args, LIMIT).await
            && ran.success
        {
            return Some(ran.stdout);
        }
    }
    None
}

fn of_nftables(base: &BaseChain, rules: String) -> Closed {
    let what = format!("the chain {} of the table {} {}", base.name, base.family, base.table);
    Closed { what, insert: None, by: None, rules }
}

/// A chain of iptables' table filter, if it is closed: by its policy, or by a rule that every packet meets.
fn of_iptables(program: &str, kind: &str, chain: &str, rules: String) -> Option<Closed> {
    let everything = |target: &str| format!("-A {chain} -j {target}");
    let decides = |line: &&str| ["ACCEPT", "DROP", "REJECT"].iter().any(|target| line.starts_with(&everything(target)));
    let by = match rules.lines().find(decides) {
        Some(rule) if rule.starts_with(&everything("ACCEPT")) => return None,
        Some(rule) => Some(rule.to_owned()),
        None if rules.lines().any(|line| line == format!("-P {chain} DROP")) => None,
        None => return None,
    };
    let what = format!("the chain {chain} of {program}{kind}");
    Some(Closed { what, insert: Some(format!("{program}{kind} -I {chain}")), by, rules })
}

impl Closed {
    fn message(&self, lost: &str) -> String {
        let how = match &self.by {
            Some(rule) => format!("by `{rule}` every packet that no other rule accepts"),
            None => "by its policy every packet that no rule accepts".to_owned(),
        };
        format!("{} drops {how}: {lost}", self.what)
    }

    /// Whether a rule that accepts has one of these pairs of words in it.
    fn accepts(&self, pairs: &[[&str; 2]]) -> bool {
        let mut rules = self.rules.lines().filter(|rule| rule.to_lowercase().contains("accept"));
        rules.any(|rule| pairs.iter().any(|pair| has(rule, pair)))
    }
}

/// Whether `pair` stands in a rule: the second somewhere behind the first, as in `tcp dport { 22, 6443 }`.
fn has(rule: &str, [first, second]: &[&str; 2]) -> bool {
    let words: Vec<_> = rule.split([' ', ',', '\t']).filter(|word| !word.is_empty()).collect();
    let behind = words.iter().position(|word| word == first).map(|at| &words[at..]);
    behind.is_some_and(|words| words.contains(second))
}

fn judge_forward(chain: &Closed, subnets: &[String], adds_rules: bool) -> Option<Finding> {
    let passes = |subnet: &String| {
        chain.accepts(&[["-s", subnet], ["saddr", subnet]]) && chain.accepts(&[["-d", subnet], ["daddr", subnet]])
    };
    let is_left_open = adds_rules && chain.insert.is_some() && chain.by.is_none();
    let kept: Vec<_> = subnets.iter().filter(|subnet| !passes(subnet)).collect();
    if is_left_open || kept.is_empty() {
        return None;
    }
    let remedy = match &chain.insert {
        Some(insert) => {
            let rules =
                kept.iter().flat_map(|subnet| ["-s", "-d"].map(|way| format!("`{insert} {way} {subnet} -j ACCEPT`")));
            let policy = insert.replace(" -I ", " -P ");
            let open = match chain.by {
                Some(_) => String::new(),
                None => format!(
                    "`{policy} ACCEPT` (docker sets DROP again unless its daemon.json says \"ip-forward-no-drop\": true), or "
                ),
            };
            format!("{open}{}, at every boot", rules.collect::<Vec<_>>().join(" and "))
        }
        None => format!(
            "have it accept packets from and to {}, in /etc/nftables.conf or whatever else makes it",
            kept.iter().map(|subnet| subnet.as_str()).collect::<Vec<_>>().join(", ")
        ),
    };
    let message = chain.message("pods do not reach pods of other nodes, or anything else outside of this one");
    Some(Finding::new("", message).remedy(remedy))
}

fn judge_input(chain: &Closed, ports: &[(u16, &str)]) -> Option<Finding> {
    let is_let_in = |(port, _): &&(u16, &str)| {
        let port = port.to_string();
        chain.accepts(&[["--dport", &port], ["--dports", &port], ["dport", &port]])
    };
    let kept: Vec<_> = ports.iter().filter(|port| !is_let_in(port)).collect();
    if kept.is_empty() {
        return None;
    }
    let names: Vec<_> = kept.iter().map(|(port, protocol)| format!("{port}/{protocol}")).collect();
    let message =
        chain.message(&format!("none of its rules names {}, where other machines reach this one", names.join(", ")));
    let remedy = match &chain.insert {
        Some(insert) => {
            let rules =
                kept.iter().map(|(port, protocol)| format!("`{insert} -p {protocol} --dport {port} -j ACCEPT`"));
            format!(
                "{}, at every boot, unless another rule lets them in (ufw: `ufw allow 6443/tcp`)",
                rules.collect::<Vec<_>>().join(", ")
            )
        }
        None => {
            "have it accept them, in /etc/nftables.conf or whatever else makes it, unless another rule does".to_owned()
        }
    };
    Some(Finding::new("", message).remedy(remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: &str = "10.244.0.0/16";
    /// What docker leaves, shortened.
    const DOCKERS: &str = "-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n\
        -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n";

    fn forward_of(rules: &str, adds_rules: bool) -> Option<Finding> {
        let chain = of_iptables("iptables", "", "FORWARD", rules.to_owned())?;
        judge_forward(&chain, &[PODS.to_owned()], adds_rules)
    }

    #[test]
    fn what_docker_leaves_drops_what_pods_send() {
        let found = forward_of(DOCKERS, false).unwrap();
        assert!(
            found
                .message
                .starts_with("the chain FORWARD of iptables drops by its policy every packet that no rule accepts"),
            "{found}"
        );
        let remedy = found.remedy.as_ref().unwrap();
        assert!(remedy.starts_with("`iptables -P FORWARD ACCEPT` (docker"), "{remedy}");
        assert!(
            remedy.contains("`iptables -I FORWARD -s 10.244.0.0/16 -j ACCEPT` and `iptables -I FORWARD -d"),
            "{remedy}"
        );

        assert_eq!(forward_of(&DOCKERS.replace("FORWARD DROP", "FORWARD ACCEPT"), false), None);
        assert_eq!(forward_of(DOCKERS, true), None, "flannel lets its own through there");
        let one_way = format!("{DOCKERS}-A DOCKER-USER -s {PODS} -j ACCEPT\n");
        assert!(forward_of(&one_way, false).is_some(), "what comes is dropped");
        assert_eq!(forward_of(&format!("{one_way}-A DOCKER-USER -d {PODS} -j ACCEPT\n"), false), None);
        assert_eq!(forward_of("", false), None, "there is no such chain");
    }

    #[test]
    fn a_rule_that_every_packet_meets_is_as_good_as_a_policy() {
        let rules =
            "-P FORWARD ACCEPT\n-A FORWARD -i lo -j REJECT\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited\n";
        for adds_rules in [false, true] {
            let found = forward_of(rules, adds_rules).unwrap();
            assert!(
                found
                    .message
                    .contains("drops by `-A FORWARD -j REJECT --reject-with icmp-host-prohibited` every packet"),
                "{found}"
            );
            assert!(!found.remedy.as_ref().unwrap().contains("-P FORWARD"), "{found}");
        }
        assert_eq!(forward_of(&format!("-A FORWARD -j ACCEPT\n{rules}"), false), None);
    }

    #[test]
    fn a_chain_of_nftables_is_judged_by_what_nft_shows() {
        let base =
            BaseChain { family: Family::Inet, table: "t".into(), name: "fwd".into(), hook: Hook::Forward, drops: true };
        let judge = |rules: &str, adds| judge_forward(&of_nftables(&base, rules.into()), &[PODS.to_owned()], adds);
        for adds_rules in [false, true] {
            let found = judge("", adds_rules).unwrap();
            assert!(found.message.starts_with("the chain fwd of the table inet t drops by its policy"), "{found}");
            assert!(found.remedy.unwrap().contains("from and to 10.244.0.0/16"));
        }
        assert_eq!(
            judge("\t\tip saddr { 192.0.2.0/24, 10.244.0.0/16 } accept\n\t\tip daddr 10.244.0.0/16 accept\n", false),
            None
        );
        assert!(judge("\t\tip saddr 10.244.0.0/16 accept\n\t\tip daddr 10.244.0.0/16 drop\n", false).is_some());
    }

    #[test]
    fn other_machines_reach_what_rules_name() {
        let ports = [(6443, "tcp"), (10250, "tcp"), (8472, "udp")];
        let judge = |rules: &str| {
            let chain = of_iptables("iptables", "-legacy", "INPUT", format!("-P INPUT DROP\n{rules}"));
            judge_input(&chain.unwrap(), &ports)
        };
        let found =
            judge("-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -p tcp --dport 10250 -j DROP\n").unwrap();
        assert!(found.message.starts_with("the chain INPUT of iptables-legacy drops by its policy"), "{found}");
        assert!(found.message.contains("names 6443/tcp, 10250/tcp, 8472/udp,"), "{found}");
        assert!(
            found.remedy.as_ref().unwrap().starts_with("`iptables-legacy -I INPUT -p tcp --dport 6443 -j ACCEPT`"),
            "{found}"
        );
        let found = judge("-A ufw-user-input -p tcp -m multiport --dports 6443,10250 -j ACCEPT\n").unwrap();
        assert!(found.message.contains("names 8472/udp,"), "{found}");
        let base =
            BaseChain { family: Family::Ip, table: "t".into(), name: "in".into(), hook: Hook::Input, drops: true };
        let rules = "\t\ttcp dport { 22, 6443, 10250 } accept\n\t\tudp dport 8472 accept\n".to_owned();
        assert_eq!(judge_input(&of_nftables(&base, rules), &ports), None);
        let ranges = of_iptables("iptables", "", "INPUT", "-P INPUT ACCEPT\n".into());
        assert_eq!(ranges, None);
    }
}
