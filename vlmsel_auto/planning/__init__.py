"""Which trial comes next, in pure arithmetic: no file, no model, no study."""
