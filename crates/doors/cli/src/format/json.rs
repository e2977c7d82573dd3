//! JSON text, rewritten without being understood, so that order and escapes stay as they came.

/// Indents valid JSON with four blanks, as Go's json.Indent does.
pub fn indent(text: &str) -> String {
    rewrite(text, Some("    "))
}

/// Removes blanks outside strings from valid JSON.
pub fn compact(text: &str) -> String {
    rewrite(text, None)
}

fn rewrite(text: &str, indent: Option<&str>) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0usize;
    // An opening bracket waits, so that an empty pair stays on one line.
    let mut opened = false;
    let mut chars = text.chars();
    let newline = |out: &mut String, depth: usize| {
        if let Some(i) = indent {
            out.push('\n');
            for _ in 0..depth {
                out.push_str(i);
            }
        }
    };
    while let Some(c) = chars.next() {
        if c.is_ascii_whitespace() {
            continue;
        }
        if opened && !matches!(c, '}' | ']') {
            depth += 1;
            newline(&mut out, depth);
        }
        match c {
            '{' | '[' => out.push(c),
            '}' | ']' => {
                if !opened {
                    depth = depth.saturating_sub(1);
                    newline(&mut out, depth);
                }
                out.push(c);
            }
            ',' => {
                out.push(c);
                newline(&mut out, depth);
            }
            ':' => {
                out.push(c);
                if indent.is_some() {
                    out.push(' ');
                }
            }
            '"' => {
                out.push(c);
                while let Some(c) = chars.next() {
                    out.push(c);
                    match c {
                        '\\' => out.extend(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            c => out.push(c),
        }
        opened = matches!(c, '{' | '[');
    }
    out
}
