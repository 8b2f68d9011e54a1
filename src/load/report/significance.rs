//! Pure. Whether two runs differ by more than their seconds differ among themselves.
//!
//! The test of Mann and Whitney asks how often a second of one run beats a second of the other. It supposes nothing
//! about how the figures are distributed, which a p99 needs, and one second of a hiccup does not sway it. What it
//! cannot see: two runs on a machine that was busy during one of them do differ. Only more runs tell.

/// Seconds of each run below which nothing is said: the normal approximation is rough for fewer than 8.
pub(super) const SECONDS_MIN: usize = 8;

/// Differences that chance makes as large in fewer than this share of cases are called real.
pub(super) const LEVEL: f64 = 0.01;

/// Two-sided probability that chance alone makes such a difference. `None`: too few seconds to say.
#[must_use]
pub(super) fn mann_whitney(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() < SECONDS_MIN || b.len() < SECONDS_MIN {
        return None;
    }
    Some(normal_approximation(a, b))
}

fn normal_approximation(a: &[f64], b: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> = a.iter().map(|x| (*x, true)).collect();
    all.extend(b.iter().map(|x| (*x, false)));
    all.sort_unstable_by(|x, y| x.0.total_cmp(&y.0));
    let mut rank_sum = 0.0;
    let mut ties = 0.0;
    let mut before = 0;
    for equal in all.chunk_by(|x, y| x.0 == y.0) {
        let count = equal.len() as f64;
        // Equal figures share the mean of their ranks.
        let rank = before as f64 + f64::midpoint(count, 1.0);
        rank_sum += rank * equal.iter().filter(|(_, of_a)| *of_a).count() as f64;
        ties += count.powi(3) - count;
        before += equal.len();
    }
    let (n, m) = (a.len() as f64, b.len() as f64);
    let both = n + m;
    let u = rank_sum - n * (n + 1.0) / 2.0;
    let variance = n * m / 12.0 * (both + 1.0 - ties / (both * (both - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    let distance = ((u - n * m / 2.0).abs() - 0.5).max(0.0);
    erfc(distance / (2.0 * variance).sqrt()).min(1.0)
}

/// 2/√π ∫ exp(-t²) dt from `x` to infinity, for `x` of at least 0; W. J. Cody's bound on the error of this Chebyshev
/// fit (Numerical Recipes, `erfcc`) is 1.2e-7 of the result.
fn erfc(x: f64) -> f64 {
    const FIT: [f64; 10] = [
        0.170_872_77,
        -0.822_152_23,
        1.488_515_87,
        -1.135_203_98,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_68,
        -1.265_512_23,
    ];
    let t = 1.0 / (1.0 + x / 2.0);
    let sum = FIT.iter().fold(0.0, |sum, of| sum * t + of);
    t * (sum - x * x).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-6, "{found} is not {wanted}");
    }

    /// The example in the documentation of SciPy's `mannwhitneyu`, and one with ties.
    #[test]
    fn known_results() {
        let males = [19.0, 22.0, 16.0, 29.0, 24.0];
        let females = [20.0, 11.0, 17.0, 12.0];
        close(normal_approximation(&males, &females), 0.111_346_886_5);
        close(normal_approximation(&females, &males), 0.111_346_886_5);
        let tied = [1.0, 2.0, 2.0, 3.0, 3.0, 3.0, 4.0, 5.0];
        let others = [2.0, 3.0, 4.0, 4.0, 5.0, 6.0, 6.0, 7.0, 7.0];
        close(normal_approximation(&tied, &others), 0.028_273_367_8);
        close(erfc(0.0), 1.0);
        close(erfc(1.0), 0.157_299_207_1);
    }

    #[test]
    fn equal_runs_do_not_differ_and_shifted_ones_do() {
        let a: Vec<f64> = (0..20).map(|n| f64::from(n % 7)).collect();
        let shifted: Vec<f64> = a.iter().map(|x| x + 10.0).collect();
        assert!(mann_whitney(&a, &a).expect("enough") > 0.9);
        assert!(mann_whitney(&a, &shifted).expect("enough") < 1e-6);
        assert_eq!(mann_whitney(&[5.0; 9], &[5.0; 9]), Some(1.0));
        assert_eq!(mann_whitney(&a[..7], &a), None);
    }
}
