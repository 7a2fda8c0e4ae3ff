//! The figures that grow with the number of rules, as an SVG: one panel for packets, one for new connections.
//!
//! Written by hand: two axes with logarithmic scales and a few lines need no library.

use std::fmt::Write as _;

use super::figure::Figure;

/// Name in the figures, title, left edge of the plot.
const PANELS: [(&str, &str, f64); 2] =
    [("packet", "each packet", 80.0), ("connection", "each new connection", 500.0)];
/// Name in the figures, colour: apart also for those who do not see red and green apart.
const LINES: [(&str, &str); 4] = [
    ("iptables-legacy", "#d55e00"),
    ("nftables rules", "#cc79a7"),
    ("nftables set", "#56b4e9"),
    ("enforcer", "#009e73"),
];
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 430.0;
/// Of a panel's plot.
const PLOT: [f64; 2] = [300.0, 270.0];
const TOP: f64 = 92.0;

/// The drawing; `None`: there is nothing to draw.
pub fn svg(figures: &[Figure]) -> Option<String> {
    let figures: Vec<&Figure> =
        figures.iter().filter(|figure| figure.metric.starts_with("policy_vs")).collect();
    let rules: Vec<f64> =
        figures.iter().filter_map(|figure| figure.label_value("rules").parse().ok()).collect();
    let values = figures.iter().map(|figure| figure.value.max(1.0));
    let across = Scale::around(rules.iter().copied())?;
    let up = Scale::around(values)?;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"system-ui, \
         sans-serif\" font-size=\"13\" fill=\"#24292f\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         fill=\"#ffffff\"/>\n<text x=\"24\" y=\"34\" font-size=\"19\" font-weight=\"600\">What a decision costs, by \
         the number of allow rules</text>\n<text x=\"24\" y=\"56\" fill=\"#57606a\">time on top of a path \
         without any rule; both scales are logarithmic, lower is better</text>\n"
    );
    for (of, title, left) in PANELS {
        panel(&mut text, left, title, across, up);
        let mut ends = Vec::new();
        for (by, colour) in LINES {
            let mut points: Vec<(f64, f64)> = figures
                .iter()
                .filter(|figure| figure.label_value("by") == by && figure.label_value("of") == of)
                .filter_map(|figure| Some((figure.label_value("rules").parse().ok()?, figure.value.max(1.0))))
                .collect();
            points.sort_by(|one, other| one.0.total_cmp(&other.0));
            // enforcer stands beside both filters, with the same values.
            points.dedup();
            line(&mut text, left, &points, colour, across, up);
            ends.extend(points.last().map(|last| (up.place(last.1), by, colour, last.1)));
        }
        names(&mut text, left, ends);
    }
    text += "</svg>\n";
    Some(text)
}

/// A logarithmic scale over whole decades.
#[derive(Clone, Copy)]
struct Scale {
    low: i32,
    high: i32,
}

impl Scale {
    fn around(values: impl Iterator<Item = f64> + Clone) -> Option<Self> {
        let low = values.clone().min_by(f64::total_cmp)?.log10().floor() as i32;
        let high = values.max_by(f64::total_cmp)?.log10().ceil() as i32;
        Some(Self { low, high: high.max(low + 1) })
    }

    /// From 0 to 1.
    fn place(self, value: f64) -> f64 {
        (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low)
    }

    fn decades(self) -> impl Iterator<Item = f64> {
        (self.low..=self.high).map(|power| 10_f64.powi(power))
    }
}

fn at(left: f64, across: f64, up: f64) -> (f64, f64) {
    (left + across * PLOT[0], TOP + (1.0 - up) * PLOT[1])
}

fn panel(text: &mut String, left: f64, title: &str, across: Scale, up: Scale) {
    let _ = writeln!(text, "<text x=\"{left}\" y=\"{}\" font-weight=\"600\">{title}</text>", TOP - 12.0);
    for decade in up.decades() {
        let (x, y) = at(left, 0.0, up.place(decade));
        let _ = writeln!(
            text,
            "<path d=\"M{x:.1} {y:.1}h{}\" stroke=\"#d8dee4\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" \
             fill=\"#57606a\">{}</text>",
            PLOT[0],
            x - 8.0,
            y + 4.5,
            time(decade)
        );
    }
    for decade in across.decades() {
        let (x, y) = at(left, across.place(decade), 0.0);
        let _ = writeln!(
            text,
            "<path d=\"M{x:.1} {y:.1}v5\" stroke=\"#57606a\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" \
             fill=\"#57606a\">{}</text>",
            y + 20.0,
            thousands(decade)
        );
    }
    let (x, y) = at(left, 0.5, 0.0);
    let _ = writeln!(
        text,
        "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#57606a\">allow rules</text>",
        y + 42.0
    );
}

fn line(text: &mut String, left: f64, points: &[(f64, f64)], colour: &str, across: Scale, up: Scale) {
    let places: Vec<(f64, f64)> =
        points.iter().map(|(x, y)| at(left, across.place(*x), up.place(*y))).collect();
    let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        text,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.5\" stroke-linejoin=\"round\"/>",
        path.join(" ")
    );
    for (x, y) in places {
        let _ = writeln!(text, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
    }
}

/// Names at the ends of their lines, moved apart where they would stand on each other. Only the second panel has
/// room beside it, and only there they are needed; the first has the values.
fn names(text: &mut String, left: f64, mut ends: Vec<(f64, &str, &str, f64)>) {
    const APART: f64 = 17.0;
    ends.sort_by(|one, other| other.0.total_cmp(&one.0));
    let mut last = f64::MIN;
    let last_panel = left >= WIDTH / 2.0;
    for (up, name, colour, value) in ends {
        let (x, y) = at(left, 1.0, up);
        let y = (y + 4.5).max(last + APART);
        last = y;
        let label = if last_panel { format!("{name}, {}", time(value)) } else { time(value) };
        let _ = writeln!(text, "<text x=\"{:.1}\" y=\"{y:.1}\" fill=\"{colour}\">{label}</text>", x + 9.0);
    }
}

fn time(ns: f64) -> String {
    match ns {
        ns if ns >= 1e6 => format!("{} ms", short(ns / 1e6)),
        ns if ns >= 1e3 => format!("{} µs", short(ns / 1e3)),
        ns => format!("{} ns", short(ns)),
    }
}

fn short(value: f64) -> String {
    if value >= 10.0 || value.fract() < 0.05 { format!("{value:.0}") } else { format!("{value:.1}") }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    if digits.len() > 3 {
        format!("{} {}", &digits[..digits.len() - 3], &digits[digits.len() - 3..])
    } else {
        digits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(by: &str, of: &str, rules: u32, value: f64) -> Figure {
        let figure = Figure::single("policy_vs_nftables", value, "ns");
        figure.label("by", by).label("of", of).label("rules", rules)
    }

    #[test]
    fn a_chart_has_a_line_for_everyone_and_a_point_for_every_figure() {
        let of = ["packet", "connection"];
        let figures: Vec<Figure> = of
            .into_iter()
            .flat_map(|of| {
                LINES.map(|(by, _)| [(10, 300.0), (10_000, 2e6)].map(|(n, ns)| figure(by, of, n, ns)))
            })
            .flatten()
            .collect();
        let drawn = svg(&figures).expect("there is something to draw");
        assert_eq!(drawn.matches("<polyline").count(), 8);
        assert_eq!(drawn.matches("<circle").count(), 16);
        assert!(drawn.contains("enforcer, 2 ms"), "{drawn}");
        assert_eq!(svg(&[]), None);
    }
}
