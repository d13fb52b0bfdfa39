//! The picture for Markdown pages that draw Mermaid.

use super::{EdgeKind, NodeKind, Picture};

pub(super) fn write(picture: &Picture) -> String {
    let mut out = String::from("flowchart LR\n");
    for (number, node) in picture.nodes.iter().enumerate() {
        let label = if node.detail.is_empty() {
            escape(&node.name)
        } else {
            format!(
                "{}<br/><small>{}</small>",
                escape(&node.name),
                escape(&node.detail)
            )
        };
        let shape = match node.kind {
            NodeKind::Caller => format!("(({}))", quoted(&label)),
            NodeKind::Function => format!("({})", quoted(&label)),
            NodeKind::Bucket => format!("[({})]", quoted(&label)),
            NodeKind::Trigger(_) => format!("([{}])", quoted(&label)),
        };
        let class = match node.kind {
            NodeKind::Trigger(word) => format!(":::{word}"),
            _ => String::new(),
        };
        out.push_str(&format!("    n{number}{shape}{class}\n"));
    }
    for edge in &picture.edges {
        let arrow = match edge.kind {
            EdgeKind::Entry | EdgeKind::Sends | EdgeKind::Trigger(_) => "-->",
            EdgeKind::Next => "==>",
            EdgeKind::Calls => "-.->",
            EdgeKind::Failure => "-.->|on failure|",
            EdgeKind::Rerun => "-.->|reruns|",
            EdgeKind::After => "-.->|closes|",
            EdgeKind::Cancels => "-.-x|cancels|",
        };
        out.push_str(&format!("    n{} {arrow} n{}\n", edge.from, edge.to));
    }
    for kind in picture.edge_kinds() {
        if let EdgeKind::Trigger(word) = kind {
            let colour = super::svg::trigger_colour(word).light;
            out.push_str(&format!(
                "    classDef {word} stroke:{colour},stroke-width:2px\n"
            ));
        }
    }
    for note in &picture.notes {
        out.push_str(&format!("    %% {}\n", note.replace(['{', '}'], "")));
    }
    out
}

fn quoted(label: &str) -> String {
    format!("\"{label}\"")
}

/// Mermaid's own entities: `#` and a number, then `;`.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        if matches!(
            character,
            '"' | '#' | '<' | '>' | '&' | '`' | '\\' | '{' | '}' | '[' | ']' | '|'
        ) {
            out.push_str(&format!("#{};", u32::from(character)));
        } else {
            out.push(character);
        }
    }
    out
}
