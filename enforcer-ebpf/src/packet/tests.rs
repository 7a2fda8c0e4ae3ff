//! The parser against bytes: every header, truncated at every byte.
