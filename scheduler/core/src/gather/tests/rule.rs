//! What a trigger's spec says of how it gathers, and what a gatherer is reset to.

use super::{Driver, Said};
use crate::gather::WindowsRule;
use crate::gather::hand::HandRule;
use crate::gather::outcome::{Complaint, Refusal};
use crate::gather::{BatchRule, Gatherer, GroupsRule, JoinsRule, RoundsRule, Rule, Sources};
use crate::spec::{AtEnd, GroupClose, Keep, NameMatch, Scope, TriggerKind, TriggerSpec};

fn rule(kind: TriggerKind, scope: Scope, keep: Keep) -> Option<Rule> {
    let trigger = TriggerSpec {
        name: "t".to_owned(),
        functions: vec![0],
        scope,
        at_end: AtEnd::Fail,
        skip_ended: false,
        kind,
    };
    Rule::of(&trigger, keep, 7)
}

fn in_session(kind: TriggerKind) -> Option<Rule> {
    rule(kind, Scope::Session, Keep::Session)
}

#[test]
fn triggers_that_keep_nothing_gather_nothing() {
    assert_eq!(in_session(TriggerKind::Immediate), None);
    let key = NameMatch::Key("k".to_owned());
    assert_eq!(in_session(TriggerKind::ByName(key)), None);
}

#[test]
fn a_rule_has_what_the_spec_says() {
    let keys = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(in_session(TriggerKind::BySet { keys }), Some(Rule::Set(2)));
    let custom = TriggerKind::Custom {
        config: Vec::new(),
        timeout_ns: 1,
        keep: true,
    };
    let expected = HandRule { keep: true };
    assert_eq!(in_session(custom), Some(Rule::Hand(expected)));
    let batch = TriggerKind::ByBatchSize {
        count: 3,
        linger_ns: Some(4),
        per_group: true,
    };
    let expected = BatchRule {
        count: 3,
        linger_ns: Some(4),
        per_group: true,
    };
    assert_eq!(in_session(batch), Some(Rule::Batch(expected)));
    let windows = TriggerKind::ByTime {
        window_ns: 9,
        slide_ns: 8,
        fire_empty: true,
        per_group: true,
    };
    let expected = WindowsRule {
        window_ns: 9,
        slide_ns: 8,
        fire_empty: true,
        per_group: true,
        inputs_max: 7,
    };
    assert_eq!(in_session(windows), Some(Rule::Windows(expected)));
}

#[test]
fn rounds_need_a_group_only_across_sessions() {
    for (scope, group_required) in [(Scope::Session, false), (Scope::Bucket, true)] {
        let kind = TriggerKind::Redundant {
            k_of_n: Some((1, 2)),
            cancel_rest: vec![],
            expire_ns: Some(5),
        };
        let expected = RoundsRule {
            k_of_n: Some((1, 2)),
            expire_ns: Some(5),
            group_required,
            inputs_max: 7,
        };
        assert_eq!(
            rule(kind, scope, Keep::Session),
            Some(Rule::Rounds(expected))
        );
    }
}

#[test]
fn joins_let_go_of_consumed_objects_where_the_bucket_does() {
    for (keep, release_consumed) in [(Keep::Session, false), (Keep::UntilConsumed, true)] {
        let expected = Rule::Joins(JoinsRule { release_consumed });
        let found = rule(TriggerKind::DynamicJoin, Scope::Session, keep);
        assert_eq!(found, Some(expected));
    }
}

#[test]
fn groups_are_closed_by_their_sources_or_by_the_caller() {
    for (close, sources) in [
        (GroupClose::Sources(2), Sources::Known(2)),
        (GroupClose::SourcesAtRunTime, Sources::AtRunTime),
        (GroupClose::After(0), Sources::None),
    ] {
        let kind = TriggerKind::DynamicGroup {
            close,
            fire_empty: false,
            order_by_key: true,
        };
        let expected = GroupsRule {
            sources,
            order_by_key: true,
            inputs_max: 7,
        };
        assert_eq!(in_session(kind), Some(Rule::Groups(expected)));
    }
}

#[test]
fn keys_become_text_only_where_they_are_looked_at() {
    let groups = |order_by_key| {
        Rule::Groups(GroupsRule {
            sources: Sources::None,
            order_by_key,
            inputs_max: 7,
        })
    };
    let joins = Rule::Joins(JoinsRule {
        release_consumed: false,
    });
    assert!(joins.wants_key() && groups(true).wants_key());
    assert!(!groups(false).wants_key() && !Rule::Set(3).wants_key());
}

#[test]
fn a_gatherer_can_be_reset_to_another_type() {
    let mut driver = Driver::new(Rule::Set(2));
    driver.offer(0, "", "");
    driver.reuse(
        Rule::Joins(JoinsRule {
            release_consumed: false,
        }),
        0,
    );
    assert!(matches!(driver.gatherer, Gatherer::Joins(_)));
    assert_eq!(driver.offer_key("a"), Said::default());
}

#[test]
fn complaints_and_refusals_are_sentences() {
    let complaints = [
        Complaint::RoundFull { n: 3 },
        Complaint::NoGroup,
        Complaint::SourcesClosed { sources: 2 },
    ];
    let refusals = [
        Refusal::KeyTwice("k".to_owned()),
        Refusal::Impossible {
            k: 3,
            n: 2,
            inputs_max: 9,
        },
        Refusal::RoundKnown { k: 1, n: 2 },
        Refusal::SourcesKnown { sources: 4 },
        Refusal::NoSources,
    ];
    for text in complaints.iter().map(ToString::to_string) {
        assert!(
            text.starts_with("came ") || text.starts_with("has "),
            "{text}"
        );
        assert!(text.contains(": "), "no next step: {text}");
    }
    for text in refusals.iter().map(ToString::to_string) {
        assert!(text.contains(": "), "no next step: {text}");
    }
}
