//! The numbers that llama.cpp reads of every model (`llama_model_base::load_hparams`): their
//! types, their bounds, and what they must be to each other.

use super::unsound::Unsound;
use crate::gguf::error::shown;
use crate::gguf::{Header, Value, ValueType};

/// llama.cpp's own limit.
const MAX_BLOCKS: u64 = 512;
/// Far beyond any model; keeps products of these numbers small.
const MAX_WIDTH: u64 = 1 << 20;
/// Positions, likewise.
const MAX_CONTEXT: u64 = 1 << 30;
/// Heads, likewise.
const MAX_HEADS: u64 = 1 << 14;
/// llama.cpp's own limit.
const MAX_EXPERTS: u64 = 1024;
/// The kinds of position scaling; llama.cpp aborts over any other.
const ROPE_SCALINGS: [&str; 4] = ["none", "linear", "yarn", "longrope"];

/// The metadata of one architecture.
#[derive(Debug)]
pub(super) struct Numbers<'header> {
    header: &'header Header,
    architecture: &'header str,
}

impl<'header> Numbers<'header> {
    pub(super) fn new(header: &'header Header, architecture: &'header str) -> Self {
        Self {
            header,
            architecture,
        }
    }

    pub(super) fn check(&self) -> Result<(), Unsound> {
        if let Some(other) = self.header.metadata().get("general.file_type")
            && !matches!(other, Value::U32(_))
        {
            return Err(Unsound::wrong_type("general.file_type", other, "uint32"));
        }
        for required in ["block_count", "context_length", "embedding_length"] {
            if self.value(required).is_none() {
                return Err(Unsound::Missing {
                    key: self.shown(required),
                });
            }
        }
        self.scalar("block_count", 1, MAX_BLOCKS)?;
        self.scalar("context_length", 1, MAX_CONTEXT)?;
        self.scalar("embedding_length", 1, MAX_WIDTH)?;
        self.by_layer("feed_forward_length", 1, MAX_WIDTH)?;
        self.by_layer("attention.head_count", 0, MAX_HEADS)?;
        self.by_layer("attention.head_count_kv", 0, MAX_HEADS)?;
        self.scalar("attention.key_length", 1, MAX_WIDTH)?;
        self.scalar("attention.value_length", 1, MAX_WIDTH)?;
        self.scalar("rope.dimension_count", 0, MAX_WIDTH)?;
        self.scalar("nextn_predict_layers", 0, MAX_BLOCKS)?;
        self.check_layers_ahead()?;
        self.check_experts()?;
        self.check_heads()?;
        self.check_rope_scaling()
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn shown(&self, key: &str) -> String {
        shown(&self.key(key))
    }

    fn value(&self, key: &str) -> Option<&'header Value> {
        self.header.metadata().get(&self.key(key))
    }

    /// The number under a key; none when it is absent or differs by layer.
    fn number(&self, key: &str) -> Option<u64> {
        self.value(key)?.as_u64()
    }

    /// One number for the whole model, if it is there: llama.cpp takes no type but this.
    fn scalar(&self, key: &str, least: u64, most: u64) -> Result<(), Unsound> {
        match self.value(key) {
            None => Ok(()),
            Some(&Value::U32(number)) => self.within(key, number.into(), least, most),
            Some(other) => Err(Unsound::wrong_type(&self.key(key), other, "uint32")),
        }
    }

    /// One number, or one for each layer; a layer that lacks a thing has 0 there.
    fn by_layer(&self, key: &str, least: u64, most: u64) -> Result<(), Unsound> {
        let Some(Value::Array(array)) = self.value(key) else {
            return self.scalar(key, least, most);
        };
        // Flags by layer share names with numbers by layer in some architectures.
        if array.element_type() == ValueType::Bool {
            return Ok(());
        }
        if !matches!(array.element_type(), ValueType::U32 | ValueType::I32) {
            let found = Value::Array(array.clone());
            return Err(Unsound::wrong_type(
                &self.key(key),
                &found,
                "uint32 or int32, one number or one for each layer",
            ));
        }
        let expected = self.number("block_count").unwrap_or_default();
        if array.len() as u64 != expected {
            return Err(Unsound::Layers {
                key: self.shown(key),
                found: array.len() as u64,
                expected,
            });
        }
        array.iter().try_for_each(|value| {
            // A negative number is one beyond every bound once it is read without its sign.
            self.within(key, value.as_u64().unwrap_or(u64::MAX), 0, most)
        })
    }

