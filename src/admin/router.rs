//! Which path and method means which handler; limits; who may call.

use std::sync::Arc;

use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post, put};
use axum::{Json, Router};

use super::types::ErrorInfo;
use super::{
    Context, Peer, activations, audit, clones, diff, images, import, operations, pins, repoint, snapshots, status,
    trace, warm,
};

/// Largest request body, in bytes: 100,000 names of the longest kind, and room.
pub(super) const MAX_BODY: usize = 32 << 20;

/// All endpoints. `allow_uids` are the users who may call besides root and our own.
pub(super) fn router(context: Arc<Context>, allow_uids: Vec<u32>) -> Router {
    let allowed = Arc::new(Allowed { own: rustix::process::geteuid().as_raw(), more: allow_uids });
    Router::new()
        .route("/v1/images", get(images::list).delete(images::remove))
        .route("/v1/images/{name}", get(images::show).patch(images::set))
        .route("/v1/images/{name}/import", post(import::import))
        .route("/v1/images/{name}/tags/{tag}", put(images::tag))
        .route("/v1/diff", get(diff::diff))
        .route("/v1/clones", get(clones::list).post(clones::create).patch(clones::label).delete(clones::remove))
        .route("/v1/clones/{name}", get(clones::show))
        .route("/v1/clones/{name}/diff", get(diff::diff_clone))
        .route("/v1/clones/{name}/trace", get(trace::record).delete(trace::end))
        .route("/v1/clones/{name}/snapshots", get(snapshots::list).delete(snapshots::remove))
        .route("/v1/clones/{name}/snapshots/{snapshot}", patch(snapshots::label))
        .route("/v1/clones/{name}/restore", post(snapshots::restore))
        .route("/v1/policies", patch(clones::set))
        .route("/v1/snapshots", post(snapshots::take))
        .route("/v1/forks", post(snapshots::fork))
        .route("/v1/promotions", post(import::promote))
        .route("/v1/repoint", post(repoint::repoint))
        .route("/v1/operations", get(operations::list).post(operations::start))
        .route("/v1/operations/{id}", get(operations::show))
        .route("/v1/operations/{id}/clones", get(operations::clones))
        .route("/v1/operations/{id}/follow", get(operations::follow))
        .route("/v1/operations/{id}/pause", post(operations::pause))
        .route("/v1/operations/{id}/resume", post(operations::resume))
        .route("/v1/operations/{id}/abort", post(operations::abort))
        .route("/v1/operations/{id}/rollback", post(operations::roll_back))
        .route("/v1/warm", post(warm::warm))
        .route("/v1/pins", get(pins::list).delete(pins::drop_pins))
        .route("/v1/activations", post(activations::activate).delete(activations::withdraw))
        .route("/v1/audit", get(audit::entries))
        .route("/v1/df", get(status::usage))
        .route("/v1/status", get(status::status))
        .route("/metrics", get(status::metrics))
        .fallback(no_such_endpoint)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(context.clone(), audit::audit))
        .layer(middleware::from_fn_with_state(allowed, admit))
        .with_state(context)
}

struct Allowed {
    own: u32,
    more: Vec<u32>,
}

impl Allowed {
    fn admits(&self, peer: Peer) -> bool {
        peer.uid.is_some_and(|uid| uid == 0 || uid == self.own || self.more.contains(&uid))
    }
}

async fn admit(
    State(allowed): State<Arc<Allowed>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if allowed.admits(peer) {
        return next.run(request).await;
    }
    let who = peer.uid.map_or("a user that the kernel does not tell".to_owned(), |uid| format!("user {uid}"));
    tracing::warn!("admin API: refused {who}");
    let info = ErrorInfo {
        error: format!("{who} may not use the admin API"),
        kind: "forbidden".into(),
        remedy: Some("call as root or as the daemon's user, or add the user to admin.allow_uids".into()),
    };
    (StatusCode::FORBIDDEN, Json(info)).into_response()
}

async fn no_such_endpoint(request: Request) -> Response {
    let info = ErrorInfo {
        error: format!("no endpoint {} {}", request.method(), request.uri().path()),
        kind: "not_found".into(),
        remedy: Some("check that the command line and the daemon are of the same version".into()),
    };
    (StatusCode::NOT_FOUND, Json(info)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_ourselves_and_the_listed_are_admitted() {
        let allowed = Allowed { own: 7, more: vec![1000] };
        for uid in [0, 7, 1000] {
            assert!(allowed.admits(Peer { uid: Some(uid), pid: None }), "{uid}");
        }
        assert!(!allowed.admits(Peer { uid: Some(8), pid: None }));
        assert!(!allowed.admits(Peer { uid: None, pid: None }));
    }
}
