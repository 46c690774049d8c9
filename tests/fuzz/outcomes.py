"""What may become of a call with odd input: it is refused in our words, or rightly taken; never anything else."""

import signal
import warnings
from contextlib import contextmanager, nullcontext

from lightning_sparse import SparsityError


class Stalled(BaseException):
    """A call that took too long; a BaseException, so that no `except Exception` swallows it."""


@contextmanager
def at_most(seconds):
    """Raise Stalled where the block takes longer."""

    def stop(*_):
        raise Stalled(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def result_or_refusal(call, seconds=20, quiet_warnings=True):
    """Return what ``call`` returns, or the SparsityError that it raises, whose message says something.

    Any other exception goes through, and so fails the test: it is foreign.
    """
    with at_most(seconds), warnings.catch_warnings() if quiet_warnings else nullcontext():
        if quiet_warnings:
            warnings.simplefilter("ignore")
        try:
            return call()
        except SparsityError as error:
            refusal = error
    assert len(str(refusal)) > 20, f"refused without a word: {refusal!r}"
    return refusal


# Words of an annotation that say that a value of this kind may be right; anything may be where it says Any or object.
_ALLOWED = {
    type(None): ("None", "Optional"),
    bool: ("bool",),
    str: ("str", "Path", "Score", "Allocation", "Granularity", "Literal"),
    bytes: (),
    complex: (),
    object: (),
    dict: ("Mapping", "dict", "Arrays", "Allocation", "Module"),
}


def may_be_right(argument, annotation, value):
    """Whether the annotation of an argument, as written, allows values of this kind; a seed of None is 0 everywhere."""
    text = str(annotation)
    if "Any" in text or text == "object" or (value is None and argument in ("seed", "split_seed", "shuffle_seed")):
        return True
    kind = next((kind for kind in _ALLOWED if type(value) is kind), None)
    return kind is None or any(word in text for word in _ALLOWED[kind])
