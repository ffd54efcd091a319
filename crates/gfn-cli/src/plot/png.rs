//! Figures as PNG. Behind a feature, because drawing text needs crates that are not maintained.

use resvg::{tiny_skia, usvg};

use crate::error::Failure;

/// Pixels per unit of the SVG: 2 is sharp on paper at the size of a column.
const SCALE: f32 = 2.0;

/// An SVG as PNG, two pixels to a unit, with fonts of the system.
///
/// # Errors
/// When the system has no fonts, or the figure is too large for memory.
pub fn png(svg: &str) -> Result<Vec<u8>, Failure> {
    let mut options = usvg::Options::default();
    options.fontdb_mut().load_system_fonts();
    if options.fontdb.is_empty() {
        return Err(Failure::usage(
            "no fonts are installed, which figures as PNG are lettered with",
        )
        .help("`apt install fonts-dejavu-core`, or write .svg"));
    }
    let broken = |what: String| Failure::usage(format!("cannot draw the figure as PNG: {what}"));
    let tree = usvg::Tree::from_str(svg, &options).map_err(|error| broken(error.to_string()))?;
    let size = tree.size().to_int_size();
    let pixels = |units: u32| (units as f32 * SCALE).ceil() as u32;
    let mut pixmap = tiny_skia::Pixmap::new(pixels(size.width()), pixels(size.height()))
        .ok_or_else(|| broken("it is too large".to_owned()))?;
    let scale = tiny_skia::Transform::from_scale(SCALE, SCALE);
    resvg::render(&tree, scale, &mut pixmap.as_mut());
    pixmap.encode_png().map_err(|error| broken(error.to_string()))
}
