//! `predict` and `rank` for async code.

use super::{CrossEncoder, Hit, PredictOptions, RankOptions};
use crate::call::Call;
use crate::loader::Loader;
use crate::matrix::Matrix;

impl Loader<CrossEncoder> {
    /// [`load`](Self::load) for async code. Dropped before its end, it still loads to the end, for nobody; what it downloads is
    /// kept.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_async(self) -> Call<CrossEncoder> {
        Call::new(None, |_| self.load())
    }
}

impl CrossEncoder {
    /// [`predict_with`](Self::predict_with) for async code: the call takes the pairs, and begins at once. Its progress callback
    /// runs on a thread of its own.
    ///
    /// # Errors
    /// As [`predict_with`](Self::predict_with).
    pub fn predict_async<A: Into<String>, B: Into<String>>(
        &self,
        pairs: impl IntoIterator<Item = (A, B)>,
        options: PredictOptions,
    ) -> Call<Matrix> {
        let pairs: Vec<(String, String)> = pairs.into_iter().map(|(a, b)| (a.into(), b.into())).collect();
        let model = self.clone();
        Call::new(options.cancel.clone().as_ref(), move |cancel| {
            model.predict_with(&pairs, &PredictOptions { cancel: Some(cancel), ..options })
        })
    }

    /// [`rank_with`](Self::rank_with) for async code, like [`predict_async`](Self::predict_async).
    ///
    /// # Errors
    /// As [`rank`](Self::rank).
    pub fn rank_async<S: Into<String>>(
        &self,
        query: impl Into<String>,
        documents: impl IntoIterator<Item = S>,
        options: RankOptions,
    ) -> Call<Vec<Hit>> {
        let (query, documents): (String, Vec<String>) = (query.into(), documents.into_iter().map(Into::into).collect());
        let model = self.clone();
        Call::new(options.predict.cancel.clone().as_ref(), move |cancel| {
            let predict = PredictOptions { cancel: Some(cancel), ..options.predict };
            model.rank_with(&query, &documents, &RankOptions { predict, ..options })
        })
    }
}
