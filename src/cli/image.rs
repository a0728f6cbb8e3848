//! `mimeo image ...`

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser as Name;
use hyper::Method;
use serde::Serialize;

use super::client::{Client, broken_off, escape, refused, selecting};
use super::diff;
use super::output::{Output, count, fields, labels, local, size, table, words};
use super::progress::ImportBar;
use super::repoint::{SwitchArgs, switch_policy};
use super::serve::absolute;
use super::{trace, warm};
use crate::admin::types::{
    ImageInfo, ImageList, ImportBody, ImportInfo, ImportLine, LabelMap, Remove, Removed, SetImage, TagRequest,
    VersionInfo,
};

#[derive(Subcommand)]
pub(super) enum ImageCommand {
    /// Import a folder as the next version of an image
    Import {
        /// The image; made if there is none of that name
        #[arg(value_parser = Name::new())]
        name: String,
        /// The folder. The daemon reads it, on its own machine
        source: PathBuf,
        /// Label of the version; may be repeated
        #[arg(long = "label", value_name = "k=v")]
        labels: Vec<String>,
        /// Whether what is in the source was at rest when it was copied
        #[arg(long, value_parser = ["application", "crash", "unknown"], default_value = "unknown")]
        consistency: String,
        /// Lay out what this recording of a boot read in the order in which it did, so that a cold boot reads on
        #[arg(long, value_name = "TRACE")]
        layout: Option<PathBuf>,
    },
    /// List images
    Ls {
        /// Only those whose labels match: k=v, k!=v, k, !k, separated by commas
        #[arg(long, value_name = "SELECTOR")]
        select: Option<String>,
    },
    /// Show an image and its versions
    Show {
        #[arg(value_parser = Name::new())]
        image: String,
    },
    /// Set labels of an image or a version (k=v), remove them (k-); take tags of an image away, set how its
    /// clones are switched
    Set {
        #[arg(value_name = "IMAGE[@VERSION]", value_parser = Name::new())]
        image: String,
        /// k=v sets, k- removes
        #[arg(
            value_name = "k=v|k-",
            required_unless_present_any = ["untag", "writes", "conflict", "activate"],
            allow_hyphen_values = false
        )]
        edits: Vec<String>,
        /// Take a tag away; may be repeated
        #[arg(long, value_name = "TAG")]
        untag: Vec<String>,
        #[command(flatten)]
        switch: SwitchArgs,
    },
    /// Remove images that have no clones, or versions: all of them or none
    Rm {
        #[arg(value_name = "IMAGE[@VERSION]", required_unless_present = "select", value_parser = Name::new())]
        images: Vec<String>,
        /// Images whose labels match: k=v, k!=v, k, !k, separated by commas
        #[arg(long, value_name = "SELECTOR", conflicts_with = "images")]
        select: Option<String>,
    },
    /// Make TAG mean this version
    Tag {
        #[arg(value_name = "IMAGE@VERSION", value_parser = Name::new())]
        version: String,
        #[arg(value_parser = Name::new())]
        tag: String,
    },
    /// List the paths that differ: A added, M modified, D deleted in B; with lengths before and after
    Diff {
        #[arg(value_name = "A", value_parser = Name::new())]
        a: String,
        #[arg(value_name = "B", value_parser = Name::new())]
        b: String,
    },
}

pub(super) async fn run(command: ImageCommand, client: &mut Client, output: &mut Output) -> Result<()> {
    match command {
        ImageCommand::Import { name, source, labels, consistency, layout } => {
            let source = absolute(&source)?.into_os_string().into_string();
            let source =
                source.map_err(|s| anyhow::anyhow!("source {} is not UTF-8; give it another name", s.display()))?;
            let layout = layout.map(|file| trace::read(&file)).transpose()?;
            let layout = layout.map_or(Vec::new(), |trace| warm::in_order(&trace));
            let body = ImportBody { source, labels, consistency, layout };
            make_version(client, output, (&name, "imported"), &format!("{}/import", path(&name)), &body).await
        }
        ImageCommand::Ls { select } => {
            output.show(&client.get::<ImageList>(&selecting("/v1/images", select.as_deref())).await?, list)
        }
        ImageCommand::Show { image } => output.show(&client.get::<ImageInfo>(&path(&image)).await?, show),
        ImageCommand::Set { image, edits, untag, switch } => {
            let body = SetImage { edits, untag, switch: switch.into() };
            let info: ImageInfo = client.send(Method::PATCH, &path(&image), &body).await?;
            output.show(&info, |info| {
                format!("{image}: {}", words(&[labels(labels_of(info, &image)), switch_policy(&info.switch)]))
            })
        }
        ImageCommand::Rm { images, select } => {
            let body = Remove { names: images, select };
            let removed: Removed = client.send(Method::DELETE, "/v1/images", &body).await?;
            output.show(&removed, |removed| format!("removed {}", removed.names.join(", ")))
        }
        ImageCommand::Tag { version, tag } => {
            let image = version.split('@').next().unwrap_or_default();
            let path = format!("{}/tags/{}", path(image), escape(&tag));
            let info: ImageInfo = client.send(Method::PUT, &path, &TagRequest { version }).await?;
            output.show(&info, |image| {
                format!("{}@{tag} is {}", image.name, image.tags.get(&tag).map_or("", String::as_str))
            })
        }
        ImageCommand::Diff { a, b } => {
            diff::show(client, output, &format!("/v1/diff?a={}&b={}", escape(&a), escape(&b))).await
        }
    }
}

