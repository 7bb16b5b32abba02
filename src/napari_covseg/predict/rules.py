"""What is put right in a network's labels of a slice, by name, so that each can be left out and measured."""

from __future__ import annotations

from typing import Literal, get_args

Rule = Literal[
    "gas or fat",
    "bowel",
    "even fat",
    "bowel wall",
    "vessels",
    "hilum",
    "fat",
    "small lungs",
    "holes",
    "small findings",
    "inside",
]
"""See `tissue.drop_gas_and_fat`, `findings.keep_raised` and `clean.clean_slice`."""
RULES: frozenset[Rule] = frozenset(get_args(Rule))
"""All of them, which is what a scan gets."""
