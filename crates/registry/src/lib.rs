//! The one write path and the watch cache.
