//! Single values, as Kubernetes' Go reads them out of JSON.

use serde_json::Value;

use super::table::Scalar;

/// What is wrong with a value that is to be a `scalar`: what was expected, and what to do about it.
pub(super) fn misfit(scalar: Scalar, value: &Value) -> Option<(&'static str, Option<&'static str>)> {
    const QUOTES: Option<&str> = Some("write it in quotes");
    const PLAIN: Option<&str> = Some("write it without quotes");
    const QUANTITY: &str = "a quantity";
    const DURATION: &str = "a duration";
    let is_plain = matches!(value, Value::Number(_) | Value::Bool(_));
    let remedy = |of_text: bool| match value {
        Value::Number(_) | Value::Bool(_) if of_text => QUOTES,
        _ => None,
    };
    let integer = |least: i64, most: i64| {
        let number = value.as_number()?;
        // 8.0 is 8.
        #[allow(clippy::cast_possible_truncation)]
        let whole = || number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 9e18).map(|n| n as i64);
        number.as_i64().or_else(whole).filter(|n| (least..=most).contains(n))
    };
    let number_remedy = || value.as_str().and_then(|text| text.parse::<f64>().ok()).and(PLAIN);
    match scalar {
        Scalar::String | Scalar::Time if !value.is_string() => Some(("a string", remedy(true))),
        Scalar::Time if !value.as_str().is_some_and(time) => {
            Some(("a time", Some("write it like 2026-07-01T12:00:00Z, or leave it out")))
        }
        Scalar::Bytes if !value.is_string() => Some(("a string in base64", None)),
        Scalar::Bytes if !value.as_str().is_some_and(base64) => {
            Some(("base64", Some("encode it with `base64`; a Secret takes plain text in stringData")))
        }
        Scalar::Bool if !value.is_boolean() => {
            let is_bool = matches!(value.as_str(), Some("true" | "false"));
            Some(("true or false", is_bool.then_some("write it without quotes")))
        }
        Scalar::Int32 if integer(i32::MIN.into(), i32::MAX.into()).is_none() => {
            Some(("an integer of 32 bits", number_remedy()))
        }
        Scalar::Int64 if integer(i64::MIN, i64::MAX).is_none() => Some(("an integer", number_remedy())),
        Scalar::Uint32 if integer(0, u32::MAX.into()).is_none() => Some(("an integer from 0 on", number_remedy())),
        Scalar::Number if !value.is_number() => Some(("a number", number_remedy())),
        Scalar::Quantity if !(value.is_number() || value.as_str().is_some_and(quantity)) => {
            Some((QUANTITY, Some("write it like 500m, 2, 64Mi or 1G")))
        }
        Scalar::IntOrString if !value.is_string() && integer(i32::MIN.into(), i32::MAX.into()).is_none() => {
            Some(("an integer or a string", None))
        }
        Scalar::Duration { .. } if !value.as_str().is_some_and(duration) => Some((
            DURATION,
            Some(if is_plain { "write it with its unit, like 10s" } else { "write it like 10s or 1h30m" }),
        )),
        Scalar::DurationOrInt if integer(i64::MIN, i64::MAX).is_none() && !value.as_str().is_some_and(duration) => {
            Some((DURATION, Some("write it like 10s or 1h30m")))
        }
        _ => None,
    }
}

/// A time as RFC 3339 has it, and as leniently as Go's `time.Parse`: an hour may have one digit, a fraction a comma.
fn time(text: &str) -> bool {
    let number = |text: &str, widths: &[usize], range: std::ops::RangeInclusive<u32>| {
        let is_one = widths.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        is_one && text.parse().is_ok_and(|number| range.contains(&number))
    };
    let clock = |text: &str, widths: &[usize]| {
        text.split_once(':').is_some_and(|(h, m)| number(h, widths, 0..=23) && number(m, &[2], 0..=59))
    };
    let Some((date, rest)) = text.split_once('T') else { return false };
    let date: Vec<_> = date.split('-').collect();
    // Hours and minutes, and what is behind them.
    let Some((at, _)) = rest.match_indices(':').nth(1) else { return false };
    let (hours, rest) = (&rest[..at], &rest[at + 1..]);
    let end = rest.find(['Z', '+', '-']).unwrap_or(rest.len());
    let (seconds, zone) = rest.split_at(end);
    let (whole, fraction) = seconds.split_once(['.', ',']).map_or((seconds, None), |(a, b)| (a, Some(b)));
    let is_fraction = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    matches!(date[..], [y, m, d] if number(y, &[4], 0..=9999) && number(m, &[2], 1..=12) && number(d, &[2], 1..=31))
        && clock(hours, &[1, 2])
        && number(whole, &[2], 0..=59)
        && fraction.is_none_or(is_fraction)
        && (zone == "Z" || zone.strip_prefix(['+', '-']).is_some_and(|zone| clock(zone, &[2])))
}

