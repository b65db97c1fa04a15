//! Should they: the built-in admission plugins.
