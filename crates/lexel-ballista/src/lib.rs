//! lexel's job folders on a cluster of Apache DataFusion Ballista: one scheduler, any number of executors.
//!
//! A job is planned once, in parts, by the client. Then the engine maps the function `lexel_embed(folder, part)` over the
//! list of parts: an executor reads the part's rows, embeds them, publishes the part in the job's folder, and returns how
//! many rows it has. All that must survive is in the folder: a part is there if and only if it is complete, its lock ends
//! with the process that holds it, and a part that is there is not computed again. So the engine may lose an executor, run
//! a task twice, or lose a whole query, and every row is still there once.
//!
//! ```text
//!   main        the program: scheduler, executor, embed
//!   client      hands out the parts that are missing, until none is
//!   cluster     scheduler, executor and client, all with the function
//!   function    lexel_embed, by its name
//!   worker      what an executor keeps of a job: its folder, its model
//!   dataset     Parquet files in: the plan, and the rows of a part
//!   part        Parquet out
//! ```

pub mod client;
pub mod cluster;
pub mod dataset;
pub mod function;
mod part;
mod worker;
