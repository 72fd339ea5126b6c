//! The picture of a [`Timeline`], for light and dark pages.

use std::fmt::Write;

use crate::timeline::{Request, Span, Timeline};
use crate::who::Who;

const WIDTH: f64 = 960.0;
/// Where the time begins and ends.
const LEFT: f64 = 290.0;
const RIGHT: f64 = 936.0;
const ROW: f64 = 24.0;
const BAR: f64 = 14.0;
const LATENCY: f64 = 96.0;
/// The least and the most of the latency's scale, in decades of milliseconds.
const DECADES: (f64, f64) = (0.0, 3.0);

const STYLE: &str = "
text { font: 12px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #24292f }
.title { font-size: 15px; font-weight: 600 }
.head { font-weight: 600 }
.quiet { fill: #57606a }
.end { text-anchor: end }
.middle { text-anchor: middle }
.page { fill: #ffffff; stroke: #d0d7de }
.grid { stroke: #d0d7de; stroke-width: 1 }
.done { stroke: #57606a; stroke-width: 1; stroke-dasharray: 4 3 }
.step { fill: #768390 }
.bridge { fill: #d9822b }
.self { fill: #3b82c4 }
.starting { fill-opacity: .35 }
.latency { fill: none; stroke: #2f9e6e; stroke-width: 1.2; stroke-linejoin: round }
.failed { stroke: #d1242f; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .quiet { fill: #9198a1 }
  .page { fill: #0d1117; stroke: #3d444d }
  .grid { stroke: #2a313a }
  .done { stroke: #9198a1 }
  .failed { stroke: #ff7b72 }
}
";

struct Drawing<'a> {
    timeline: &'a Timeline,
    text: String,
    y: f64,
}

/// The picture as SVG.
pub fn draw(timeline: &Timeline) -> String {
    let mut drawing = Drawing { timeline, text: String::new(), y: 0.0 };
    drawing.title();
    let top = drawing.y;
    drawing.steps();
    drawing.servers();
    drawing.latency();
    drawing.axis(top)
}

impl Drawing<'_> {
    fn x(&self, seconds: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * (seconds / self.timeline.end).clamp(0.0, 1.0)
    }

    fn words(&mut self, class: &str, x: f64, y: f64, words: &str) {
        let words = words.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(self.text, r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{words}</text>"#);
    }

    /// A bar in the current row, at least so wide that it can be seen; what it stands for is shown under the pointer.
    fn bar(&mut self, class: &str, (from, to): (f64, f64), what: &str) {
        let (left, right) = (self.x(from), self.x(to));
        let (width, y) = ((right - left).max(2.0), self.y - BAR + 3.0);
        let _ = writeln!(
            self.text,
            r#"<rect class="{class}" x="{left:.1}" y="{y:.1}" width="{width:.1}" height="{BAR}" rx="2"><title>{what}: {from:.2} s to {to:.2} s</title></rect>"#
        );
    }

    fn head(&mut self, words: &str) {
        self.y += ROW + 6.0;
        self.words("head", 24.0, self.y, words);
    }

    fn title(&mut self) {
        let Timeline { kubernetes, processors, done, requests, longest_gap, .. } = self.timeline;
        let failed = requests.iter().filter(|request| request.failed).count();
        let title = format!("hoist start: from a kubelet to a cluster that serves itself in {done:.1} s");
        let said = format!(
            "Kubernetes {kubernetes}, {processors} processors. {} requests, each on a new connection, without a retry: {failed} failed; longest time between two answers {:.0} ms",
            requests.len(),
            longest_gap * 1000.0
        );
        self.words("title", 24.0, 34.0, &title);
        self.words("quiet", 24.0, 54.0, &said);
        self.y = 64.0;
    }

    fn steps(&mut self) {
        self.head("steps");
        for step in &self.timeline.steps {
            self.y += ROW;
            self.words("", 36.0, self.y, &step.title);
            for span in &step.spans {
                self.bar("step", *span, &step.title);
            }
            let took: f64 = step.spans.iter().map(|(from, to)| to - from).sum();
            let (Some((begin, _)), Some((_, end))) = (step.spans.first(), step.spans.last()) else { continue };
            // Beside the bar, on the side where there is room.
            let (class, x) = if self.x(*end) < RIGHT - 50.0 {
                ("quiet", self.x(*end).max(self.x(*begin) + 2.0) + 5.0)
            } else {
                ("quiet end", self.x(*begin) - 5.0)
            };
            self.words(class, x, self.y, &format!("{took:.1} s"));
        }
    }

    fn servers(&mut self) {
        self.head("who answers");
        let Timeline { bridge, clients, self_hosted, .. } = self.timeline;
        self.server("127.0.0.1:6444, the bridge", "bridge", bridge);
        self.y += ROW;
        self.words("", 36.0, self.y, "NODE_IP:6443, where clients connect");
        for Span { from, to, what } in clients {
            let (class, who) = match what {
                Who::Bridge => ("bridge", "the bridge, through the forwarder"),
                Who::SelfHosted => ("self", "the self-hosted API server"),
            };
            self.bar(class, (*from, *to), who);
        }
        self.server("127.0.0.1:6443, self-hosted", "self", self_hosted);
        self.y += 18.0;
        let mut x = LEFT;
        for (class, words) in
            [("bridge", "the bridge"), ("self", "self-hosted"), ("self starting", "answers, and is not ready")]
        {
            let _ = writeln!(
                self.text,
                r#"<rect class="{class}" x="{x:.1}" y="{:.1}" width="10" height="10" rx="2"/>"#,
                self.y - 9.0
            );
            self.words("quiet", x + 15.0, self.y, words);
            x += 30.0 + 7.0 * words.len() as f64;
        }
    }

    fn server(&mut self, name: &str, class: &str, spans: &[Span<bool>]) {
        self.y += ROW;
        self.words("", 36.0, self.y, name);
        for Span { from, to, what: ready } in spans {
            let class = if *ready { class.to_owned() } else { format!("{class} starting") };
            self.bar(&class, (*from, *to), if *ready { "ready" } else { "answers, and is not ready" });
        }
    }

    fn latency(&mut self) {
        self.head("a request's latency, ms");
        self.y += 10.0;
        let top = self.y;
        self.y += LATENCY;
        let y = |seconds: f64| {
            let decades = (seconds * 1000.0).max(0.001).log10().clamp(DECADES.0, DECADES.1);
            top + LATENCY * (1.0 - (decades - DECADES.0) / (DECADES.1 - DECADES.0))
        };
        for milliseconds in [1, 10, 100, 1000] {
            let at = y(f64::from(milliseconds) / 1000.0);
            let _ = writeln!(self.text, r#"<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{at:.1}" y2="{at:.1}"/>"#);
            self.words("quiet end", LEFT - 6.0, at + 4.0, &milliseconds.to_string());
        }
        let mut requests: Vec<&Request> = self.timeline.requests.iter().collect();
        requests.sort_by(|a, b| a.at.total_cmp(&b.at));
        let answered = requests.iter().filter(|request| !request.failed);
        let points: Vec<_> =
            answered.map(|request| format!("{:.1},{:.1}", self.x(request.at), y(request.took))).collect();
        let _ = writeln!(self.text, r#"<polyline class="latency" points="{}"/>"#, points.join(" "));
        for request in requests.iter().filter(|request| request.failed) {
            let x = self.x(request.at);
            let _ = writeln!(
                self.text,
                r#"<line class="failed" x1="{x:.1}" x2="{x:.1}" y1="{top:.1}" y2="{:.1}"><title>failed</title></line>"#,
                top + LATENCY
            );
        }
    }

    /// The seconds, behind all that was drawn below `top`; and with them the picture is whole.
    fn axis(mut self, top: f64) -> String {
        let bottom = self.y + 6.0;
        let every = [1.0, 2.0, 5.0, 10.0].into_iter().find(|every| self.timeline.end / every <= 16.0).unwrap_or(20.0);
        let drawn = std::mem::take(&mut self.text);
        let mut second = 0.0;
        while second <= self.timeline.end {
            let x = self.x(second);
            let _ = writeln!(
                self.text,
                r#"<line class="grid" x1="{x:.1}" x2="{x:.1}" y1="{:.1}" y2="{bottom:.1}"/>"#,
                top + 12.0
            );
            self.words("quiet middle", x, bottom + 16.0, &format!("{second} s"));
            second += every;
        }
        let x = self.x(self.timeline.done);
        let _ = writeln!(
            self.text,
            r#"<line class="done" x1="{x:.1}" x2="{x:.1}" y1="{:.1}" y2="{bottom:.1}"/>"#,
            top + 12.0
        );
        self.words("quiet end", x - 4.0, top + 22.0, "done");
        let height = bottom + 34.0;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\">\n<title>A measured pivot</title>\n<style>{STYLE}</style>\n<rect class=\"page\" x=\".5\" y=\".5\" width=\"{:.0}\" height=\"{:.0}\" rx=\"6\"/>\n{}{drawn}</svg>\n",
            WIDTH - 1.0,
            height - 1.0,
            self.text
        )
    }
}
