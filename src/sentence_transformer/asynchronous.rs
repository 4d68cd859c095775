//! `encode` and its relatives for async code, and a stream of embeddings of a stream of texts.

use super::{EncodeOptions, SentenceTransformer};
use crate::call::Call;
use crate::error::Result;
use crate::loader::Loader;
use crate::matrix::Matrix;
use crate::quantization::{Precision, Quantized, Ranges};
use futures::{Stream, StreamExt, future, stream};

/// Texts of a stream that are encoded together, if there are as many.
const TOGETHER: usize = 512;

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
    /// to 512, and their embeddings come together; none waits for a text that is not ready yet. The stream ends with the first
    /// error, and with the texts; dropped, it ends its calls.
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
        let calls = texts.ready_chunks(TOGETHER).map(move |texts| model.encode_async(texts, options.clone()));
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
