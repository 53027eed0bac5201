"""The study of a search: Optuna and files. It decides nothing."""
