"""Making a library: candidates measured on source tasks, cell by cell, over processes."""
