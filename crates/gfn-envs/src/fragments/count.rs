//! How many trees there are, without building them: Pólya's theorem for what hangs at a fragment, and Otter's
//! formula from rooted trees to those without a root.

use super::library::{Fragment, Library};

/// Coefficients by number of fragments; none where they do not fit.
type Series = Option<Vec<u128>>;

fn product(a: &[u128], b: &[u128]) -> Series {
    let mut of = vec![0u128; a.len()];
    for (i, &x) in a.iter().enumerate().filter(|(_, x)| **x > 0) {
        for (j, &y) in b[..a.len() - i].iter().enumerate() {
            of[i + j] = of[i + j].checked_add(x.checked_mul(y)?)?;
        }
    }
    Some(of)
}

fn sum(a: &[u128], b: &[u128]) -> Series {
    a.iter().zip(b).map(|(a, b)| a.checked_add(*b)).collect()
}

/// Of x to a power.
fn stretched(a: &[u128], power: usize) -> Vec<u128> {
    (0..a.len()).map(|i| if i % power == 0 { a[i / power] } else { 0 }).collect()
}

/// Up to each number of parts, multisets of them: h_0, h_0 + h_1, …, where n h_n = Σ p_i h_(n-i).
fn multisets(parts: &[u128], most: usize) -> Option<Vec<Vec<u128>>> {
    let mut one = vec![0; parts.len()];
    one[0] = 1;
    let mut of_size = vec![one];
    for n in 1..=most {
        let mut times_n = vec![0; parts.len()];
        for i in 1..=n {
            times_n = sum(&times_n, &product(&stretched(parts, i), &of_size[n - i])?)?;
        }
        of_size.push(times_n.iter().map(|x| x / n as u128).collect());
    }
    for n in 1..of_size.len() {
        of_size[n] = sum(&of_size[n], &of_size[n - 1])?;
    }
    Some(of_size)
}

/// Trees with a fragment in the middle, up to its symmetries: what each of these leaves as it is, on average;
/// with a site that the tree is looked at from, if it is a part.
fn around(fragment: &Fragment, filled: &[Vec<u128>], part: bool) -> Series {
    let n_sites = fragment.sites.len();
    let mut all = vec![0; filled[0].len()];
    for map in &fragment.symmetries {
        let entries: Vec<Option<usize>> = match part {
            true => (0..n_sites).filter(|&site| usize::from(map[site]) == site).map(Some).collect(),
            false => vec![None],
        };
        for entry in entries {
            let mut kept = filled[0].clone();
            let mut seen = vec![false; n_sites];
            for site in 0..n_sites {
                let (mut length, mut at) = (0, site);
                while !seen[at] {
                    seen[at] = true;
                    length += 1;
                    at = usize::from(map[at]);
                }
                if length > 0 {
                    let capacity = usize::from(fragment.sites[site].capacity);
                    let left = capacity - usize::from(entry == Some(site));
                    kept = product(&kept, &stretched(&filled[left], length))?;
                }
            }
            all = sum(&all, &kept)?;
        }
    }
    let n = fragment.symmetries.len() as u128;
    // The fragment itself.
    let mut shifted: Vec<u128> = all.iter().map(|x| x / n).collect();
    shifted.rotate_right(1);
    shifted[0] = 0;
    Some(shifted)
}

/// Trees of so many fragments, all attachments chosen; saturates.
pub(super) fn trees(library: &Library, min: usize, max: usize) -> u64 {
    let count = || -> Option<u64> {
        let zero = || vec![0; max + 1];
        let most = library.fragments.iter().flat_map(|fragment| &fragment.sites);
        let most = most.map(|site| usize::from(site.capacity)).max().unwrap_or(0);
        let all_around = |filled: &[Vec<u128>], part: bool| {
            library
                .fragments
                .iter()
                .try_fold(zero(), |all, fragment| sum(&all, &around(fragment, filled, part)?))
        };
        // Parts that hang at a site consist of parts with fewer fragments.
        let mut parts = zero();
        for _ in 0..max {
            parts = all_around(&multisets(&parts, most)?, true)?;
        }
        let rooted = all_around(&multisets(&parts, most)?, false)?;
        let pairs = product(&parts, &parts)?;
        let twins = stretched(&parts, 2);
        let of_size = |n: usize| rooted[n] - (pairs[n] - twins[n]) / 2;
        (min..=max).try_fold(0u64, |sum, n| sum.checked_add(u64::try_from(of_size(n)).ok()?))
    };
    count().unwrap_or(u64::MAX)
}
