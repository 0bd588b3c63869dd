//! ARCP 1.1 through the public wire, one file a section.

mod s04_transport;
