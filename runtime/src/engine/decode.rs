//! The decode loop: fills one batch from all slots, decodes it, chooses the next tokens.
//!
//! Every step takes one token of each slot that is answering and shares what is left of the batch
//! between the prompts being read, so a long prompt cannot hold up the answers, nor the answers
//! each other. Between two steps new requests are let in and cancelled ones dropped.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

use super::Message;
use super::protocol::{Event, Failure, GenerateRequest};
use super::slot::{Job, Progress, Slot, failure};
use crate::llama::LlamaFault;
use crate::llama::batch::Batch;
use crate::llama::context::Context;
use crate::llama::model::Model;

/// The most tokens in one decode step: also what a cancelled request waits for.
pub(super) const BATCH_TOKENS: u32 = 512;

/// The state of an engine thread.
pub(super) struct DecodeLoop<'model> {
    model: &'model Model,
    context: Context<'model>,
    batch: Batch,
    context_length: u32,
    slots: Vec<Slot>,
    waiting: VecDeque<(GenerateRequest, UnboundedSender<Event>)>,
    /// The slot whose prompt goes first in the next batch, so that all get their turn.
    first_prompt: usize,
}

impl<'model> DecodeLoop<'model> {
    /// A loop with `sequences` slots of `context_length` positions each.
    pub(super) fn new(
        model: &'model Model,
        context: Context<'model>,
        sequences: u32,
        context_length: u32,
    ) -> Self {
        let capacity = usize::try_from(BATCH_TOKENS).unwrap_or(1);
        Self {
            model,
            context,
            batch: Batch::new(capacity, sequences),
            context_length,
            slots: (0..sequences).map(Slot::new).collect(),
            waiting: VecDeque::new(),
            first_prompt: 0,
        }
    }

