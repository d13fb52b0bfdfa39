//! The picture as an SVG by itself, readable on light and dark pages.

use std::fmt::Write as _;

use super::layout::{Layout, Placed, Route, Spacing, lay_out};
use super::{EdgeKind, Node, NodeKind, Picture};

const MARGIN: f64 = 28.0;
const TITLE_HEIGHT: f64 = 52.0;
const LEGEND_LINE_HEIGHT: f64 = 24.0;
const NAME_SIZE: f64 = 14.0;
const DETAIL_SIZE: f64 = 11.0;
/// How much wider the names' bold letters are.
const BOLD: f64 = 1.14;
const LEGEND_SIZE: f64 = 12.0;
/// Radius of the corners of an arrow against the flow.
const CORNER: f64 = 10.0;
const WIDTH_MIN: f64 = 420.0;

const SPACING: Spacing = Spacing {
    across: 56.0,
    down: 22.0,
    passage: 8.0,
    lane: 12.0,
};

/// A colour on light and on dark pages.
#[derive(Clone, Copy)]
pub(super) struct Colour {
    pub light: &'static str,
    dark: &'static str,
}

/// The colour of a trigger type.
pub(super) fn trigger_colour(word: &str) -> Colour {
    let (light, dark) = match word {
        "immediate" => ("#2563b8", "#7ab0f5"),
        "by_name" => ("#0f7f78", "#4fc7be"),
        "by_set" => ("#2f7d32", "#7ccb7f"),
        "by_batch_size" => ("#a65a00", "#f0a857"),
        "by_time" => ("#7a4cc2", "#bd9cf5"),
        "redundant" => ("#b3266b", "#f286ba"),
        "dynamic_join" => ("#5f7300", "#b9cc56"),
        "dynamic_group" => ("#006d9e", "#5fc3f0"),
        _ => ("#5c5c66", "#b4b4c0"),
    };
    Colour { light, dark }
}

pub(super) fn write(picture: &Picture) -> String {
    let sizes: Vec<_> = picture.nodes.iter().map(size).collect();
    let arrows: Vec<_> = picture
        .edges
        .iter()
        .map(|edge| (edge.from, edge.to))
        .collect();
    let is_caller = |number: &usize| picture.nodes[*number].kind == NodeKind::Caller;
    let starts: Vec<_> = (0..picture.nodes.len()).filter(is_caller).collect();
    let layout = lay_out(&sizes, &arrows, &starts, SPACING);
    let legend = Legend::new(picture, layout.width.max(WIDTH_MIN));
    let width = layout.width.max(legend.width) + 2.0 * MARGIN;
    let picture_bottom = MARGIN + TITLE_HEIGHT + layout.height;
    let height = picture_bottom + legend.height + 2.0 * MARGIN;

    let mut out = String::new();
    open(&mut out, picture, width, height);
    let _ = writeln!(
        out,
        "<g transform=\"translate({MARGIN} {:.1})\">",
        MARGIN + TITLE_HEIGHT
    );
    for (edge, route) in picture.edges.iter().zip(&layout.routes) {
        arrow(&mut out, edge.kind, &layout, edge.from, edge.to, route);
    }
    for (node, placed) in picture.nodes.iter().zip(&layout.boxes) {
        draw_node(&mut out, node, placed);
    }
    out.push_str("</g>\n");
    legend.draw(&mut out, picture_bottom + MARGIN);
    out.push_str("</svg>\n");
    out
}

fn open(out: &mut String, picture: &Picture, width: f64, height: f64) {
    let title = escape(&picture.title);
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"The app {title}\">\n\
         <title>{title}</title>"
    );
    style(out, picture);
    let _ = writeln!(
        out,
        "<rect class=\"page\" width=\"100%\" height=\"100%\" rx=\"8\"/>"
    );
    let y = MARGIN + 14.0;
    let _ = writeln!(
        out,
        "<text class=\"title\" x=\"{MARGIN}\" y=\"{y}\">{title}</text>"
    );
    let (y, summary) = (MARGIN + 32.0, escape(&picture.summary));
    let _ = writeln!(
        out,
        "<text class=\"detail\" x=\"{MARGIN}\" y=\"{y}\">{summary}</text>"
    );
}

