//! The list of layers, dispatch, discovery, streaming proxies.
