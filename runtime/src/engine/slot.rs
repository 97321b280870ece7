//! Slot: one sequence of the shared context, and the request it serves.

use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

use super::protocol::{DoneReason, Event, Failure, GenerateRequest, Overflow, Usage};
use super::text::TextAssembler;
use crate::llama::context::common_prefix;
use crate::llama::model::Model;
use crate::llama::sampler::Sampler;
use crate::llama::{LlamaFault, Token};

/// A sequence number, what the KV cache holds for it, and the request in it, if any.
pub(crate) struct Slot {
    /// The sequence in the context.
    pub(crate) sequence: u32,
    /// Tokens whose keys and values are in the cache, in order.
    pub(crate) cached: Vec<Token>,
    /// When the slot was last given up; the longest idle one is taken first.
    pub(crate) idle_since: Instant,
    /// The request being served.
    pub(crate) job: Option<Job>,
}

impl Slot {
    /// An empty slot.
    pub(crate) fn new(sequence: u32) -> Self {
        Self {
            sequence,
            cached: Vec::new(),
            idle_since: Instant::now(),
            job: None,
        }
    }
}

/// A request on its way through a slot.
pub(crate) struct Job {
    /// The request's own number.
    pub(crate) id: u64,
    /// All tokens of the sequence: the prompt, then what was generated.
    tokens: Vec<Token>,
    prompt_length: usize,
    cached_length: usize,
    /// The most tokens the sequence may reach.
    limit: usize,
    max_tokens: u64,
    generated: u64,
    sampler: Sampler,
    text: TextAssembler,
    events: UnboundedSender<Event>,
    began: Instant,
    first_token: Option<Instant>,
    /// Where the outputs of the last decode are, when the job asked for them.
    pub(crate) output: Option<i32>,
    /// Tokens of this job in the batch that is being decoded.
    added: usize,
}

/// Whether a job goes on after a token.
pub(crate) enum Progress {
    /// It wants more tokens.
    Goes,
    /// It is over; its slot is free.
    Over,
}

impl Job {
    /// Checks and prepares a request: tokens, limits, sampler. What is wrong is for the caller.
    pub(crate) fn prepare(
        model: &Model,
        context_length: u32,
        request: &GenerateRequest,
        events: UnboundedSender<Event>,
    ) -> Result<Self, Failure> {
        let limit = request
            .context_limit
            .map_or(context_length, |limit| limit.min(context_length));
        let tokens = fit(
            model.tokenize(&request.prompt, request.add_special),
            usize::try_from(limit).unwrap_or(usize::MAX),
            request.overflow,
        )?;
        let mut sampler =
            Sampler::build(model, &request.sampling, request.grammar.as_deref(), limit)
                .map_err(|fault| failure(&fault))?;
        sampler.remember_prompt(&tokens);
        Ok(Self {
            id: request.id,
            prompt_length: tokens.len(),
            tokens,
            cached_length: 0,
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            max_tokens: request.max_tokens.map_or(u64::MAX, u64::from),
            generated: 0,
            sampler,
            text: TextAssembler::new(&request.stop),
            events,
            began: Instant::now(),
            first_token: None,
            output: None,
            added: 0,
        })
    }

    /// How much of the prompt `cached` already holds. The last token is always decoded again: its
    /// output is what the first choice is made from.
    pub(crate) fn reusable(&self, cached: &[Token]) -> usize {
        common_prefix(&self.tokens, cached).min(self.prompt_length.saturating_sub(1))
    }

    /// Says how much was taken from the cache, and tells the caller that decoding begins.
    pub(crate) fn admit(&mut self, cached_length: usize) {
        self.cached_length = cached_length;
        self.began = Instant::now();
        self.send(Event::Admitted);
    }