/// The colours of a scheme: page, text, faint text, box, box edge, bucket, bucket edge, arrow, red.
type Scheme = [&'static str; 9];
const LIGHT: Scheme = [
    "#ffffff", "#1d2433", "#5b6475", "#e6eefb", "#4a76b8", "#f6f1e4", "#a08a52", "#6b7486",
    "#c62f2f",
];
const DARK: Scheme = [
    "#14181f", "#e6eaf2", "#98a2b5", "#1d2c44", "#6f9ee0", "#2c281d", "#c2a866", "#8d97aa",
    "#ff8080",
];

fn style(out: &mut String, picture: &Picture) {
    out.push_str("<style>\n");
    out.push_str(
        "text { font-family: ui-sans-serif, system-ui, -apple-system, \"Segoe UI\", \"Noto Sans\", \
         \"Helvetica Neue\", Arial, sans-serif; }\n",
    );
    let _ = writeln!(out, ".title {{ font-size: 18px; font-weight: 600; }}");
    let _ = writeln!(
        out,
        ".name {{ font-size: {NAME_SIZE}px; font-weight: 600; text-anchor: middle; }}"
    );
    let _ = writeln!(out, ".detail {{ font-size: {DETAIL_SIZE}px; }}");
    let _ = writeln!(
        out,
        ".small {{ font-size: {DETAIL_SIZE}px; text-anchor: middle; }}"
    );
    let _ = writeln!(out, ".key {{ font-size: {LEGEND_SIZE}px; }}");
    out.push_str("path.line { fill: none; stroke-width: 1.5; }\n");
    out.push_str("path.next { stroke-width: 2.4; }\npath.dashed { stroke-dasharray: 6 4; }\n");
    out.push_str("path.dotted { stroke-dasharray: 1.5 4; stroke-linecap: round; }\n");
    scheme(out, picture, &LIGHT, |colour| colour.light);
    out.push_str("@media (prefers-color-scheme: dark) {\n");
    scheme(out, picture, &DARK, |colour| colour.dark);
    out.push_str("}\n</style>\n");
}

fn scheme(out: &mut String, picture: &Picture, colours: &Scheme, pick: fn(Colour) -> &'static str) {
    let [
        page,
        text,
        faint,
        function,
        edge,
        bucket,
        bucket_edge,
        line,
        red,
    ] = colours;
    let _ = writeln!(out, ".page {{ fill: {page}; }}");
    let _ = writeln!(out, ".title, .name, .key {{ fill: {text}; }}");
    let _ = writeln!(out, ".detail, .small {{ fill: {faint}; }}");
    let _ = writeln!(out, ".function {{ fill: {function}; stroke: {edge}; }}");
    let _ = writeln!(out, ".bucket {{ fill: {bucket}; stroke: {bucket_edge}; }}");
    let _ = writeln!(out, ".caller {{ fill: {page}; stroke: {line}; }}");
    let _ = writeln!(out, ".line {{ stroke: {line}; }} .head {{ fill: {line}; }}");
    let _ = writeln!(
        out,
        ".line.red {{ stroke: {red}; }} .head.red {{ fill: {red}; }}"
    );
    for kind in picture.edge_kinds() {
        if let EdgeKind::Trigger(word) = kind {
            let colour = pick(trigger_colour(word));
            let _ = writeln!(
                out,
                ".pill.{word} {{ fill: {page}; stroke: {colour}; }} .dot.{word}, .head.{word} \
                 {{ fill: {colour}; }} .line.{word} {{ stroke: {colour}; }}"
            );
        }
    }
}

/// Width and height of a node's box.
fn size(node: &Node) -> (f64, f64) {
    let text = text_width(&node.name, NAME_SIZE * BOLD).max(text_width(&node.detail, DETAIL_SIZE));
    let two_lines = !node.detail.is_empty();
    match node.kind {
        NodeKind::Caller => (text + 28.0, 30.0),
        NodeKind::Function => ((text + 32.0).max(84.0), if two_lines { 52.0 } else { 42.0 }),
        NodeKind::Bucket => ((text + 32.0).max(84.0), if two_lines { 66.0 } else { 54.0 }),
        NodeKind::Trigger(_) => ((text + 44.0).max(84.0), if two_lines { 44.0 } else { 32.0 }),
    }
}

/// About how wide a text is, by the widths of letters in common sans-serif fonts; rather too much.
fn text_width(text: &str, size: f64) -> f64 {
    let width = |character: char| match character {
        'i' | 'j' | 'l' | 't' | 'f' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | ' ' => 0.34,
        '(' | ')' | '[' | ']' | '{' | '}' | '-' | '/' | 'r' | '\u{b7}' => 0.42,
        'm' | 'w' | 'M' | 'W' | '@' | '%' | '\u{2026}' => 0.94,
        'A'..='Z' | '\u{d7}' => 0.70,
        other if u32::from(other) >= 0x1100 => 1.05,
        _ => 0.60,
    };
    text.chars().map(width).sum::<f64>() * size
}

fn draw_node(out: &mut String, node: &Node, placed: &Placed) {
    let Placed {
        x,
        y,
        width,
        height,
    } = *placed;
    let middle = x + width / 2.0;
    match node.kind {
        NodeKind::Caller | NodeKind::Function => {
            let class = if node.kind == NodeKind::Caller {
                "caller"
            } else {
                "function"
            };
            let radius = if node.kind == NodeKind::Caller {
                height / 2.0
            } else {
                8.0
            };
            let _ = writeln!(
                out,
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
                 height=\"{height:.1}\" rx=\"{radius}\" stroke-width=\"1.5\"/>"
            );
        }
        NodeKind::Bucket => draw_cylinder(out, placed),
        NodeKind::Trigger(word) => {
            let radius = height / 2.0;
            let _ = writeln!(
                out,
                "<rect class=\"pill {word}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
                 height=\"{height:.1}\" rx=\"{radius}\" stroke-width=\"1.5\"/>\n\
                 <circle class=\"dot {word}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4.5\"/>",
                x + 16.0,
                y + radius
            );
        }
    }
    // The lid of a cylinder and the dot of a pill take room that the text leaves to them.
    let (dx, dy) = match node.kind {
        NodeKind::Bucket => (0.0, 5.0),
        NodeKind::Trigger(_) => (7.0, 0.0),
        _ => (0.0, 0.0),
    };
    let lift = if node.detail.is_empty() { 5.0 } else { -2.0 };
    let (text_x, text_y) = (middle + dx, placed.middle() + dy + lift);
    let name = escape(&node.name);
    let _ = writeln!(
        out,
        "<text class=\"name\" x=\"{text_x:.1}\" y=\"{text_y:.1}\">{name}</text>"
    );
    if !node.detail.is_empty() {
        let (y, detail) = (text_y + 15.0, escape(&node.detail));
        let _ = writeln!(
            out,
            "<text class=\"small\" x=\"{text_x:.1}\" y=\"{y:.1}\">{detail}</text>"
        );
    }
}

fn draw_cylinder(out: &mut String, placed: &Placed) {
    let Placed {
        x,
        y,
        width,
        height,
    } = *placed;
    let (rx, ry) = (width / 2.0, 6.0);
    let (top, bottom, right) = (y + ry, y + height - ry, x + width);
    let _ = writeln!(
        out,
        "<path class=\"bucket\" stroke-width=\"1.5\" d=\"M{x:.1} {top:.1} A{rx:.1} {ry} 0 0 1 \
         {right:.1} {top:.1} V{bottom:.1} A{rx:.1} {ry} 0 0 1 {x:.1} {bottom:.1} Z M{x:.1} {top:.1} \
         A{rx:.1} {ry} 0 0 0 {right:.1} {top:.1}\"/>"
    );
}

/// The classes of an arrow's line and head.
fn classes(kind: EdgeKind) -> (&'static str, &'static str) {
    match kind {
        EdgeKind::Entry | EdgeKind::Sends => ("", ""),
        EdgeKind::Next => ("next", ""),
        EdgeKind::Calls => ("dashed", ""),
        EdgeKind::Trigger(word) => ("", word),
        EdgeKind::Failure => ("dashed", "red"),
        EdgeKind::Rerun | EdgeKind::After => ("dotted", ""),
        EdgeKind::Cancels => ("dotted", "red"),
    }
}

fn arrow(out: &mut String, kind: EdgeKind, layout: &Layout, from: usize, to: usize, route: &Route) {
    let (from, to) = (&layout.boxes[from], &layout.boxes[to]);
    let tip = to.x - 1.0;
    let (path, tip_y) = match route {
        Route::Forward {
            from_y,
            through,
            to_y,
        } => {
            let mut path = format!("M{:.1} {from_y:.1}", from.right());
            let (mut x, mut y) = (from.right(), *from_y);
            for (left, right, at) in through {
                curve(&mut path, (x, y), (*left, *at));
                let _ = write!(path, " H{right:.1}");
                (x, y) = (*right, *at);
            }
            curve(&mut path, (x, y), (tip - 6.0, *to_y));
            (path, *to_y)
        }
        Route::Around {
            from_y,
            right_x: right,
            lane_y,
            left_x: left,
            to_y,
        } => {
            let r = CORNER;
            let path = format!(
                "M{:.1} {from_y:.1} H{:.1} Q{right:.1} {from_y:.1} {right:.1} {:.1} V{:.1} \
                 Q{right:.1} {lane_y:.1} {:.1} {lane_y:.1} H{:.1} Q{left:.1} {lane_y:.1} {left:.1} \
                 {:.1} V{:.1} Q{left:.1} {to_y:.1} {:.1} {to_y:.1} H{:.1}",
                from.right(),
                right - r,
                from_y + r,
                lane_y - r,
                right - r,
                left + r,
                lane_y - r,
                to_y + r,
                left + r,
                tip - 6.0
            );
            (path, *to_y)
        }
    };
    let (line, colour) = classes(kind);
    let _ = writeln!(out, "<path class=\"line {line} {colour}\" d=\"{path}\"/>");
    head(out, colour, tip, tip_y);
}

fn curve(path: &mut String, from: (f64, f64), to: (f64, f64)) {
    let middle = f64::midpoint(from.0, to.0);
    let _ = write!(
        path,
        " C{middle:.1} {:.1} {middle:.1} {:.1} {:.1} {:.1}",
        from.1, to.1, to.0, to.1
    );
}

fn head(out: &mut String, colour: &str, tip: f64, y: f64) {
    let (back, above, below) = (tip - 8.0, y - 4.2, y + 4.2);
    let _ = writeln!(
        out,
        "<path class=\"head {colour}\" d=\"M{back:.1} {above:.1} L{tip:.1} {y:.1} L{back:.1} \
         {below:.1} Z\"/>"
    );
}

/// What colours and lines mean, and the notes.
struct Legend<'a> {
    picture: &'a Picture,
    /// The kind of arrow, x, line.
    entries: Vec<(EdgeKind, f64, usize)>,
    width: f64,
    height: f64,
}

