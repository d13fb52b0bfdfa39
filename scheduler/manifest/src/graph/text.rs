//! The picture for a terminal: each function and bucket with its arrows.

use std::collections::HashSet;

use super::{Edge, EdgeKind, Node, NodeKind, Picture};

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
    let arrows = Arrows::of(picture);
    for (number, node) in in_order(picture, &arrows) {
        let lines = lines(picture, &arrows, number);
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
fn in_order<'a>(picture: &'a Picture, arrows: &Arrows<'_>) -> Vec<(usize, &'a Node)> {
    let mut seen = HashSet::new();
    let mut order = Vec::new();
    let starts = (0..picture.nodes.len())
        .rev()
        .filter(|at| picture.nodes[*at].kind == NodeKind::Caller)
        .chain(0..picture.nodes.len());
    for start in starts {
        let mut queue = std::collections::VecDeque::from([start]);
        while let Some(at) = queue.pop_front() {
            if seen.insert(at) {
                order.push(at);
                queue.extend(arrows.out[at].iter().map(|edge| edge.to));
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

/// The arrows out of each node and into each.
struct Arrows<'a> {
    out: Vec<Vec<&'a Edge>>,
    into: Vec<Vec<&'a Edge>>,
}

impl<'a> Arrows<'a> {
    fn of(picture: &'a Picture) -> Self {
        let count = picture.nodes.len();
        let mut arrows = Self {
            out: vec![Vec::new(); count],
            into: vec![Vec::new(); count],
        };
        for edge in &picture.edges {
            arrows.out[edge.from].push(edge);
            arrows.into[edge.to].push(edge);
        }
        arrows
    }
}

/// What goes out from a node, a line each; arrows of one kind share a line.
fn lines(picture: &Picture, arrows: &Arrows<'_>, number: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut shared: Vec<(&str, Vec<String>)> = Vec::new();
    for edge in &arrows.out[number] {
        let target = &picture.nodes[edge.to];
        if matches!(target.kind, NodeKind::Trigger(_)) {
            if edge.kind != EdgeKind::After {
                lines.push(trigger_line(picture, arrows, edge.to));
            }
            continue;
        }
        let words = edge.kind.words();
        match shared.iter_mut().find(|(known, _)| *known == words) {
            Some((_, targets)) => targets.push(show(target)),
            None => shared.push((words, vec![show(target)])),
        }
    }
    let shared = shared
        .iter()
        .map(|(words, targets)| format!("{words} \u{2500}\u{25b6} {}", targets.join(", ")));
    shared.chain(lines).collect()
}

fn trigger_line(picture: &Picture, arrows: &Arrows<'_>, number: usize) -> String {
    let node = &picture.nodes[number];
    let mut fired = Vec::new();
    let mut more = String::new();
    for edge in &arrows.out[number] {
        let target = show(&picture.nodes[edge.to]);
        if edge.kind == EdgeKind::Cancels {
            more.push_str(&format!("; cancels rest of {target}"));
        } else {
            fired.push(target);
        }
    }
    for edge in arrows.into[number]
        .iter()
        .filter(|edge| edge.kind == EdgeKind::After)
    {
        more.push_str(&format!(
            "; closed after {}",
            show(&picture.nodes[edge.from])
        ));
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
