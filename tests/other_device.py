"""A device that is none: memory of the CPU that torch takes for another device's.

It stands in for a GPU where there is none. What computes with tensors of both devices is an error, as on a GPU, and what is
found is what a CPU finds, to the bit. It says nothing about time, and nothing about what a GPU rounds in another way.

torch knows it by its Python backend (`PrivateUse1`), which cannot be taken back: use it in a process of its own.
"""

import torch
from torch.utils import _pytree as pytree
from torch.utils import backend_registration

NAME = "pretend"
DEVICE = torch.device("privateuseone:0")
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}


class There(torch.Tensor):
    """A tensor that says it is on the device, around one that is not."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, here):
        layout = {"strides": here.stride(), "storage_offset": here.storage_offset(), "layout": here.layout}
        there = torch.Tensor._make_wrapper_subclass(cls, here.size(), dtype=here.dtype, device=DEVICE, **layout)
        there.here = here
        return there

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return computed(operation, *args, **(kwargs or {}))

    def tolist(self):
        return self.here.tolist()


def is_there(device):
    return torch.device(device).type == DEVICE.type


def computed(operation, *args, **kwargs):
    """Compute on the CPU, and wrap what comes out, unless devices are mixed."""
    name = operation._schema.name
    tensors = [each for each in pytree.tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
    some = any(isinstance(each, There) for each in tensors)
    to = kwargs.get("device")
    here = dict(kwargs) if to is None else {**kwargs, "device": "cpu", "pin_memory": False}
    moves = name in ("aten::_to_copy", "aten::copy_")
    if not moves and name not in INDEXING and some:
        for each in tensors:
            if not isinstance(each, There) and each.dim():
                raise RuntimeError(f"{name} is given tensors of two devices")
    found = operation(*pytree.tree_map(_here, args), **pytree.tree_map(_here, here))
    if not (some if to is None else is_there(to)) or name == "aten::_local_scalar_dense":
        return found
    written = [each.name for each in operation._schema.arguments if each.alias_info and each.alias_info.is_write]
    if written:  # what was changed in place is what comes back
        given = dict(zip((each.name for each in operation._schema.arguments), args, strict=False)) | kwargs
        back = [given[each] for each in written if each in given][: len(operation._schema.returns)]
        return None if not back else back[0] if len(back) == 1 else tuple(back)
    return pytree.tree_map(lambda each: There(each) if isinstance(each, torch.Tensor) else each, found)


def _here(each):
    return each.here if isinstance(each, There) else each


class _Module(backend_registration._DummyBackendModule):
    """What torch asks of a backend's module when autocast and random states are saved."""

    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]


def register():
    """Let torch know the device, for the rest of this process."""
    global DEVICE
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    DEVICE = torch.device(f"{NAME}:0")
    library = torch.library.Library("_", "IMPL")
    library.fallback(computed, "PrivateUse1")
    made = torch.tensor

    def tensor(data, *, device=None, **settings):  # whose C++ asks the device itself for memory
        return made(data, **settings) if device is None else made(data, **settings).to(device)

    torch.tensor = tensor
    return library
