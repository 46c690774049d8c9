from .packed import load_packed as load_packed
from .packed import save_packed as save_packed
from .packed_table import packed_table as packed_table
