//! The endpoint's metrics, in Prometheus' text format.

use std::fmt::Write;

use super::board::Seat;
use super::health::State;

/// The text; `unserved` clients found no target, `moved` ones were tried at another.
pub fn text(seats: &[Seat], unserved: u64, moved: u64) -> String {
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
        let _ = writeln!(text, "# HELP hoist_endpoint_{name} {help}\n# TYPE hoist_endpoint_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "hoist_endpoint_{name}{labels} {value}");
        }
    };
    let of_each = |value: &dyn Fn(&Seat) -> u64| -> Vec<_> {
        seats.iter().map(|seat| (format!("{{target=\"{}\"}}", seat.address), value(seat))).collect()
    };
    let states = seats.iter().flat_map(|seat| {
        State::ALL
            .map(|state| (format!("{{target=\"{}\",state=\"{state}\"}}", seat.address), u64::from(seat.state == state)))
    });
    metric("target_state", "gauge", "1 for the state that a target is in.", &states.collect::<Vec<_>>());
    let open = of_each(&|seat| seat.connections as u64);
    metric("open_connections", "gauge", "Connections that lead to a target now.", &open);
    let total = of_each(&|seat| seat.total);
    metric("connections_total", "counter", "Connections that a target has answered.", &total);
    let bytes = of_each(&|seat| seat.bytes);
    metric("received_bytes_total", "counter", "Bytes that came from a target.", &bytes);
    let one = |value| [(String::new(), value)];
    metric("moved_total", "counter", "Connections that were tried at another target.", &one(moved));
    metric("unserved_total", "counter", "Clients that were closed because no target was to be had.", &one(unserved));
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_text_is_prometheus() {
        let address = "10.0.0.1:6443".parse().unwrap();
        let since = Duration::ZERO;
        let seat = Seat { address, state: State::Good, since, connections: 2, total: 9, bytes: 77 };
        let text = text(&[seat], 1, 4);
        for line in [
            "# TYPE hoist_endpoint_connections_total counter",
            "hoist_endpoint_connections_total{target=\"10.0.0.1:6443\"} 9",
            "hoist_endpoint_open_connections{target=\"10.0.0.1:6443\"} 2",
            "hoist_endpoint_target_state{target=\"10.0.0.1:6443\",state=\"good\"} 1",
            "hoist_endpoint_target_state{target=\"10.0.0.1:6443\",state=\"silent\"} 0",
            "hoist_endpoint_received_bytes_total{target=\"10.0.0.1:6443\"} 77",
            "hoist_endpoint_moved_total 4",
            "hoist_endpoint_unserved_total 1",
        ] {
            assert!(text.lines().any(|there| there == line), "{line}: {text}");
        }
    }
}
