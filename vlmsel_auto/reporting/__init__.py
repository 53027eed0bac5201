"""What a person sees: progress, plots, the report."""
