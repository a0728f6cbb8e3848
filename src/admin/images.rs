//! Images, versions and tags.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};

use super::Context;
use super::reply::{Answer, Body};
use super::types::{ImageInfo, ImageList, Removed, SetImage, TagRequest};
use super::views::{ClonesPerVersion, image_info};
use crate::error::{Error, Result};
use crate::image::{ImageRef, LabelEdits, VersionRef};

pub(super) async fn list(State(cx): State<Arc<Context>>) -> Json<ImageList> {
    let state = cx.catalog.state();
    let clones = ClonesPerVersion::count(&state);
    Json(ImageList { images: state.images().map(|image| image_info(&state, image, &clones)).collect() })
}

pub(super) async fn show(State(cx): State<Arc<Context>>, Path(name): Path<String>) -> Answer<ImageInfo> {
    Ok(Json(shown(&cx, &name)?))
}

fn shown(cx: &Context, name: &str) -> Result<ImageInfo> {
    let state = cx.catalog.state();
    let image = state.find_image(name)?;
    Ok(image_info(&state, image, &ClonesPerVersion::count_image(&state, image.id)))
}

pub(super) async fn set(
    State(cx): State<Arc<Context>>,
    Path(name): Path<String>,
    Body(body): Body<SetImage>,
) -> Answer<ImageInfo> {
    let edits = LabelEdits::parse(&body.edits)?;
    cx.catalog.set_image(&name, edits, body.untag).await?;
    Ok(Json(shown(&cx, &name)?))
}

/// Remove `IMAGE` with all its versions, or `IMAGE@VERSION`.
pub(super) async fn remove(State(cx): State<Arc<Context>>, Path(name): Path<String>) -> Answer<Removed> {
    match name.parse()? {
        ImageRef::Image(image) => drop(cx.catalog.remove_image(&image).await?),
        ImageRef::Version(version) => drop(cx.catalog.remove_version(version).await?),
    }
    tracing::info!("removed {name}");
    Ok(Json(Removed { names: vec![name] }))
}

pub(super) async fn tag(
    State(cx): State<Arc<Context>>,
    Path((image, tag)): Path<(String, String)>,
    Body(body): Body<TagRequest>,
) -> Answer<ImageInfo> {
    let version: VersionRef = body.version.parse()?;
    if version.image != image {
        let what = format!("{version} is not a version of image {image:?}");
        return Err(Error::invalid(what).remedy("a tag names a version of its own image").into());
    }
    cx.catalog.tag(version, &tag).await?;
    Ok(Json(shown(&cx, &image)?))
}
