"""Prompt templates: the one that stands in where nobody names any, and those that are tried in its place."""

from __future__ import annotations

from typing import Final

DEFAULT_TEMPLATES: Final = ("a photo of a {}.",)

# Kinds of pictures and of things; many are from the prompts of CLIP's authors (Radford et al. 2021). The first
# is the default. Where time allows fewer, the first ones are tried.
BANK: Final = (
    *DEFAULT_TEMPLATES,
    "a photo of {}.",
    "a picture of {}.",
    "a drawing of a {}.",
    "a close-up photo of a {}.",
    "a low resolution photo of a {}.",
    "a photo of a {} texture.",
    "a microscope image of {}.",
    "a satellite photo of {}.",
    "an icon of {}.",
    'a photo of the number: "{}".',
    "the letter {}.",
    "a handwritten {}.",
    "a photo of {}, a type of food.",
    "a photo of a {}, a type of flower.",
    "a photo of a {}, a type of animal.",
    "a photo of the {}.",
    "{}.",
    "an outdoor photo of {}.",
    "an indoor photo of {}.",
    "a piece of {}.",
    "a medical scan of {}.",
    "a scan of {}.",
    "a black and white photo of a {}.",
    "a blurry photo of a {}.",
    "a painting of a {}.",
    "a sketch of a {}.",
    "a cartoon {}.",
    "a rendering of a {}.",
    "a photo of a {}, a type of pet.",
    "a photo of a {}, a type of bird.",
    "a photo of a {}, a type of vehicle.",
    "a photo of a {} looking face.",
    "a photo of a person {}.",
    "the sign for {}.",
    "the word {}.",
    "a screenshot of {}.",
    "a diagram of {}.",
)
