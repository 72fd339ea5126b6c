//! `hoist token`

use std::io::Write;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use serde_json::json;
use time::OffsetDateTime;

use super::admin::{Choice, Tenant};
use super::output::{self, Output};
use crate::api::{Admin, tokens as api};
use crate::base::error::{Error, Finding, Result};
use crate::base::time::rfc3339;
use crate::desired::config;
use crate::desired::pki;
use crate::desired::tokens;
use crate::desired::tokens::{DEFAULT_GROUP, Token, USAGES};

/// `hoist token`
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    cluster: Choice,
    #[command(flatten)]
    tenant: Tenant,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Make a bootstrap token, with which machines join as workers, and print it
    Create(Create),
    /// Show the bootstrap tokens of the cluster
    List {
        /// How they are shown
        #[arg(long, short, value_enum, default_value = "text")]
        output: Output,
    },
    /// Delete bootstrap tokens: no machine joins with them any more
    #[command(visible_alias = "revoke")]
    Delete {
        /// Whole tokens, or their first six letters
        #[arg(required = true, value_name = "TOKEN", value_parser = token_or_id)]
        tokens: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The token to make, of the form [a-z0-9]{6}.[a-z0-9]{16} [default: a random one]
    #[arg(value_name = "TOKEN", value_parser = super::join_assets::token)]
    token: Option<String>,
    /// How long the token is valid, as 30m or 24h; 0 is for ever
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = ttl)]
    ttl: Ttl,
    /// A description, which `hoist token list` shows
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    /// What the token may be used for; `kubeadm join` needs both
    #[arg(long, value_delimiter = ',', default_values = USAGES, value_parser = PossibleValuesParser::new(USAGES))]
    usages: Vec<String>,
    /// The groups of the token's users besides system:bootstrappers; `kubeadm join` needs the default
    #[arg(long, value_name = "GROUP", value_delimiter = ',', default_values = [DEFAULT_GROUP], value_parser = tokens::group)]
    groups: Vec<String>,
    /// Print the commands with which a machine joins, in place of the token alone
    #[arg(long, alias = "print-join-command")]
    print_join: bool,
}

/// For how long; `None` is for ever.
#[derive(Debug, Clone, Copy)]
struct Ttl(Option<Duration>);

fn ttl(text: &str) -> Result<Ttl, String> {
    if matches!(text, "0" | "0s") { Ok(Ttl(None)) } else { config::duration(text).map(|ttl| Ttl(Some(ttl))) }
}

/// A token's public part, of the whole or of itself. What is neither is not repeated: it may be a secret.
fn token_or_id(text: &str) -> Result<String, String> {
    let id = if pki::is_token(text) { text.split('.').next().unwrap_or_default() } else { text };
    if pki::is_token_id(id) {
        Ok(id.to_owned())
    } else {
        Err("is neither a token nor its first six letters".to_owned())
    }
}

pub(super) async fn run(args: Args, out: &mut dyn Write) -> Result<()> {
    let now = OffsetDateTime::now_utc();
    let admin = args.tenant.connect(&args.cluster).await?;
    let text = match args.what {
        What::Create(create) => {
            let Tenant { tenant, tenant_namespace } = &args.tenant;
            let mut whose = format!("--asset-dir {}", args.cluster.asset_dir.display());
            if let Some(tenant) = tenant {
                whose.push_str(&format!(" --tenant {tenant} --tenant-namespace {tenant_namespace}"));
            }
            self::create(&admin, create, &whose, now).await?
        }
        What::List { output } => {
            let all = api::list(&admin.client).await?;
            match output {
                Output::Text => table(&all, now),
                Output::Json => json(&all)?,
                Output::Yaml => output::yaml(&values(&all))?,
            }
        }
        What::Delete { tokens } => delete(&admin, &tokens).await?,
    };
    super::print(out, &text)
}

async fn create(admin: &Admin, args: Create, whose: &str, now: OffsetDateTime) -> Result<String> {
    let text = pki::bootstrap_token(args.token.as_deref())?;
    let (id, secret) = text.split_once('.').unwrap_or_default();
    let expires =
        args.ttl.0.map(|ttl| now.checked_add(ttl.try_into().ok()?)).map(|at| {
            at.ok_or_else(|| Error::Input(vec![Finding::new("--ttl", "is too long").remedy("0 is for ever")]))
        });
    let token = Token {
        id: id.to_owned(),
        secret: secret.to_owned(),
        description: args.description,
        expires: expires.transpose()?,
        usages: args.usages,
        groups: args.groups,
    };
    api::create(&admin.client, &token).await?;
    if !args.print_join {
        return Ok(text + "\n");
    }
    let pins = pki::pins(&admin.ca_pem)?;
    let pins: Vec<_> = pins.iter().map(|pin| format!("--discovery-token-ca-cert-hash {pin}")).collect();
    let (pins, endpoint) = (pins.join(" "), &admin.endpoint);
    Ok(format!(
        "hoist join-assets {whose} --token {text} {pins} --output-dir worker\n\
         kubeadm join {endpoint} --token {text} {pins}\n"
    ))
}

