"""Adapters between vlmsel_auto and other people's code. They import the core; the core never imports them."""
