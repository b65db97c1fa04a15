//! The scheduler: framework, queue, plugins, binding.
