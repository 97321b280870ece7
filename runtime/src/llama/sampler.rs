//! Sampler: the chain built from a request's options, and the grammar that bounds it.
//!
//! The library's own "sample" call lets C++ exceptions of a grammar cross into Rust, and aborts
//! when an end token is accepted too early. So candidates are taken out, the grammar is applied to
//! them, and a token is accepted only when the grammar left it standing.

use std::time::{Duration, Instant};

use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::data::LlamaTokenData;
use llama_cpp_2::token::data_array::LlamaTokenDataArray;
use serde::{Deserialize, Serialize};

use super::model::Model;
use super::{LlamaFault, Token};

/// What one answer may spend on its grammar, together.
const MAX_GRAMMAR_TIME: Duration = Duration::from_secs(60);

/// How the next token is chosen, in llama.cpp's terms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sampling {
    /// 0 takes the most likely token always.
    pub(crate) temperature: f32,
    /// Only the k most likely; 0 or less: all.
    pub(crate) top_k: i32,
    /// Only the most likely that together reach this probability; 1: all.
    pub(crate) top_p: f32,
    /// Only those with at least this share of the best one's probability; 0: all.
    pub(crate) min_p: f32,
    /// Locally typical sampling; 1: off.
    pub(crate) typical_p: f32,
    /// Tokens looked back at for the penalties; -1: the whole context.
    pub(crate) repeat_last_n: i32,
    /// Divides the logits of repeated tokens; 1: off.
    pub(crate) repeat_penalty: f32,
    /// Taken off the logits of tokens that occurred; 0: off.
    pub(crate) presence_penalty: f32,
    /// Taken off for each occurrence; 0: off.
    pub(crate) frequency_penalty: f32,
    /// For the random choice; none: a new one per request.
    pub(crate) seed: Option<u32>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.9,
            min_p: 0.0,
            typical_p: 1.0,
            repeat_last_n: 64,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: None,
        }
    }
}

impl Sampling {
    fn is_greedy(&self) -> bool {
        self.temperature <= 0.0
    }

    fn has_penalties(&self) -> bool {
        self.repeat_last_n != 0
            && (self.repeat_penalty != 1.0
                || self.presence_penalty != 0.0
                || self.frequency_penalty != 0.0)
    }
}

/// Chooses tokens for one request and remembers what it needs of those before.
pub(crate) struct Sampler {
    chain: LlamaSampler,
    grammar: Option<LlamaSampler>,
    /// Nothing but the largest logit counts, so it is looked up directly.
    plain_greedy: bool,
    /// How many tokens the penalties look back at.
    look_back: usize,
    /// Time spent on the grammar so far: all requests of the model wait for it.
    grammar_time: Duration,
}

impl Sampler {
    /// Builds the chain in llama.cpp's usual order. `context` bounds the look-back.
    pub(crate) fn build(
        model: &Model,
        sampling: &Sampling,
        grammar: Option<&str>,
        context: u32,
    ) -> Result<Self, LlamaFault> {
        let context = i32::try_from(context).unwrap_or(i32::MAX);
        let last = match sampling.repeat_last_n {
            n if n < 0 => context,
            n => n.min(context),
        };
        let mut samplers = Vec::new();
        if sampling.has_penalties() {
            samplers.push(LlamaSampler::penalties(
                model.vocabulary_size(),
                last,
                sampling.repeat_penalty,
                sampling.frequency_penalty,
                sampling.presence_penalty,
            ));
        }
        if sampling.is_greedy() {
            samplers.push(LlamaSampler::greedy());
        } else {
            samplers.push(LlamaSampler::top_k(sampling.top_k));
            samplers.push(LlamaSampler::typical(sampling.typical_p, 1));
            samplers.push(LlamaSampler::top_p(sampling.top_p, 1));
            samplers.push(LlamaSampler::min_p(sampling.min_p, 1));
            samplers.push(LlamaSampler::temp(sampling.temperature));
            samplers.push(LlamaSampler::dist(
                sampling.seed.unwrap_or_else(rand::random),
            ));
        }
        let grammar = grammar
            .map(|text| LlamaSampler::grammar(model.inner(), text, "root"))
            .transpose()
            .map_err(|_refused| LlamaFault::Grammar)?;
        Ok(Self {
            chain: LlamaSampler::chain(samplers, true),
            plain_greedy: sampling.is_greedy() && !sampling.has_penalties(),
            look_back: if sampling.has_penalties() {
                usize::try_from(last).unwrap_or(0)
            } else {
                0
            },
            grammar,
            grammar_time: Duration::ZERO,
        })
    }

