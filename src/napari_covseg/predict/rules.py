"""What is put right in a network's labels of a slice, by name, so that each can be left out and measured."""

from __future__ import annotations

from typing import Literal, get_args

Rule = Literal[
    "gas or fat",  # see tissue.drop_gas_and_fat
    "vessels",  # see findings.keep_raised
    "hilum",
    "fat findings",
    "small lungs",  # see clean.clean_slice
    "holes",
    "small findings",
    "inside",
]
RULES: frozenset[Rule] = frozenset(get_args(Rule))
"""All of them, which is what a scan gets; each has its row in the results."""
