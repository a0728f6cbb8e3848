//! Goal: an operation gets from wave to wave.
