//! One-dimensional arrays in NumPy's `.npy` format.

/// The numbers of a one-dimensional array of little-endian `f4`, `f8`, `i4` or `i8`.
///
/// # Errors
/// What is wrong with the file, as the end of a sentence.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<f64>, String> {
    let cut = || "is cut off".to_owned();
    if !bytes.starts_with(b"\x93NUMPY") {
        return Err("is not an .npy file".to_owned());
    }
    // Version 1 has a length of two bytes, later ones of four.
    let (start, length) = match bytes.get(6).ok_or_else(cut)? {
        1 => {
            let length = bytes.get(8..10).ok_or_else(cut)?;
            (10, u16::from_le_bytes([length[0], length[1]]) as usize)
        }
        _ => {
            let length = bytes.get(8..12).ok_or_else(cut)?;
            (12, u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize)
        }
    };
    let header = bytes.get(start..start + length).ok_or_else(cut)?;
    let header = String::from_utf8_lossy(header);
    // A Python dictionary of three keys, always written alike.
    let after =
        |key: &str| header.split_once(key).map(|(_, rest)| rest.trim_start_matches([':', ' ']));
    let kind = after("'descr'").and_then(|rest| rest.split('\'').nth(1)).unwrap_or_default();
    let shape = after("'shape'").and_then(|rest| rest.split(['(', ')']).nth(1)).unwrap_or_default();
    let sizes: Vec<&str> = shape.split(',').map(str::trim).filter(|s| !s.is_empty()).collect();
    let [size] = sizes[..] else {
        return Err(format!("holds an array of shape ({shape}); expected one dimension"));
    };
    let size: usize = size.parse().map_err(|_| format!("has the shape ({shape})"))?;
    let data = &bytes[start + length..];
    let numbers = |width: usize, number: fn(&[u8]) -> f64| {
        let expected = size.checked_mul(width);
        if expected != Some(data.len()) {
            return Err(format!("should hold {size} numbers of {width} bytes, but is cut off"));
        }
        Ok(data.chunks_exact(width).map(number).collect())
    };
    match kind {
        "<f4" => numbers(4, |b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
        "<i4" => numbers(4, |b| f64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
        "<f8" => numbers(8, |b| f64::from_le_bytes(b.try_into().expect("eight bytes"))),
        "<i8" => numbers(8, |b| i64::from_le_bytes(b.try_into().expect("eight bytes")) as f64),
        _ => Err(format!("holds numbers of the type `{kind}`; expected <f4, <f8, <i4 or <i8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn numbers_and_refusals() {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }   \n";
        let data: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let whole = file(header, &data);
        assert_eq!(read(&whole), Ok(vec![1.5, -2.0]));
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "{end}");
        }
        let square = header.replace("(2,)", "(2, 1)");
        assert!(read(&file(&square, &data)).unwrap_err().contains("one dimension"));
        let complex = header.replace("<f4", "<c8");
        assert!(read(&file(&complex, &data)).unwrap_err().contains("<c8"));
    }
}
