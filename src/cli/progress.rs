//! The progress bar of an import, on standard error, drawn only on a terminal.

use indicatif::{ProgressBar, ProgressStyle};

use crate::admin::types::ImportProgress;

/// While the source is still being walked, its size is not known: the bar's end moves.
const TEMPLATE: &str = "{prefix} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {msg}";

pub(super) struct ImportBar(ProgressBar);

impl ImportBar {
    pub fn new(image: &str) -> Self {
        let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(ProgressBar::new(0).with_style(style.progress_chars("=> ")).with_prefix(image.to_owned()))
    }

    pub fn show(&self, progress: &ImportProgress) {
        self.0.set_length(progress.bytes_found);
        self.0.set_position(progress.bytes_done);
        let ImportProgress { phase, inodes_done, inodes_found, .. } = progress;
        self.0.set_message(format!("{phase}, {inodes_done}/{inodes_found} objects"));
    }

    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}
