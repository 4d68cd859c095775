//! Texts and pairs with a prompt to token ids: the prompt stands before the (first) text, or is the system message of a chat.

use std::borrow::Cow;
use std::sync::Arc;

use rayon::prelude::*;

use super::chat_template::{ChatTemplate, Content, Frame};
use super::tokenizer::{Encoding, Tokenizer};
use crate::error::Result;

/// Texts of different tokens: what two chats with them end in alike is the template's.
const FILLERS: [&str; 2] = ["0", "1 2 3 4"];

impl Tokenizer {
    /// The same tokenizer for the chats of `template`: it brings its special tokens itself.
    pub(crate) fn with_chat(mut self, template: Option<Arc<ChatTemplate>>) -> Tokenizer {
        self.special &= template.is_none();
        self.chat = template;
        self
    }

    /// Encodes many texts in a frame on all cores; results are in the order of the texts.
    pub fn encode_batch_in<T>(&self, frame: Frame, texts: &[T]) -> Result<Vec<Encoding>>
    where
        T: AsRef<str> + Sync,
    {
        texts.par_iter().map(|text| self.encode_in(frame, Content::Text(text.as_ref()))).collect()
    }

    /// Encodes many pairs in a frame on all cores; results are in the order of the pairs.
    pub fn encode_pairs_in<A, B>(&self, frame: Frame, pairs: &[(A, B)]) -> Result<Vec<Encoding>>
    where
        A: AsRef<str> + Sync,
        B: AsRef<str> + Sync,
    {
        let pair = |(a, b): &(A, B)| self.encode_in(frame, Content::Pair(a.as_ref(), b.as_ref()));
        pairs.par_iter().map(pair).collect()
    }

    pub(super) fn encode_in(&self, frame: Frame, content: Content) -> Result<Encoding> {
        let with_prompt = |text| match frame.prompt {
            "" => Cow::Borrowed(text),
            prompt => Cow::Owned(format!("{prompt}{text}")),
        };
        let length = self.length_for(frame.task);
        match (&self.chat, content) {
            (Some(chat), _) => self.encode_chat(chat, frame, content, length),
            (None, Content::Text(text)) => {
                let mut encoding = self.encode_plain(&with_prompt(text), length)?;
                self.expand(frame.task, &mut encoding);
                Ok(encoding)
            }
            (None, Content::Pair(a, b)) => self.encode_plain_pair(&with_prompt(a), b),
        }
    }

    /// Refuses pairs that the chat template cannot carry.
    pub(crate) fn check_pairs(&self) -> Result<()> {
        self.chat.as_ref().map_or(Ok(()), |chat| chat.check_pairs())
    }

    /// A chat is cut as one text, and its template's end is then written over its last tokens.
    fn encode_chat(
        &self,
        chat: &ChatTemplate,
        frame: Frame,
        content: Content,
        length: Option<usize>,
    ) -> Result<Encoding> {
        let mut encoding = self.encode_plain(&chat.render(frame, content)?, length)?;
        if chat.restores_suffix() && length.is_some_and(|length| encoding.ids.len() >= length) {
            // Without an end that is known, the chat stays as it was cut: so does the reference's.
            let suffix = self.suffix(chat, frame, content).unwrap_or_default();
            let keep = suffix.len().min(encoding.ids.len());
            let start = encoding.ids.len() - keep;
            encoding.ids[start..].copy_from_slice(&suffix[suffix.len() - keep..]);
        }
        Ok(encoding)
    }

    /// The tokens that every chat in this frame with these roles ends in.
    fn suffix(&self, chat: &ChatTemplate, frame: Frame, content: Content) -> Result<Vec<u32>> {
        let ids = |filler| -> Result<Vec<u32>> {
            let content = match content {
                Content::Text(_) => Content::Text(filler),
                Content::Pair(..) => Content::Pair(filler, filler),
            };
            Ok(self.content(&chat.render(frame, content)?)?.get_ids().to_vec())
        };
        let [first, second] = [ids(FILLERS[0])?, ids(FILLERS[1])?];
        let common = first.iter().rev().zip(second.iter().rev()).take_while(|(a, b)| a == b).count();
        // Chats that never differ do not show where the content ends.
        match common < first.len().min(second.len()) {
            true => Ok(first[first.len() - common..].to_vec()),
            false => Ok(vec![]),
        }
    }
}
