//! What the configuration of PEFT's adapters says: the rank of each layer's pair, and what it is multiplied by.

use fancy_regex::Regex;
use serde_json::Value;

use super::adapter::positive;
use super::config::JsonFile;
use crate::error::Result;

/// The ranks and scales of an adapter's layers.
pub(super) struct PeftScaling {
    config: JsonFile,
    rank: usize,
    alpha: f32,
    /// Whether it is divided by the rank's root (rsLoRA, Kalajdzievski 2023).
    by_root: bool,
    ranks: Vec<Pattern>,
    alphas: Vec<Pattern>,
}

/// Another number for the layers whose names end so.
struct Pattern {
    key: String,
    name: Regex,
    number: f64,
}

impl PeftScaling {
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) for an adapter of another kind, and for one that does more.
    pub fn read(config: &JsonFile) -> Result<PeftScaling> {
        refuse_other_kinds(config)?;
        let (rank, alpha) = (config.usize("r")?, config.f32("lora_alpha")?);
        let by_root = config.bool_or("use_rslora", false)?;
        let (ranks, alphas) = (patterns(config, "rank_pattern")?, patterns(config, "alpha_pattern")?);
        positive(config, "r", rank)?;
        Ok(PeftScaling { config: config.clone(), rank, alpha, by_root, ranks, alphas })
    }

    /// The rank of a layer, and what `B * A` is multiplied by there.
    pub fn of(&self, layer: &str) -> Result<(usize, f32)> {
        let rank = match self.number("rank_pattern", &self.ranks, layer)? {
            Some(rank) if rank < 1.0 || rank.fract() != 0.0 => {
                return Err(self.config.invalid("rank_pattern", "whole numbers, at least 1"));
            }
            Some(rank) => rank as usize,
            None => self.rank,
        };
        let alpha = self.number("alpha_pattern", &self.alphas, layer)?.map_or(self.alpha, |alpha| alpha as f32);
        Ok((rank, alpha / if self.by_root { (rank as f32).sqrt() } else { rank as f32 }))
    }

    /// What the patterns of `key` say of a layer. PEFT takes the first that fits, in an order that is not kept here.
    fn number(&self, key: &str, patterns: &[Pattern], layer: &str) -> Result<Option<f64>> {
        let mut fitting = Vec::new();
        for pattern in patterns {
            // What would take too long to match.
            let fits = pattern.name.is_match(layer).map_err(|_| self.config.invalid(key, "shorter expressions"))?;
            fitting.extend(fits.then_some(pattern));
        }
        let Some(first) = fitting.first() else { return Ok(None) };
        if let Some(other) = fitting.iter().find(|other| other.number != first.number) {
            let both = format!("{:?} and {:?} for {layer}", first.key, other.key);
            return Err(self.config.unsupported_value(key, &both, "one pattern for a layer"));
        }
        Ok(Some(first.number))
    }
}

/// The patterns of a key, as PEFT reads them: regular expressions for the end of a name, from a dot on.
fn patterns(config: &JsonFile, key: &str) -> Result<Vec<Pattern>> {
    let Some(of) = config.get(key) else { return Ok(vec![]) };
    let invalid = || config.invalid(key, "an object of numbers by regular expressions");
    let pattern = |(of, number): (&String, &Value)| {
        let name = Regex::new(&format!(r"^(?:.*\.)?(?:{of})$")).map_err(|_| invalid())?;
        Ok(Pattern { key: of.clone(), name, number: number.as_f64().ok_or_else(invalid)? })
    };
    of.as_object().ok_or_else(invalid)?.iter().map(pattern).collect()
}

/// What changes more than `W + s * B * A` says.
fn refuse_other_kinds(config: &JsonFile) -> Result<()> {
    if config.str("peft_type")? != "LORA" {
        return Err(config.unsupported("peft_type", "LORA"));
    }
    for key in ["use_dora", "fan_in_fan_out", "lora_bias"] {
        if config.bool_or(key, false)? {
            return Err(config.unsupported(key, "false"));
        }
    }
    if config.str_or("bias", "none")? != "none" {
        return Err(config.unsupported("bias", "none"));
    }
    // Others change the matrix that they begin with, too, each time they are loaded.
    let begins = config.get("init_lora_weights");
    if !begins.is_none_or(|how| how.is_boolean() || ["gaussian", "orthogonal"].iter().any(|known| how == known)) {
        return Err(config.unsupported("init_lora_weights", "true, false, gaussian, orthogonal"));
    }
    const MORE: [&str; 4] =
        ["alora_invocation_tokens", "layer_replication", "modules_to_save", "trainable_token_indices"];
    for key in MORE {
        let is_empty = |value: &serde_json::Value| {
            value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty)
        };
        if config.get(key).is_some_and(|value| !is_empty(value)) {
            return Err(config.unsupported(key, "null"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
