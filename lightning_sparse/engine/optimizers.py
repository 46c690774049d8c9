"""What the engine knows about an optimizer, and how newborn connections start in its state."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from lightning_sparse.anatomy.patterns import as_patterns
from lightning_sparse.errors import SparsityError

# Names of running means of the gradient, and of its square, in torch.optim and in optimizers that follow it.
_FIRST_MOMENTS = ("momentum_buffer", "exp_avg", "grad_avg", "prev")
_SECOND_MOMENTS = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum", "exp_inf")
# Names of weights that an optimizer keeps a copy of and may write back: schedule-free's, Lookahead's, SAM's, MADGRAD's ...
_COPIES = (
    *("z", "x", "y", "x0", "x_k", "p0", "old_p", "prev_param", "param_buffer", "shadow", "backup_params"),
    *("slow_params", "slow_buffer", "lookahead_params", "lookahead_slow_buff"),
)


@torch.no_grad()
def start_newborns(optimizer: Optimizer, parameter: Tensor, born: Tensor, living: Tensor) -> None:
    """Give the connections of ``parameter`` in the mask ``born`` a clean state; ``living`` marks those that lived before.

    First moments become zero, because they belong to the dead connection. Second moments are raised to the mean of the
    layer's living ones where they are lower: near zero, they would make the first step many times too large. Rprop's step
    sizes are lowered to the median of the living ones that move, because those of the dead have grown unchecked.
    """
    state = optimizer.state.get(parameter, {})
    for name in _FIRST_MOMENTS:
        if _fits(state.get(name), parameter):
            _change(state[name], lambda moment: moment.masked_fill(born, 0.0))
    for name in _SECOND_MOMENTS:
        if _fits(state.get(name), parameter) and living.any():
            _change(state[name], lambda moment: torch.where(born, moment.clamp(min=_mean(moment[living])), moment))
    if _fits(state.get("step_size"), parameter) and _fits(state.get("prev"), parameter):
        sizes, moving = state["step_size"], living & (state["prev"] != 0)
        if moving.any():
            sizes.copy_(torch.where(born, sizes.clamp(max=sizes[moving].median()), sizes))


def forget_history(optimizer: Optimizer) -> None:
    """Reset an LBFGS optimizer, whose remembered directions cross connections that have died since."""
    if isinstance(optimizer, LBFGS):
        optimizer.state.clear()


def found_inf(optimizer: Optimizer) -> Tensor | None:
    """The tensor by which a GradScaler told a fused optimizer whether to skip its last step (1.0: skipped), or None.

    Fused optimizers read it inside ``step()``, so their post-step hooks run in any case. To read it here is to wait for
    the device.
    """
    found: Tensor | None = vars(optimizer).get("found_inf")
    return found


def gradient_scale(optimizer: Optimizer) -> Tensor | None:
    """The factor that is still on the gradients of a fused optimizer under a GradScaler, or None."""
    return getattr(optimizer, "grad_scale", None)


def copies_of_weights(optimizer: Optimizer, parameter: Tensor) -> Iterator[Tensor]:
    """What an optimizer remembers of a parameter that are weights again, and not gradients."""
    for name, value in optimizer.state.get(parameter, {}).items():
        if name in _COPIES and _fits(value, parameter):
            yield value


def _mean(moments: Tensor) -> Tensor:
    return moments.float().mean().to(moments.dtype)


def _change(moment: Tensor, change: Callable[[Tensor], Tensor]) -> None:
    """Change a state in place, also one that is held in fewer bits and knows few operations (torchao's)."""
    plain = moment if type(moment) is Tensor else moment.dequantize()
    moment.copy_(change(plain))


def _fits(moment: object, parameter: Tensor) -> bool:
    return isinstance(moment, Tensor) and moment.shape == parameter.shape


def refuse_orphans(orphans: Sequence[str], targets: Collection[str], excluded: Sequence[str]) -> None:
    """Raise a SparsityError about trainable targets that no optimizer owns, with the ``exclude=`` that leaves out all."""
    others = [name for name in targets if name not in orphans]
    several, it = (f" and {len(orphans) - 1} more", "them") if len(orphans) > 1 else ("", "it")
    out = f", or leave {it} out with exclude={[*excluded, *as_patterns(orphans, others)]}" if others else ""
    raise SparsityError(
        f"no optimizer owns {orphans[0]!r}{several}, so that connections could not learn: give {it} to an optimizer{out}"
    )
