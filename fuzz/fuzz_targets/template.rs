//! Bytes from outside: never a panic, a hang or an effect elsewhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_template::{Template, Value};

fuzz_target!(|text: &str| {
    if let Ok(template) = Template::parse("", text) {
        let _ = template.render(&Value::from(serde_json::json!({"A": [1, "b", null], "B": {"C": true}})));
    }
});
