//! Goes through the plan and keeps or makes each file.

use std::collections::{BTreeMap, BTreeSet};

use rcgen::KeyPair;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;

use super::file::{File, input};
use super::fitness::{self, Task};
use super::plan::{CaPlan, LeafPlan, asked, canonical, plan, usage_name};
use super::sign::{self, Validity};
use super::user::{self, UserFiles};
use super::{ENCRYPTION, Issued, Pki, encryption, external, inspect, parse};
use crate::base::error::{Error, Finding, Result};
use crate::desired::config::{Cluster, Etcd, PkiConfig};

/// Everything that belongs in tls/.
///
/// `existing` is what stands there, by path relative to it. What is there stays, byte by byte, but for a leaf that
/// expired, whose issuer is no longer the CA there, or that is not what `cluster` asks for: it is issued anew for the
/// key it has. All that is wrong with the files is reported at once.
pub fn issue(
    cluster: &Cluster,
    existing: &BTreeMap<String, Vec<u8>>,
    user: &UserFiles,
    now: OffsetDateTime,
) -> Result<Pki> {
    let mut work = Work::new(cluster, existing, user, now)?;
    let mut findings = Vec::new();
    collect(&mut findings, work.conflicts())?;
    for (ca, leaves) in plan(cluster) {
        let is_external = ca.is_external(cluster);
        let authority = collect(&mut findings, work.authority(ca, is_external))?;
        let Some(authority) = authority else { continue };
        let unfit = work.unfit(&authority, &leaves, is_external);
        if !unfit.is_empty() {
            findings.extend(unfit);
            continue;
        }
        if is_external {
            for leaf in &leaves {
                collect(&mut findings, work.leaf_of_another(leaf, &authority))?;
            }
            continue;
        }
        findings.extend(work.leaves(ca, &leaves, &authority)?);
    }
    collect(&mut findings, work.service_account())?;
    collect(&mut findings, work.encryption())?;
    if matches!(cluster.etcd, Etcd::External { .. }) {
        collect(&mut findings, work.external_etcd())?;
    }
    if !findings.is_empty() {
        return Err(Error::Input(findings));
    }
    Ok(Pki { files: work.files, issued: work.issued, awaited: work.awaited, due: work.due })
}

/// Keeps the findings of a step and goes on, so that the user sees all of them; any other error ends it.
fn collect<T>(findings: &mut Vec<Finding>, result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Input(more)) => {
            findings.extend(more);
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

fn key_is_missing(ca: CaPlan, impossible: &[String]) -> Finding {
    let message = format!("is missing, and without it these cannot be issued: {}", impossible.join(", "));
    Finding::new(format!("tls/{}.key", ca.stem), message)
        .remedy("put it there for this run; between runs it may be kept elsewhere")
}

/// A user's file, by the path in tls/ where its copy belongs.
struct NamedFile<'a> {
    field: &'static str,
    file: File<'a>,
}

fn named_files<'a>(cluster: &'a Cluster, user: &'a UserFiles) -> Result<BTreeMap<&'static str, NamedFile<'a>>> {
    let entry = |named: user::Named<'a>| match user.0.get(named.source) {
        Some(bytes) => {
            let file = File { place: named.source.to_owned(), bytes };
            Ok((named.target, NamedFile { field: named.field, file }))
        }
        // A new CA in place of the user's would be the worst answer.
        None => Err(Error::failed("issue certificates", format!("{} was not read", named.source))),
    };
    user::named(cluster).into_iter().map(entry).collect()
}

/// A CA that issues.
pub(super) struct Authority {
    plan: CaPlan,
    /// The name of its certificate's file in findings.
    place: String,
    /// The certificates of its file as DER; the first is the issuer.
    certificates: Vec<Vec<u8>>,
    /// What a server sends behind its leaf.
    intermediates: Vec<Vec<u8>>,
    key: Option<KeyPair>,
}

