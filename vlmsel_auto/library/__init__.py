"""Source tasks and what the candidates do on them."""
