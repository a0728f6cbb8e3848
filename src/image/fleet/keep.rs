//! Private writes that go along to another version: looked at while clients write, and once more where
//! they wrote meanwhile.
//!
//! Owns the rounds. Each seals the clones at an instant, looks at what they changed since the round
//! before, decides, and writes what is needed for them to fit. The last one is made while the clones
//! stand still, and has only those to look at that were written since the one before.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};

use super::{Fleet, Freeze, Instant};
use crate::error::{Error, ErrorKind, Result};
use crate::image::policy::{OnConflict, Preserved};
use crate::image::record::{CloneRecord, ExportId, VersionNumber, VersionRecord};
use crate::image::state::State;
use crate::image::switch::{Content, Fitting};
use crate::manifest::ManifestId;
use crate::overlay::rebase::{Fit, Rebase, Survey, Winner};
use crate::overlay::{Held, Layer, OverlayId};

/// Rounds while clients write.
const ROUNDS: usize = 4;
/// No overlay has this number.
const UNWRITTEN: OverlayId = OverlayId(u64::MAX);
/// Clones of which something is written at a time.
const AT_ONCE: usize = 16;
/// So many clones are looked at while they stand still, without another round.
const FEW: usize = 8;

/// Clones whose private writes go along, and what that takes.
#[derive(Default)]
pub(super) struct Kept {
    clones: HashMap<ExportId, Looked>,
    /// Clones that were written while they were looked at, and looked at again; and those that moved since a dry run.
    pub moved: HashSet<ExportId>,
    /// What was written and is not named yet.
    held: Vec<Held>,
    /// What is read.
    read: Vec<ReadInstant>,
}

/// What clones held at an instant stays readable as long as this lives.
pub(super) struct ReadInstant {
    fleet: Fleet,
    instant: Arc<Instant>,
    held: Option<Held>,
}

impl ReadInstant {
    pub fn new(fleet: &Fleet, instant: Arc<Instant>) -> Self {
        let held = Some(fleet.overlays.hold(instant.sealed.layers()));
        Self { fleet: fleet.clone(), instant, held }
    }
}

impl Drop for ReadInstant {
    fn drop(&mut self) {
        drop(self.held.take());
        self.fleet.release_instant(&self.instant);
    }
}

/// What the last look at a clone found, and the layers that it had then.
struct Looked {
    layers: Vec<Layer>,
    /// Or why its private writes cannot go along, whoever wins.
    found: std::result::Result<KeptClone, Arc<str>>,
}

/// A clone whose private writes can go along.
pub(super) struct KeptClone {
    /// What of them is preserved, if that is not all.
    preserved: Option<Layer>,
    survey: Arc<Survey>,
    pub fit: Arc<Fit>,
    /// Where what the fit needs was written.
    layer: Option<Layer>,
    from: VersionNumber,
    to: VersionNumber,
}

/// A clone that is to be kept, and how.
#[derive(Clone)]
pub(super) struct ToKeep {
    pub clone: Arc<CloneRecord>,
    pub conflict: OnConflict,
    /// Only what lies at or below these paths; `None`: all.
    pub preserve: Option<Preserved>,
}

/// What is done with what is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To tell what would happen.
    Predict,
    Switch,
}

impl Kept {
    pub fn get(&self, clone: ExportId) -> Option<&KeptClone> {
        self.clones.get(&clone)?.found.as_ref().ok()
    }

    /// Why the private writes of a clone cannot go along.
    pub fn refused(&self, clone: ExportId) -> Option<&Arc<str>> {
        self.clones.get(&clone)?.found.as_ref().err()
    }

