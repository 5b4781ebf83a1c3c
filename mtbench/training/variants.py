"""What is trained: an attention and a connection, by name.

A variant is ``ATTENTION`` or ``ATTENTION+CONNECTION``: ``linear``, ``momentum+adaptive``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mtbench.errors import BadInput, nearest
from mtbench.transformer.config import ATTENTION_KINDS, CONNECTION_KINDS

__all__ = ["DEFAULT_VARIANTS", "Variant", "parse_variants", "product"]

DEFAULT_VARIANTS = (
    "softmax",
    "linear",
    "momentum",
    "momentum+momentum",
    "momentum+adaptive",
    "momentum-released",
)
"""The paper's five, and the attention that its released code trains."""


@dataclass(frozen=True)
class Variant:
    """One way to build the model.

    >>> Variant.parse("momentum+adaptive")
    Variant(attention='momentum', connection='adaptive')
    >>> Variant.parse("linear").name
    'linear'
    """

    attention: str
    connection: str = "none"

    @property
    def name(self) -> str:
        """As `parse` reads it."""
        return self.attention if self.connection == "none" else f"{self.attention}+{self.connection}"

    @property
    def label(self) -> str:
        """As a reader is told: ``momentum + adaptive connection``."""
        attention = self.attention.replace("-released", " (released code)")
        attention = attention.replace("-bare", " without normaliser")
        if self.connection == "none":
            return attention
        kind = self.connection.replace("-released", "")
        code = " (released code)" if self.connection != kind else ""
        return f"{attention} + {kind} connection{code}"

    @classmethod
    def parse(cls, word: str) -> Variant:
        """Raises BadInput: an unknown attention or connection, with the nearest known one."""
        attention, _, connection = word.partition("+")
        connection = connection or "none"
        _check(f"--variant {word}", "attention", attention)
        _check(f"--variant {word}", "connection", connection)
        return cls(attention, connection)


def _check(typed: str, what: str, value: str) -> None:
    """Raises BadInput: it is no attention or no connection, with what was typed."""
    known = {"attention": ATTENTION_KINDS, "connection": CONNECTION_KINDS}[what]
    if value not in known:
        raise BadInput(f"{typed}: unknown {what} {value!r}: {nearest(value, known)}")


def parse_variants(words: Sequence[str]) -> tuple[Variant, ...]:
    """Each once, in the order given."""
    return tuple(dict.fromkeys(Variant.parse(word) for word in words))


def product(attentions: Sequence[str] | None, connections: Sequence[str] | None) -> tuple[Variant, ...]:
    """Every attention with the plain connection, if that is among them, and every momentum attention with
    each of the others: the paper's momentum connections are part of its momentum transformer. Another pair
    can be named as a variant.

    >>> [v.name for v in product(["softmax", "momentum"], ["none", "adaptive"])]
    ['softmax', 'momentum', 'momentum+adaptive']

    Raises:
        BadInput: an unknown name, or no pair that is left.
    """
    attentions = attentions or ("softmax", "linear", "momentum")
    connections = connections or ("none",)
    for what, words in (("attention", attentions), ("connection", connections)):
        for word in words:
            _check(f"--{what} {word}", what, word)
    pairs = [Variant(a, c) for a in attentions for c in connections]
    kept = tuple(
        dict.fromkeys(
            pair for pair in pairs if pair.connection == "none" or pair.attention.startswith("momentum")
        )
    )
    if not kept:
        raise BadInput(
            f"--attention {','.join(attentions)} --connection {','.join(connections)}: momentum connections "
            f"go with momentum attention; another pair is a variant: --variant {pairs[0].name}"
        )
    return kept
