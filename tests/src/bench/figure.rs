//! One measured value: its labels, its interval, and what it should be.
#![expect(clippy::cast_precision_loss, reason = "nobody counts that many samples")]

use std::fmt;

use serde_json::{Map, Value, json};

/// What a value is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    pub const fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    const fn parts(self) -> (&'static str, f64) {
        match self {
            Self::AtMost(most) => ("<=", most),
            Self::AtLeast(least) => (">=", least),
        }
    }
}

/// One line of the bench.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    pub metric: &'static str,
    pub labels: Vec<(&'static str, String)>,
    pub value: f64,
    /// Where the value lies: of a median the interval that holds the true one with 95 % (by rank), of a quantile and
    /// of a single value smallest and largest.
    pub low: f64,
    pub high: f64,
    pub samples: usize,
    pub unit: &'static str,
    pub reference: Option<Bound>,
}

impl Figure {
    /// The median of samples.
    pub fn median(metric: &'static str, samples: Vec<f64>, unit: &'static str) -> Self {
        let samples = sorted(samples);
        let (low, high) = median_interval(samples.len());
        Self { low: samples[low], high: samples[high], ..Self::quantile_of(metric, &samples, 0.5, unit) }
    }

    /// A quantile of samples, from 0 to 1, with the label `p`.
    pub fn quantile(metric: &'static str, samples: Vec<f64>, quantile: f64, unit: &'static str) -> Self {
        let figure = Self::quantile_of(metric, &sorted(samples), quantile, unit);
        figure.label("p", format!("{:.0}", quantile * 100.0))
    }

    /// Something that is counted, not sampled.
    pub fn single(metric: &'static str, value: f64, unit: &'static str) -> Self {
        Self::quantile_of(metric, &[value], 0.5, unit)
    }

    fn quantile_of(metric: &'static str, sorted: &[f64], quantile: f64, unit: &'static str) -> Self {
        let last = sorted.len() - 1;
        let rank = (quantile * last as f64).ceil() as usize;
        Self {
            metric,
            labels: Vec::new(),
            value: sorted[rank],
            low: sorted[0],
            high: sorted[last],
            samples: sorted.len(),
            unit,
            reference: None,
        }
    }

    #[must_use]
    pub fn label(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.labels.push((name, value.to_string()));
        self
    }

    #[must_use]
    pub fn reference(mut self, bound: Bound) -> Self {
        self.reference = Some(bound);
        self
    }

    /// The value of a label, empty where it has none.
    pub fn label_value(&self, name: &str) -> &str {
        self.labels.iter().find(|label| label.0 == name).map_or("", |label| &label.1)
    }

    pub fn json(&self) -> Value {
        let labels: Map<String, Value> =
            self.labels.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let bound = self.reference.map(Bound::parts);
        json!({
            "metric": self.metric,
            "labels": labels,
            "value": rounded(self.value),
            "low": rounded(self.low),
            "high": rounded(self.high),
            "samples": self.samples,
            "unit": self.unit,
            "reference": bound.map(|bound| bound.1),
            "bound": bound.map(|bound| bound.0),
        })
    }
}

/// One line for a person.
impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<String> = self.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let [value, low, high] = [self.value, self.low, self.high].map(rounded);
        write!(f, "{:<22} {:<44} {value:>10} {:<6}", self.metric, labels.join(" "), self.unit)?;
        write!(f, " [{low}, {high}]")?;
        let Some(bound) = self.reference else { return Ok(()) };
        let (sign, reference) = bound.parts();
        write!(f, "  {sign} {reference}{}", if bound.holds(self.value) { "" } else { "  MISSED" })
    }
}

fn sorted(mut samples: Vec<f64>) -> Vec<f64> {
    assert!(!samples.is_empty(), "a figure is of something");
    samples.sort_by(f64::total_cmp);
    samples
}

/// Ranks between which the true median lies with 95 %, whatever the distribution: a binomial's, as a normal one.
fn median_interval(count: usize) -> (usize, usize) {
    let half = 0.98 * (count as f64).sqrt();
    let middle = (count as f64 - 1.0) / 2.0;
    let low = (middle - half).floor().max(0.0) as usize;
    (low, ((middle + half).ceil() as usize).min(count - 1))
}

/// Four digits say all that a measurement knows.
fn rounded(value: f64) -> f64 {
    if value == 0.0 {
        return 0.0;
    }
    let digits = 3 - value.abs().log10().floor() as i32;
    if digits <= 0 { value.round() } else { (value * 10_f64.powi(digits)).round() / 10_f64.powi(digits) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_has_the_interval_of_its_ranks() {
        let figure = Figure::median("m", (0..100).rev().map(f64::from).collect(), "ns");
        assert_eq!((figure.low, figure.value, figure.high, figure.samples), (39.0, 50.0, 60.0, 100));
        let few = Figure::median("m", vec![3.0, 1.0], "ns");
        assert_eq!((few.low, few.high), (1.0, 3.0));
    }

    #[test]
    fn a_figure_reads_as_one_object() {
        let figure = Figure::quantile("m_ms", vec![1.0, 2.0, 123.456], 0.99, "ms").label("grants", 1);
        assert_eq!(
            figure.reference(Bound::AtMost(50.0)).json(),
            json!({
                "metric": "m_ms", "labels": {"p": "99", "grants": "1"}, "value": 123.5, "low": 1.0, "high": 123.5,
                "samples": 3, "unit": "ms", "reference": 50.0, "bound": "<=",
            })
        );
    }
}
