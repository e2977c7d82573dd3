//! Random names.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::NetworkError;

fn bytes<const N: usize>() -> Result<[u8; N], NetworkError> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty()).map_err(|e| NetworkError::Io {
            action: "reading",
            subject: "random numbers".to_owned(),
            source: io::Error::from(e),
        })?;
    }
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// 64 hexadecimal digits.
pub(crate) fn id() -> Result<String, NetworkError> {
    Ok(hex(&bytes::<32>()?))
}

/// `veth` and seven digits, as Docker names links on the host.
pub(crate) fn link() -> Result<String, NetworkError> {
    Ok(format!("veth{}", &hex(&bytes::<4>()?)[..7]))
}

/// A locally administered Ethernet address.
pub(crate) fn mac() -> Result<wharf_ipam::MacAddress, NetworkError> {
    Ok(wharf_ipam::MacAddress::local(bytes::<6>()?))
}
