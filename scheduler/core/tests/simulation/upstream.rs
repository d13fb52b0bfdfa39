//! Upstream(F), read from the manifest: F, and every function from which F can be reached over
//! `next`, `calls`, `sends`, `on_failure` buckets and triggers.

use pheromone_core::spec::{AppSpec, OnFailure};

/// Whether each function is upstream of one.
pub fn upstream(spec: &AppSpec, of: u16) -> Vec<bool> {
    let functions = 0..spec.functions.len() as u16;
    functions
        .map(|from| from == of || can_reach(spec, from, of, &mut Vec::new()))
        .collect()
}

fn can_reach(spec: &AppSpec, from: u16, to: u16, seen: &mut Vec<u16>) -> bool {
    if seen.contains(&from) {
        return false;
    }
    seen.push(from);
    causes(spec, from)
        .into_iter()
        .any(|next| next == to || can_reach(spec, next, to, seen))
}

/// What a function may cause in one step.
fn causes(spec: &AppSpec, from: u16) -> Vec<u16> {
    let function = &spec.functions[usize::from(from)];
    let mut caused = function.next.clone();
    caused.extend(&function.calls);
    for (number, bucket) in (0u16..).zip(&spec.buckets) {
        let sends = function.sends.as_ref();
        let may_send = sends.is_none_or(|sends| sends.contains(&number));
        if may_send || function.on_failure == OnFailure::Bucket(number) {
            caused.extend(bucket.triggers.iter().flat_map(|t| &t.functions));
        }
    }
    caused
}
