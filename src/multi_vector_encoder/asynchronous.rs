//! `encode` and its relatives for async code.

use super::{MultiVectorEncodeOptions, MultiVectorEncoder};
use crate::call::Call;
use crate::error::Result;
use crate::loader::Loader;
use crate::matrix::Matrix;

impl Loader<MultiVectorEncoder> {
    /// [`load`](Self::load) for async code. Dropped before its end, it still loads to the end, for nobody; what it downloads is
    /// kept.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_async(self) -> Call<MultiVectorEncoder> {
        Call::new(None, |_| self.load())
    }
}

impl MultiVectorEncoder {
    /// [`encode_with`](Self::encode_with) for async code: the call takes the texts, and begins at once. Its progress callback
    /// runs on a thread of its own.
    ///
    /// # Errors
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_async<S: Into<String>>(
        &self,
        texts: impl IntoIterator<Item = S>,
        options: MultiVectorEncodeOptions,
    ) -> Call<Vec<Matrix>> {
        self.call(texts, options, MultiVectorEncoder::encode_with)
    }

    /// [`encode_query`](Self::encode_query) for async code, like [`encode_async`](Self::encode_async).
    ///
    /// # Errors
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_query_async<S: Into<String>>(
        &self,
        texts: impl IntoIterator<Item = S>,
        options: MultiVectorEncodeOptions,
    ) -> Call<Vec<Matrix>> {
        self.call(texts, options, MultiVectorEncoder::encode_query)
    }

    /// [`encode_document`](Self::encode_document) for async code, like [`encode_async`](Self::encode_async).
    ///
    /// # Errors
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_document_async<S: Into<String>>(
        &self,
        texts: impl IntoIterator<Item = S>,
        options: MultiVectorEncodeOptions,
    ) -> Call<Vec<Matrix>> {
        self.call(texts, options, MultiVectorEncoder::encode_document)
    }

    fn call<S: Into<String>>(
        &self,
        texts: impl IntoIterator<Item = S>,
        options: MultiVectorEncodeOptions,
        encode: fn(&Self, &[String], &MultiVectorEncodeOptions) -> Result<Vec<Matrix>>,
    ) -> Call<Vec<Matrix>> {
        let texts: Vec<String> = texts.into_iter().map(Into::into).collect();
        let model = self.clone();
        Call::new(options.cancel.clone().as_ref(), move |cancel| {
            encode(&model, &texts, &MultiVectorEncodeOptions { cancel: Some(cancel), ..options })
        })
    }
}
