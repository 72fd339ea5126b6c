//! The list as people read it: three tables, the columns of `kubeadm certs check-expiration` first.

use std::fmt;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::list::{Certificate, Key, List};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (authorities, leaves): (Vec<_>, Vec<_>) = self.certificates.iter().partition(|one| one.is_ca);
        if !leaves.is_empty() {
            let head = [
                "CERTIFICATE",
                "EXPIRES",
                "RESIDUAL TIME",
                "CERTIFICATE AUTHORITY",
                "EXTERNALLY MANAGED",
                "SERVED",
                "HOLDER",
                "PLACE",
            ];
            let row = |one: &&Certificate| {
                let authority = one.authority.clone().unwrap_or_else(|| "-".into());
                [
                    one.name.clone(),
                    expires(one),
                    left(one),
                    authority,
                    managed(one),
                    served(one),
                    one.holder.clone(),
                    one.place.clone(),
                ]
            };
            table(f, head, &leaves.iter().map(row).collect::<Vec<_>>())?;
        }
        if !authorities.is_empty() {
            writeln!(f)?;
            let head = ["CERTIFICATE AUTHORITY", "EXPIRES", "RESIDUAL TIME", "EXTERNALLY MANAGED", "HOLDER", "PLACE"];
            let row = |one: &&Certificate| {
                [one.name.clone(), expires(one), left(one), managed(one), one.holder.clone(), one.place.clone()]
            };
            table(f, head, &authorities.iter().map(row).collect::<Vec<_>>())?;
        }
        if !self.keys.is_empty() {
            writeln!(f)?;
            let row = |key: &Key| [key.name.clone(), key.id.clone(), key.holder.clone(), key.place.clone()];
            table(f, ["KEY WITHOUT END", "ID", "HOLDER", "PLACE"], &self.keys.iter().map(row).collect::<Vec<_>>())?;
        }
        if self.certificates.is_empty() {
            writeln!(f, "there are no certificates here")?;
        }
        for why in &self.not_asked {
            writeln!(f, "\nnot asked: {why}")?;
        }
        Ok(())
    }
}

fn table<const N: usize>(f: &mut fmt::Formatter<'_>, head: [&str; N], rows: &[[String; N]]) -> fmt::Result {
    let width = |i: usize| rows.iter().map(|row| row[i].chars().count()).chain([head[i].len()]).max().unwrap_or(0);
    let widths: Vec<_> = (0..N).map(width).collect();
    let mut line = |cells: [&str; N]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(f, "{}", padded.collect::<Vec<_>>().join("   ").trim_end())
    };
    line(head)?;
    rows.iter().try_for_each(|row| line(std::array::from_fn(|i| row[i].as_str())))
}

/// As in `Dec 30, 2026 23:36 UTC`.
fn expires(one: &Certificate) -> String {
    let Ok(end) = OffsetDateTime::parse(&one.not_after, &Rfc3339) else { return one.not_after.clone() };
    let month = MONTHS[usize::from(u8::from(end.month())) - 1];
    format!("{month} {:02}, {} {:02}:{:02} UTC", end.day(), end.year(), end.hour(), end.minute())
}

/// The largest unit of what is left.
fn left(one: &Certificate) -> String {
    let seconds = one.remaining_seconds;
    match seconds {
        ..0 => "expired".to_owned(),
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        86_400..63_072_000 => format!("{}d", seconds / 86_400),
        _ => format!("{}y", seconds / 31_536_000),
    }
}

fn managed(one: &Certificate) -> String {
    match one.externally_managed {
        Some(true) => "yes",
        Some(false) => "no",
        None => "-",
    }
    .to_owned()
}

fn served(one: &Certificate) -> String {
    match &one.served {
        None => "-".to_owned(),
        Some(served) => match served.is_this {
            None => "no answer".to_owned(),
            Some(true) => format!("at {}", served.address),
            Some(false) => format!("another at {}", served.address),
        },
    }
}
