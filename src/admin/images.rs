//! Images, versions and tags.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};

use super::Context;
use super::reply::{Answer, Body};
use super::selection::Selection;
use super::types::{ImageInfo, ImageList, Remove, Removed, SetImage, TagRequest};
use super::views::{ClonesPerVersion, image_info, switch_edits};
use crate::error::{Error, Result};
use crate::image::{ImageRef, LabelEdits, SwitchEdits, VersionRef};

pub(super) async fn list(State(cx): State<Arc<Context>>, Query(selection): Query<Selection>) -> Answer<ImageList> {
    let selector = selection.selector()?;
    let state = cx.catalog.state();
    let clones = ClonesPerVersion::count(&state);
    let selected = state.images().filter(|image| selector.matches(&image.labels));
    Ok(Json(ImageList { images: selected.map(|image| image_info(&state, image, &clones)).collect() }))
}

pub(super) async fn show(State(cx): State<Arc<Context>>, Path(name): Path<String>) -> Answer<ImageInfo> {
    Ok(Json(shown(&cx, &name)?))
}

fn shown(cx: &Context, name: &str) -> Result<ImageInfo> {
    let state = cx.catalog.state();
    let image = state.find_image(name)?;
    Ok(image_info(&state, image, &ClonesPerVersion::count_image(&state, image.id)))
}

/// Change labels of `IMAGE` or `IMAGE@VERSION`; take tags of an image away and set how its clones are
/// switched. Answers the image.
pub(super) async fn set(
    State(cx): State<Arc<Context>>,
    Path(name): Path<String>,
    Body(body): Body<SetImage>,
) -> Answer<ImageInfo> {
    let (edits, switch) = (LabelEdits::parse(&body.edits)?, switch_edits(&body.switch)?);
    let image = match name.parse()? {
        ImageRef::Image(image) => cx.catalog.set_image(&image, edits, body.untag, switch).await?.name.to_string(),
        ImageRef::Version(version) if body.untag.is_empty() && switch == SwitchEdits::default() => {
            let image = version.image.clone();
            cx.catalog.label_version(version, edits).await?;
            image
        }
        ImageRef::Version(version) => {
            let what = format!("tags or policies of {version}, which is a version");
            let remedy = format!("they are the image's: mimeo image set {} ...", version.image);
            return Err(Error::invalid(what).remedy(remedy).into());
        }
    };
    Ok(Json(shown(&cx, &image)?))
}

/// Remove each `IMAGE` with all its versions, each `IMAGE@VERSION`, or the images that match: all or none.
pub(super) async fn remove(State(cx): State<Arc<Context>>, Body(body): Body<Remove>) -> Answer<Removed> {
    let names = match (body.select, body.names.is_empty()) {
        (Some(selector), true) => cx.catalog.remove_selected_images(selector.parse()?).await?,
        (None, false) => {
            let which: Result<Vec<ImageRef>> = body.names.iter().map(|name| name.parse()).collect();
            cx.catalog.remove_images(which?).await?
        }
        _ => return Err(Error::invalid("which images?").remedy("give names, or a selector").into()),
    };
    tracing::info!("removed {}", names.join(", "));
    Ok(Json(Removed { names }))
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
