//! MNT and UMNT: which export a path names, and who has it mounted.

use super::{ImageVfs, Object, Refusal, Request, Verb, Vfs};
use crate::image::{ExportId, State, VersionRef};
use crate::manifest::Ino;

impl ImageVfs {
    pub(super) fn mount_export(&self, rq: &mut Request<'_>, path: &[u8]) -> Verb<Object> {
        rq.state = self.newest();
        let export = match export_of(rq.state(), path) {
            Ok(export) => export,
            // Who may not mount anything is not told what there is.
            Err(_) if !self.policy().rules().admits(rq.caller) => return Ok(Err(Refusal::Access.into())),
            Err(why) => return Ok(Err(why.into())),
        };
        let root = Object { export, ino: Ino::ROOT.0, generation: 0 };
        // It is no use of the clone yet.
        let footprint = rq.footprint.take();
        let admitted = self.getattr(rq, root);
        rq.footprint = footprint;
        if let Err(refused) = admitted? {
            return Ok(Err(refused));
        }
        if let Some(clone) = rq.state().clone_by_id(export).cloned() {
            let client = rq.caller.peer.ip();
            if !rq.activated
                && let Some(activations) = self.activations()
            {
                rq.activated = true;
                if let Some(switch) = activations.at_mount(&clone, client) {
                    return Err(rq.fetch().wait_for(switch));
                }
            }
            self.activity().mounted(export, client, clone.view.number, self.uptime());
        }
        Ok(Ok(root))
    }

    pub(super) fn unmount_export(&self, rq: &Request<'_>, path: &[u8]) {
        let state = self.newest();
        let Ok(export) = export_of(&state, path) else { return };
        if let Some(clone) = state.clone_by_id(export)
            && self.rules(&state, export).admits(rq.caller)
        {
            self.activity().unmounted(export, rq.caller.peer.ip(), clone.view.number, self.uptime());
        }
    }
}

/// The export that a MOUNT path names, and whether it exists.
fn export_of(state: &State, path: &[u8]) -> Result<ExportId, Refusal> {
    let path = std::str::from_utf8(path).map_err(|_| Refusal::NotFound)?.trim_end_matches('/');
    if let Some(name) = path.strip_prefix("/clones/") {
        return state.clone_named(name).map(|clone| clone.id).ok_or(Refusal::NotFound);
    }
    let name = path.strip_prefix("/images/").ok_or(Refusal::NotFound)?;
    let version: VersionRef = name.parse().map_err(|_| Refusal::NotFound)?;
    state.find_version(&version).map(|version| version.export).map_err(|_| Refusal::NotFound)
}
