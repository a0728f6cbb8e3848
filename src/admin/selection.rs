//! Which objects a request means.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::image::{CloneTarget, Selector};

/// The query of listings.
#[derive(Deserialize)]
pub(super) struct Selection {
    select: Option<String>,
}

impl Selection {
    /// Those whose labels match; without a selector, all.
    pub fn selector(&self) -> Result<Selector> {
        self.select.as_deref().map_or(Ok(Selector::default()), str::parse)
    }
}

/// The clones named, those selected, or all.
pub(super) fn target(names: Vec<String>, select: Option<String>) -> Result<CloneTarget> {
    match (select, names.is_empty()) {
        (None, true) => Ok(CloneTarget::All),
        (None, false) => Ok(CloneTarget::Names(names)),
        (Some(selector), true) => Ok(CloneTarget::Select(selector.parse()?)),
        (Some(_), false) => Err(Error::invalid("both a selector and names").remedy("give one of them")),
    }
}
