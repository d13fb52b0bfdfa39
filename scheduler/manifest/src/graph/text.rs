//! The picture for a terminal: each function and bucket with its arrows.

use std::collections::HashSet;

use super::{EdgeKind, Node, NodeKind, Picture};

pub(super) fn write(picture: &Picture) -> String {
    let mut out = format!("{}: {}\n", picture.title, picture.summary);
    for edge in picture
        .edges
        .iter()
        .filter(|edge| edge.kind == EdgeKind::Entry)
    {
        out.push_str(&format!(
            "\ncall \u{2500}\u{2500}\u{25b6} {}\n",
            show(&picture.nodes[edge.to])
        ));
    }
    for (number, node) in in_order(picture) {
        let lines = lines(picture, number);
        let detail = if node.detail.is_empty() {
            String::new()
        } else {
            format!("  {}", node.detail)
        };
        out.push_str(&format!("\n{}{detail}\n", show(node)));
        for (at, line) in lines.iter().enumerate() {
            let is_last = at + 1 == lines.len();
            let branch = if is_last {
                "\u{2514}\u{2500}"
            } else {
                "\u{251c}\u{2500}"
            };
            out.push_str(&format!("  {branch} {line}\n"));
        }
    }
    for note in &picture.notes {
        out.push_str(&format!("\n{note}\n"));
    }
    out
}

/// A function by its name, a bucket in brackets.
fn show(node: &Node) -> String {
    match node.kind {
        NodeKind::Bucket => format!("[{}]", node.name),
        _ => node.name.clone(),
    }
}

/// Functions and buckets as the data flows: from what is called, over the arrows; then the rest.
fn in_order(picture: &Picture) -> Vec<(usize, &Node)> {
    let mut seen = HashSet::new();
    let mut order = Vec::new();
    let starts = (0..picture.nodes.len())
        .rev()
        .filter(|at| picture.nodes[*at].kind == NodeKind::Caller)
        .chain(0..picture.nodes.len());
    let mut arrows = vec![Vec::new(); picture.nodes.len()];
    for edge in &picture.edges {
        arrows[edge.from].push(edge.to);
    }
    for start in starts {
        let mut queue = std::collections::VecDeque::from([start]);
        while let Some(at) = queue.pop_front() {
            if seen.insert(at) {
                order.push(at);
                queue.extend(&arrows[at]);
            }
        }
    }
    let is_shown = |at: &usize| {
        matches!(
            picture.nodes[*at].kind,
            NodeKind::Function | NodeKind::Bucket
        )
    };
    order
        .into_iter()
        .filter(is_shown)
        .map(|at| (at, &picture.nodes[at]))
        .collect()
}

/// What goes out from a node, a line each; arrows of one kind share a line.
fn lines(picture: &Picture, number: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut told: HashSet<&str> = HashSet::new();
    let from_here = || picture.edges.iter().filter(|edge| edge.from == number);
    for edge in from_here() {
        let target = &picture.nodes[edge.to];
        if let (EdgeKind::Trigger(_), NodeKind::Trigger(_)) = (edge.kind, target.kind) {
            lines.push(trigger_line(picture, edge.to));
        } else if edge.kind != EdgeKind::After && told.insert(edge.kind.words()) {
            let same = from_here().filter(|other| other.kind == edge.kind);
            let targets: Vec<_> = same.map(|edge| show(&picture.nodes[edge.to])).collect();
            lines.push(format!(
                "{} \u{2500}\u{25b6} {}",
                edge.kind.words(),
                targets.join(", ")
            ));
        }
    }
    lines
}

fn trigger_line(picture: &Picture, number: usize) -> String {
    let node = &picture.nodes[number];
    let mut fired = Vec::new();
    let mut more = String::new();
    for edge in &picture.edges {
        match edge.kind {
            EdgeKind::Trigger(_) if edge.from == number => {
                fired.push(show(&picture.nodes[edge.to]));
            }
            EdgeKind::Cancels if edge.from == number => {
                more.push_str(&format!(
                    "; cancels rest of {}",
                    show(&picture.nodes[edge.to])
                ));
            }
            EdgeKind::After if edge.to == number => {
                more.push_str(&format!(
                    "; closed after {}",
                    show(&picture.nodes[edge.from])
                ));
            }
            _ => {}
        }
    }
    let detail = if node.detail.is_empty() {
        String::new()
    } else {
        format!(" ({})", node.detail)
    };
    format!(
        "{}{detail} \u{2500}\u{25b6} {}{more}",
        node.name,
        fired.join(", ")
    )
}
