//! The suite that every metadata index must pass.
