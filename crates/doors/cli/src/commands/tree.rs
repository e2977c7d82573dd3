//! `docker image ls --tree`: images with their platforms. Text and widths are those of docker/cli 28.2
//! (`cli/command/image/tree.go`), which calls it experimental.

use std::cmp::Reverse;
use std::fmt::Write;

use wharf_api_types::{ImageManifestSummary, ImageSummary};

use crate::exit::Exit;
use crate::format::{row, size};
use crate::parse::Matches;
use crate::shell::Shell;
use crate::terminal;

const WARNING: &str = "WARNING: This is an experimental feature. The output may change and shouldn't be depended on.";
const LEGEND: &str = "Info ->  U In Use ";
const SPACING: usize = 3;
/// Width of a line where there is no terminal, and the least.
const WIDTH: (usize, usize) = (80, 20);

/// A column beside the first one.
struct Column {
    title: &'static str,
    width: usize,
    right: bool,
}

static COLUMNS: [Column; 4] = [
    Column { title: "ID", width: 12, right: false },
    Column { title: "DISK USAGE", width: 10, right: true },
    Column { title: "CONTENT SIZE", width: 12, right: true },
    Column { title: "EXTRA", width: 5, right: false },
];

struct Line {
    values: [String; 4],
}

impl Line {
    fn new(id: &str, total: i64, content: i64, used: bool) -> Self {
        let human = |bytes: i64| size::decimal_short(bytes as f64);
        let mark = if used { "U" } else { "" };
        Self { values: [row::short_id(id), human(total), human(content), mark.to_owned()] }
    }

    fn text(&self, columns: &[Column]) -> String {
        let mut text = String::new();
        for (column, value) in columns.iter().zip(&self.values) {
            let blanks = column.width.saturating_sub(value.chars().count());
            let _ = match column.right {
                true => write!(text, "{:SPACING$}{:blanks$}{value}", "", ""),
                false => write!(text, "{:SPACING$}{value}{:blanks$}", "", ""),
            };
        }
        text
    }
}

/// Refuses flags that the tree does not know.
///
/// # Errors
/// Docker's texts.
pub(super) fn check(m: &Matches) -> Result<(), Exit> {
    for (flag, name) in [("quiet", "quiet"), ("no-trunc", "no-trunc"), ("digests", "show-digest"), ("format", "format")]
    {
        if m.changed(flag) {
            return Err(Exit::new(format!("--{name} is not yet supported with --tree")));
        }
    }
    Ok(())
}

/// Prints the tree.
pub(super) fn print(shell: &Shell, m: &Matches, mut images: Vec<ImageSummary>) -> Result<(), Exit> {
    if !m.bool("all") {
        images.retain(|image| !image.repo_tags.is_empty());
    }
    images.sort_by_key(|image| Reverse(image.created));
    let columns = match terminal::stdout_is() {
        true => terminal::size()[1] as usize,
        false => 0,
    };
    let width = if columns == 0 { WIDTH.0 } else { columns.max(WIDTH.1) };
    shell.print(&render(&images, width, terminal::stdout_is()))
}

fn render(images: &[ImageSummary], width: usize, colours: bool) -> String {
    let paint = |code: &str, text: &str| if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
    let mut out = String::new();
    let _ = writeln!(out, "{}\n{LEGEND:>width$}\n", paint("93", WARNING));
    if images.is_empty() {
        return out;
    }
    let (first, columns) = widths(images, width);
    // Docker's headings have their colour everywhere.
    let head = |title: &str| format!("\x1b[39m\x1b[1m{title}\x1b[0m");
    let _ = write!(out, "{}{:blanks$}", head("IMAGE"), "", blanks = first.saturating_sub(5));
    for column in columns {
        let blanks = column.width.saturating_sub(column.title.len());
        let _ = write!(out, "{:SPACING$}{}{:blanks$}", "", head(column.title), "");
    }
    out.push('\n');
    let spaced = images.iter().any(|image| platforms(image).next().is_some());
    for image in images {
        let mut names = image.repo_tags.clone();
        names.sort();
        names.sort_by_key(|name| Reverse(name.len()));
        let last = names.pop().unwrap_or_else(|| "<untagged>".to_owned());
        for name in names {
            let _ = writeln!(out, "{}", paint("34;1", &name));
        }
        let (shown, blanks) = cell(&last, first);
        let content = platforms(image).map(|m| m.size.content).sum();
        let in_use = image.containers > 0 || platforms(image).any(used);
        let line = Line::new(&image.id, image.size, content, in_use);
        let _ = writeln!(out, "{}{:blanks$}{}", paint("34;1", &shown), "", line.text(columns));
        let count = platforms(image).count();
        for (n, manifest) in platforms(image).enumerate() {
            let branch = if n + 1 == count { "└─ " } else { "├─ " };
            let platform = manifest.image_data.as_ref().map(|data| platform_text(&data.platform)).unwrap_or_default();
            let (shown, blanks) = cell(&format!("{branch}{platform}"), first);
            let line = Line::new(&manifest.id, manifest.size.total, manifest.size.content, used(manifest));
            let code = if manifest.available { "39" } else { "2" };
            let _ = writeln!(out, "{}{:blanks$}{}", paint(code, &shown), "", line.text(columns));
        }
        if spaced {
            out.push('\n');
        }
    }
    out
}