/// Base64 as Go has it: line ends mean nothing, the padding must be there.
fn base64(text: &str) -> bool {
    let bytes = || text.bytes().filter(|b| !matches!(b, b'\r' | b'\n'));
    let count = bytes().count();
    let padding = bytes().rev().take_while(|b| *b == b'=').take(3).count();
    count % 4 == 0
        && padding < 3
        && bytes().take(count - padding).all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

/// A quantity (`ParseQuantity` of k8s.io/apimachinery): a sign, digits, and a unit or an exponent.
fn quantity(text: &str) -> bool {
    let text = text.trim();
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let whole = digits(text);
    let rest = &text[whole..];
    let unit = match rest.strip_prefix('.') {
        Some(rest) => &rest[digits(rest)..],
        None => rest,
    };
    if text.is_empty() {
        return false;
    }
    const UNITS: [&str; 16] = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    UNITS.contains(&unit) || unit.strip_prefix(['e', 'E']).is_some_and(|exponent| exponent.parse::<i64>().is_ok())
}

/// A duration as Go's `time.ParseDuration` takes it.
fn duration(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    if text == "0" {
        return true;
    }
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (digits, unit) = rest.split_at(number);
        if digits.matches('.').count() > 1 || !digits.bytes().any(|b| b.is_ascii_digit()) {
            return false;
        }
        let Some(after) = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"].iter().find_map(|name| unit.strip_prefix(name))
        else {
            return false;
        };
        rest = after;
    }
    !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_as_kubernetes_reads_them() {
        for text in ["1", "+1.5", "-3", ".5", "5.", "100m", "64Mi", "1e3", "1E-3", "1E", " 2Gi ", "0.1k", "5n", "7u"] {
            assert!(quantity(text), "{text}");
        }
        for text in ["", "512MB", "1 GB", "a", "1KB", "64mi", "1.2.3", "true", "1e", "--1", "1K"] {
            assert!(!quantity(text), "{text}");
        }
    }

    #[test]
    fn durations_as_go_reads_them() {
        for text in ["0", "10s", "1h30m", "-1.5h", ".5s", "1.s", "100ms", "1us1µs1μs"] {
            assert!(duration(text), "{text}");
        }
        for text in ["", "10", "1d", "s", ".s", "1..2s", "1 s", "-", "10S"] {
            assert!(!duration(text), "{text}");
        }
    }

    #[test]
    fn times_as_go_reads_them() {
        for text in [
            "2026-07-01T12:00:00Z",
            "2026-07-01T2:00:00+02:00",
            "2026-12-31T23:59:59.123456789Z",
            "0001-01-01T00:00:00,5-11:30",
        ] {
            assert!(time(text), "{text}");
        }
        for text in [
            "",
            "now",
            "2026-07-01",
            "2026-07-01 12:00:00Z",
            "2026-07-01T12:00:00",
            "2026-07-01T12:00Z",
            "2026-13-01T12:00:00Z",
            "2026-07-01T24:00:00Z",
            "2026-07-01T12:00:00.Z",
            "2026-07-01t12:00:00z",
            "2026-07-01T12:00:00+0200",
            "T::Z",
            ":T:",
            "2026-7-1T12:00:00Z",
        ] {
            assert!(!time(text), "{text}");
        }
    }

    #[test]
    fn base64_as_go_reads_it() {
        for text in ["", "YQ==", "YWI=", "YWJj", "YWJj\nYWJj\r\n", "+/+/"] {
            assert!(base64(text), "{text}");
        }
        for text in ["a", "YQ", "YQ===", "Y===", "====", "YW J", "YQ==YQ==", "hello world!"] {
            assert!(!base64(text), "{text}");
        }
    }
}
