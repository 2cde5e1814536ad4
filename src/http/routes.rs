//! What each path answers.

use axum::{
    Router,
    extract::State,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::IntoResponse,
    routing::get,
};
use serde_json::json;

use super::Shown;
use crate::buses::REGISTRY;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

const INDEX: &str = "\
amibus
/live     the process runs
/ready    every server is up, its spool is written, and every required bus is reachable
/metrics  for Prometheus
/version  what is running
";

pub(super) fn router(shown: Shown) -> Router {
    Router::new()
        .route("/", get(|| async { answer(StatusCode::OK, TEXT, INDEX.to_owned()) }))
        .route("/live", get(|| async { answer(StatusCode::OK, TEXT, "live\n".to_owned()) }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .with_state(shown)
}

/// 200 when ready and 503 when not, with the same body.
async fn ready(State(shown): State<Shown>) -> impl IntoResponse {
    let report = shown.health.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_string(&report) {
        Ok(body) => answer(status, JSON, body + "\n"),
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string()),
    }
}

async fn metrics(State(shown): State<Shown>) -> impl IntoResponse {
    for (bus, ok) in shown.health.buses() {
        shown.metrics.bus(bus).up.set(i64::from(ok));
    }
    answer(StatusCode::OK, OPEN_METRICS, shown.metrics.encode())
}

async fn version() -> impl IntoResponse {
    let buses: Vec<&str> = REGISTRY.iter().map(|bus| bus.name).collect();
    let version = json!({ "name": "amibus", "version": env!("CARGO_PKG_VERSION"), "buses": buses });
    answer(StatusCode::OK, JSON, format!("{version}\n"))
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> impl IntoResponse {
    (status, [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store")], body)
}
