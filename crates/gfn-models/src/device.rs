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
    /// Opens it, or says why it cannot; none if this build lacks the feature.
    pub open: Option<fn() -> Result<Device, String>>,
}

/// Every device. A back end is one entry and one Cargo feature.
pub const DEVICES: &[DeviceEntry] = &[
    DeviceEntry {
        name: "flex",
        summary: "CPU, Burn's own SIMD kernels (default)",
        feature: None,
        open: Some(|| Ok(Device::flex())),
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
    DeviceEntry {
        name: "wgpu",
        summary: "GPU through wgpu: Vulkan, Metal or DirectX 12",
        feature: Some("wgpu"),
        #[cfg(feature = "wgpu")]
        open: Some(wgpu),
        #[cfg(not(feature = "wgpu"))]
        open: None,
    },
];

#[cfg(feature = "ndarray")]
#[expect(deprecated, reason = "offered for as long as Burn has it")]
fn ndarray() -> Result<Device, String> {
    Ok(Device::ndarray())
}

/// The default adapter. Burn initialises its runtime once per process.
#[cfg(feature = "wgpu")]
fn wgpu() -> Result<Device, String> {
    static OPENED: std::sync::OnceLock<Result<Device, String>> = std::sync::OnceLock::new();
    OPENED.get_or_init(|| Device::wgpu_options().init().map_err(|error| error.to_string())).clone()
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
    /// Compiled in, but this machine has no such hardware or driver.
    #[error("the device `{name}` cannot be opened: {reason}")]
    Unavailable {
        /// The device.
        name: &'static str,
        /// What its back end says.
        reason: String,
    },
}

impl DeviceError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            DeviceError::Unknown(_) => "`gfn list` shows all devices".to_owned(),
            DeviceError::Missing { feature, .. } => {
                format!("for example: cargo build --release --features {feature}")
            }
            DeviceError::Unavailable { .. } => {
                "on Debian, libvulkan1 with your GPU's driver, or mesa-vulkan-drivers for a slow \
                 one in software; or --device flex"
                    .to_owned()
            }
        }
    }
}

/// Opens a device by name, without autodiff.
///
/// # Errors
/// When there is no such device, this build lacks it, or it cannot be opened here.
pub fn open(name: &str) -> Result<Device, DeviceError> {
    let entry = DEVICES
        .iter()
        .find(|entry| entry.name == name)
        .ok_or_else(|| DeviceError::Unknown(name.to_owned()))?;
    match entry.open {
        Some(open) => {
            open().map_err(|reason| DeviceError::Unavailable { name: entry.name, reason })
        }
        None => Err(DeviceError::Missing {
            name: entry.name,
            feature: entry.feature.unwrap_or(entry.name),
        }),
    }
}