/// The labels of an image, or of the version of it that `name` names by number or by tag.
fn labels_of<'a>(image: &'a ImageInfo, name: &str) -> &'a LabelMap {
    let Some((_, which)) = name.split_once('@') else { return &image.labels };
    let tagged = image.tags.get(which).map_or(name, String::as_str);
    let version = image.versions.iter().find(|version| version.version == tagged);
    version.map_or(&image.labels, |version| &version.labels)
}

fn path(image: &str) -> String {
    format!("/v1/images/{}", escape(image))
}

/// Ask for the next version of image `name`, and show how it gets on. `how`: what an error says that
/// was not done.
pub(super) async fn make_version(
    client: &mut Client,
    output: &mut Output,
    (name, how): (&str, &str),
    path: &str,
    body: &impl Serialize,
) -> Result<()> {
    let bar = ImportBar::new(name);
    let mut lines = client.post_lines(path, body).await?;
    while let Some(line) = lines.next().await? {
        match line {
            ImportLine::Progress(progress) => bar.show(&progress),
            ImportLine::Done(done) => {
                bar.finish();
                return output.show(&*done, imported);
            }
            ImportLine::Error(info) => {
                bar.finish();
                return Err(refused(info)).with_context(|| format!("image {name} was not {how}"));
            }
        }
    }
    bar.finish();
    Err(broken_off())
}

fn imported(done: &ImportInfo) -> String {
    let version = &done.version;
    let mut text = format!(
        "{}: {}, {}; {} new in the store, {} unchanged, {:.1} s",
        version.version,
        count(version.inodes, "object"),
        size(version.bytes_logical),
        size(version.bytes_added),
        count(done.inodes_kept, "object"),
        done.millis as f64 / 1000.0,
    );
    if done.mounts_skipped > 0 {
        text += &format!("\n{} left empty: other filesystems are mounted there", count(done.mounts_skipped, "folder"));
    }
    text
}

fn list(list: &ImageList) -> String {
    let row = |image: &ImageInfo| {
        vec![
            image.name.clone(),
            image.version.clone().unwrap_or_else(|| "-".into()),
            image.versions.iter().filter(|version| !version.removed).count().to_string(),
            image.clones.to_string(),
            image.tags.iter().map(|(tag, version)| format!("{tag}={}", short(version))).collect::<Vec<_>>().join(","),
            labels(&image.labels),
            local(&image.created),
        ]
    };
    let header = ["NAME", "NEWEST", ">VERSIONS", ">CLONES", "TAGS", "LABELS", "CREATED"];
    table(&header, list.images.iter().map(row))
}

/// `vN` of `IMAGE@vN`.
fn short(version: &str) -> &str {
    version.rsplit_once('@').map_or(version, |(_, number)| number)
}

fn show(image: &ImageInfo) -> String {
    let head = fields(&[
        ("name", image.name.clone()),
        ("created", local(&image.created)),
        ("labels", labels(&image.labels)),
        ("clones", image.clones.to_string()),
        ("switched", switch_policy(&image.switch)),
    ]);
    let row = |version: &VersionInfo| {
        vec![
            format!("{}{}", version.version, if version.removed { " (removed)" } else { "" }),
            version.tags.join(","),
            version.clones.to_string(),
            version.inodes.to_string(),
            size(version.bytes_logical),
            size(version.bytes_stored),
            size(version.bytes_added),
            version.consistency.clone(),
            labels(&version.labels),
            local(&version.created),
            version.source.clone(),
        ]
    };
    let header = [
        "VERSION",
        "TAGS",
        ">CLONES",
        ">OBJECTS",
        ">SIZE",
        ">STORED",
        ">ADDED",
        "CONSISTENCY",
        "LABELS",
        "CREATED",
        "SOURCE",
    ];
    format!("{head}\n\n{}", table(&header, image.versions.iter().map(row)))
}