    fn within(&self, key: &str, found: u64, least: u64, most: u64) -> Result<(), Unsound> {
        if (least..=most).contains(&found) {
            return Ok(());
        }
        Err(Unsound::OutOfRange {
            key: self.shown(key),
            found,
            least,
            most,
        })
    }

    fn check_layers_ahead(&self) -> Result<(), Unsound> {
        let ahead = self.number("nextn_predict_layers").unwrap_or(0);
        let blocks = self.number("block_count").unwrap_or(0);
        refuse_if(ahead > blocks, || {
            format!("{ahead} of its {blocks} layers are said to predict ahead")
        })
    }

    /// llama.cpp aborts unless experts, those that are used, and their groups fit each other.
    fn check_experts(&self) -> Result<(), Unsound> {
        self.scalar("expert_count", 0, MAX_EXPERTS)?;
        self.by_layer("expert_used_count", 0, MAX_EXPERTS)?;
        self.scalar("expert_group_count", 0, MAX_EXPERTS)?;
        self.scalar("expert_group_used_count", 0, MAX_EXPERTS)?;
        let number = |key| self.number(key).unwrap_or(0);
        let experts = number("expert_count");
        // These it takes for models without experts when they have one.
        if experts <= 1 && self.architecture.starts_with("hunyuan") {
            return Ok(());
        }
        let used = match self.value("expert_used_count") {
            Some(Value::Array(array)) => array.iter().filter_map(|value| value.as_u64()).max(),
            Some(scalar) => scalar.as_u64(),
            None => None,
        };
        let used = used.unwrap_or(0);
        let groups = number("expert_group_count");
        let groups_used = number("expert_group_used_count");
        refuse_if(used > experts, || {
            format!("it uses {used} of {experts} experts")
        })?;
        refuse_if(experts > 0 && used == 0, || {
            format!("it uses none of its {experts} experts")
        })?;
        refuse_if(groups > 0 && groups >= experts, || {
            format!("it has {groups} groups of {experts} experts")
        })?;
        let unfit = groups > 1
            && (!experts.is_multiple_of(groups) || groups_used == 0 || groups_used >= groups);
        refuse_if(unfit, || {
            format!("it uses {groups_used} of {groups} groups of {experts} experts")
        })
    }

    /// Heads divide what they are to divide.
    fn check_heads(&self) -> Result<(), Unsound> {
        let Some(heads) = self
            .number("attention.head_count")
            .filter(|heads| *heads > 0)
        else {
            return Ok(());
        };
        let width = self.number("embedding_length").unwrap_or(0);
        let key_length = self
            .number("attention.key_length")
            .unwrap_or_else(|| width / heads);
        let is_uneven =
            self.value("attention.key_length").is_none() && !width.is_multiple_of(heads);
        refuse_if(is_uneven, || {
            format!("its width of {width} is not divided by its {heads} heads")
        })?;
        if let Some(pairs) = self.number("attention.head_count_kv") {
            let unfit = pairs > heads || (pairs > 0 && !heads.is_multiple_of(pairs));
            refuse_if(unfit, || {
                format!("its {heads} heads are not divided by {pairs} for keys and values")
            })?;
        }
        if let Some(rotated) = self.number("rope.dimension_count") {
            let unfit = rotated > key_length || !rotated.is_multiple_of(2);
            refuse_if(unfit, || {
                format!("it rotates {rotated} dimensions of heads of {key_length}")
            })?;
        }
        Ok(())
    }

    fn check_rope_scaling(&self) -> Result<(), Unsound> {
        match self.value("rope.scaling.type") {
            None => Ok(()),
            Some(Value::String(kind)) => refuse_if(!ROPE_SCALINGS.contains(&kind.as_str()), || {
                let kind = shown(kind);
                format!("its positions are scaled by \"{kind}\", which llama.cpp aborts over")
            }),
            Some(other) => Err(Unsound::wrong_type(
                &self.key("rope.scaling.type"),
                other,
                "string",
            )),
        }
    }
}

fn refuse_if(is_wrong: bool, reason: impl FnOnce() -> String) -> Result<(), Unsound> {
    if is_wrong {
        Err(Unsound::Contradiction(reason()))
    } else {
        Ok(())
    }
}
