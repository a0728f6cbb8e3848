//! Clones.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body as HttpBody, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::stream;
use serde::Deserialize;

use super::Context;
use super::reply::{Answer, Body, Refused};
use super::types::{CloneInfo, CloneList, ClonesCreated, CreateClones, LabelClones, RemoveClones, Removed};
use super::views::{clone_info, version_name};
use crate::error::{Error, Result};
use crate::image::{self, CloneNames, CloneRecord, LabelEdits, Labels, NewClones, Selector};

/// Clones that are turned into text at a time.
const LIST_STEP: usize = 1024;

/// The query of `clone ls` and `pins`.
#[derive(Deserialize)]
pub(super) struct Selection {
    select: Option<String>,
}

impl Selection {
    /// The clones that match, of one revision.
    pub fn clones(&self, state: &image::State) -> Result<Vec<Arc<CloneRecord>>> {
        let selector: Selector = self.select.as_deref().map_or(Ok(Selector::default()), str::parse)?;
        Ok(state.select(&selector).cloned().collect())
    }
}

/// A `CloneList`, made while it is sent: a listing of many costs little memory.
pub(super) async fn list(
    State(cx): State<Arc<Context>>,
    Query(selection): Query<Selection>,
) -> Result<Response, Refused> {
    let state = cx.catalog.state();
    let clones = selection.clones(&state)?;
    let steps = clones.len().div_ceil(LIST_STEP).max(1);
    let pieces = (0..steps).map(move |step| Ok::<_, std::convert::Infallible>(piece(&state, &clones, step, steps)));
    let mut response = Response::new(HttpBody::from_stream(stream::iter(pieces)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Piece `step` of `steps` of the document `{"clones":[...]}`.
fn piece(state: &image::State, clones: &[Arc<CloneRecord>], step: usize, steps: usize) -> Bytes {
    let mut text = Vec::new();
    if step == 0 {
        text.extend_from_slice(b"{\"clones\":[");
    }
    for (i, clone) in clones.iter().enumerate().skip(step * LIST_STEP).take(LIST_STEP) {
        if i > 0 {
            text.push(b',');
        }
        serde_json::to_writer(&mut text, &clone_info(state, clone)).expect("our documents have string keys only");
    }
    if step + 1 == steps {
        text.extend_from_slice(b"]}");
    }
    text.into()
}

pub(super) async fn show(State(cx): State<Arc<Context>>, Path(name): Path<String>) -> Answer<CloneInfo> {
    let state = cx.catalog.state();
    let clone = state.find_clone(&name)?;
    Ok(Json(clone_info(&state, clone)))
}

pub(super) async fn create(State(cx): State<Arc<Context>>, Body(body): Body<CreateClones>) -> Answer<ClonesCreated> {
    let names = names_wanted(&body)?;
    let new = NewClones { version: body.image.parse()?, names, labels: Labels::parse(&body.labels)? };
    let image = new.version.image.clone();
    let made = cx.catalog.create_clones(new).await?;
    let number = made.first().map_or(0, |clone| clone.view.version);
    Ok(Json(ClonesCreated {
        version: version_name(&image, number),
        image,
        clones: made.len() as u64,
        names: made.iter().map(|clone| clone.name.to_string()).collect(),
    }))
}

fn names_wanted(body: &CreateClones) -> Result<Vec<String>> {
    match (&body.pattern, body.count) {
        (None, None) => Ok(body.names.clone()),
        (Some(pattern), Some(count)) if body.names.is_empty() => Ok(CloneNames::parse(pattern, count)?.iter().collect()),
        _ => Err(Error::invalid("names of clones").remedy("give names, or a pattern and a count")),
    }
}

pub(super) async fn remove(State(cx): State<Arc<Context>>, Body(body): Body<RemoveClones>) -> Answer<Removed> {
    let removed = cx.catalog.remove_clones(body.names).await?;
    Ok(Json(Removed { names: removed.iter().map(|clone| clone.name.to_string()).collect() }))
}

pub(super) async fn label(State(cx): State<Arc<Context>>, Body(body): Body<LabelClones>) -> Answer<CloneList> {
    let labelled = cx.catalog.label_clones(body.names, LabelEdits::parse(&body.edits)?).await?;
    let state = cx.catalog.state();
    Ok(Json(CloneList { clones: labelled.iter().map(|clone| clone_info(&state, clone)).collect() }))
}
