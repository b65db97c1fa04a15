//! The service proxy: Services into one nftables table.
