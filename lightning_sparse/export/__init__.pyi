from .exported_program import to_exported_program as to_exported_program
from .onnx import OnnxFile as OnnxFile
from .onnx import to_onnx as to_onnx
from .sparse_linear import CSRLinear as CSRLinear
from .sparsify import Sparsified as Sparsified
from .sparsify import SparsifiedLayer as SparsifiedLayer
from .sparsify import sparsify as sparsify
