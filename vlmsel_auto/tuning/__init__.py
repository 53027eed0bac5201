"""Methods of tuning a candidate, by torch and Lightning."""
