//! A small language model of the llama architecture with random weights, as a GGUF file (version 3,
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>): what it says is noise, but it says it as any model does.
//!
//! Its tokens are single letters, so each one is text by itself and an event of a stream.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::chance::Chance;

/// Width of the model: large enough that a prompt of a few hundred tokens takes some 100 ms on one CPU.
const WIDTH: u64 = 256;
const LAYERS: u32 = 6;
const HEADS: u32 = 8;
const INNER: u64 = 768;
/// Longest conversation, in tokens.
const CONTEXT: u32 = 4096;
/// Where tensors begin: multiples of this.
const ALIGNMENT: u64 = 32;

/// Types of values in a GGUF file.
mod kind {
    pub(super) const U32: u32 = 4;
    pub(super) const I32: u32 = 5;
    pub(super) const F32: u32 = 6;
    pub(super) const STRING: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
    /// The only type of tensors here.
    pub(super) const TENSOR_F32: u32 = 0;
}

/// A token and its type in llama.cpp (`llama_token_type`).
fn tokens() -> Vec<(String, i32)> {
    let (normal, unknown, control, byte_kind) = (1, 2, 3, 6);
    let special = [("<unk>".to_owned(), unknown), ("<s>".to_owned(), control), ("</s>".to_owned(), control)];
    let bytes = (0..=255u8).map(|byte| (format!("<0x{byte:02X}>"), byte_kind));
    let letters = ('a'..='z').flat_map(|letter| [letter.to_string(), format!("\u{2581}{letter}")]);
    special.into_iter().chain(bytes).chain(letters.map(|text| (text, normal))).collect()
}

/// Tokens before the letters.
const NOT_LETTERS: usize = 3 + 256;

/// Writes the model.
///
/// # Errors
/// Those of the file.
pub fn write(path: &Path) -> io::Result<()> {
    let tokens = tokens();
    let vocabulary = tokens.len() as u64;
    let mut tensors: Vec<(String, Vec<u64>)> = vec![
        ("token_embd.weight".to_owned(), vec![WIDTH, vocabulary]),
        ("output_norm.weight".to_owned(), vec![WIDTH]),
        ("output.weight".to_owned(), vec![WIDTH, vocabulary]),
    ];
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("attn_norm", vec![WIDTH]),
            ("attn_q", vec![WIDTH, WIDTH]),
            ("attn_k", vec![WIDTH, WIDTH]),
            ("attn_v", vec![WIDTH, WIDTH]),
            ("attn_output", vec![WIDTH, WIDTH]),
            ("ffn_norm", vec![WIDTH]),
            ("ffn_gate", vec![WIDTH, INNER]),
            ("ffn_up", vec![WIDTH, INNER]),
            ("ffn_down", vec![INNER, WIDTH]),
        ] {
            tensors.push((format!("blk.{layer}.{name}.weight"), shape));
        }
    }
    let values = values(&tokens);
    let mut head = b"GGUF".to_vec();
    head.extend(3u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((values.len() as u64).to_le_bytes());
    head.extend(values.concat());
    let mut offset = 0;
    for (name, shape) in &tensors {
        head.extend(string(name));
        head.extend((shape.len() as u32).to_le_bytes());
        head.extend(shape.iter().flat_map(|size| size.to_le_bytes()));
        head.extend(kind::TENSOR_F32.to_le_bytes());
        head.extend(u64::to_le_bytes(offset));
        offset += (shape.iter().product::<u64>() * 4).next_multiple_of(ALIGNMENT);
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT as usize), 0);
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&head)?;
    let mut chance = Chance(1);
    for (name, shape) in &tensors {
        let count = shape.iter().product::<u64>();
        for place in 0..count {
            let weight = match name.as_str() {
                _ if name.ends_with("norm.weight") => 1.0,
                // What is no letter gets no weight, so the likeliest token is always a letter.
                "output.weight" if place < NOT_LETTERS as u64 * WIDTH => 0.0,
                _ => weight(&mut chance) / 8.0,
            };
            file.write_all(&f32::to_le_bytes(weight))?;
        }
        // All shapes are multiples of the alignment.
        assert_eq!(count * 4 % ALIGNMENT, 0, "{name}");
    }
    file.flush()
}

/// The model's properties, each with its key.
fn values(tokens: &[(String, i32)]) -> Vec<Vec<u8>> {
    let text = |key: &str, value: &str| [string(key), kind::STRING.to_le_bytes().into(), string(value)].concat();
    let number =
        |key: &str, value: u32| [string(key), kind::U32.to_le_bytes().into(), value.to_le_bytes().into()].concat();
    let float =
        |key: &str, value: f32| [string(key), kind::F32.to_le_bytes().into(), value.to_le_bytes().into()].concat();
    let array = |key: &str, kind: u32, items: Vec<Vec<u8>>| {
        let head = [kind::ARRAY.to_le_bytes(), kind.to_le_bytes()].concat();
        [string(key), head, (items.len() as u64).to_le_bytes().into(), items.concat()].concat()
    };
    let each = |of: fn(&(String, i32)) -> Vec<u8>| tokens.iter().map(of).collect();
    vec![
        text("general.architecture", "llama"),
        text("general.name", "noise"),
        number("llama.context_length", CONTEXT),
        number("llama.embedding_length", WIDTH as u32),
        number("llama.block_count", LAYERS),
        number("llama.feed_forward_length", INNER as u32),
        number("llama.attention.head_count", HEADS),
        float("llama.attention.layer_norm_rms_epsilon", 1e-5),
        text("tokenizer.ggml.model", "llama"),
        array("tokenizer.ggml.tokens", kind::STRING, each(|(text, _)| string(text))),
        array("tokenizer.ggml.scores", kind::F32, each(|_| 0f32.to_le_bytes().into())),
        array("tokenizer.ggml.token_type", kind::I32, each(|(_, kind)| kind.to_le_bytes().into())),
        number("tokenizer.ggml.unknown_token_id", 0),
        number("tokenizer.ggml.bos_token_id", 1),
        number("tokenizer.ggml.eos_token_id", 2),
    ]
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A number between -1 and 1.
fn weight(chance: &mut Chance) -> f32 {
    (chance.number() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}