/// A text in the first column, cut where it is too long, and the blanks that fill the column.
fn cell(text: &str, width: usize) -> (String, usize) {
    let length = text.chars().count();
    if length > width { (row::ellipsis(text, width), 0) } else { (text.to_owned(), width - length) }
}

fn platforms(image: &ImageSummary) -> impl Iterator<Item = &ImageManifestSummary> {
    image.manifests.iter().flatten().filter(|manifest| manifest.kind == "image")
}

fn used(manifest: &ImageManifestSummary) -> bool {
    let containers = manifest.image_data.as_ref().and_then(|data| data.containers.as_ref());
    containers.is_some_and(|containers| !containers.is_empty())
}

fn platform_text(platform: &wharf_api_types::OciPlatform) -> String {
    let parts = [&platform.os, &platform.architecture, &platform.variant];
    parts.into_iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join("/")
}

/// The first column's width, no wider than its widest text, and the columns for which there is room.
fn widths(images: &[ImageSummary], width: usize) -> (usize, &'static [Column]) {
    let (mut left, mut shown) = (width, COLUMNS.len());
    for (n, column) in COLUMNS.iter().enumerate() {
        let needed = column.width + SPACING;
        if left < needed + 12 {
            shown = n;
            break;
        }
        left -= needed;
    }
    // Docker counts the bytes of the branches, of which each is seven.
    let branch = |m: &ImageManifestSummary| {
        m.image_data.as_ref().map_or(0, |data| platform_text(&data.platform).len() + "└─ ".len())
    };
    let widest = images.iter().flat_map(|image| {
        image.repo_tags.iter().map(String::len).chain(platforms(image).map(branch)).collect::<Vec<_>>()
    });
    (left.min(widest.max().unwrap_or(0).max("Image".len())), &COLUMNS[..shown])
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_api_types::{ManifestImageData, ManifestSize, OciPlatform};

    fn manifest(platform: &str, id: &str) -> ImageManifestSummary {
        let (os, architecture) = platform.split_once('/').expect("a platform");
        let platform = OciPlatform { os: os.into(), architecture: architecture.into(), ..OciPlatform::default() };
        ImageManifestSummary {
            id: format!("sha256:{id}"),
            kind: "image".into(),
            available: true,
            size: ManifestSize { content: 1_080_000, total: 3_070_000 },
            image_data: Some(ManifestImageData { platform, ..ManifestImageData::default() }),
            ..ImageManifestSummary::default()
        }
    }

    /// As the stock docker 28.2.2 printed it of a like image (with other digests).
    #[test]
    fn the_tree_looks_as_dockers() {
        let image = ImageSummary {
            id: "sha256:e27ee558faaea6ad".into(),
            repo_tags: vec!["multi:1".into()],
            size: 6_142_436,
            manifests: Some(vec![manifest("linux/amd64", "e2dfb8a3921b82"), manifest("linux/arm64", "61a3ec12253cbb")]),
            ..ImageSummary::default()
        };
        let text = render(std::slice::from_ref(&image), 80, false);
        let plain = text.replace("\x1b[39m\x1b[1m", "").replace("\x1b[0m", "");
        let expected = "\
WARNING: This is an experimental feature. The output may change and shouldn't be depended on.
                                                              Info ->  U In Use 

IMAGE                ID             DISK USAGE   CONTENT SIZE   EXTRA
multi:1              e27ee558faae       6.14MB         2.16MB        
├─ linux/amd64       e2dfb8a3921b       3.07MB         1.08MB        
└─ linux/arm64       61a3ec12253c       3.07MB         1.08MB        

";
        assert_eq!(plain, expected);
        assert_eq!(render(&[], 80, false).lines().count(), 3);
    }

    #[test]
    fn long_names_stand_alone_and_narrow_terminals_lose_columns() {
        let image = ImageSummary {
            id: "sha256:e27ee558faaea6ad".into(),
            repo_tags: vec!["a:1".into(), format!("{}:1", "n".repeat(70))],
            containers: 1,
            ..ImageSummary::default()
        };
        let text = render(std::slice::from_ref(&image), 80, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[4], format!("{}:1", "n".repeat(70)));
        assert!(lines[5].starts_with("a:1  ") && lines[5].ends_with("   U    "), "{:?}", lines[5]);
        assert!(!render(std::slice::from_ref(&image), 30, false).contains("DISK USAGE"));
    }
}