    /// Runs until it is told to stop or nobody can send any more.
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        while self.take_messages(messages).is_continue() {
            self.drop_abandoned();
            self.fill_slots();
            self.step();
        }
        self.fail_all(&Failure::Stopping);
    }

    /// Takes what has arrived; waits for something when there is nothing to do.
    fn take_messages(&mut self, messages: &Receiver<Message>) -> ControlFlow<()> {
        if self.is_idle() {
            match messages.recv() {
                Ok(message) => self.take(message)?,
                Err(_gone) => return ControlFlow::Break(()),
            }
        }
        loop {
            match messages.try_recv() {
                Ok(message) => self.take(message)?,
                Err(TryRecvError::Empty) => return ControlFlow::Continue(()),
                // The answers under way are still wanted; the next idle wait ends the loop.
                Err(TryRecvError::Disconnected) => return ControlFlow::Continue(()),
            }
        }
    }

    fn take(&mut self, message: Message) -> ControlFlow<()> {
        match message {
            Message::Generate(request, events) => self.waiting.push_back((*request, events)),
            Message::Cancel(id) => self.cancel(id),
            Message::Stop => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.slots.iter().all(|slot| slot.job.is_none())
    }

    fn cancel(&mut self, id: u64) {
        self.waiting.retain(|(request, _events)| request.id != id);
        for slot in &mut self.slots {
            if slot.job.as_ref().is_some_and(|job| job.id == id) {
                free(slot);
            }
        }
    }

    fn drop_abandoned(&mut self) {
        self.waiting
            .retain(|(_request, events)| !events.is_closed());
        for slot in &mut self.slots {
            if slot.job.as_ref().is_some_and(Job::is_abandoned) {
                free(slot);
            }
        }
    }

    /// Gives waiting requests to free slots, each to the slot that holds most of its prompt.
    fn fill_slots(&mut self) {
        while self.slots.iter().any(|slot| slot.job.is_none()) {
            let Some((request, events)) = self.waiting.pop_front() else {
                return;
            };
            match Job::prepare(self.model, self.context_length, &request, events.clone()) {
                Ok(job) => self.admit(job),
                Err(failure) => {
                    // A caller that is gone needs no answer.
                    let _sent = events.send(Event::Failed(failure));
                }
            }
        }
    }

    fn admit(&mut self, mut job: Job) {
        let best = self
            .slots
            .iter_mut()
            .filter(|slot| slot.job.is_none())
            .max_by_key(|slot| {
                (
                    job.reusable(&slot.cached),
                    std::cmp::Reverse(slot.idle_since),
                )
            });
        let Some(slot) = best else {
            job.fail(Failure::Engine("no slot is free".to_owned()));
            return;
        };
        let kept = self
            .context
            .keep_prefix(slot.sequence, job.reusable(&slot.cached));
        slot.cached.truncate(kept);
        job.admit(kept);
        slot.job = Some(job);
    }

    /// One decode step over all slots.
    fn step(&mut self) {
        if let Err(fault) = self.fill_batch() {
            self.give_up(&fault);
            return;
        }
        if self.batch.len() == 0 {
            return;
        }
        match self.context.decode(&mut self.batch) {
            Ok(()) => self.advance(),
            Err(LlamaFault::CacheFull) => self.make_room(),
            Err(fault) => self.give_up(&fault),
        }
    }

    /// Answers first, one token each; then the prompts share what is left.
    fn fill_batch(&mut self) -> Result<(), LlamaFault> {
        self.batch.clear();
        for slot in &mut self.slots {
            if slot.job.as_ref().is_some_and(|job| !job.reads_prompt()) {
                add_tokens(&mut self.batch, slot, 1)?;
            }
        }
        let reading: Vec<usize> = (0..self.slots.len())
            .map(|offset| (self.first_prompt + offset) % self.slots.len())
            .filter(|index| {
                self.slots[*index]
                    .job
                    .as_ref()
                    .is_some_and(Job::reads_prompt)
            })
            .collect();
        self.first_prompt = (self.first_prompt + 1) % self.slots.len().max(1);
        let mut left = reading.len();
        for index in reading {
            let share = self.batch.room().div_ceil(left.max(1));
            add_tokens(&mut self.batch, &mut self.slots[index], share)?;
            left -= 1;
        }
        Ok(())
    }

    /// After a decode: the slots whose output was asked for choose their next token.
    fn advance(&mut self) {
        for slot in &mut self.slots {
            let Some(job) = slot.job.as_mut() else {
                continue;
            };
            let Some(index) = job.output.take() else {
                continue;
            };
            let progress = job.advance(self.model, self.context.logits(index));
            if matches!(progress, Progress::Over) {
                free(slot);
            }
        }
    }

    /// The cache had no room: prefixes kept for later are the first to go.
    fn make_room(&mut self) {
        self.undo_batch();
        let mut freed = false;
        for slot in &mut self.slots {
            if slot.job.is_none() && !slot.cached.is_empty() {
                self.context.forget(slot.sequence);
                slot.cached.clear();
                freed = true;
            }
        }
        if !freed {
            self.give_up(&LlamaFault::CacheFull);
        }
    }

    /// Takes back what [`add_tokens`] noted for a batch that was not decoded.
    fn undo_batch(&mut self) {
        for slot in &mut self.slots {
            if let Some(job) = slot.job.as_mut() {
                job.output = None;
                let undecoded = job.take_added();
                slot.cached.truncate(slot.cached.len() - undecoded);
            }
        }
    }

    /// A step failed: nobody's state can be trusted, so all requests under way fail and all
    /// sequences start again from nothing.
    fn give_up(&mut self, fault: &LlamaFault) {
        tracing::error!(error = %fault, "decode failed, dropping the requests under way");
        for slot in &mut self.slots {
            if let Some(job) = slot.job.take() {
                job.fail(failure(fault));
            }
            self.context.forget(slot.sequence);
            slot.cached.clear();
        }
    }

    fn fail_all(&mut self, reason: &Failure) {
        for slot in &mut self.slots {
            if let Some(job) = slot.job.take() {
                job.fail(reason.clone());
            }
        }
        for (_request, events) in self.waiting.drain(..) {
            // A caller that is gone needs no answer.
            let _sent = events.send(Event::Failed(reason.clone()));
        }
    }
}

/// Puts up to `most` of a slot's pending tokens into the batch; asks for the output of the last
/// one when nothing is pending after it.
fn add_tokens(batch: &mut Batch, slot: &mut Slot, most: usize) -> Result<(), LlamaFault> {
    let Some(job) = slot.job.as_mut() else {
        return Ok(());
    };
    let pending = job.pending(&slot.cached);
    let taken = pending.len().min(most).min(batch.room());
    let mut output = None;
    for (offset, token) in pending.iter().take(taken).enumerate() {
        let wants_output = offset + 1 == pending.len();
        let index = batch.add(
            *token,
            slot.cached.len() + offset,
            slot.sequence,
            wants_output,
        )?;
        if wants_output {
            output = Some(index);
        }
    }
    let added = pending[..taken].to_vec();
    slot.cached.extend(added);
    job.output = output;
    job.note_added(taken);
    Ok(())
}

/// Ends a slot's request; what it has in the cache stays for the next one with the same beginning.
fn free(slot: &mut Slot) {
    slot.job = None;
    slot.idle_since = Instant::now();
}
