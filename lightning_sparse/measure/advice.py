"""What a message tells its reader to write, which depends on where the mistake can be mended.

A function of :mod:`lightning_sparse.measure` takes ``as_classifier(...)``, a callback its own arguments, and the command line
neither. Checks deep inside ask for the words that fit; callbacks and the app say where they are (:func:`advice_for`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_FUNCTION, COMMAND_LINE = "", "command line"
_place = ContextVar("place", default=_FUNCTION)
# These take pixels and normalise them for the model; the others recover the pixels from what the loader normalised.
_INSIDE = (_FUNCTION, "VarianceOfGradients")


@contextmanager
def advice_for(place: str) -> Iterator[None]:
    """Inside, messages advise the arguments of a callback of this name, or what helps on the ``COMMAND_LINE``.

    Example:
        >>> with advice_for("RobustnessMonitor"):
        ...     with_forward("model(x)[0]")
        'RobustnessMonitor(..., forward=lambda model, x: model(x)[0])'
    """
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)


def with_forward(logits: str) -> str:
    """Say what to write where calling a model does not give its logits.

    Args:
        logits: an expression for them, of ``model`` and its input ``x``.

    Example:
        >>> with_forward("model(x)[0]")
        'as_classifier(model, forward=lambda model, x: model(x)[0])'
        >>> with advice_for(COMMAND_LINE):
        ...     with_forward("model(x)[0]")
        "`return outputs[0]` where your module's forward() returns outputs"
    """
    if _place.get() == COMMAND_LINE:
        return f"`return {logits.replace('model(x)', 'outputs')}` where your module's forward() returns outputs"
    return f"{_caller()}, forward=lambda model, x: {logits})"


def with_normalisation(channels: int) -> str:
    """Say what to write where images are normalised outside of the model.

    Example:
        >>> with_normalisation(1)
        'the pixels as they were, and normalise inside the model: as_classifier(model, mean=[0.5], std=[0.25])'
        >>> with advice_for("AdversarialTraining"):
        ...     with_normalisation(1)
        "AdversarialTraining(..., mean=[0.5], std=[0.25]) with the mean and std of the loader's normalisation"
    """
    numbers = f"mean={[0.5] * channels}, std={[0.25] * channels}"
    if _place.get() == COMMAND_LINE:
        return "the pixels as they were: models normalise inside"
    if _place.get() in _INSIDE:
        return f"the pixels as they were, and normalise inside the model: {_caller()}, {numbers})"
    return f"{_caller()}, {numbers}) with the mean and std of the loader's normalisation"


def with_setting(group: str, name: str, value: str) -> str:
    """Say how an argument of a function is set, which on the command line is in a group of the configuration.

    Empty for a callback, which does not take all that the function takes.

    Example:
        >>> with_setting("attack", "attacks", "['square']")
        "attacks=['square']"
        >>> with advice_for(COMMAND_LINE):
        ...     with_setting("attack", "attacks", "['square']")
        'attack.attacks=[square]'
    """
    if _place.get() == COMMAND_LINE:
        return f"{group}.{name}={value}".replace("'", "")
    return f"{name}={value}" if _place.get() == _FUNCTION else ""


def _caller() -> str:
    return "as_classifier(model" if _place.get() == _FUNCTION else f"{_place.get()}(..."
