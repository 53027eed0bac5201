"""A folder of images becomes a task: layouts, decoding, splits, pixels."""
