//! Zipf's law over a few thousand ranks, by a table.

use rand::Rng;

/// Draws a rank `0..n` with probability proportional to `1 / (rank + 1)^exponent`.
pub struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    pub fn new(n: usize, exponent: f64) -> Self {
        assert!(n > 0, "nothing to draw from");
        let mut sum = 0.0;
        let cumulative = (1..=n)
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        Self { cumulative }
    }

    pub fn draw(&self, rng: &mut impl Rng) -> usize {
        let total = self.cumulative[self.cumulative.len() - 1];
        let point = rng.random_range(0.0..total);
        self.cumulative.partition_point(|upto| *upto <= point)
    }
}
