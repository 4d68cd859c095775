//! `encode` and its relatives for async code, and a stream of embeddings of a stream of texts.

use super::{EncodeOptions, SentenceTransformer};
use crate::call::Call;
use crate::error::Result;
use crate::loader::Loader;
use crate::matrix::Matrix;
use crate::quantization::{Precision, Quantized, Ranges};
use futures::{FutureExt, Stream, StreamExt, future, stream};
use std::ops::RangeInclusive;

/// Texts of a stream that are encoded together, if there are as many: few at first, so that the first embeddings come soon, then
/// twice as many each time.
const TOGETHER: RangeInclusive<usize> = 32..=512;

/// Calls of a stream at a time: the device has the next one's batches when it is done with one's.
const CALLS: usize = 2;

impl Loader<SentenceTransformer> {
    /// [`load`](Self::load) for async code. Dropped before its end, it still loads to the end, for nobody; what it downloads is
    /// kept.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_async(self) -> Call<SentenceTransformer> {
        Call::new(None, |_| self.load())
    }
}

impl SentenceTransformer {
    /// [`encode_with`](Self::encode_with) for async code: the call takes the texts, and begins at once. Its progress callback
    /// runs on a thread of its own.
    ///
    /// ```no_run
    /// # async fn search(model: lexel::SentenceTransformer) -> lexel::Result<()> {
    /// let embeddings = model.encode_async(["what is a texel?"], Default::default()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_async<S: Into<String>>(
        &self,
        texts: impl IntoIterator<Item = S>,
        options: EncodeOptions,
    ) -> Call<Matrix> {
        self.call(texts, options, SentenceTransformer::encode_with)
    }

    /// [`encode_query`](Self::encode_query) for async code, like [`encode_async`](Self::encode_async).
    ///
    /// # Errors
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_query_async<S: Into<String>>(
        &self,
        texts: impl IntoIterator<Item = S>,
        options: EncodeOptions,
    ) -> Call<Matrix> {
        self.call(texts, options, SentenceTransformer::encode_query)
    }

    /// [`encode_document`](Self::encode_document) for async code, like [`encode_async`](Self::encode_async).
    ///
    /// # Errors
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_document_async<S: Into<String>>(
        &self,
        texts: impl IntoIterator<Item = S>,
        options: EncodeOptions,
    ) -> Call<Matrix> {
        self.call(texts, options, SentenceTransformer::encode_document)
    }

    /// [`encode_quantized`](Self::encode_quantized) for async code, like [`encode_async`](Self::encode_async).
    ///
    /// # Errors
    /// As [`encode_quantized`](Self::encode_quantized).
    pub fn encode_quantized_async<S: Into<String>>(
        &self,
        texts: impl IntoIterator<Item = S>,
        options: EncodeOptions,
        precision: Precision,
        ranges: Option<Ranges>,
    ) -> Call<Quantized> {
        self.call(texts, options, move |model, texts, options| {
            model.encode_quantized(texts, options, precision, ranges.as_ref())
        })
    }

    /// [`encode_tokens`](Self::encode_tokens) for async code, like [`encode_async`](Self::encode_async).
    ///
    /// # Errors
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_tokens_async<S: Into<String>>(
        &self,
        texts: impl IntoIterator<Item = S>,
        options: EncodeOptions,
    ) -> Call<Vec<Matrix>> {
        self.call(texts, options, SentenceTransformer::encode_tokens)
    }

    /// The embedding of each text of a stream, `[dim]`, in their order. Texts that are ready together are encoded together, up
    /// to 32 at first and later 512, and their embeddings come together; none waits for a text that is not ready yet. The stream
    /// ends with the first error, and with the texts; dropped, it ends its calls.
    ///
    /// # Errors
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_stream<S, T>(
        &self,
        texts: T,
        options: EncodeOptions,
    ) -> impl Stream<Item = Result<Vec<f32>>> + use<S, T>
    where
        S: Into<String>,
        T: Stream<Item = S>,
    {
        let model = self.clone();
        let calls = in_groups(texts).map(move |texts| model.encode_async(texts, options.clone()));
        let rows = |result: Result<Matrix>| match result {
            Ok(embeddings) => (0..embeddings.rows).map(|i| Ok(embeddings.row(i).to_vec())).collect(),
            Err(error) => vec![Err(error)],
        };
        calls.buffered(CALLS).flat_map(move |result| stream::iter(rows(result))).scan(false, |failed, row| {
            let ended = std::mem::replace(failed, row.is_err());
            future::ready((!ended).then_some(row))
        })
    }

    fn call<S: Into<String>, T: Send + 'static>(
        &self,
        texts: impl IntoIterator<Item = S>,
        options: EncodeOptions,
        encode: impl FnOnce(&Self, &[String], &EncodeOptions) -> Result<T> + Send + 'static,
    ) -> Call<T> {
        let texts: Vec<String> = texts.into_iter().map(Into::into).collect();
        let model = self.clone();
        Call::new(options.cancel.clone().as_ref(), move |cancel| {
            encode(&model, &texts, &EncodeOptions { cancel: Some(cancel), ..options })
        })
    }
}

/// What is ready together, as [`TOGETHER`] says.
fn in_groups<T>(items: impl Stream<Item = T>) -> impl Stream<Item = Vec<T>> {
    let items = Box::pin(items.fuse());
    // Pinned, as callers expect of what they ask for the next.
    Box::pin(stream::unfold((items, *TOGETHER.start()), |(mut items, most)| async move {
        let mut group = vec![items.next().await?];
        while group.len() < most {
            match items.next().now_or_never() {
                Some(Some(item)) => group.push(item),
                // At its end, or not ready.
                Some(None) | None => break,
            }
        }
        Some((group, (items, (2 * most).min(*TOGETHER.end()))))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pollster::block_on;
    use std::task::Poll;

    #[test]
    fn groups_grow_and_take_what_is_ready() {
        let sizes = |groups: Vec<Vec<usize>>| groups.iter().map(Vec::len).collect::<Vec<_>>();
        let groups: Vec<_> = block_on(in_groups(stream::iter(0..2000)).collect());
        assert!(groups.concat().into_iter().eq(0..2000));
        assert_eq!(sizes(groups), [32, 64, 128, 256, 512, 512, 496]);
        // After every tenth, the next is not ready at once.
        let texts = stream::iter(0..25).then(|i| async move {
            if i > 0 && i % 10 == 0 {
                let mut asked = false;
                future::poll_fn(|context| {
                    context.waker().wake_by_ref();
                    if std::mem::replace(&mut asked, true) { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            }
            i
        });
        let groups: Vec<_> = block_on(in_groups(texts).collect());
        assert!(groups.concat().into_iter().eq(0..25));
        assert_eq!(sizes(groups), [10, 10, 5]);
        assert!(block_on(in_groups(stream::empty::<usize>()).collect::<Vec<_>>()).is_empty());
    }
}
