//! `pull` when the origin or the way to it is at fault: every message says what, where, what to do.