    /// Shows the penalties the end of the prompt, as llama.cpp's own server does.
    pub(crate) fn remember_prompt(&mut self, prompt: &[Token]) {
        let from = prompt.len().saturating_sub(self.look_back);
        for token in prompt.get(from..).unwrap_or_default() {
            // Penalties take any token of the vocabulary; there is no grammar in this chain.
            let _accepted = self.chain.try_accept(*token);
        }
    }

    /// Chooses the next token from the logits of a decode, and takes it into account.
    pub(crate) fn sample(&mut self, logits: &[f32]) -> Result<Token, LlamaFault> {
        if logits.iter().any(|logit| logit.is_nan()) {
            return Err(LlamaFault::NotANumber);
        }
        let began = Instant::now();
        let token = self.choose(logits)?;
        if self.look_back > 0 {
            self.chain
                .try_accept(token)
                .map_err(|error| LlamaFault::Decode(error.to_string()))?;
        }
        if let Some(grammar) = &mut self.grammar {
            grammar
                .try_accept(token)
                .map_err(|_thrown| LlamaFault::GrammarStuck)?;
            self.grammar_time += began.elapsed();
            if self.grammar_time > MAX_GRAMMAR_TIME {
                return Err(LlamaFault::GrammarTooSlow);
            }
        }
        Ok(token)
    }

    /// First without the grammar, which costs a look at the whole vocabulary; only when the choice
    /// breaks the grammar again with it.
    fn choose(&mut self, logits: &[f32]) -> Result<Token, LlamaFault> {
        let first = if self.plain_greedy {
            most_likely(logits)?
        } else {
            let mut candidates = all_candidates(logits);
            self.chain.apply(&mut candidates);
            candidates.selected_token().ok_or(LlamaFault::NotANumber)?
        };
        let Some(grammar) = &mut self.grammar else {
            return Ok(first);
        };
        let mut single =
            LlamaTokenDataArray::new(vec![LlamaTokenData::new(first, 1.0, 0.0)], false);
        grammar.apply(&mut single);
        if allowed(&single) {
            return Ok(first);
        }
        let mut candidates = all_candidates(logits);
        grammar.apply(&mut candidates);
        // The chain must not see refused candidates: with nothing else left it would pick one.
        candidates
            .data
            .retain(|data| data.logit() > f32::NEG_INFINITY);
        if candidates.data.is_empty() {
            return Err(LlamaFault::GrammarStuck);
        }
        self.chain.apply(&mut candidates);
        candidates.selected_token().ok_or(LlamaFault::GrammarStuck)
    }
}

fn allowed(single: &LlamaTokenDataArray) -> bool {
    single
        .data
        .first()
        .is_some_and(|data| data.logit() > f32::NEG_INFINITY)
}

fn all_candidates(logits: &[f32]) -> LlamaTokenDataArray {
    LlamaTokenDataArray::from_iter(
        (0_i32..)
            .zip(logits)
            .map(|(id, logit)| LlamaTokenData::new(Token::new(id), *logit, 0.0)),
        false,
    )
}

fn most_likely(logits: &[f32]) -> Result<Token, LlamaFault> {
    (0_i32..)
        .zip(logits)
        .reduce(|best, next| if next.1 > best.1 { next } else { best })
        .map(|(id, _logit)| Token::new(id))
        .ok_or(LlamaFault::NotANumber)
}
