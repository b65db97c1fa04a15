//! How seats are divided between levels that lend and borrow (KEP-1040, "Dispatching"): everybody
//! gets the same fraction of what it aims at, within its bounds, and the sum is given.

/// One level's part in the problem.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    /// No less.
    pub(crate) low: f64,
    /// No more.
    pub(crate) high: f64,
    /// What it could use; at least `low`.
    pub(crate) target: f64,
}

/// Targets below this count as this.
const MIN_TARGET: f64 = 0.001;
/// How near the sum must come.
const EPSILON: f64 = 1e-7;
/// Halvings of the interval of fractions; 2^-100 of any range is below a float's precision.
const HALVINGS: usize = 100;

/// The allocations, and the fraction; `None` where the bounds do not allow the sum.
pub(crate) fn allocate(sum: f64, claims: &[Claim]) -> Option<(Vec<f64>, f64)> {
    let low: f64 = claims.iter().map(|c| c.low).sum();
    let high: f64 = claims.iter().map(|c| c.high).sum();
    if claims.iter().any(|c| c.low < 0.0 || c.high < c.low) || low - sum > EPSILON || sum - high > EPSILON {
        return None;
    }
    let at = |fraction: f64| -> Vec<f64> {
        claims.iter().map(|c| (fraction * c.target.max(MIN_TARGET)).clamp(c.low, c.high)).collect()
    };
    // The sum rises with the fraction; beyond this fraction every claim is at its upper bound.
    let most = claims.iter().map(|c| c.high / c.target.max(MIN_TARGET)).fold(0.0, f64::max);
    let (mut below, mut above) = (0.0, most);
    for _ in 0..HALVINGS {
        let middle = (below + above) / 2.0;
        if at(middle).iter().sum::<f64>() < sum { below = middle } else { above = middle }
    }
    Some((at(above), above))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sum: f64, claims: &[(f64, f64, f64)], wanted: Option<&[f64]>) {
        let claims: Vec<Claim> =
            claims.iter().map(|(low, high, target)| Claim { low: *low, high: *high, target: *target }).collect();
        let found = allocate(sum, &claims);
        match (found, wanted) {
            (None, None) => {}
            (Some((found, _)), Some(wanted)) => {
                assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-3), "{found:?} is not {wanted:?}");
            }
            (found, wanted) => panic!("{found:?} is not {wanted:?}"),
        }
    }

    #[test]
    fn seats_are_shared_in_proportion_within_bounds() {
        check(30.0, &[(0.0, 100.0, 10.0), (0.0, 100.0, 20.0)], Some(&[10.0, 20.0]));
        check(60.0, &[(0.0, 100.0, 10.0), (0.0, 100.0, 20.0)], Some(&[20.0, 40.0]));
        check(60.0, &[(0.0, 15.0, 10.0), (0.0, 100.0, 20.0)], Some(&[15.0, 45.0]));
        check(10.0, &[(8.0, 15.0, 8.0), (0.0, 100.0, 20.0)], Some(&[8.0, 2.0]));
        check(10.0, &[(5.0, 5.0, 5.0), (5.0, 5.0, 5.0)], Some(&[5.0, 5.0]));
        check(10.0, &[(6.0, 9.0, 6.0), (5.0, 9.0, 5.0)], None);
        check(30.0, &[(6.0, 9.0, 6.0), (5.0, 9.0, 5.0)], None);
        check(8.0, &[(0.0, 100.0, 0.0), (0.0, 100.0, 0.0)], Some(&[4.0, 4.0]));
    }
}