/// What goes in, and what has come out so far.
pub(super) struct Work<'a> {
    pki: &'a PkiConfig,
    now: OffsetDateTime,
    existing: &'a BTreeMap<String, Vec<u8>>,
    named: BTreeMap<&'static str, NamedFile<'a>>,
    pub(super) files: BTreeMap<String, Vec<u8>>,
    issued: Vec<Issued>,
    awaited: Vec<Finding>,
    due: Vec<Finding>,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        cluster: &'a Cluster,
        existing: &'a BTreeMap<String, Vec<u8>>,
        user: &'a UserFiles,
        now: OffsetDateTime,
    ) -> Result<Self> {
        Ok(Self {
            pki: &cluster.pki,
            now,
            existing,
            named: named_files(cluster, user)?,
            files: BTreeMap::new(),
            issued: Vec::new(),
            awaited: Vec::new(),
            due: Vec::new(),
        })
    }

    /// What keeps a CA from signing these leaves. Its end does where the user has just named it and hoist issues: the last
    /// certificates of a CA that has served end with it.
    fn unfit(&self, authority: &Authority, leaves: &[LeafPlan], is_external: bool) -> Vec<Finding> {
        let (names, usages) = asked(leaves);
        let crt = format!("{}.crt", authority.plan.stem);
        let is_new = self.named.contains_key(&*crt) && !self.existing.contains_key(&crt) && !is_external;
        let lifetime = time::Duration::try_from(self.pki.certificate_validity).unwrap_or(time::Duration::MAX);
        let until = is_new.then(|| self.now.saturating_add(lifetime));
        let unfit = fitness::unfit(&authority.certificates, &Task { names: &names, usages: &usages, until });
        unfit.into_iter().map(|why| Finding::new(&*authority.place, why.message).remedy(why.remedy)).collect()
    }

    /// Keeps or makes each of the leaves of a CA; what comes back is all that is wrong with them.
    pub(super) fn leaves(&mut self, ca: CaPlan, leaves: &[LeafPlan], authority: &Authority) -> Result<Vec<Finding>> {
        let (mut findings, mut impossible) = (Vec::new(), Vec::new());
        for leaf in leaves {
            let made = collect(&mut findings, self.leaf(leaf, authority))?;
            impossible.extend(made.flatten());
        }
        if !impossible.is_empty() {
            findings.push(key_is_missing(ca, &impossible));
        }
        Ok(findings)
    }

    /// The file that stands at a path in tls/, or else the one that the user named for it.
    fn file(&self, path: &str) -> Option<File<'a>> {
        match self.existing.get(path) {
            Some(bytes) => Some(File { place: format!("tls/{path}"), bytes }),
            None => self.named.get(path).map(|named| named.file.clone()),
        }
    }

    /// A file that is made here.
    fn put(&mut self, path: &str, bytes: impl Into<Vec<u8>>, reason: impl Into<String>) {
        self.add(path, bytes.into(), Issued { path: path.to_owned(), reason: reason.into(), is_copied: false });
    }

    fn add(&mut self, path: &str, bytes: Vec<u8>, issued: Issued) {
        if self.existing.get(path) != Some(&bytes) {
            self.issued.push(issued);
        }
        self.files.insert(path.to_owned(), bytes);
    }

    /// Keeps a file as it is; a user's is copied.
    fn keep(&mut self, path: &str, file: &File<'_>) {
        let reason = format!("copied from {}", file.place);
        self.add(path, file.bytes.to_vec(), Issued { path: path.to_owned(), reason, is_copied: true });
    }

    /// A user's file that is not what stands in tls/: hoist will not choose between two CAs or keys.
    fn conflicts(&self) -> Result<()> {
        let mut findings = Vec::new();
        for (target, NamedFile { field, file }) in &self.named {
            let Some(standing) = self.existing.get(*target) else { continue };
            // A client certificate of the same key is merely renewed.
            if *target == ETCD_CLIENT_CRT || parse::same(file.bytes, standing) {
                continue;
            }
            let message = format!("differs from tls/{target}, and hoist replaces no key and no CA");
            findings.push(file.finding(message).remedy(format!(
                "to keep the current one, take {field} out of cluster.yaml; to change, move tls/{target} away"
            )));
        }
        if findings.is_empty() { Ok(()) } else { Err(Error::Input(findings)) }
    }

    pub(super) fn authority(&mut self, plan: CaPlan, is_external: bool) -> Result<Authority> {
        let (crt, key) = (format!("{}.crt", plan.stem), format!("{}.key", plan.stem));
        if let Some(file) = self.file(&key).filter(|_| is_external) {
            let message = format!("is there, while {} of cluster.yaml names a certificate without a key", plan.field);
            return Err(input(file.finding(message).remedy(format!(
                "to have hoist issue certificates with it, name it as {}.key; or move it away",
                plan.field
            ))));
        }
        let place = self.file(&crt).map_or_else(|| format!("tls/{crt}"), |file| file.place);
        let (certificates, ca_key) = match (self.file(&crt), self.file(&key)) {
            (Some(file), key_file) => {
                let certificates = file.certificates()?;
                self.check_authority(&file, &certificates)?;
                self.keep(&crt, &file);
                let ca_key = key_file.map(|key_file| self.key_of(&file, &certificates, &key, &key_file)).transpose()?;
                (certificates, ca_key)
            }
            (None, key_file) => {
                let (ca_key, reason) = self.key(&key, key_file)?;
                let pem = sign::ca(plan, plan.common_name, &ca_key, &Validity::new(self.now, self.pki.ca_validity))?;
                let certificates = parse::certificates(&crt, pem.as_bytes()).map_err(input)?;
                self.put(&crt, pem, reason);
                (certificates, Some(ca_key))
            }
        };
        let intermediates = parse::intermediates(&certificates);
        Ok(Authority { plan, place, certificates, intermediates, key: ca_key })
    }

    /// The key that is there, or a new one; and why its certificate is made.
    fn key(&mut self, path: &str, file: Option<File<'_>>) -> Result<(KeyPair, &'static str)> {
        if let Some(file) = file {
            let key = file.key()?;
            self.keep(path, &file);
            return Ok((key, "new, for the key that was there"));
        }
        let key = sign::new_key()?;
        self.put(path, key.serialize_pem(), "new");
        Ok((key, "new"))
    }

    /// The key of a certificate, both being there.
    fn key_of(
        &mut self,
        file: &File<'_>,
        certificates: &[Vec<u8>],
        path: &str,
        key_file: &File<'_>,
    ) -> Result<KeyPair> {
        let key = key_file.key()?;
        if !parse::key_fits(&key, &first(certificates)?) {
            return Err(key_file.not_the_key_of(file));
        }
        self.keep(path, key_file);
        Ok(key)
    }

    fn check_authority(&self, file: &File<'_>, certificates: &[Vec<u8>]) -> Result<()> {
        let x509 = first(certificates)?;
        let info = inspect::info(&x509);
        let usage = x509.key_usage().ok().flatten();
        if !info.is_ca || usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
            let message =
                format!("the first certificate ({}) is not a CA: it may not issue certificates", info.subject);
            return Err(input(
                file.finding(message)
                    .remedy("put a CA's certificate there, with basicConstraints CA:TRUE and keyUsage keyCertSign"),
            ));
        }
        if self.now > info.not_after {
            let message = format!("expired {}, and hoist replaces no CA", info.not_after.date());
            return Err(input(file.finding(message).remedy(
                "put a renewed certificate of the same key there; or, for a new CA, move certificate and key away",
            )));
        }
        if self.now < info.not_before {
            let message = format!("is not valid before {}", info.not_before);
            return Err(input(file.finding(message).remedy("check this machine's clock")));
        }
        Ok(())
    }

    /// Keeps or makes a leaf. What comes back is the leaf that cannot be issued, for want of the CA's key.
    fn leaf(&mut self, plan: &LeafPlan, authority: &Authority) -> Result<Option<String>> {
        let (crt, key) = (format!("{}.crt", plan.stem), format!("{}.key", plan.stem));
        let key_file = self.file(&key);
        let reason = match (self.file(&crt), &key_file) {
            (None, None) => "new".to_owned(),
            (None, Some(_)) => "new, for the key that was there".to_owned(),
            (Some(_), None) => "its key was missing".to_owned(),
            (Some(file), Some(key_file)) => {
                let chain = file.certificates()?;
                self.key_of(&file, &chain, &key, key_file)?;
                match self.outdated(plan, &chain, authority)? {
                    Some(reason) => reason,
                    None => {
                        self.keep(&crt, &file);
                        return Ok(None);
                    }
                }
            }
        };
        let Some(ca_key) = &authority.key else {
            return Ok(Some(format!("{crt} ({reason})")));
        };
        let (leaf_key, _) = self.key(&key, key_file)?;
        let der = self.sign(plan, &leaf_key, authority, ca_key)?;
        let behind: &[_] = if plan.is_served() { &authority.intermediates } else { &[] };
        self.put(&crt, sign::to_pem(std::iter::once(&der).chain(behind)), reason);
        Ok(None)
    }

    /// Keeps the leaf that a CA signed elsewhere, or asks for one: with a request for a key of hoist's.
    fn leaf_of_another(&mut self, plan: &LeafPlan, authority: &Authority) -> Result<()> {
        let (crt, csr) = (format!("{}.crt", plan.stem), format!("{}.csr", plan.stem));
        let key_file = self.file(&format!("{}.key", plan.stem));
        let (key, _) = self.key(&format!("{}.key", plan.stem), key_file)?;
        let ca = first(&authority.certificates)?.subject().to_string();
        let finding = |message: String| {
            let remedy = format!("have tls/{csr} signed by {ca}: {}", external::description(plan));
            Finding::new(format!("tls/{crt}"), message).remedy(remedy)
        };
        match self.file(&crt) {
            None => self.awaited.push(finding("is not there yet".to_owned())),
            Some(file) => {
                let chain = parse::certificates(&file.place, file.bytes).map_err(|finding| finding.message);
                let problems = chain.and_then(|chain| {
                    let problems = external::problems(plan, &chain, &key, &authority.certificates, self.now)?;
                    Ok((chain, problems))
                });
                match problems {
                    Err(problem) => self.awaited.push(finding(problem)),
                    Ok((_, problems)) if !problems.is_empty() => self.awaited.push(finding(problems.join("; "))),
                    Ok((chain, _)) => {
                        self.keep(&crt, &file);
                        let Some(end) = external::is_due(&chain, self.now) else { return Ok(()) };
                        self.due.push(finding(format!("expires {}", end.date())).warning());
                    }
                }
            }
        }
        match self.existing.get(&csr).filter(|pem| external::is_request_for(plan, &key, pem)) {
            Some(pem) => drop(self.files.insert(csr, pem.clone())),
            None => self.put(&csr, sign::request(plan, &key)?, format!("a request to {ca}")),
        }
        Ok(())
    }

    /// Why a leaf must be issued anew, if it must.
    fn outdated(&self, plan: &LeafPlan, chain: &[Vec<u8>], authority: &Authority) -> Result<Option<String>> {
        let leaf = first(chain)?;
        let info = inspect::info(&leaf);
        if self.now > info.not_after {
            return Ok(Some(format!("expired {}", info.not_after.date())));
        }
        if !parse::issued_by(&leaf, &first(&authority.certificates)?) {
            return Ok(Some(format!("its issuer is no longer {}.crt", authority.plan.stem)));
        }
        if info.subject != plan.subject() {
            return Ok(Some(format!("its subject was {}", info.subject)));
        }
        let usages: BTreeSet<_> = plan.usages.iter().map(usage_name).collect();
        if info.ekus.iter().map(String::as_str).collect::<BTreeSet<_>>() != usages {
            return Ok(Some(format!("its extended key usages were: {}", info.ekus.join(", "))));
        }
        if plan.is_served() && chain.get(1..) != Some(&authority.intermediates[..]) {
            return Ok(Some("the intermediates behind it changed".to_owned()));
        }
        Ok(names_changed(&info.sans, &plan.sans))
    }

    fn sign(&self, plan: &LeafPlan, key: &KeyPair, authority: &Authority, ca_key: &KeyPair) -> Result<Vec<u8>> {
        let ca = first(&authority.certificates)?;
        let validity =
            Validity::new(self.now, self.pki.certificate_validity).within(ca.validity().not_after.to_datetime());
        sign::leaf(plan, key, &ca, ca_key, &validity)
    }

    fn service_account(&mut self) -> Result<()> {
        let (key, reason) = match (self.file("sa.key"), self.file("sa.pub")) {
            (None, Some(public_file)) => {
                let finding = Finding::new("tls/sa.key", format!("is missing, while {} is there", public_file.place));
                return Err(input(finding.remedy(
                    "put it back; or move sa.pub away for a new pair, and every service-account token becomes invalid",
                )));
            }
            (Some(key_file), Some(public_file)) => {
                let key = key_file.key()?;
                if !parse::public_keys(&public_file.place, public_file.bytes)
                    .map_err(input)?
                    .contains(&parse::public_key(&key))
                {
                    let finding = public_file.finding(format!("does not hold the public key of {}", key_file.place));
                    return Err(input(finding.remedy("move it away, and it is made from the key")));
                }
                self.keep("sa.key", &key_file);
                self.keep("sa.pub", &public_file);
                return Ok(());
            }
            (key_file, None) => self.key("sa.key", key_file)?,
        };
        self.put("sa.pub", key.public_key_pem(), reason);
        Ok(())
    }

    /// What Secrets are encrypted with. A cluster has run without it if it has a key that only a render makes.
    fn encryption(&mut self) -> Result<()> {
        if let Some(file) = self.file(ENCRYPTION) {
            encryption::check(&file)?;
            self.keep(ENCRYPTION, &file);
            return Ok(());
        }
        let has_run = self.existing.contains_key("kube-controller-manager.key");
        let reason = if has_run { encryption::FOR_A_CLUSTER_THAT_RUNS } else { "new" };
        self.put(ENCRYPTION, encryption::new(has_run)?, reason);
        Ok(())
    }

    /// The user's files are copied; only what would surely fail is refused, for Go reads more kinds of key than hoist.
    fn external_etcd(&mut self) -> Result<()> {
        if let Some(file) = self.file("etcd/ca.crt") {
            file.certificates()?;
            self.keep("etcd/ca.crt", &file);
        }
        // The user's certificate, not the one that stands: see `conflicts`.
        let certificate = self.named.get(ETCD_CLIENT_CRT).map(|named| named.file.clone());
        let (Some(file), Some(key_file)) = (certificate, self.file(ETCD_CLIENT_KEY)) else { return Ok(()) };
        let chain = file.certificates()?;
        let x509 = first(&chain)?;
        parse::key_block(&key_file.place, key_file.bytes).map_err(input)?;
        if key_file.key().is_ok_and(|key| !parse::key_fits(&key, &x509)) {
            return Err(key_file.not_the_key_of(&file));
        }
        let info = inspect::info(&x509);
        if self.now > info.not_after {
            let finding = file.finding(format!("expired {}", info.not_after.date()));
            return Err(input(finding.remedy("put a renewed certificate there; the operator of that etcd issues it")));
        }
        if self.now < info.not_before {
            let message = format!("is not valid before {}", info.not_before);
            return Err(input(file.finding(message).remedy("check this machine's clock")));
        }
        self.keep(ETCD_CLIENT_CRT, &file);
        self.keep(ETCD_CLIENT_KEY, &key_file);
        Ok(())
    }
}