impl<'a> Legend<'a> {
    fn new(picture: &'a Picture, width: f64) -> Self {
        let (mut x, mut line) = (0.0, 0);
        let mut entries = Vec::new();
        let mut widest: f64 = 0.0;
        let kinds = picture
            .edge_kinds()
            .into_iter()
            .filter(|kind| *kind != EdgeKind::Entry);
        for kind in kinds {
            let needed = 42.0 + text_width(kind.words(), LEGEND_SIZE);
            if x > 0.0 && x + needed > width {
                (x, line) = (0.0, line + 1);
            }
            entries.push((kind, x, line));
            widest = widest.max(x + needed);
            x += needed + 22.0;
        }
        for note in &picture.notes {
            widest = widest.max(text_width(note, DETAIL_SIZE));
        }
        let lines = entries.last().map_or(0, |entry| entry.2 + 1) + picture.notes.len();
        Self {
            picture,
            entries,
            width: widest,
            height: lines as f64 * LEGEND_LINE_HEIGHT,
        }
    }

    fn draw(&self, out: &mut String, top: f64) {
        for (kind, x, line) in &self.entries {
            let (x, y) = (MARGIN + x, top + 14.0 + *line as f64 * LEGEND_LINE_HEIGHT);
            let (class, colour) = classes(*kind);
            let words = escape(kind.words());
            let _ = writeln!(
                out,
                "<path class=\"line {class} {colour}\" d=\"M{x:.1} {y:.1} h24\"/>"
            );
            head(out, colour, x + 31.0, y);
            let (x, y) = (x + 39.0, y + 4.0);
            let _ = writeln!(
                out,
                "<text class=\"key\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>"
            );
        }
        let lines = self.entries.last().map_or(0, |entry| entry.2 + 1);
        for (number, note) in self.picture.notes.iter().enumerate() {
            let y = top + 18.0 + (lines + number) as f64 * LEGEND_LINE_HEIGHT;
            let note = escape(note);
            let _ = writeln!(
                out,
                "<text class=\"detail\" x=\"{MARGIN}\" y=\"{y:.1}\">{note}</text>"
            );
        }
    }
}

/// Text within XML; characters that XML cannot have are replaced.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}
