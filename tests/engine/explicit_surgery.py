"""Optimal brain surgery written once more, by explicit inverses: what the engine is held against."""

import torch


def by_downdates(weight, damped, dead):
    """Each row alone, each weight alone: Hassibi & Stork's step, then its row and column leave the inverse."""
    found = weight.clone()
    for row in range(len(weight)):
        inverse = torch.linalg.inv(damped)
        for at in range(weight.shape[1]):
            if dead[row, at]:
                found[row] -= found[row, at] / inverse[at, at] * inverse[at]
            inverse = inverse - torch.outer(inverse[:, at], inverse[at]) / inverse[at, at]
    return found.masked_fill(dead, 0.0)


def by_trailing_inverses(weight, damped, dies, step, of_group=None):
    """SparseGPT's choice and update with the inverse of the Hessian of the columns to come, made anew for each column."""
    found, columns = weight.clone(), weight.shape[1]
    mask = torch.ones_like(weight, dtype=torch.bool)
    diagonals = torch.stack([torch.linalg.inv(damped[at:, at:])[0, 0] for at in range(columns)])
    for at in range(columns):
        if at % step == 0:
            ahead = slice(at, min(at + step, columns))
            cost = found[:, ahead] ** 2 / diagonals[ahead]
            if of_group:
                mask[:, ahead].scatter_(1, cost.argsort(1)[:, :of_group], False)
            else:
                share = round(dies * ahead.stop / columns) - round(dies * ahead.start / columns)
                mask[:, ahead] = ~torch.zeros_like(cost, dtype=torch.bool).flatten().scatter(
                    0, cost.flatten().argsort()[:share], True
                ).view_as(cost)
        inverse = torch.linalg.inv(damped[at:, at:])
        change = found[:, at].masked_fill(mask[:, at], 0.0)
        found[:, at:] -= torch.outer(change, inverse[0] / inverse[0, 0])
    return found.masked_fill(~mask, 0.0), mask