const ETCD_CLIENT_CRT: &str = "apiserver-etcd-client.crt";
const ETCD_CLIENT_KEY: &str = "apiserver-etcd-client.key";

/// The first certificate of a file that was read before.
fn first(certificates: &[Vec<u8>]) -> Result<X509Certificate<'_>> {
    let failed = |cause: String| Error::failed("read a certificate", cause);
    parse::x509(certificates.first().ok_or_else(|| failed("there is none".to_owned()))?).map_err(failed)
}

/// What changed between the names of a certificate and those it should have.
fn names_changed(has: &[String], wants: &[String]) -> Option<String> {
    let has: BTreeSet<_> = has.iter().map(|name| canonical(name)).collect();
    let wants: BTreeSet<_> = wants.iter().cloned().collect();
    let phrase = |names: Vec<&String>, verb: &str| match &names[..] {
        [] => None,
        [name] => Some(format!("a name was {verb}: {name}")),
        names => {
            let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
            Some(format!("names were {verb}: {}", names.join(", ")))
        }
    };
    let added = phrase(wants.difference(&has).collect(), "added");
    let removed = phrase(has.difference(&wants).collect(), "removed");
    let changes: Vec<_> = [added, removed].into_iter().flatten().collect();
    (!changes.is_empty()).then(|| changes.join("; "))
}
