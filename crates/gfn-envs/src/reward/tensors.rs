//! Numbers of safetensors files.

use safetensors::{Dtype, SafeTensors};

/// The tensors of a file.
///
/// # Errors
/// What is wrong with it, as the end of a sentence.
pub(super) fn tensors(bytes: &[u8]) -> Result<SafeTensors<'_>, String> {
    SafeTensors::deserialize(bytes).map_err(|error| format!("is not a safetensors file: {error}"))
}

/// Numbers of one tensor, which must have the given shape where there is one.
///
/// # Errors
/// What is wrong with it, as the end of a sentence.
pub(super) fn tensor<const N: usize, T>(
    file: &SafeTensors<'_>,
    (name, shape): (&str, Option<&[usize]>),
    dtype: Dtype,
    number: fn([u8; N]) -> T,
) -> Result<Vec<T>, String> {
    let view = file.tensor(name).map_err(|_| format!("has no tensor `{name}`"))?;
    if view.dtype() != dtype {
        return Err(format!("has `{name}` in {:?}, not {dtype:?}", view.dtype()));
    }
    if let Some(shape) = shape.filter(|&shape| shape != view.shape()) {
        return Err(format!("has `{name}` of shape {:?}, not {shape:?}", view.shape()));
    }
    let (numbers, _) = view.data().as_chunks::<N>();
    Ok(numbers.iter().map(|&bytes| number(bytes)).collect())
}
