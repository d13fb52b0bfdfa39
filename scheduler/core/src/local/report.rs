//! Reports of failures: what `on_failure` publishes into a bucket.
//!
//! The scheduler maps no payload, so the node is asked to write the report's; until it has, the
//! session stays open and the failed invocation's inputs are held. The object then holds them for
//! as long as it lives.

use pheromone_shm::message::{GROUP_BYTES_MAX, InputKey, Target};
use smallvec::SmallVec;

use crate::event::{AppId, Cause, Failure, Ingress, Sink, Ticket};
use crate::local::app::App;
use crate::local::attempt::said;
use crate::local::invocation::Invocation;
use crate::local::message::{Delivery, Publication};
use crate::local::name::{Author, failure_text};
use crate::local::object::{NewObject, Object, Payload};
use crate::local::session::{End, Session};
use crate::local::{Local, Tables};
use crate::slab::Ref;

/// A report whose payload the node writes.
#[derive(Default)]
pub(super) struct Report {
    failure: Option<Failure>,
    bucket: u16,
    to: Delivery,
    /// Inputs of the failed invocation.
    inputs: SmallVec<[Ref<Object>; 4]>,
    /// Sources that the failed invocation closes: once the report is there, which may be among
    /// what they close.
    closes: Vec<u16>,
    previous: Ref<Report>,
    next: Ref<Report>,
}

impl Local {
    /// Has the report of a finally failed invocation written.
    pub(super) fn report<S: Sink>(
        &mut self,
        failed: Ref<Invocation>,
        bucket: u16,
        failure: Failure,
        sink: &mut S,
    ) {
        let tables = &mut self.tables;
        let session = tables.invocations[failed].session;
        let id = tables.sessions[session].app;
        let app = &mut self.apps[id];
        let closes = tables.sources_of_failed(app, failed);
        let (taken, _) = tables.reports.take();
        let ticket = Ticket::new(taken.slot(), tables.reports.generation(taken));
        sink.write_failure(id, ticket, &failure);
        let report = &mut tables.reports[taken];
        let invocation = &tables.invocations[failed];
        report.inputs.clear();
        for &input in &invocation.held[..invocation.input_count as usize] {
            tables.objects.hold(input);
            report.inputs.push(input);
        }
        report.failure = Some(failure);
        report.bucket = bucket;
        report.closes = closes;
        report.to = Delivery {
            session,
            target: Target::Bucket(bucket),
            function: invocation.function,
            ..Delivery::default()
        };
        let to = report.to;
        report.previous = Ref::NONE;
        let of = &mut tables.sessions[session];
        report.next = std::mem::replace(&mut of.reports, taken);
        let next = report.next;
        of.busy += 1;
        of.count_delivery(app, &to, true);
        if next.is_some() {
            tables.reports[next].previous = taken;
        }
    }

    /// The node has written a report: it is published, unless its session has ended.
    pub(super) fn failure_written<S: Sink>(
        &mut self,
        id: AppId,
        ticket: Ticket,
        body: Ingress,
        sink: &mut S,
    ) {
        // With an app that is gone its ingress memory is gone, too.
        let Some(app) = self.apps.get_mut(id) else {
            return;
        };
        let slot = app.spec.ingress_slot();
        let Some(written) = self.tables.report_of(ticket) else {
            self.tables.release_extent(app, slot, body.extent, sink);
            return;
        };
        if app.is_out_of_objects() || app.has_too_many_names(1) {
            self.tables.release_extent(app, slot, body.extent, sink);
            let why = "limits.objects: the app has as many objects and names as it may";
            self.fail_unreported(written, why, sink);
            return;
        }
        let Report {
            failure,
            bucket,
            to,
            inputs,
            closes,
            ..
        } = self.tables.take_report(written);
        let failure = failure.expect("a report tells of a failure");
        let key = failure_text(failure.invocation);
        let publication = Publication {
            object: NewObject {
                session: self.tables.sessions[to.session].id,
                payload: Payload {
                    region: slot,
                    extent: body.extent,
                    size_bytes: body.size_bytes,
                    root: Ref::NONE,
                },
                bucket,
                key: InputKey::Named(&key),
                group: &group_of(app.function_name(to.function)),
                labelled: (0, 0),
            },
            to,
            author: Author::default(),
            is_durable: false,
        };
        let tables = &mut self.tables;
        let object = tables.create(app, &publication.object);
        tables.attach(object, inputs);
        tables.deliver(app, object, &to, sink);
        tables.enter_name(app, object, &publication);
        tables.keep_in_bucket(app, object, bucket, to.session);
        tables.sessions[to.session].busy -= 1;
        tables.sessions[to.session].count_delivery(app, &to, false);
        tables.drop_hold(app, object, sink);
        for trigger in closes {
            tables.close_source(app, to.session, trigger, sink);
        }
        self.dispatch_ready(id, sink);
        self.settle(to.session, sink);
    }

    /// The node could not write a report: its session fails, so that nothing is lost in silence.
    pub(super) fn failure_not_written<S: Sink>(
        &mut self,
        ticket: Ticket,
        reason: &str,
        sink: &mut S,
    ) {
        if let Some(unwritten) = self.tables.report_of(ticket) {
            self.fail_unreported(unwritten, reason, sink);
        }
    }

    fn fail_unreported<S: Sink>(&mut self, unwritten: Ref<Report>, reason: &str, sink: &mut S) {
        let Report {
            failure,
            bucket,
            to,
            ..
        } = &self.tables.reports[unwritten];
        let failed = failure.clone().expect("a report tells of a failure");
        let app = &self.apps[self.tables.sessions[to.session].app];
        let cause = Cause::Limit(format!(
            "its failure ({}) could not be published into bucket `{}`: {reason}",
            said(&failed.cause),
            app.spec.buckets[usize::from(*bucket)].name,
        ));
        let session = to.session;
        self.end_session(session, &End::Failed(Failure { cause, ..failed }), sink);
    }
}

impl Tables {
    /// The report of a ticket, unless its session has ended.
    fn report_of(&self, ticket: Ticket) -> Option<Ref<Report>> {
        self.reports.find(ticket.slot(), ticket.generation())
    }

    /// Takes a report out of its session's list and frees its slot.
    fn take_report(&mut self, taken: Ref<Report>) -> Report {
        let report = std::mem::take(&mut self.reports[taken]);
        if report.previous.is_some() {
            self.reports[report.previous].next = report.next;
        } else {
            self.sessions[report.to.session].reports = report.next;
        }
        if report.next.is_some() {
            self.reports[report.next].previous = report.previous;
        }
        self.reports.give(taken);
        report
    }

    /// Drops the reports of an ending session. What is written for them goes back when it comes.
    pub(super) fn drop_reports<S: Sink>(
        &mut self,
        app: &mut App,
        ending: Ref<Session>,
        sink: &mut S,
    ) {
        while let Some(dropped) = self.sessions[ending].reports.some() {
            for input in self.take_report(dropped).inputs {
                self.drop_hold(app, input, sink);
            }
        }
    }
}

/// The group of a report: the function's name, as far as a group has room for it.
fn group_of(function: &str) -> Vec<u8> {
    let mut end = function.len().min(GROUP_BYTES_MAX);
    while !function.is_char_boundary(end) {
        end -= 1;
    }
    function.as_bytes()[..end].to_vec()
}