    /// Whether the caller is gone.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// Tokens that are not in the cache yet: the rest of the prompt, or the last choice.
    pub(crate) fn pending<'job>(&'job self, cached: &[Token]) -> &'job [Token] {
        self.tokens.get(cached.len()..).unwrap_or_default()
    }

    /// Whether the prompt is still being read.
    pub(crate) fn reads_prompt(&self) -> bool {
        self.generated == 0
    }

    /// Makes the next choice from `logits` and sends what it gives.
    pub(crate) fn advance(&mut self, model: &Model, logits: &[f32]) -> Progress {
        if self.max_tokens == 0 {
            return self.end(DoneReason::Length);
        }
        self.first_token.get_or_insert_with(Instant::now);
        let token = match self.sampler.sample(logits) {
            Ok(token) => token,
            Err(fault) => {
                self.send(Event::Failed(failure(&fault)));
                return Progress::Over;
            }
        };
        self.generated += 1;
        if model.ends_generation(token) {
            return self.end(DoneReason::Stop);
        }
        self.tokens.push(token);
        if let Some(text) = self.text.push(&model.piece(token)) {
            self.send(Event::Text(text));
        }
        if self.text.is_stopped() {
            return self.end(DoneReason::Stop);
        }
        if self.generated >= self.max_tokens || self.tokens.len() >= self.limit {
            return self.end(DoneReason::Length);
        }
        Progress::Goes
    }

    /// Notes how many tokens went into the batch that is decoded next.
    pub(crate) fn note_added(&mut self, tokens: usize) {
        self.added = tokens;
    }

    /// How many tokens of this job the batch that was not decoded held.
    pub(crate) fn take_added(&mut self) -> usize {
        std::mem::take(&mut self.added)
    }

    /// Ends the answer with a failure.
    pub(crate) fn fail(&self, failure: Failure) {
        self.send(Event::Failed(failure));
    }

    fn end(&mut self, reason: DoneReason) -> Progress {
        if let Some(rest) = self.text.finish() {
            self.send(Event::Text(rest));
        }
        let now = Instant::now();
        let first = self.first_token.unwrap_or(now);
        let nanoseconds = |from: Instant, to: Instant| {
            u64::try_from(to.saturating_duration_since(from).as_nanos()).unwrap_or(u64::MAX)
        };
        self.send(Event::Done {
            reason,
            usage: Usage {
                prompt_tokens: count(self.prompt_length),
                cached_tokens: count(self.cached_length),
                generated_tokens: self.generated,
                prompt_nanoseconds: nanoseconds(self.began, first),
                generate_nanoseconds: nanoseconds(first, now),
            },
        });
        Progress::Over
    }

    fn send(&self, event: Event) {
        // A caller that is gone is seen by `is_abandoned` before the next step.
        let _sent = self.events.send(event);
    }
}

/// Brings a prompt to a length that leaves room for an answer.
fn fit(mut tokens: Vec<Token>, limit: usize, overflow: Overflow) -> Result<Vec<Token>, Failure> {
    if tokens.is_empty() {
        return Err(Failure::Engine("the prompt has no tokens".to_owned()));
    }
    match overflow {
        Overflow::Refuse { room } => {
            let most = limit.saturating_sub(usize::try_from(room.max(1)).unwrap_or(usize::MAX));
            if tokens.len() > most {
                return Err(Failure::PromptTooLong {
                    tokens: count(tokens.len()),
                    limit: count(most),
                });
            }
        }
        Overflow::Cut { keep } => {
            if tokens.len() >= limit {
                // A quarter of the context is left for the answer.
                let most = (limit - limit / 4).max(1);
                let keep = usize::try_from(keep).unwrap_or(usize::MAX).min(most / 2);
                let tail = tokens.len() - (most - keep);
                tokens.drain(keep..tail);
            }
        }
    }
    Ok(tokens)
}

/// How a fault of llama.cpp reads to the caller of one request.
pub(crate) fn failure(fault: &LlamaFault) -> Failure {
    match fault {
        LlamaFault::Grammar | LlamaFault::GrammarStuck | LlamaFault::GrammarTooSlow => {
            Failure::Format(fault.to_string())
        }
        LlamaFault::Backend(_)
        | LlamaFault::Load { .. }
        | LlamaFault::Context { .. }
        | LlamaFault::Batch(_)
        | LlamaFault::CacheFull
        | LlamaFault::Decode(_)
        | LlamaFault::NotANumber => Failure::Engine(fault.to_string()),
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::{Overflow, fit};
    use crate::engine::protocol::Failure;
    use crate::llama::Token;

    fn tokens(count: i32) -> Vec<Token> {
        (0..count).map(Token::new).collect()
    }

    #[test]
    fn a_prompt_that_fits_is_left_alone() {
        assert_eq!(
            fit(tokens(9), 10, Overflow::Refuse { room: 1 }).unwrap(),
            tokens(9)
        );
        assert_eq!(
            fit(tokens(9), 10, Overflow::Cut { keep: 4 }).unwrap().len(),
            9
        );
    }

    #[test]
    fn a_prompt_without_room_for_an_answer_is_refused() {
        assert_eq!(
            fit(tokens(10), 10, Overflow::Refuse { room: 1 }),
            Err(Failure::PromptTooLong {
                tokens: 10,
                limit: 9
            })
        );
    }

    #[test]
    fn a_cut_keeps_the_start_and_the_end() {
        let kept = fit(tokens(100), 20, Overflow::Cut { keep: 4 }).unwrap();
        assert_eq!(kept.len(), 15);
        assert_eq!(kept[..4], tokens(4)[..]);
        assert_eq!(kept[4..], tokens(100)[89..]);
    }

    #[test]
    fn a_cut_with_an_absurd_keep_still_keeps_the_end() {
        let kept = fit(tokens(100), 8, Overflow::Cut { keep: u32::MAX }).unwrap();
        assert_eq!(kept.len(), 6);
        assert_eq!(kept.last(), Some(&Token::new(99)));
    }
}
