//! The three kinds of processes of a cluster, each with [`lexel_embed`] registered.

use crate::function::lexel_embed;
use ballista::prelude::SessionContextExt;
use ballista_core::error::BallistaError;
use ballista_core::extension::SessionConfigExt;
use ballista_core::registry::BallistaFunctionRegistry;
use ballista_core::utils::default_session_builder;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::{SchedulerConfig, TaskDistributionPolicy};
use ballista_scheduler::scheduler_process::start_server;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Where a scheduler listens, and when it gives an executor up.
pub struct Scheduler {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The name under which executors reach it.
    pub host: String,
    /// An executor that was silent for so many seconds is lost, and its tasks go to others.
    pub executor_timeout: u64,
}

/// Where an executor listens, and for whom it works.
pub struct Executor {
    /// Host and port of the scheduler.
    pub scheduler: (String, u16),
    /// The address to listen on.
    pub bind: IpAddr,
    /// The name under which scheduler and clients reach it.
    pub host: String,
    /// For results.
    pub port: u16,
    /// For tasks.
    pub grpc_port: u16,
    /// Parts at once: two, so that the device computes one while the other is read or written.
    pub slots: usize,
    /// Seconds between signs of life.
    pub heartbeat: u64,
}

impl Scheduler {
    /// Serves until the process ends.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn run(&self) -> Result<(), BallistaError> {
        let config = SchedulerConfig {
            external_host: self.host.clone(),
            bind_host: self.listen.ip().to_string(),
            bind_port: self.listen.port(),
            executor_timeout_seconds: self.executor_timeout,
            expire_dead_executor_interval_seconds: 1,
            // Each executor computes at its own pace: none gets tasks that wait while another is idle.
            task_distribution: TaskDistributionPolicy::RoundRobin,
            override_session_builder: Some(Arc::new(|config| {
                let state = default_session_builder(config)?;
                let mut functions: Vec<_> = state.scalar_functions().values().cloned().collect();
                functions.push(lexel_embed());
                Ok(SessionStateBuilder::new_from_existing(state).with_scalar_functions(functions).build())
            })),
            ..SchedulerConfig::default()
        };
        let cluster = BallistaCluster::new_from_config(&config).await?;
        start_server(cluster, self.listen, Arc::new(config)).await
    }
}

impl Executor {
    /// Works until the process ends.
    ///
    /// # Errors
    /// If it cannot listen, or the scheduler does not answer.
    pub async fn run(self) -> Result<(), BallistaError> {
        let mut functions = BallistaFunctionRegistry::default();
        let embed = lexel_embed();
        functions.scalar_functions.insert(embed.name().to_string(), embed);
        let (scheduler_host, scheduler_port) = self.scheduler;
        start_executor_process(Arc::new(ExecutorProcessConfig {
            scheduler_host,
            scheduler_port,
            scheduler_connect_timeout_seconds: 30,
            bind_host: self.bind.to_string(),
            external_host: Some(self.host),
            port: self.port,
            grpc_port: self.grpc_port,
            vcores: self.slots,
            executor_heartbeat_interval_seconds: self.heartbeat,
            override_function_registry: Some(Arc::new(functions)),
            ..ExecutorProcessConfig::default()
        }))
        .await
    }
}

/// A client's session, for a query of so many tasks.
///
/// # Errors
/// If `scheduler` is no URL such as `df://localhost:50050`.
pub async fn session(scheduler: &str, tasks: usize) -> Result<SessionContext, DataFusionError> {
    let config = SessionConfig::new_with_ballista()
        .with_target_partitions(tasks)
        // A task that fails takes no other part with it.
        .set_usize("ballista.scheduler.max_partitions_per_task", 1)
        .with_ballista_job_name("lexel");
    let state = SessionStateBuilder::new().with_default_features().with_config(config).build();
    let context = SessionContext::remote_with_state(scheduler, state).await?;
    context.register_udf(lexel_embed().as_ref().clone());
    Ok(context)
}
