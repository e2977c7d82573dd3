//! Sizes for people, as docker/go-units prints them.

const DECIMAL: &[&str] = &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
const BINARY: &[&str] = &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

fn scaled(size: f64, base: f64, units: &[&str], digits: usize) -> String {
    let (mut size, mut unit) = (size, 0);
    while size >= base && unit < units.len() - 1 {
        size /= base;
        unit += 1;
    }
    let number = wharf_template::sprintf(&format!("%.{digits}g"), &[wharf_template::Value::Float(size)]);
    format!("{number}{}", units[unit])
}

/// Four digits, powers of 1000: `3.148MB`.
pub fn decimal(size: f64) -> String {
    scaled(size, 1000.0, DECIMAL, 4)
}

/// Three digits, powers of 1000: `3.12MB`.
pub fn decimal_short(size: f64) -> String {
    scaled(size, 1000.0, DECIMAL, 3)
}

/// Four digits, powers of 1024: `472KiB`.
pub fn binary(size: f64) -> String {
    scaled(size, 1024.0, BINARY, 4)
}
