//! How well scores tell true from false: areas under curves.

/// The probability that a true entry has a larger score than a false one, where equal scores count
/// half: the area under the ROC curve. None without entries of both kinds.
pub(super) fn auroc(scored: &[(f64, bool)]) -> Option<f64> {
    let of = |wanted: bool| scored.iter().filter(move |(_, label)| *label == wanted);
    let (n_true, n_false) = (of(true).count(), of(false).count());
    if n_true == 0 || n_false == 0 {
        return None;
    }
    let won = |score: f64| {
        let halves = of(false).map(|(other, _)| match score.partial_cmp(other) {
            Some(std::cmp::Ordering::Greater) => 2,
            Some(std::cmp::Ordering::Equal) => 1,
            _ => 0,
        });
        halves.sum::<usize>()
    };
    let halves: usize = of(true).map(|(score, _)| won(*score)).sum();
    Some(halves as f64 / (2 * n_true * n_false) as f64)
}

/// The average precision, sum over thresholds of (recall gained) x precision: the area under the
/// precision-recall curve as steps. None without true entries.
pub(super) fn average_precision(scored: &[(f64, bool)]) -> Option<f64> {
    let n_true = scored.iter().filter(|(_, label)| *label).count();
    if n_true == 0 {
        return None;
    }
    let mut sorted = scored.to_vec();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut found, mut seen, mut area) = (0, 0, 0.0);
    // Entries of one score are found together.
    for group in sorted.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        let gained = group.iter().filter(|(_, label)| *label).count();
        (found, seen) = (found + gained, seen + group.len());
        area += gained as f64 / n_true as f64 * found as f64 / seen as f64;
    }
    Some(area)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_by_hand() {
        let scored = [(0.9, true), (0.8, false), (0.7, true), (0.1, false)];
        // Of the pairs (true, false) three of four are in order.
        assert_eq!(auroc(&scored), Some(0.75));
        // Half the recall at precision 1, the other half at 2/3.
        assert!((average_precision(&scored).unwrap() - 5.0 / 6.0).abs() < 1e-15);
        // Ties are found together: 2 of 4, then nothing new.
        let tied = [(0.5, true), (0.5, false), (0.5, true), (0.5, false), (0.0, false)];
        assert!((auroc(&tied).unwrap() - 2.0 / 3.0).abs() < 1e-15);
        assert_eq!(average_precision(&tied), Some(0.5));
        assert_eq!(auroc(&[(0.5, true)]), None);
        assert_eq!(average_precision(&[(0.5, false)]), None);
        assert_eq!(average_precision(&[(0.5, true)]), Some(1.0));
    }
}
