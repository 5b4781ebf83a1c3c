"""Subwords of both languages together, by sentencepiece's byte-pair encoding."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterable, Sequence
from typing import Any

from mtbench.errors import BadInput

__all__ = ["BEGIN", "END", "PAD", "Subwords", "needed", "train_subwords"]

PAD, BEGIN, END, UNKNOWN = 0, 1, 2, 3
EXTRA = "translation"
"""The extra of the package that brings what translation needs."""


def needed(module: str) -> Any:
    """A module of the extra.

    Raises:
        BadInput: it is not installed; the line says how it is.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BadInput(
            f"translation needs {module}, which is not installed: pip install 'mtbench[{EXTRA}]'"
        ) from error


def train_subwords(sentences: Iterable[str], vocabulary: int) -> bytes:
    """A model of that many subwords, as a file's content. The same sentences give the same. Nothing of the
    text is normalised: what is decoded is held against the text as it was.

    Raises:
        BadInput: there is too little text for so many.
    """
    trainer = needed("sentencepiece").SentencePieceTrainer
    made = io.BytesIO()
    try:
        trainer.train(
            sentence_iterator=iter(sentences),
            model_writer=made,
            model_type="bpe",
            vocab_size=vocabulary,
            character_coverage=1.0,
            normalization_rule_name="identity",
            pad_id=PAD,
            bos_id=BEGIN,
            eos_id=END,
            unk_id=UNKNOWN,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        told = str(error).rsplit("] ", 1)[-1]
        raise BadInput(f"no {vocabulary} subwords can be made of this text: {told}") from error
    return made.getvalue()


class Subwords:
    """A model that `train_subwords` made."""

    def __init__(self, model: bytes) -> None:
        self._processor = needed("sentencepiece").SentencePieceProcessor(model_proto=model)

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """The subwords of each, without begin and end."""
        found: list[list[int]] = self._processor.encode(list(sentences))
        return found

    def decode(self, rows: Iterable[Sequence[int]]) -> list[str]:
        """The text of each; begin, end and padding are none."""
        texts: list[str] = self._processor.decode([[int(x) for x in row if x > END] for row in rows])
        return texts
