//! `lexel_embed(folder, part)`: embeds a part of a job, publishes it in the job's folder, and returns how many rows it has.

use crate::worker;
use async_trait::async_trait;
use datafusion::arrow::array::{AsArray, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::path::PathBuf;
use std::sync::Arc;

/// What plans call it, in every process.
pub const NAME: &str = "lexel_embed";

/// The function. Plans name it and do not contain it: scheduler, executors and client each register it.
pub fn lexel_embed() -> Arc<ScalarUDF> {
    // Volatile: it is called for what it does, once a row, where the row is.
    let signature = Signature::exact(vec![DataType::Utf8, DataType::Int64], Volatility::Volatile);
    Arc::new(AsyncScalarUDF::new(Arc::new(LexelEmbed { signature })).into_scalar_udf())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct LexelEmbed {
    signature: Signature,
}

impl ScalarUDFImpl for LexelEmbed {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::UInt64)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(DataFusionError::Internal(format!("{NAME} is called asynchronously")))
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for LexelEmbed {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let (folders, parts) = (columns[0].as_string::<i32>(), columns[1].as_primitive::<Int64Type>());
        let mut rows = Vec::with_capacity(parts.len());
        for (folder, part) in folders.iter().zip(parts) {
            let index = part.and_then(|part| usize::try_from(part).ok());
            let (Some(folder), Some(index)) = (folder.map(PathBuf::from), index) else {
                let detail = format!("{NAME}({folder:?}, {part:?}): give a folder, and a part from 0 on");
                return Err(DataFusionError::Execution(detail));
            };
            // It takes long and may download a model: not on a thread that serves others.
            let embedded = tokio::task::spawn_blocking(move || worker::embed(&folder, index)).await;
            let embedded = embedded.map_err(|error| DataFusionError::External(Box::new(error)))?;
            rows.push(embedded.map_err(|error| DataFusionError::External(Box::new(error)))?);
        }
        Ok(ColumnarValue::Array(Arc::new(UInt64Array::from(rows))))
    }
}
