//! Rules that several components share, over typed objects.