async fn delete(admin: &Admin, ids: &[String]) -> Result<String> {
    let (mut said, mut absent) = (String::new(), Vec::new());
    for id in ids {
        match api::delete(&admin.client, id).await? {
            true => said.push_str(&format!("bootstrap token \"{id}\" deleted\n")),
            false => absent.push(id.as_str()),
        }
    }
    match absent.is_empty() {
        true => Ok(said),
        // So that nobody who has mistyped one believes that it is gone.
        false => Err(Error::Failed {
            action: format!("delete the bootstrap tokens {}", absent.join(", ")),
            cause: "there are no such tokens; all others that were named are deleted".into(),
            next: Some("`hoist token list` shows those that there are".into()),
        }),
    }
}

/// As kubeadm shows them.
fn table(all: &[Token], now: OffsetDateTime) -> String {
    let mut rows = vec![["TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS"].map(str::to_owned)];
    let or_none = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
    rows.extend(all.iter().map(|token| {
        let left = token.expires.map(|expires| expires - now);
        let ttl = match left {
            None => "<forever>".to_owned(),
            Some(left) if !left.is_positive() => "<expired>".to_owned(),
            Some(left) => rough(left),
        };
        let expires = token.expires.map_or_else(|| "<never>".to_owned(), rfc3339);
        let (usages, groups) = (or_none(token.usages.join(",")), or_none(token.groups.join(",")));
        // It ends on a terminal.
        let description = or_none(token.description.chars().filter(|c| !c.is_control()).collect());
        [token.text(), ttl, expires, usages, description, groups]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<_> = (0..6).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("   ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// As `kubectl` says how old something is.
fn rough(left: time::Duration) -> String {
    match (left.whole_days(), left.whole_hours(), left.whole_minutes()) {
        (2.., ..) => format!("{}d", left.whole_days()),
        (_, 1.., _) => format!("{}h", left.whole_hours()),
        (.., 1..) => format!("{}m", left.whole_minutes()),
        _ => format!("{}s", left.whole_seconds()),
    }
}

/// The tokens as programs have them.
fn values(all: &[Token]) -> Vec<serde_json::Value> {
    let one = |token: &Token| {
        json!({
            "token": token.text(),
            "description": token.description,
            "expires": token.expires.map(rfc3339),
            "usages": token.usages,
            "groups": token.groups,
        })
    };
    all.iter().map(one).collect()
}

fn json(all: &[Token]) -> Result<String> {
    Ok(serde_json::to_string_pretty(&values(all)).map_err(|error| Error::failed("write JSON", error))? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(expires: Option<OffsetDateTime>) -> Token {
        Token {
            id: "abcdef".into(),
            secret: "0123456789abcdef".into(),
            description: String::new(),
            expires,
            usages: vec!["authentication".into(), "signing".into()],
            groups: Vec::new(),
        }
    }

    #[test]
    fn they_are_shown_as_kubeadm_shows_them() {
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let at = |seconds| token(Some(now + time::Duration::seconds(seconds)));
        let text = table(&[at(86_399), at(-1), token(None)], now);
        let words: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA", "GROUPS"]);
        let expected =
            ["abcdef.0123456789abcdef", "23h", "2027-01-16T07:59:59Z", "authentication,signing", "<none>", "<none>"];
        assert_eq!(words[1], expected);
        assert_eq!((words[2][1], words[3][1], words[3][2]), ("<expired>", "<forever>", "<never>"));
        let json: serde_json::Value = serde_json::from_str(&json(&[at(60), token(None)]).unwrap()).unwrap();
        assert_eq!(
            (&json[0]["expires"], &json[1]["expires"]),
            (&"2027-01-15T08:01:00Z".into(), &serde_json::Value::Null)
        );
    }

    #[test]
    fn what_is_no_token_is_not_repeated() {
        assert_eq!(token_or_id("abcdef.0123456789abcdef").unwrap(), "abcdef");
        assert_eq!(token_or_id("abcdef").unwrap(), "abcdef");
        assert!(token_or_id("abcdef.012345").is_err_and(|why| !why.contains("abcdef")));
        assert!(ttl("0").unwrap().0.is_none() && ttl("-1h").is_err() && ttl("1h").unwrap().0.is_some());
    }
}