    /// The layers that let these clones fit, sorted by clone.
    pub fn fittings<'a>(&self, clones: impl Iterator<Item = &'a Arc<CloneRecord>>) -> Vec<Fitting> {
        let mut fitted: Vec<_> = clones.filter_map(|clone| self.get(clone.id)?.fitting(clone.id)).collect();
        fitted.sort_unstable_by_key(|fitting| fitting.clone);
        fitted
    }

    /// Rounds while clients write.
    pub async fn rounds(
        fleet: &Fleet,
        state: &State,
        to: &VersionRecord,
        keep: &[ToKeep],
        purpose: Purpose,
    ) -> Result<Self> {
        let mut kept = Self::default();
        let written = |keep: &&ToKeep| fleet.is_private(&keep.clone.view);
        let keep: Vec<_> = keep.iter().filter(written).cloned().collect();
        if keep.is_empty() {
            return Ok(kept);
        }
        for round in 0..ROUNDS {
            let clones = keep.iter().map(|keep| keep.clone.clone()).collect();
            let (frozen, instant) = fleet.hold_still(Freeze::Views, clones).await?;
            let instant = Arc::new(instant);
            kept.read.push(ReadInstant::new(fleet, instant.clone()));
            drop(frozen);
            if kept.look(fleet, state, to, &keep, &instant, purpose).await? <= FEW
                || round + 1 == ROUNDS
                || purpose == Purpose::Predict
            {
                break;
            }
        }
        kept.moved.clear();
        Ok(kept)
    }

    /// Look at the clones that were written since they were looked at; answers how many.
    pub async fn look(
        &mut self,
        fleet: &Fleet,
        state: &State,
        to: &VersionRecord,
        keep: &[ToKeep],
        instant: &Instant,
        purpose: Purpose,
    ) -> Result<usize> {
        let (mut first, mut again) = (Vec::new(), Vec::new());
        for keep in keep.iter().filter(|keep| instant.sealed.is_private(&keep.clone.view)) {
            let layers = instant.sealed.stack(&keep.clone.view);
            let known = self.clones.get(&keep.clone.id);
            if known.is_some_and(|known| known.layers == layers) {
                continue;
            }
            self.moved.insert(keep.clone.id);
            match known {
                Some(Looked { layers: former, found: Ok(known) })
                    if keep.preserve.is_none() && extends(&layers, former) =>
                {
                    again.push((keep, (known.survey.clone(), layers)));
                }
                _ => first.push((keep, layers)),
            }
        }
        let looked = first.len() + again.len();
        if looked > 0 {
            fleet.overlays.index_sealed().await?;
        }
        let mut surveyed = Vec::with_capacity(looked);
        let found = first_looks(fleet, state, to, &first).await?;
        for ((keep, layers), found) in first.into_iter().zip(found) {
            if let Some((preserved, survey)) = self.accept(keep, &layers, found)? {
                let preserved = preserved.map(|(layer, held)| {
                    self.held.push(held);
                    layer
                });
                surveyed.push(Surveyed { keep, layers, preserved, survey: Arc::new(survey) });
            }
        }
        let (whose, again): (Vec<_>, Vec<_>) = again.into_iter().unzip();
        let stacks: Vec<_> = again.iter().map(|(_, layers)| layers.clone()).collect();
        for ((keep, layers), found) in whose.into_iter().zip(stacks).zip(fleet.overlays.survey_again(again).await?) {
            if let Some(survey) = self.accept(keep, &layers, found)? {
                surveyed.push(Surveyed { keep, layers, preserved: None, survey: Arc::new(survey) });
            }
        }
        self.decide(fleet, to, surveyed, purpose).await?;
        Ok(looked)
    }

    /// Note what is wrong with one clone, and is no matter of the others.
    fn accept<T>(&mut self, keep: &ToKeep, layers: &[Layer], found: Result<T>) -> Result<Option<T>> {
        let why = match found {
            Ok(found) => return Ok(Some(found)),
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Corrupt) => error.to_string().into(),
            Err(error) => return Err(private_writes_of(&keep.clone, error)),
        };
        self.clones.insert(keep.clone.id, Looked { layers: layers.to_vec(), found: Err(why) });
        Ok(None)
    }

    /// Decide what surveys found, and write what the clones need to fit.
    async fn decide(
        &mut self,
        fleet: &Fleet,
        to: &VersionRecord,
        surveyed: Vec<Surveyed<'_>>,
        purpose: Purpose,
    ) -> Result<()> {
        let mut to_write = Vec::new();
        let fits = surveyed.iter().map(|looked| {
            let winner = winner(looked.keep.conflict, looked.keep.clone.view.version);
            (looked.survey.clone(), winner)
        });
        let fits = fleet.overlays.decide(fits.collect()).await?;
        for (Surveyed { keep, layers, preserved, survey }, fit) in surveyed.into_iter().zip(fits) {
            let from = keep.clone.view.version;
            let Some(fit) = self.accept(keep, &layers, fit)?.map(Arc::new) else { continue };
            // Of a prediction it stands for what would be written.
            let layer = (!fit.is_empty()).then(|| fit.layer(UNWRITTEN));
            if !fit.is_empty() {
                to_write.push((keep.clone.id, fit.clone()));
            }
            let found = Ok(KeptClone { preserved, survey, fit, layer, from, to: to.number });
            self.clones.insert(keep.clone.id, Looked { layers, found });
        }
        if purpose == Purpose::Predict || to_write.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = fleet.catalog.id_range(to_write.len() as u64).await?.map(OverlayId).collect();
        let (clones, fits): (Vec<_>, Vec<_>) = to_write.into_iter().unzip();
        let (layers, held) = fleet.overlays.fit(fits.into_iter().zip(ids).collect()).await?;
        self.held.push(held);
        for (clone, layer) in clones.into_iter().zip(layers) {
            if let Some(Looked { found: Ok(kept), .. }) = self.clones.get_mut(&clone) {
                kept.layer = Some(layer);
            }
        }
        Ok(())
    }
}

