//! The picture for Graphviz.

use super::{EdgeKind, NodeKind, Picture};

pub(super) fn write(picture: &Picture) -> String {
    let mut out = format!("digraph {} {{\n", quote(&picture.title));
    out.push_str("    rankdir = LR;\n    node [fontname = \"Helvetica\", fontsize = 12];\n");
    out.push_str("    edge [arrowsize = 0.7];\n");
    for (number, node) in picture.nodes.iter().enumerate() {
        let shape = match node.kind {
            NodeKind::Caller => "shape = plaintext",
            NodeKind::Function => {
                "shape = box, style = \"rounded,filled\", fillcolor = \"#dbe7f6\""
            }
            NodeKind::Bucket => "shape = cylinder, style = filled, fillcolor = \"#f0ece2\"",
            NodeKind::Trigger(_) => "shape = box, style = rounded, fontsize = 10",
        };
        let colour = match node.kind {
            NodeKind::Trigger(word) => {
                format!(
                    ", color = {}",
                    quote(super::svg::trigger_colour(word).light)
                )
            }
            _ => String::new(),
        };
        let label = if node.detail.is_empty() {
            node.name.clone()
        } else {
            format!("{}\n{}", node.name, node.detail)
        };
        out.push_str(&format!(
            "    n{number} [label = {}, {shape}{colour}];\n",
            quote(&label)
        ));
    }
    for edge in &picture.edges {
        let style = match edge.kind {
            EdgeKind::Entry | EdgeKind::Sends => String::new(),
            EdgeKind::Next => " [penwidth = 1.6]".into(),
            EdgeKind::Calls => " [style = dashed]".into(),
            EdgeKind::Trigger(word) => {
                format!(
                    " [color = {}]",
                    quote(super::svg::trigger_colour(word).light)
                )
            }
            EdgeKind::Failure => {
                " [style = dashed, color = \"#c62f2f\", label = \"on failure\"]".into()
            }
            EdgeKind::Rerun => " [style = dotted, label = \"reruns\"]".into(),
            EdgeKind::After => " [style = dotted, label = \"closes\", constraint = false]".into(),
            EdgeKind::Cancels => {
                " [style = dotted, color = \"#c62f2f\", label = \"cancels\"]".into()
            }
        };
        out.push_str(&format!("    n{} -> n{}{style};\n", edge.from, edge.to));
    }
    if !picture.notes.is_empty() {
        out.push_str(&format!(
            "    label = {};\n",
            quote(&picture.notes.join("\n"))
        ));
    }
    out.push_str("}\n");
    out
}

fn quote(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    format!("\"{escaped}\"")
}
