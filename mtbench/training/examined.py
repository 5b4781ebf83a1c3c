"""What a task finds of a trained model beside its loss and metric: after the last epoch, once. Imports no
framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mtbench.results import json_float, read_float

__all__ = ["Examined"]


@dataclass(frozen=True, kw_only=True)
class Examined:
    """As a translation has it: what was decoded, how good it is and how long it took."""

    scores: Mapping[str, float]
    """By the names of `Task.scores`."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """What to know of a number, as the signature of a BLEU."""
    samples: tuple[Mapping[str, str], ...] = ()
    """Some of what was made, to be read: each a few texts by what they are."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON; `from_dict` reads it back."""
        return {
            "scores": {name: json_float(value) for name, value in self.scores.items()},
            "notes": dict(self.notes),
            "samples": [dict(sample) for sample in self.samples],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Examined:
        """What `to_dict` wrote."""
        return cls(
            scores={name: read_float(value) for name, value in data["scores"].items()},
            notes=_texts(data["notes"]),
            samples=tuple(_texts(sample) for sample in data["samples"] if sample),
        )


def _texts(found: Mapping[Any, Any]) -> dict[str, str]:
    return {str(name): str(text) for name, text in found.items()}