/// A clone that was looked at.
struct Surveyed<'k> {
    keep: &'k ToKeep,
    layers: Vec<Layer>,
    preserved: Option<Layer>,
    survey: Arc<Survey>,
}

/// The answers in the order of the questions.
pub(super) async fn some_at_once<T>(questions: Vec<BoxFuture<'_, T>>) -> Vec<T> {
    stream::iter(questions).buffered(AT_ONCE).collect().await
}

/// What of a clone is preserved, if that is not all, and the survey of what goes along.
type FirstLook = (Option<(Layer, Held)>, Survey);

async fn first_looks(
    fleet: &Fleet,
    state: &State,
    to: &VersionRecord,
    clones: &[(&ToKeep, Vec<Layer>)],
) -> Result<Vec<Result<FirstLook>>> {
    let chosen = clones.iter().map(|(keep, layers)| preserve(fleet, state, keep, layers.clone()).boxed());
    let chosen = some_at_once(chosen.collect()).await;
    let rebases = chosen.iter().zip(clones).filter_map(|(chosen, (_, layers))| {
        let (from, preserved) = chosen.as_ref().ok()?;
        let layers = preserved.as_ref().map_or_else(|| layers.clone(), |(layer, _)| vec![*layer]);
        Some(Rebase { from: *from, to: to.manifest, layers })
    });
    let mut surveys = fleet.overlays.survey(rebases.collect()).await?.into_iter();
    let first_look = |chosen: Result<(_, Option<_>)>| {
        let (_, preserved) = chosen?;
        let survey = surveys.next().ok_or_else(|| Error::internal("a clone was not looked at"))?;
        Ok((preserved, survey?))
    };
    Ok(chosen.into_iter().map(first_look).collect())
}

/// The version before, and what of a clone is preserved, if that is not all.
async fn preserve(
    fleet: &Fleet,
    state: &State,
    keep: &ToKeep,
    layers: Vec<Layer>,
) -> Result<(ManifestId, Option<(Layer, Held)>)> {
    let from = manifest_of(state, &keep.clone, keep.clone.view.version)?.manifest;
    let Some(paths) = &keep.preserve else { return Ok((from, None)) };
    let mut ids = fleet.catalog.id_range(1).await?;
    let into = OverlayId(ids.next().ok_or_else(|| Error::internal("an empty range of identifiers"))?);
    let rebase = Rebase { from, to: from, layers };
    let preserved = fleet.overlays.preserve(rebase, paths.bytes(), into).await?;
    Ok((from, Some(preserved)))
}

fn private_writes_of(clone: &CloneRecord, why: Error) -> Error {
    let told = Error::new(why.kind(), format!("private writes of clone {:?}", clone.name));
    match why.remedy_text().map(str::to_owned) {
        Some(remedy) => told.because(why).remedy(remedy),
        None => told.because(why),
    }
}

impl KeptClone {
    /// What a clone shows of which only a part is preserved.
    pub fn preserved(&self, clone: &CloneRecord) -> Option<Content> {
        let (layers, bases) = (vec![self.preserved?], clone.view.bases.clone());
        let content = Content { version: self.to, layers, bases };
        Some(match self.fitting(clone.id) {
            Some(fitting) => content.fitted(&fitting),
            None => content,
        })
    }

    fn fitting(&self, clone: ExportId) -> Option<Fitting> {
        let bases = [(self.fit.keeps_from, self.from), (self.fit.keeps_to, self.to)];
        let bases = bases.into_iter().filter(|(keeps, _)| *keeps).map(|(_, number)| number).collect();
        self.layer.map(|layer| Fitting { clone, layer, bases })
    }

    /// Whether the clone cannot be switched.
    pub fn stops(&self, conflict: OnConflict) -> bool {
        self.fit.undecidable > 0 || (self.fit.conflicts_total > 0 && conflict == OnConflict::Stop)
    }
}

/// Whether a view with these layers was only written since it had those.
fn extends(layers: &[Layer], former: &[Layer]) -> bool {
    former.len() <= layers.len() && former.iter().zip(layers).all(|(was, is)| was.overlay == is.overlay)
}

fn winner(conflict: OnConflict, from: VersionNumber) -> Option<Winner> {
    match conflict {
        OnConflict::Stop => None,
        OnConflict::CloneWins => Some(Winner::Clone),
        OnConflict::ImageWins => Some(Winner::Image { suffix: format!("clone-v{from}") }),
    }
}

fn manifest_of(state: &State, clone: &CloneRecord, number: VersionNumber) -> Result<Arc<VersionRecord>> {
    let version = state.version(clone.image, number).cloned();
    version.ok_or_else(|| Error::internal(format!("the version that clone {:?} shows is not there", clone.name)))
}
