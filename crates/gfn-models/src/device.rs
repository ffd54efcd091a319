//! Devices: which of Burn's backends computes, chosen at run time among those compiled in.

use burn::tensor::Device;

/// A device that specs and `--device` can name.
#[derive(Clone, Copy)]
pub struct DeviceEntry {
    /// Its name.
    pub name: &'static str,
    /// One line for `gfn list`.
    pub summary: &'static str,
    /// The Cargo feature that compiles it in; none if it always is.
    pub feature: Option<&'static str>,
    /// Opens it; none if this build lacks the feature.
    pub open: Option<fn() -> Device>,
}

/// Every device. A GPU back end goes here: one entry, one Cargo feature.
pub const DEVICES: &[DeviceEntry] = &[
    DeviceEntry {
        name: "flex",
        summary: "CPU, Burn's own SIMD kernels (default)",
        feature: None,
        open: Some(Device::flex),
    },
    DeviceEntry {
        name: "ndarray",
        summary: "CPU, the ndarray crate",
        feature: Some("ndarray"),
        #[cfg(feature = "ndarray")]
        open: Some(ndarray),
        #[cfg(not(feature = "ndarray"))]
        open: None,
    },
];

#[cfg(feature = "ndarray")]
#[expect(deprecated, reason = "offered for as long as Burn has it")]
fn ndarray() -> Device {
    Device::ndarray()
}

/// Why a device cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No such device.
    #[error("unknown device `{0}`")]
    Unknown(String),
    /// Not compiled in.
    #[error("the device `{name}` is not part of this build; build with `--features {feature}`")]
    Missing {
        /// The device.
        name: &'static str,
        /// The Cargo feature to add.
        feature: &'static str,
    },
}

/// Opens a device by name, without autodiff.
///
/// # Errors
/// When there is no such device, or this build lacks it.
pub fn open(name: &str) -> Result<Device, DeviceError> {
    let entry = DEVICES
        .iter()
        .find(|entry| entry.name == name)
        .ok_or_else(|| DeviceError::Unknown(name.to_owned()))?;
    match entry.open {
        Some(open) => Ok(open()),
        None => Err(DeviceError::Missing {
            name: entry.name,
            feature: entry.feature.unwrap_or(entry.name),
        }),
    }
}
