//! tools placeholder
