//! Properties of the HTTP/1.x connection tracker, over generated conversations and over anything else.
//!
//! A [`conversation`] makes the bytes of both directions, [`reference`] says what they mean (from whole byte strings, with
//! `httparse`), [`wire`] cuts them into segments and [`recorder`] drives the tracker and keeps what it observed.

mod conversation;
mod endings;
mod findings;
mod forms;
mod garbage;
mod operations;
mod pieces;
mod recorder;
mod reference;
mod segments;
mod stream;
mod tcp;
mod tokens;
mod unseen;
mod wire;
