//! Start order, readiness, stop; names engines and wires transports.
