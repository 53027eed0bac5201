"""Where candidates come from: one module a source, `table.SOURCES` lists them."""
