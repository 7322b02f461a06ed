//! The running spool on a real folder and on a simulated disk.
